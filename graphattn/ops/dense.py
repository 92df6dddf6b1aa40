"""The same maths where every receiver hears every sender once: cliques, and layers that hear all earlier ones.

The edges become the cells of an N_r x N_s matrix, so nothing is gathered: softmax over a row, then a matrix product.
Plain dot-product attention goes to torch's `scaled_dot_product_attention`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from graphattn.graph import Graph
from graphattn.ops.dropout import Dropout
from graphattn.ops.dropout import scale as dropout_scale
from graphattn.ops.reference import Result, accumulation_dtype


def attend(
    logits: Float[Tensor, "E H"],
    values: Float[Tensor, "N_s #H D"],
    graph: Graph,
    dropout: Dropout | None,
    return_weights: bool,
) -> Result:
    return _aggregate(_cells(logits, graph), values, None, graph, dropout, return_weights)


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
    total = score_r.unsqueeze(1) + score_s
    if edge_logits is not None:
        total = total + _cells(edge_logits, graph)
    return _aggregate(F.leaky_relu(total, negative_slope), values, None, graph, dropout, return_weights)


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
    total = right.unsqueeze(1) + left
    if edge is not None:
        total = total + _cells(edge, graph)
    logits = torch.einsum("ijhd,hd->ijh", F.leaky_relu(total, negative_slope), att)
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
    if edge is None and dropout is None and not return_weights and graph.num_edges:
        _check_complete(graph)
        q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)
        return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(0, 1), None
    logits = torch.einsum("ihd,jhd->ijh", q, k)
    cells = None
    if edge is not None:
        cells = _cells(edge, graph)
        logits = logits + torch.einsum("ihd,ijhd->ijh", q, cells)
    return _aggregate(logits * scale, v, cells, graph, dropout, return_weights)


def _aggregate(
    logits: Float[Tensor, "N_r N_s H"],
    values: Float[Tensor, "N_s #H D"],
    edge: Float[Tensor, "N_r N_s H D"] | None,
    graph: Graph,
    dropout: Dropout | None,
    return_weights: bool,
) -> Result:
    _check_complete(graph)
    wide = accumulation_dtype(values.dtype)
    masked = logits.isneginf().all(1, keepdim=True)
    weights = torch.where(masked, 0, logits).to(wide).softmax(1)  # without its -inf, or its gradient would be NaN
    weights = torch.where(masked, 0, weights)
    if dropout is not None:
        edges = torch.argsort(graph.pair).view(graph.num_receivers, graph.num_senders)
        weights = weights * dropout_scale(dropout, edges, weights.shape[-1], wide)
    out = torch.einsum("ijh,jhd->ihd", weights, values.to(wide))
    if edge is not None:
        out = out + torch.einsum("ijh,ijhd->ihd", weights, edge.to(wide))
    used = weights.flatten(0, 1).index_select(0, graph.pair).to(values.dtype) if return_weights else None
    return out.to(values.dtype), used


def _cells(edge_shaped: Tensor, graph: Graph) -> Tensor:
    """[E, ...] in the caller's edge order -> [N_r, N_s, ...]."""
    _check_complete(graph)
    cells = edge_shaped.index_select(0, torch.argsort(graph.pair))
    return cells.view(graph.num_receivers, graph.num_senders, *edge_shaped.shape[1:])


def _check_complete(graph: Graph) -> None:
    if not graph.is_complete:
        raise ValueError(
            f"back end 'dense' needs every sender joined to every receiver exactly once "
            f"({graph.num_receivers} x {graph.num_senders} edges); this graph has {graph.num_edges} edges, some pairs "
            f"missing or doubled: use backend='reference'"
        )
