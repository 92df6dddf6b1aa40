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

Arguments are checked here, once. One of five back ends runs: the best for the device, or the one asked for by name
(`backend=...`, or `with ops.use(backend=...)`), which runs or fails with the reason; see `backends.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, overload

from jaxtyping import Float
from torch import Tensor

from graphattn.graph import Graph
from graphattn.ops.backends import BACKENDS, chosen, current, use
from graphattn.ops.band import band_sum
from graphattn.ops.checks import checked
from graphattn.ops.dropout import draw
from graphattn.ops.sums import feature_dropout, weighted_sum

__all__ = [
    "BACKENDS",
    "additive",
    "additive_v2",
    "attend",
    "band_sum",
    "dot_product",
    "feature_dropout",
    "use",
    "weighted_sum",
]


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


def _run(
    op: str,
    graph: Graph,
    arguments: Mapping[str, tuple[Tensor | None, str]],
    options: dict[str, float],
    dropout: float,
    return_weights: bool,
    backend: str | None,
) -> Tensor | tuple[Tensor, Tensor]:
    settings = current()
    tensors = checked(op, graph, settings.check_nan, arguments)
    run = getattr(chosen(backend or settings.backend, graph.device.type), op)
    mask = draw(dropout, graph.device)
    out, weights = run(**tensors, graph=graph, **options, dropout=mask, return_weights=return_weights)
    return (out, weights) if return_weights else out
