"""The graph convolutional network, on PyG's layer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from graphattn.conv.edges import no_graph
from graphattn.ops import feature_dropout


class GCN(nn.Module):
    """GCNConv layers with ReLU and dropout between; `x` [N, F], `edge_index` [2, E] -> logits [N, C].

    Paper: Kipf and Welling, Semi-Supervised Classification with Graph Convolutional Networks, ICLR 2017. GCN-64 in
    the GAT paper is this model with `hidden=64`.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, hidden: int = 16, num_layers: int = 2, dropout: float = 0.5
    ) -> None:
        super().__init__()
        widths = [in_channels] + [hidden] * (num_layers - 1) + [num_classes]
        self.layers = nn.ModuleList(GCNConv(a, b) for a, b in pairwise(widths))
        self.dropout = dropout

    def forward(self, x: Any, edge_index: Tensor) -> Tensor:
        no_graph(edge_index)
        for i, layer in enumerate(self.layers):
            x = layer(feature_dropout(x if i == 0 else F.relu(x), self.dropout, self.training), edge_index)
        return x
