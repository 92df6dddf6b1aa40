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
    ends = np.concatenate([senders, receivers])
    if len(ends) and (ends.min() < 0 or ends.max() >= num_nodes):
        wrong = ends.min() if ends.min() < 0 else ends.max()
        raise ValueError(f"{where}: an edge ends at node {wrong}, needed 0 to {num_nodes - 1}")
    others = np.concatenate([receivers, senders])
    keys = np.unique((ends * num_nodes + others)[ends != others])
    return torch.from_numpy(np.stack([keys // num_nodes, keys % num_nodes]))
