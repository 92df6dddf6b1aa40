"""When a layer must run PyG's own message passing instead of ours, and what both paths check first.

PyG's path gives the same numbers and serves what hooks into message passing: explainers, hooks, overridden message
functions, other aggregations and flows, sparse adjacency layouts, tracing and exporting.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from graphattn.conv.edges import no_graph
from graphattn.conv.sparse_linear import SparseFeatures

_STEPS = ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
_METHODS = ("message", "aggregate", "update", "edge_update", "message_and_aggregate", "propagate", "edge_updater")


def needs_pyg(layer: MessagePassing, base: type[MessagePassing], edge_index: Any) -> bool:
    """Whether `layer`, a subclass of PyG's `base`, has to take PyG's path for this edge_index."""
    return (
        not isinstance(edge_index, Tensor)
        or edge_index.layout != torch.strided
        or bool(layer.explain)
        or layer.flow != "source_to_target"
        or layer.aggr not in ("add", "sum")
        or layer.decomposed_layers > 1
        or any(getattr(layer, f"_{step}_forward{when}_hooks") for step in _STEPS for when in ("_pre", ""))
        or any(_overridden(layer, base, name) for name in _METHODS)
        or bool(layer.aggr_module._forward_hooks or layer.aggr_module._forward_pre_hooks)
        or edge_index.is_meta
        or torch.compiler.is_exporting()
        or torch.jit.is_tracing()
    )


def _overridden(layer: MessagePassing, base: type[MessagePassing], name: str) -> bool:
    """Whether a subclass or the instance has its own `name`; what PyG generates from a template does not count."""
    own = getattr(type(layer), name)
    plain = own is getattr(base, name) or own is getattr(MessagePassing, name, None)
    return name in vars(layer) or not (plain or own.__module__.endswith(f"_{name}"))


def check_edges(layer: MessagePassing, edge_index: Any, edge_attr: Tensor | None) -> None:
    """PyG ignores edge_attr where edge_dim is None; here that is an error, as is a wrong number of rows.

    Raises:
        TypeError: a Graph, which PyG does not know.
        ValueError: edge_attr without edge_dim, not of that width, or not one row an edge.
    """
    no_graph(edge_index)
    if edge_attr is None:
        return
    width = edge_attr.shape[-1] if edge_attr.dim() > 1 else 1
    if layer.edge_dim is None:
        raise ValueError(
            f"edge_attr of shape {list(edge_attr.shape)} was passed to a {type(layer).__name__} with edge_dim=None, "
            f"which would ignore it: build the layer with edge_dim={width} or pass no edge_attr"
        )
    if layer.edge_dim != -1 and layer.edge_dim != width:  # no `in`: torch.compile finds no size of its own in a tuple
        raise ValueError(
            f"edge_attr has shape {list(edge_attr.shape)}: needed [E, {layer.edge_dim}], which is the layer's edge_dim"
        )
    if isinstance(edge_index, Tensor) and edge_index.layout == torch.strided:
        num_edges = edge_index.shape[-1]
        if edge_attr.shape[0] != num_edges:
            raise ValueError(
                f"edge_attr has {edge_attr.shape[0]} rows, edge_index {num_edges} edges: needed one row an edge"
            )


def check_features(layer: MessagePassing, x: Any) -> None:
    """Node features are [N, F], dense or sparse, or a pair of them for senders and receivers.

    Raises:
        TypeError: no tensor. ValueError: another number of dimensions or of features.
    """
    pair = isinstance(x, tuple | list)
    sizes = layer.in_channels if isinstance(layer.in_channels, tuple | list) else (layer.in_channels,) * 2
    for part, size, role in zip(x if pair else (x, x), sizes, ("senders", "receivers"), strict=True):
        if part is None:
            continue
        if not isinstance(part, Tensor | SparseFeatures):
            raise TypeError(
                f"{type(layer).__name__}: features of the {role} are a {type(part).__name__}: needed a tensor"
            )
        if part.dim() != 2 or (size > 0 and part.shape[1] != size):
            width = size if size > 0 else "F"
            raise ValueError(
                f"{type(layer).__name__}: features of the {role} have shape {list(part.shape)}: needed [N, {width}]"
            )


def check_size(size: tuple[int | None, int | None], num_senders: int, num_receivers: int | None) -> None:
    """A given (senders, receivers) must be what the features say; what is None, or has no features, may be any number.

    Raises:
        ValueError: another number of either.
    """
    if size[0] not in (None, num_senders) or (num_receivers is not None and size[1] not in (None, num_receivers)):
        found = (num_senders, num_receivers if num_receivers is not None else "any")
        raise ValueError(f"size is {tuple(size)}, but the features are of {found} senders and receivers")


def dense(x: Any) -> Any:
    """Sparse features as PyG's path needs them: dense."""
    if isinstance(x, SparseFeatures):
        return x.to_dense()
    return tuple(dense(part) for part in x) if isinstance(x, tuple | list) else x
