"""Attention networks over a graph: GAT, GATv2, the graph transformer, and GAT with its weights held equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.conv import ConstantConv, GATConv, GATv2Conv, TransformerConv
from graphattn.ops import feature_dropout

Attention = list[tuple[Tensor, Tensor]]  # for each layer its edge_index [2, E'] and weights [E', H]


class _AttentionNetwork(nn.Module):
    """Layers of concatenated heads with ELU between, the last one's heads averaged into the logits.

    `conv(in_channels, out_channels, heads, concat)` builds a layer.
    """

    def __init__(
        self,
        conv: Callable[[int, int, int, bool], nn.Module],
        in_channels: int,
        num_classes: int,
        hidden: int,
        heads: int,
        out_heads: int,
        num_layers: int,
        dropout: float,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [hidden * heads] * (num_layers - 1)
        self.layers = nn.ModuleList(conv(width, hidden, heads, True) for width in widths[:-1])
        self.layers.append(conv(widths[-1], num_classes, out_heads, False))
        self.dropout = dropout

    def forward(self, x: Any, edge_index: Tensor) -> Tensor:
        """`x` [N, F], `edge_index` [2, E] -> logits [N, C]."""
        for i, layer in enumerate(self.layers):
            x = layer(feature_dropout(x if i == 0 else F.elu(x), self.dropout, self.training), edge_index)
        return x

    def inspect(self, x: Any, edge_index: Tensor) -> tuple[list[Tensor], Attention]:
        """Each layer's output (before the next one's ELU), and its attention."""
        outputs, attention = [], []
        for i, layer in enumerate(self.layers):
            x = feature_dropout(x if i == 0 else F.elu(x), self.dropout, self.training)
            x, weights = layer(x, edge_index, return_attention_weights=True)
            outputs.append(x)
            attention.append(weights)
        return outputs, attention


class GAT(_AttentionNetwork):
    """The graph attention network, by default as the paper runs it on Cora: 8 heads of 8, then 1 head, ELU between.

    Its three dropouts: `dropout` on the inputs of each layer, `attention_dropout` on the weights, `feature_dropout`
    on the transformed features that are summed (in the authors' code only). Pubmed takes `out_heads=8`.

    Paper: Velickovic et al., Graph Attention Networks, ICLR 2018. In the authors' code each head draws its own input
    mask; here the heads of a layer share one.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        hidden: int = 8,
        heads: int = 8,
        out_heads: int = 1,
        num_layers: int = 2,
        dropout: float = 0.6,
        attention_dropout: float = 0.6,
        feature_dropout: float = 0.6,
    ) -> None:
        def conv(width: int, out: int, heads: int, concat: bool) -> nn.Module:
            return GATConv(width, out, heads, concat, dropout=attention_dropout, feature_dropout=feature_dropout)

        super().__init__(conv, in_channels, num_classes, hidden, heads, out_heads, num_layers, dropout)


class GATv2(_AttentionNetwork):
    """GAT with dynamic attention: Brody, Alon and Yahav, How Attentive are Graph Attention Networks?, ICLR 2022."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        hidden: int = 8,
        heads: int = 8,
        out_heads: int = 1,
        num_layers: int = 2,
        dropout: float = 0.6,
        attention_dropout: float = 0.6,
        share_weights: bool = False,
    ) -> None:
        def conv(width: int, out: int, heads: int, concat: bool) -> nn.Module:
            return GATv2Conv(width, out, heads, concat, dropout=attention_dropout, share_weights=share_weights)

        super().__init__(conv, in_channels, num_classes, hidden, heads, out_heads, num_layers, dropout)


class GraphTransformer(_AttentionNetwork):
    """Dot-product attention over the edges: Shi et al., Masked Label Prediction, IJCAI 2021, without label inputs."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        hidden: int = 8,
        heads: int = 8,
        out_heads: int = 1,
        num_layers: int = 2,
        dropout: float = 0.6,
        attention_dropout: float = 0.6,
        beta: bool = False,
    ) -> None:
        def conv(width: int, out: int, heads: int, concat: bool) -> nn.Module:
            return TransformerConv(width, out, heads, concat, beta=beta, dropout=attention_dropout)

        super().__init__(conv, in_channels, num_classes, hidden, heads, out_heads, num_layers, dropout)


class ConstGAT(_AttentionNetwork):
    """GAT with every weight of a node equal: the Const-GAT baseline of the GAT paper."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        hidden: int = 8,
        heads: int = 8,
        out_heads: int = 1,
        num_layers: int = 2,
        dropout: float = 0.6,
        attention_dropout: float = 0.6,
        feature_dropout: float = 0.6,
    ) -> None:
        def conv(width: int, out: int, heads: int, concat: bool) -> nn.Module:
            return ConstantConv(width, out, heads, concat, dropout=attention_dropout, feature_dropout=feature_dropout)

        super().__init__(conv, in_channels, num_classes, hidden, heads, out_heads, num_layers, dropout)
