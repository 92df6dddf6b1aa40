"""The same maths through torch-scatter's segment kernels, over edges sorted by receiver.

For machines where torch-scatter is installed (`pip install --no-build-isolation torch-scatter`), and as an outside
judge of the other back ends. Half precision is summed in float32.
"""

from __future__ import annotations

import torch
import torch_scatter
from jaxtyping import Float
from torch import Tensor

from graphattn.graph import Graph
from graphattn.ops import scores
from graphattn.ops.dropout import Dropout, scale
from graphattn.ops.reference import Result, accumulation_dtype


def attend(
    logits: Float[Tensor, "E H"],
    values: Float[Tensor, "N_s #H D"],
    graph: Graph,
    dropout: Dropout | None,
    return_weights: bool,
) -> Result:
    return _aggregate(logits, values, None, graph, dropout, return_weights)


def additive(
    values: Float[Tensor, "N_s #H D"],
    score_s: Float[Tensor, "N_s H"],
    score_r: Float[Tensor, "N_r H"],
    graph: Graph,
    edge_logits: Float[Tensor, "E H"] | None,
    negative_slope: float,
    dropout: Dropout | None,
    return_weights: bool,
) -> Result:
    logits = scores.additive(score_s, score_r, graph, edge_logits, negative_slope)
    return _aggregate(logits, values, None, graph, dropout, return_weights)


def additive_v2(
    left: Float[Tensor, "N_s H D"],
    right: Float[Tensor, "N_r H D"],
    att: Float[Tensor, "H D"],
    graph: Graph,
    edge: Float[Tensor, "E H D"] | None,
    negative_slope: float,
    dropout: Dropout | None,
    return_weights: bool,
) -> Result:
    logits = scores.additive_v2(left, right, att, graph, edge, negative_slope)
    return _aggregate(logits, left, None, graph, dropout, return_weights)


def dot_product(
    q: Float[Tensor, "N_r H D"],
    k: Float[Tensor, "N_s #H D"],
    v: Float[Tensor, "N_s #H D"],
    graph: Graph,
    edge: Float[Tensor, "E H D"] | None,
    scale: float,
    dropout: Dropout | None,
    return_weights: bool,
) -> Result:
    return _aggregate(scores.dot_product(q, k, graph, edge, scale), v, edge, graph, dropout, return_weights)


def _aggregate(
    logits: Float[Tensor, "E H"],
    values: Float[Tensor, "N_s #H D"],
    edge: Float[Tensor, "E H D"] | None,
    graph: Graph,
    dropout: Dropout | None,
    return_weights: bool,
) -> Result:
    order, wide = graph.by_receiver, accumulation_dtype(values.dtype)
    z = logits.to(wide).index_select(0, order.edges)
    top = torch_scatter.segment_csr(z.detach(), order.ptr, reduce="max")
    top = torch.where(top.isfinite(), top, 0)
    exponential = (z - torch_scatter.gather_csr(top, order.ptr)).exp()
    total = torch_scatter.segment_csr(exponential, order.ptr, reduce="sum")
    weights = exponential / torch_scatter.gather_csr(torch.where(total == 0, 1, total), order.ptr)
    if dropout is not None:
        weights = weights * scale(dropout, order.edges, weights.shape[1], wide)
    messages = values.to(wide).index_select(0, order.others)
    if edge is not None:
        messages = messages + edge.to(wide).index_select(0, order.edges)
    out = torch_scatter.segment_csr(weights.unsqueeze(-1) * messages, order.ptr, reduce="sum").to(values.dtype)
    if not return_weights:
        return out, None
    return out, torch.zeros_like(weights).index_copy(0, order.edges, weights).to(values.dtype)
