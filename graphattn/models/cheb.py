"""Chebyshev spectral filters, PyG's layer with the linear maps done first."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import ChebConv as PyGChebConv

from graphattn.conv.edges import no_graph
from graphattn.ops import feature_dropout


class ChebConv(PyGChebConv):
    """PyG's ChebConv, same parameters and numbers, in the order that is cheap for wide or sparse inputs.

        sum over k < K of T_k(L) x W_k

    PyG multiplies the wide x by T_k(L) and then maps it. Here x is mapped first (`SparseFeatures` stay sparse) and
    the sum is taken over the narrow results by Clenshaw's recurrence b_k = x W_k + 2 L b_(k+1) - b_(k+2).

    Paper: Defferrard, Bresson and Vandergheynst, Convolutional Neural Networks on Graphs with Fast Localized
    Spectral Filtering, NeurIPS 2016.
    """

    def forward(
        self,
        x: Any,
        edge_index: Tensor,
        edge_weight: Tensor | None = None,
        batch: Tensor | None = None,
        lambda_max: Tensor | None = None,
    ) -> Tensor:
        mapped = [lin(x) for lin in self.lins]
        laplacian, norm = self.__norm__(
            edge_index, x.shape[0], edge_weight, self.normalization, lambda_max, dtype=mapped[0].dtype, batch=batch
        )
        above, two_above = None, None
        for term in reversed(mapped[1:]):
            here = term if above is None else term + 2 * self.propagate(laplacian, x=above, norm=norm)
            above, two_above = here if two_above is None else here - two_above, above
        out = mapped[0]
        if above is not None:
            out = out + self.propagate(laplacian, x=above, norm=norm)
        if two_above is not None:
            out = out - two_above
        return out if self.bias is None else out + self.bias


class Cheb(nn.Module):
    """ChebConv layers with ReLU and dropout between; `x` [N, F], `edge_index` [2, E] -> logits [N, C].

    `terms` counts the polynomials T_0 .. T_(terms - 1); a filter of degree K as papers count it has K + 1 terms.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        hidden: int = 16,
        terms: int = 3,
        num_layers: int = 2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [hidden] * (num_layers - 1) + [num_classes]
        self.layers = nn.ModuleList(ChebConv(a, b, terms) for a, b in pairwise(widths))
        self.dropout = dropout

    def forward(self, x: Any, edge_index: Tensor) -> Tensor:
        no_graph(edge_index)
        for i, layer in enumerate(self.layers):
            x = layer(feature_dropout(x if i == 0 else F.relu(x), self.dropout, self.training), edge_index)
        return x
