"""MoNet: Gaussian kernels over pseudo-coordinates of the edges, on PyG's GMMConv."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GMMConv
from torch_geometric.utils import add_self_loops, degree

from graphattn.conv.edges import no_graph
from graphattn.ops import feature_dropout


class MoNet(nn.Module):
    """GMMConv layers with ReLU and dropout between; `x` [N, F], `edge_index` [2, E] -> logits [N, C].

    Each edge j -> i, self-loops included, has the coordinates u = (deg(j)^-1/2, deg(i)^-1/2). A layer maps them to
    tanh(A u + b) in `dim` dimensions; each of `kernels` Gaussians there, with learned mean and width, weighs the edge,
    and a node adds up or averages what it hears (`aggregation`). Means start at N(0, 0.1) and widths at 1: PyG's
    start, uniform around 0 for both, leaves kernels so narrow that they are deaf.

    Paper: Monti et al., Geometric Deep Learning on Graphs and Manifolds Using Mixture Model CNNs, CVPR 2017.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        hidden: int = 16,
        kernels: int = 3,
        dim: int = 2,
        num_layers: int = 2,
        dropout: float = 0.5,
        aggregation: Literal["add", "mean"] = "add",
    ) -> None:
        super().__init__()
        widths = [in_channels] + [hidden] * (num_layers - 1) + [num_classes]
        layers = [
            GMMConv(a, b, dim=dim, kernel_size=kernels, root_weight=False, aggr=aggregation)
            for a, b in pairwise(widths)
        ]
        for layer in layers:
            nn.init.normal_(layer.mu, 0, 0.1)
            nn.init.ones_(layer.sigma)
        self.layers = nn.ModuleList(layers)
        self.coordinates = nn.ModuleList(nn.Linear(2, dim) for _ in self.layers)
        self.dropout = dropout

    def forward(self, x: Any, edge_index: Tensor) -> Tensor:
        no_graph(edge_index)
        edge_index, _ = add_self_loops(edge_index, num_nodes=x.shape[0])
        place = degree(edge_index[1], x.shape[0]).rsqrt()
        u = torch.stack([place[edge_index[0]], place[edge_index[1]]], -1).to(next(self.parameters()).dtype)
        for i, (layer, coordinates) in enumerate(zip(self.layers, self.coordinates, strict=True)):
            x = feature_dropout(x if i == 0 else F.relu(x), self.dropout, self.training)
            x = layer((x, None), edge_index, coordinates(u).tanh())
        return x
