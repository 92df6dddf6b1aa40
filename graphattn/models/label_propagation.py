"""Label propagation: no features and no parameters, only the labels that are known and the edges."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphattn import ops
from graphattn.topology import from_edge_index


class LabelPropagation(nn.Module):
    """Each node takes the mean of its neighbours' label distributions; known labels are put back after every step.

        y_i <- mean over j -> i of y_j        y_i <- its label, where known

    `x` is only counted, `known` [N, C] holds one-hot rows for known labels and zeros elsewhere; the result [N, C] is
    the log of the distributions after `steps` steps (unreached nodes: all equal). The mean is attention with equal
    logits, so the toolkit's own operation computes it.

    Paper: Zhu, Ghahramani and Lafferty, Semi-Supervised Learning Using Gaussian Fields and Harmonic Functions,
    ICML 2003.
    """

    uses_labels = True

    def __init__(self, in_channels: int, num_classes: int, *, steps: int = 1000) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Any, edge_index: Tensor, known: Tensor) -> Tensor:
        graph = from_edge_index(edge_index, x.shape[0])
        equal = known.new_zeros(graph.num_edges, 1)
        fixed = known.any(1, keepdim=True)
        y = known
        for _ in range(self.steps):
            spread = ops.attend(equal, y.unsqueeze(1), graph).squeeze(1)
            y = torch.where(fixed, known, spread)
        return y.clamp(min=torch.finfo(y.dtype).tiny).log()
