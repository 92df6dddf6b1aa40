"""The edges a layer works on: PyG's edge_index with its self-loops, and the Graph of it, made once and kept.

A training loop passes the same `edge_index` at every step, so the result is remembered for as long as that tensor
lives and is not modified in place. Changes made behind torch's back, through NumPy or `edge_index.data`, are not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary
from torch_geometric import EdgeIndex
from torch_geometric.utils import add_self_loops

from graphattn.graph import Graph, Order


@dataclass(frozen=True, eq=False)
class Edges:
    """`graph` in the order of `looped`: the given edges at the positions `kept`, then one loop for each of some nodes.

    Where no loops were asked for, both are None and the order is that of the edge_index.
    """

    graph: Graph
    looped: Tensor | None
    kept: Tensor | None

    def listed(self, edge_index: Tensor) -> Tensor:
        """The edges in the order of `graph` as a layer returns them; the caller may change what it gets."""
        return edge_index if self.looped is None else self.looped.clone()

    def attr(self, edge_attr: Tensor, edge_index: Tensor, fill_value: float | Tensor | str) -> Tensor:
        """Edge features [E, F] in the order of `graph`: removed loops' gone, new loops' filled in as in PyG."""
        if self.kept is None:
            return edge_attr
        num_loops = self.graph.num_edges - self.kept.shape[0]
        return add_self_loops(edge_index[:, self.kept], edge_attr[self.kept], fill_value, num_loops)[1]


_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def no_graph(edge_index: Any) -> None:
    """Layers that stand in for PyG's take edges as PyG has them.

    Raises:
        TypeError: a Graph, which PyG does not know.
    """
    if isinstance(edge_index, Graph):
        raise TypeError(f"edge_index is {edge_index}: needed its edges as PyG has them, graph.edge_index")


def edges_of(edge_index: Tensor, num_senders: int, num_receivers: int, loops: int | None) -> Edges:
    """The edges of `edge_index` [2, E] between so many nodes, with one self-loop for each of the first `loops` nodes.

    Loops follow PyG: those already there are removed, the new ones come last; None leaves the edges as they are.

    Raises:
        ValueError, TypeError, IndexError: no [2, E] integer tensor, or an index outside its range.
    """
    no_graph(edge_index)
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"edge_index has shape {list(edge_index.shape)}: needed [2, E], senders above receivers")
    if torch.compiler.is_compiling():
        return _traced(edge_index, num_senders, num_receivers, loops)
    key = (num_senders, num_receivers, loops, edge_index.data_ptr())
    if edge_index.is_inference():  # such tensors count no versions, so a change could not be noticed
        return _made(edge_index, *key[:3])
    version, made = _known.get(edge_index, (None, {}))
    if version != edge_index._version:
        made = {}
        _known[edge_index] = (edge_index._version, made)
    if key not in made:
        with torch.inference_mode(False):  # kept for later, when training may need it
            made[key] = _made(edge_index, *key[:3])
    return made[key]


def _made(edge_index: Tensor, num_senders: int, num_receivers: int, loops: int | None) -> Edges:
    looped = kept = None
    if loops is not None:
        kept = (edge_index[0] != edge_index[1]).nonzero().squeeze(1)
        looped, _ = add_self_loops(edge_index[:, kept], num_nodes=loops)
    plain = edge_index if looped is None else looped
    plain = plain.as_tensor() if isinstance(plain, EdgeIndex) else plain
    # Cloned rows: a view would keep `edge_index` alive, and with it its own entry in `_known`.
    return Edges(Graph(plain[0].clone(), plain[1].clone(), num_senders, num_receivers), looped, kept)


def _traced(edge_index: Tensor, num_senders: int, num_receivers: int, loops: int | None) -> Edges:
    """The same as torch.compile sees it: one operation, which when it runs looks the edges up as above."""
    kept, *parts = torch.ops.graphattn.edges(edge_index, num_senders, num_receivers, loops)
    looped = None
    if loops is not None:
        looped = torch.cat(
            [edge_index[:, kept], torch.arange(loops, dtype=edge_index.dtype, device=edge_index.device).expand(2, -1)],
            1,
        )
    plain = edge_index if looped is None else looped
    graph = Graph(plain[0], plain[1], num_senders, num_receivers)
    graph.__dict__.update(_by_receiver=Order(*parts[:3]), _by_sender=Order(*parts[3:]))
    return Edges(graph, looped, None if loops is None else kept)


@torch.library.custom_op("graphattn::edges", mutates_args=())
def _edges(
    edge_index: Tensor, num_senders: int, num_receivers: int, loops: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Positions of the edges kept, then the two orders; copies, because compiled code may write into what it gets.

    It may also have written other edges into a tensor it made itself, behind torch's back, so they are compared.
    """
    edges = edges_of(edge_index, num_senders, num_receivers, loops)
    if not _still(edges, edge_index):
        edges = _made(edge_index, num_senders, num_receivers, loops)
    kept = edge_index.new_empty(0, dtype=torch.int64) if edges.kept is None else edges.kept.clone()
    by_receiver, by_sender = edges.graph.by_receiver, edges.graph.by_sender
    parts = (part.clone() for order in (by_receiver, by_sender) for part in (order.ptr, order.edges, order.others))
    return kept, *parts  # type: ignore[return-value]


def _still(edges: Edges, edge_index: Tensor) -> bool:
    """Whether these are the edges of `edge_index` as it is now."""
    graph, there = edges.graph, edge_index
    if edges.kept is not None:
        there = edge_index[:, edges.kept]
        if int((edge_index[0] != edge_index[1]).sum()) != edges.kept.numel():
            return False
    size = there.shape[1]
    return torch.equal(there[0], graph.senders[:size]) and torch.equal(there[1], graph.receivers[:size])


@_edges.register_fake
def _(edge_index: Tensor, num_senders: int, num_receivers: int, loops: int | None) -> tuple[Tensor, ...]:
    # The size with a name of its own is that of most tensors: Inductor cannot find it in one that holds a sum of it.
    total = edge_index.shape[1] if loops is None else torch.library.get_ctx().new_dynamic_size()
    kept = 0 if loops is None else total - loops
    torch._check(kept >= 0)
    sizes = (kept, num_receivers + 1, total, total, num_senders + 1, total, total)
    return tuple(edge_index.new_empty(size, dtype=torch.int64) for size in sizes)
