"""The logit of each edge, written edge by edge: what makes one attention differ from another.

Shapes: N_s senders, N_r receivers, E edges, H heads, D values a head. Results are in the caller's edge order.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from graphattn.graph import Graph


def additive(
    score_s: Float[Tensor, "N_s H"],
    score_r: Float[Tensor, "N_r H"],
    graph: Graph,
    edge_logits: Float[Tensor, "E H"] | None,
    negative_slope: float,
) -> Float[Tensor, "E H"]:
    """leaky(s_j + r_i + e_ij)"""
    logits = score_s.index_select(0, graph.senders) + score_r.index_select(0, graph.receivers)
    return F.leaky_relu(logits if edge_logits is None else logits + edge_logits, negative_slope)


def additive_v2(
    left: Float[Tensor, "N_s H D"],
    right: Float[Tensor, "N_r H D"],
    att: Float[Tensor, "H D"],
    graph: Graph,
    edge: Float[Tensor, "E H D"] | None,
    negative_slope: float,
) -> Float[Tensor, "E H"]:
    """a . leaky(l_j + r_i + e_ij)"""
    total = left.index_select(0, graph.senders) + right.index_select(0, graph.receivers)
    total = F.leaky_relu(total if edge is None else total + edge, negative_slope)
    return (total * att).sum(-1)


def dot_product(
    q: Float[Tensor, "N_r H D"],
    k: Float[Tensor, "N_s #H D"],
    graph: Graph,
    edge: Float[Tensor, "E H D"] | None,
    scale: float,
) -> Float[Tensor, "E H"]:
    """scale * q_i . (k_j + e_ij)"""
    keys = k.index_select(0, graph.senders)
    return (q.index_select(0, graph.receivers) * (keys if edge is None else keys + edge)).sum(-1) * scale
