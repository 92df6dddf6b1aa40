"""Attention over a graph: score each edge, softmax over the edges entering a node, sum the senders' values.

Four operations differ in how an edge is scored; all share the rest. With z_e the logit of edge e from j to i,

    w_e = exp(z_e) / sum of exp(z) over all edges entering i        out_i = sum of w_e * value_j

| operation     | logit of edge j -> i                | value        | published as                     |
|---------------|-------------------------------------|--------------|----------------------------------|
| `attend`      | given                               | v_j          | anything                         |
| `additive`    | leaky(s_j + r_i + e_ij)             | v_j          | GAT, Velickovic et al. 2018      |
| `additive_v2` | a . leaky(l_j + r_i + e_ij)         | l_j          | GATv2, Brody et al. 2022         |
| `dot_product` | scale * q_i . (k_j + e_ij)          | v_j + e_ij   | graph transformer, Shi et al. 2021 |

Shapes: N_s senders, N_r receivers, E edges, H heads, D values a head; edge-shaped tensors are in the caller's edge
order; values and keys may have one head, which all heads then share. A receiver without incoming edges, or whose
logits are all -inf, gets zeros. `dropout` drops weights with that
probability and scales the others by 1 / (1 - p); pass 0 when evaluating. With `return_weights=True` each operation
returns (out, weights [E, H]): the weights that multiplied the values, after dropout.

Arguments are checked here, once, and a back end is chosen here, nowhere else:
    cpu         fused C++ kernels; the default on the CPU
    reference   plain PyTorch: the definition; the default elsewhere, and where the kernels could not be compiled
    dense       complete graphs only: matrix products, SDPA
    scatter     torch-scatter (extra)
One asked for by name (`backend=...`, or `with ops.use(backend=...)`) runs or fails with the reason.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from types import ModuleType
from typing import Any, Literal, NamedTuple, overload

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import handle_torch_function, has_torch_function_unary

from graphattn import native
from graphattn.graph import Graph
from graphattn.ops.checks import checked
from graphattn.ops.dropout import Dropout, draw

__all__ = ["BACKENDS", "additive", "additive_v2", "attend", "dot_product", "feature_dropout", "use", "weighted_sum"]

BACKENDS = ("reference", "dense", "scatter", "cpu")
_HINTS = {
    "scatter": "build torch-scatter (pip install --no-build-isolation torch-scatter)",
    "cpu": "reinstall graphattn where there is a C++ compiler",
}


class _Settings(NamedTuple):
    backend: str | None = None
    check_nan: bool = False


_DEFAULT = _Settings()

_settings: ContextVar[_Settings] = ContextVar("graphattn.ops", default=_DEFAULT)


@contextmanager
def use(backend: str | None = None, check_nan: bool | None = None) -> Iterator[None]:
    """Within this context, run on `backend` and, with `check_nan`, refuse NaN in any argument (it costs a pass).

    What is None stays as the context around has it.
    """
    outer = _settings.get()
    token = _settings.set(
        _Settings(outer.backend if backend is None else backend, outer.check_nan if check_nan is None else check_nan)
    )
    try:
        yield
    finally:
        _settings.reset(token)


@overload
def attend(
    logits: Float[Tensor, "E H"],
    values: Float[Tensor, "N_s #H D"],
    graph: Graph,
    *,
    dropout: float = 0.0,
    return_weights: Literal[False] = False,
    backend: str | None = None,
) -> Tensor: ...


@overload
def attend(
    logits: Float[Tensor, "E H"],
    values: Float[Tensor, "N_s #H D"],
    graph: Graph,
    *,
    dropout: float = 0.0,
    return_weights: Literal[True],
    backend: str | None = None,
) -> tuple[Tensor, Tensor]: ...


def attend(
    logits: Float[Tensor, "E H"],
    values: Float[Tensor, "N_s #H D"],
    graph: Graph,
    *,
    dropout: float = 0.0,
    return_weights: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax of given logits over the edges entering each receiver, then the weighted sum of values: [N_r, H, D]."""
    arguments = {"logits": (logits, "E H"), "values": (values, "N_s #H D")}
    return _run("attend", graph, arguments, {}, dropout, return_weights, backend)


@overload
def additive(
    values: Float[Tensor, "N_s #H D"],
    score_s: Float[Tensor, "N_s H"],
    score_r: Float[Tensor, "N_r H"],
    graph: Graph,
    edge_logits: Float[Tensor, "E H"] | None = None,
    *,
    negative_slope: float = 0.2,
    dropout: float = 0.0,
    return_weights: Literal[False] = False,
    backend: str | None = None,
) -> Tensor: ...


@overload
def additive(
    values: Float[Tensor, "N_s #H D"],
    score_s: Float[Tensor, "N_s H"],
    score_r: Float[Tensor, "N_r H"],
    graph: Graph,
    edge_logits: Float[Tensor, "E H"] | None = None,
    *,
    negative_slope: float = 0.2,
    dropout: float = 0.0,
    return_weights: Literal[True],
    backend: str | None = None,
) -> tuple[Tensor, Tensor]: ...


def additive(
    values: Float[Tensor, "N_s #H D"],
    score_s: Float[Tensor, "N_s H"],
    score_r: Float[Tensor, "N_r H"],
    graph: Graph,
    edge_logits: Float[Tensor, "E H"] | None = None,
    *,
    negative_slope: float = 0.2,
    dropout: float = 0.0,
    return_weights: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`attend` with logits leaky(s_j + r_i + e_ij), as in GAT: [N_r, H, D]."""
    arguments = {
        "values": (values, "N_s #H D"),
        "score_s": (score_s, "N_s H"),
        "score_r": (score_r, "N_r H"),
        "edge_logits": (edge_logits, "E H"),
    }
    return _run("additive", graph, arguments, {"negative_slope": negative_slope}, dropout, return_weights, backend)


@overload
def additive_v2(
    left: Float[Tensor, "N_s H D"],
    right: Float[Tensor, "N_r H D"],
    att: Float[Tensor, "H D"],
    graph: Graph,
    edge: Float[Tensor, "E H D"] | None = None,
    *,
    negative_slope: float = 0.2,
    dropout: float = 0.0,
    return_weights: Literal[False] = False,
    backend: str | None = None,
) -> Tensor: ...


@overload
def additive_v2(
    left: Float[Tensor, "N_s H D"],
    right: Float[Tensor, "N_r H D"],
    att: Float[Tensor, "H D"],
    graph: Graph,
    edge: Float[Tensor, "E H D"] | None = None,
    *,
    negative_slope: float = 0.2,
    dropout: float = 0.0,
    return_weights: Literal[True],
    backend: str | None = None,
) -> tuple[Tensor, Tensor]: ...


def additive_v2(
    left: Float[Tensor, "N_s H D"],
    right: Float[Tensor, "N_r H D"],
    att: Float[Tensor, "H D"],
    graph: Graph,
    edge: Float[Tensor, "E H D"] | None = None,
    *,
    negative_slope: float = 0.2,
    dropout: float = 0.0,
    return_weights: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`attend` over the values l_j with logits a . leaky(l_j + r_i + e_ij), as in GATv2: [N_r, H, D]."""
    arguments = {"left": (left, "N_s H D"), "right": (right, "N_r H D"), "att": (att, "H D"), "edge": (edge, "E H D")}
    return _run("additive_v2", graph, arguments, {"negative_slope": negative_slope}, dropout, return_weights, backend)


@overload
def dot_product(
    q: Float[Tensor, "N_r H D"],
    k: Float[Tensor, "N_s #H D"],
    v: Float[Tensor, "N_s #H D"],
    graph: Graph,
    edge: Float[Tensor, "E H D"] | None = None,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    return_weights: Literal[False] = False,
    backend: str | None = None,
) -> Tensor: ...


@overload
def dot_product(
    q: Float[Tensor, "N_r H D"],
    k: Float[Tensor, "N_s #H D"],
    v: Float[Tensor, "N_s #H D"],
    graph: Graph,
    edge: Float[Tensor, "E H D"] | None = None,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    return_weights: Literal[True],
    backend: str | None = None,
) -> tuple[Tensor, Tensor]: ...


def dot_product(
    q: Float[Tensor, "N_r H D"],
    k: Float[Tensor, "N_s #H D"],
    v: Float[Tensor, "N_s #H D"],
    graph: Graph,
    edge: Float[Tensor, "E H D"] | None = None,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    return_weights: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`attend` over the values v_j + e_ij with logits scale * q_i . (k_j + e_ij); scale is 1 / sqrt(D) by default."""
    arguments = {"q": (q, "N_r H D"), "k": (k, "N_s #H D"), "v": (v, "N_s #H D"), "edge": (edge, "E H D")}
    if scale is None:
        scale = max(1, q.shape[-1]) ** -0.5 if isinstance(q, Tensor) and q.dim() else 1.0  # the door refuses the others
    return _run("dot_product", graph, arguments, {"scale": scale}, dropout, return_weights, backend)


def weighted_sum(
    weights: Float[Tensor, "E"], rows: Float[Tensor, "N_s D"], graph: Graph, dropout: Dropout | None = None
) -> Tensor:
    """The sum without the softmax: out_i = sum over the edges e entering i of weights_e * rows_j, [N_r, D].

    Differentiable in `rows`. A mask given as `dropout` is applied to the weights, here and in backward.

    Raises:
        TypeError, ValueError: as the operations do; ValueError also where the weights need a gradient.
    """
    arguments = {"weights": (weights, "E"), "rows": (rows, "N_s D")}
    tensors = checked("weighted_sum", graph, _current().check_nan, arguments)
    if weights.requires_grad:
        raise ValueError("weighted_sum: weights need a gradient, which they get none of: detach() them, or use attend")
    return _WeightedSum.apply(tensors["weights"], tensors["rows"], graph, dropout, _simple_backend(rows), False)


def feature_dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    """Dropout on features, as `torch.nn.functional.dropout`.

    On the CPU the mask is computed, as that of the weights is, in a small part of the time that torch takes to draw it.
    Elsewhere this is torch's.

    Raises:
        ValueError: p outside 0 to 1.
    """
    if has_torch_function_unary(x):  # sparse features have their own way
        return handle_torch_function(feature_dropout, (x,), x, p, training)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout is {p}: needed a probability between 0 and 1")
    module = _simple_backend(x)
    if module is _loaded["reference"]:
        return F.dropout(x, p, training)
    mask = draw(p, x.device) if training else None
    return x if mask is None else module.feature_dropout(x, mask)


class _WeightedSum(torch.autograd.Function):
    """Over the graph, or with the edges `turned` round, which is its own backward."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: Tensor,
        rows: Tensor,
        graph: Graph,
        dropout: Dropout | None,
        backend: ModuleType,
        turned: bool,
    ) -> Tensor:
        ctx.save_for_backward(weights)
        ctx.rest = graph, dropout, backend, not turned
        return backend.weighted_sum(weights, rows, graph.by_sender if turned else graph.by_receiver, dropout)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None, None, None, None]:
        return None, _WeightedSum.apply(*ctx.saved_tensors, grads[0], *ctx.rest), None, None, None, None


def _run(
    op: str,
    graph: Graph,
    arguments: Mapping[str, tuple[Tensor | None, str]],
    options: dict[str, float],
    dropout: float,
    return_weights: bool,
    backend: str | None,
) -> Tensor | tuple[Tensor, Tensor]:
    settings = _current()
    tensors = checked(op, graph, settings.check_nan, arguments)
    run = getattr(_chosen(backend or settings.backend, graph.device.type), op)
    mask = draw(dropout, graph.device)
    out, weights = run(**tensors, graph=graph, **options, dropout=mask, return_weights=return_weights)
    return (out, weights) if return_weights else out


@torch.compiler.assume_constant_result
def _current() -> _Settings:
    """While torch.compile traces, the settings of that moment become part of what is compiled."""
    return _settings.get()


def _chosen(name: str | None, device: str) -> ModuleType:
    """The back end asked for by name, or the best for the device."""
    if name == "cpu" and _is_transformed():
        raise RuntimeError(
            "back end 'cpu' was asked for, but it knows no forward-mode derivatives and no torch.func transforms: "
            "use backend='reference', or leave the choice to graphattn"
        )
    if name is None and device == "cpu" and "cpu" not in _loaded:
        _warn_once()
    fused = device == "cpu" and "cpu" in _loaded and not _is_transformed()
    return _backend(name or ("cpu" if fused else "reference"))


def _is_transformed() -> bool:
    """Whether a derivative is taken forward or a function transformed, which custom operations drop in silence."""
    if torch.compiler.is_compiling():
        return False
    return forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None


@cache
def _warn_once() -> None:
    warnings.warn(
        f"graphattn has no compiled kernels ({native.missing}): it runs on 'reference', many times slower; "
        f"{_HINTS['cpu']}",
        RuntimeWarning,
        stacklevel=2,
    )


def _simple_backend(x: Tensor) -> ModuleType:
    """For what is no attention, and only some back ends have of their own."""
    name = _current().backend
    return _chosen(name if name in (None, "cpu") else "reference", x.device.type)


def _backend(name: str) -> ModuleType:
    if name in _loaded:
        return _loaded[name]
    if name not in BACKENDS:
        raise ValueError(f"no back end '{name}': there are {', '.join(BACKENDS)}")
    try:
        _loaded[name] = importlib.import_module(f"graphattn.ops.{name}")
    except ImportError as missing:
        raise ImportError(
            f"back end '{name}' was asked for but cannot be imported ({missing}): "
            f"{_HINTS.get(name, 'reinstall graphattn')}, or use backend='reference'"
        ) from missing
    return _loaded[name]


_loaded: dict[str, ModuleType] = {}  # the defaults at once, so that torch.compile never meets an import
_backend("reference")
if native.kernels is not None:
    _backend("cpu")
