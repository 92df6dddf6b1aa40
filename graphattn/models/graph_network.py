"""A model of nodes made one of graphs: a read-out over each graph's nodes, then a linear classifier."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import Linear

from graphattn.conv.readout import AttentionalAggregation, attentional_readout


class GraphNetwork(nn.Module):
    """`x` [N, F], `edge_index` [2, E], `batch` [N] (the graph of each node) -> logits [G, C].

        h_n = ELU(nodes(x, edge_index))_n        out_g = W sum over n in g of softmax_g(a . h + b)_n h_n

    `nodes` is one of MODELS, with `width` outputs; if it has an `edge_dim` it is given `edge_attr` [E, D] too.
    `encoder` is what x and edge_attr go through before, if anything. With `readout` "mean" all weights of a graph are
    equal: attention with equal logits. Dropout on what enters the classifier.

    The read-out is that of Li et al., Gated Graph Sequence Neural Networks, ICLR 2016, without their tanh.
    """

    def __init__(
        self,
        nodes: nn.Module,
        width: int,
        num_classes: int,
        *,
        readout: Literal["attention", "mean"] = "attention",
        dropout: float = 0.0,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.nodes = encoder, nodes
        self.readout = AttentionalAggregation(nn.Linear(width, 1)) if readout == "attention" else None
        self.classifier = Linear(width, num_classes, weight_initializer="glorot", bias_initializer="zeros")
        self.dropout = dropout

    def forward(
        self, x: Any, edge_index: Tensor, batch: Tensor, num_graphs: int, edge_attr: Tensor | None = None
    ) -> Tensor:
        if self.encoder is not None:
            x, edge_attr = self.encoder(x, edge_attr)
        edges = {} if getattr(self.nodes, "edge_dim", None) is None else {"edge_attr": edge_attr}
        hidden = F.elu(self.nodes(x, edge_index, **edges))
        if self.readout is None:
            equal = hidden.new_zeros(len(hidden), 1)
            out = attentional_readout(equal, hidden.unsqueeze(1), batch, num_graphs).squeeze(1)
        else:
            out = self.readout(hidden, batch, dim_size=num_graphs)
        return self.classifier(F.dropout(out, self.dropout, self.training))
