"""GraphSAGE: a fixed number of layers that sample and aggregate, and a linear classifier."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import Linear

from graphattn.conv import SparseFeatures
from graphattn.conv.sage import Aggregator, SAGEConv
from graphattn.models.layered import Layered


class SAGE(Layered):
    """SAGEConv layers with ReLU between, the last one's rows scaled to length 1 and mapped to the classes.

    `x` [N, F], `edge_index` [2, E] -> logits [N, C]. `hidden` are the layers' widths, `width` that of the aggregator
    (512 for max-pool, 128 for lstm). Dropout on what enters each layer and the classifier.

    Paper: Hamilton, Ying and Leskovec, Inductive Representation Learning on Large Graphs, NeurIPS 2017, by default with
    its authors' sizes; the GraphSAGE* of the GAT paper is three lstm layers of 512, 512 and 726.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        aggregator: Aggregator = "mean",
        hidden: tuple[int, ...] = (256, 256),
        width: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ValueError("hidden is empty: needed the width of at least one layer")
        widths = [in_channels, *hidden]
        self.layers = nn.ModuleList(SAGEConv(a, b, aggregator, width) for a, b in pairwise(widths))
        self.classifier = Linear(widths[-1], num_classes, weight_initializer="glorot", bias_initializer="zeros")
        self.dropout = dropout

    def step(self, i: int, x: Tensor | SparseFeatures, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        entering = x.to_dense() if isinstance(x, SparseFeatures) else x if i == 0 else x.relu()
        out = self.layers[i](F.dropout(entering, self.dropout, self.training), edge_index)
        if i < len(self.layers) - 1:
            return out
        return self.classifier(F.dropout(F.normalize(out), self.dropout, self.training))
