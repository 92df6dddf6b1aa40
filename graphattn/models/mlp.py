"""The graph-blind baseline: a perceptron on each node's own features."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import Linear

from graphattn.models.layered import Layered
from graphattn.ops import feature_dropout


class MLP(Layered):
    """Linear maps with ReLU and dropout between; `x` [N, F] -> logits [N, C]. The edges are not looked at.

    As the baseline of Kipf and Welling, Semi-Supervised Classification with Graph Convolutional Networks, ICLR 2017.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, hidden: int = 16, num_layers: int = 2, dropout: float = 0.5
    ) -> None:
        super().__init__()
        widths = [in_channels] + [hidden] * (num_layers - 1) + [num_classes]
        self.layers = nn.ModuleList(
            Linear(a, b, weight_initializer="glorot", bias_initializer="zeros") for a, b in pairwise(widths)
        )
        self.dropout = dropout

    def step(self, i: int, x: Any, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        return self.layers[i](feature_dropout(x if i == 0 else F.relu(x), self.dropout, self.training))
