"""MoNet: Gaussian kernels over pseudo-coordinates of the edges, on PyG's GMMConv."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GMMConv
from torch_geometric.utils import add_self_loops, degree


class MoNet(nn.Module):
    """GMMConv layers with ReLU and dropout between; `x` [N, F], `edge_index` [2, E] -> logits [N, C].

    Each edge j -> i, self-loops included, has the coordinates (deg(j)^-1/2, deg(i)^-1/2); each of `kernels` Gaussians
    with learned mean and width weighs it, and a node sums (`aggregation="add"`) or averages what it hears.

    Paper: Monti et al., Geometric Deep Learning on Graphs and Manifolds Using Mixture Model CNNs, CVPR 2017.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        hidden: int = 16,
        kernels: int = 3,
        num_layers: int = 2,
        dropout: float = 0.5,
        aggregation: str = "add",
    ) -> None:
        super().__init__()
        widths = [in_channels] + [hidden] * (num_layers - 1) + [num_classes]
        self.layers = nn.ModuleList(
            GMMConv(a, b, dim=2, kernel_size=kernels, root_weight=False, aggr=aggregation)
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.dropout = dropout

    def forward(self, x: Any, edge_index: Tensor) -> Tensor:
        edge_index, _ = add_self_loops(edge_index, num_nodes=x.shape[0])
        place = degree(edge_index[1], x.shape[0]).rsqrt()
        coordinates = torch.stack([place[edge_index[0]], place[edge_index[1]]], -1)
        for i, layer in enumerate(self.layers):
            x = F.dropout(x if i == 0 else F.relu(x), self.dropout, self.training)
            x = layer((x, None), edge_index, coordinates.to(x.dtype))
        return x
