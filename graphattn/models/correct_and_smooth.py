"""Correct and smooth: what a model got wrong on known labels is spread over the edges, then the labels themselves are.

With S = D^-1/2 A D^-1/2 of the graph, without loops, Z [N, C] the predicted distributions and Y the known labels:

    E <- a S E + (1 - a) E0,  E0 = Y - Z on known nodes, else 0        Z' = Z + scale * E
    G <- b S G + (1 - b) G0,  G0 = Y on known nodes, else Z'

each so many steps. The sum over a node's neighbours has fixed weights: `ops.weighted_sum`.

Paper: Huang, He, Singh, Lim and Benson, Combining Label Propagation and Simple Models Out-performs Graph Neural
Networks, ICLR 2021, arXiv:2010.13993. As in PyG's CorrectAndSmooth, E is held within -1 and 1, G within 0 and 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphattn import ops
from graphattn.graph import Graph
from graphattn.topology import from_edge_index

_LARGEST = 1000.0  # a node's own scale above this is taken for 1, as in the authors' code


def correct(
    predicted: Tensor,
    known: Tensor,
    nodes: Tensor,
    edge_index: Tensor,
    *,
    steps: int = 50,
    alpha: float = 1.0,
    scale: float | None = None,
) -> Tensor:
    """Z' [N, C] of `predicted` [N, C], with `known` [n, C] the labels, one-hot, of `nodes` [n].

    Without `scale` ("autoscale") a node's error E_i is scaled to the length, in sums of absolute values, that errors of
    known nodes have on average. With `scale` errors of known nodes stay what they are ("fixed diffusion").
    """
    graph, weights = _normalised(edge_index, predicted)
    error = torch.zeros_like(predicted)
    error[nodes] = known - predicted[nodes]
    spread = error
    for _ in range(steps):
        spread = alpha * ops.weighted_sum(weights, spread, graph) + (1 - alpha) * error
        if scale is None:
            spread = spread.clamp(-1, 1)
        else:
            spread[nodes] = error[nodes]
    if scale is not None:
        return predicted + scale * spread
    own = error[nodes].abs().sum() / nodes.numel() / spread.abs().sum(1, keepdim=True)
    return predicted + torch.where(own <= _LARGEST, own, 1.0) * spread


def smooth(
    predicted: Tensor, known: Tensor, nodes: Tensor, edge_index: Tensor, *, steps: int = 50, alpha: float = 0.8
) -> Tensor:
    """G [N, C] of `predicted` [N, C], with `known` [n, C] the labels of `nodes` [n]."""
    graph, weights = _normalised(edge_index, predicted)
    first = predicted.clone()
    first[nodes] = known
    spread = first
    for _ in range(steps):
        spread = (alpha * ops.weighted_sum(weights, spread, graph) + (1 - alpha) * first).clamp(0, 1)
    return spread


def _normalised(edge_index: Tensor, like: Tensor) -> tuple[Graph, Tensor]:
    graph = from_edge_index(edge_index, like.shape[0])
    degree = torch.bincount(graph.receivers, minlength=like.shape[0]).to(like.dtype).clamp(min=1)
    return graph, (degree[graph.senders] * degree[graph.receivers]).rsqrt()
