"""Pairs of nodes to tell apart: the edges of a graph, and as many pairs drawn at random that are none."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Pairs(NamedTuple):
    """P senders and receivers [2, P] int64, whether they are edges [P], and what counts [P], both 0 or 1."""

    ends: Tensor
    edge: Tensor
    counts: Tensor

    def loss(self, logits: Tensor) -> Tensor:
        """Cross-entropy of logits [P] or [P, H] being edges, a mean over the pairs that count, and over H."""
        logits = logits.view(len(self.edge), -1)
        losses = F.binary_cross_entropy_with_logits(logits, self.edge[:, None].expand_as(logits), reduction="none")
        return (losses.mean(1) * self.counts).sum() / self.counts.sum()


class NodePairs:
    """Draws them, of a graph with edges `edge_index` [2, E] in any order.

    A pair that was drawn and is an edge, or a node with itself, does not count.

    Raises:
        ValueError: no edge.
    """

    def __init__(self, edge_index: Tensor, num_nodes: int) -> None:
        if not edge_index.shape[1]:
            raise ValueError("the graph has no edges, needed at least one to tell from other pairs")
        self.edge_index, self.num_nodes = edge_index, num_nodes
        self._keys = (edge_index[0] * num_nodes + edge_index[1]).sort().values

    def draw(self, generator: torch.Generator) -> Pairs:
        """`generator` is one of the CPU, so that they are the same on every device."""
        drawn = torch.randint(self.num_nodes, tuple(self.edge_index.shape), generator=generator).to(self._keys.device)
        keys = drawn[0] * self.num_nodes + drawn[1]
        place = torch.searchsorted(self._keys, keys).clamp(max=len(self._keys) - 1)
        known = (self._keys[place] == keys) | (drawn[0] == drawn[1])
        ones = torch.ones(len(keys), device=keys.device)
        return Pairs(
            torch.cat([self.edge_index, drawn], 1), torch.cat([ones, 0 * ones]), torch.cat([ones, (~known).float()])
        )
