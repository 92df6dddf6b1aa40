"""Edges as files have them, made what graphs are trained on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphattn.data.raw import Array


def both_directions(senders: Array, receivers: Array, num_nodes: int, where: str) -> Tensor:
    """[2, E] int64: both directions of every edge once, no self-loops, sorted by sender, then receiver.

    Raises:
        ValueError: an edge that ends at no node; `where` names the data set.
    """
    ends, others, between = _directed(senders, receivers, num_nodes, where)
    keys = np.unique((ends * num_nodes + others)[between])
    return _edge_index(keys, num_nodes)


def both_directions_with(
    senders: Array, receivers: Array, features: Array, num_nodes: int, where: str
) -> tuple[Tensor, Tensor]:
    """As `both_directions`, with the features [E, D] float32: both directions have those of the edge, of edges that are
    listed more than once the first one's.

    Raises:
        ValueError: also features that are not one finite row an edge.
    """
    if features.ndim != 2 or len(features) != len(senders):
        raise ValueError(
            f"{where}: edge features have shape {features.shape}, needed a row for each of {len(senders)} edges"
        )
    if not np.isfinite(features).all():
        wrong = int((~np.isfinite(features)).any(1).argmax())
        raise ValueError(f"{where}: edge {wrong} has a feature that is NaN or infinite, needed finite numbers")
    ends, others, between = _directed(senders, receivers, num_nodes, where)
    keys, first = np.unique((ends * num_nodes + others)[between], return_index=True)
    edges = between.nonzero()[0][first] % max(len(senders), 1)
    return _edge_index(keys, num_nodes), torch.from_numpy(features[edges].astype(np.float32))


def _directed(senders: Array, receivers: Array, num_nodes: int, where: str) -> tuple[Array, Array, Array]:
    """Senders and receivers of the edges as they are and then turned round, and which are no self-loops."""
    ends = np.concatenate([senders, receivers])
    if len(ends) and (ends.min() < 0 or ends.max() >= num_nodes):
        wrong = ends.min() if ends.min() < 0 else ends.max()
        raise ValueError(f"{where}: an edge ends at node {wrong}, needed 0 to {num_nodes - 1}")
    others = np.concatenate([receivers, senders])
    return ends, others, ends != others


def _edge_index(keys: Array, num_nodes: int) -> Tensor:
    return torch.from_numpy(np.stack([keys // num_nodes, keys % num_nodes]))
