"""The least a model can do: guess."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class RandomGuess(nn.Module):
    """`x` [N, F] -> logits [N, C] drawn from a normal distribution: each class or label is as likely as not, whatever
    the node. Has no parameters.

    The row "Random" of Hamilton et al., Inductive Representation Learning on Large Graphs, NeurIPS 2017.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, x: Any, edge_index: Tensor) -> Tensor:
        return torch.randn(x.shape[0], self.num_classes, device=edge_index.device)
