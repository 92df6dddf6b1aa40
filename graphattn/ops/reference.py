"""The definition: softmax over the edges that enter a node, then the sum of the senders' values with those weights.

Plain PyTorch, any floating dtype (half precision is summed in float32), any device, differentiable twice. Every fast
path is tested against this file. It builds one E x H x D tensor, which the fused back ends never do.
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float
from torch import Tensor

from graphattn.graph import Graph, Order
from graphattn.ops import scores
from graphattn.ops.dropout import Dropout, scale

with warnings.catch_warnings():  # torch says once a process that CSR is in beta: let that be here, unheard
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 1))

Result = tuple[Tensor, Tensor | None]  # out [N_r, H, D] and, on request, the weights used [E, H]


def attend(
    logits: Float[Tensor, "E H"],
    values: Float[Tensor, "N_s #H D"],
    graph: Graph,
    dropout: Dropout | None,
    return_weights: bool,
) -> Result:
    return _aggregate(logits, values.index_select(0, graph.senders), graph, dropout, return_weights)


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
    return attend(logits, values, graph, dropout, return_weights)


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
    return attend(logits, left, graph, dropout, return_weights)


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
    values = v.index_select(0, graph.senders)
    logits = scores.dot_product(q, k, graph, edge, scale)
    return _aggregate(logits, values if edge is None else values + edge, graph, dropout, return_weights)


def weighted_sum(
    weights: Float[Tensor, "E"], rows: Float[Tensor, "N *H D"], order: Order, dropout: Dropout | None
) -> Float[Tensor, "nodes *H D"]:
    """out[n] = sum over the edges e of n in `order` of weights[e] * rows[other end of e]: torch's CSR product."""
    wide = accumulation_dtype(rows.dtype)  # the product knows no half precision
    heads = rows.shape[1] if rows.dim() == 3 else 1
    factors = weights.index_select(0, order.edges).to(wide).unsqueeze(1).expand(-1, heads)
    if dropout is not None:
        factors = factors * scale(dropout, order.edges, heads, wide)
    by_head = rows.to(wide).reshape(len(rows), heads, rows.shape[-1])
    shape = (order.ptr.numel() - 1, rows.shape[0])
    with torch.autocast(rows.device.type, enabled=False):
        sums = [
            torch.sparse_csr_tensor(order.ptr, order.others, factor.contiguous(), shape) @ own.contiguous()
            for factor, own in zip(factors.unbind(1), by_head.unbind(1), strict=True)
        ]
    return torch.stack(sums, 1).reshape(shape[0], *rows.shape[1:]).to(rows.dtype)


def band_sum(
    weights: Float[Tensor, "B T H K"] | Float[Tensor, "H K"], values: Float[Tensor, "B T H D"], left: int
) -> Float[Tensor, "B T H D"]:
    """One pass over the sequence a tap, on views of it: memory does not grow with the taps."""
    wide = accumulation_dtype(values.dtype)
    steps, taps = values.shape[1], weights.shape[-1]
    factors = weights.to(wide).unsqueeze(-1)
    rows = torch.nn.functional.pad(values.to(wide), (0, 0, 0, 0, left, taps - 1 - left))
    out = torch.zeros_like(values, dtype=wide)
    for j in range(taps):
        out = torch.addcmul(out, factors[..., j, :], rows[:, j : j + steps])
    return out.to(values.dtype)


def segment_softmax(logits: Float[Tensor, "E H"], receivers: Tensor, num_receivers: int) -> Float[Tensor, "E H"]:
    """exp(z_e) / sum of exp(z) over the edges with the same receiver, shifted by the segment's maximum."""
    index = receivers.unsqueeze(-1).expand_as(logits)
    shape = (num_receivers, logits.shape[1])
    top = logits.new_full(shape, -torch.inf).scatter_reduce(0, index, logits.detach(), "amax")
    top = torch.where(top.isfinite(), top, 0)
    exponential = (logits - top.index_select(0, receivers)).exp()
    total = logits.new_zeros(shape).index_add(0, receivers, exponential)
    total = torch.where(total == 0, 1, total)  # all edges masked with -inf: zeros, as if there were none
    return exponential / total.index_select(0, receivers)


def _aggregate(
    logits: Float[Tensor, "E H"],
    messages: Float[Tensor, "E #H D"],
    graph: Graph,
    dropout: Dropout | None,
    return_weights: bool,
) -> Result:
    wide = accumulation_dtype(messages.dtype)
    weights = segment_softmax(logits.to(wide), graph.receivers, graph.num_receivers)
    if dropout is not None:
        edges = torch.arange(graph.num_edges, device=graph.device)
        weights = weights * scale(dropout, edges, weights.shape[1], wide)
    out = messages.new_zeros((graph.num_receivers, weights.shape[1], messages.shape[2]), dtype=wide)
    out = out.index_add(0, graph.receivers, weights.unsqueeze(-1) * messages.to(wide))
    return out.to(messages.dtype), weights.to(messages.dtype) if return_weights else None


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Half precision is summed in float32, everything else in its own dtype."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
