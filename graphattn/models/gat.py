"""Attention networks over a graph: GAT, GATv2, the graph transformer, and GAT with its weights held equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.conv import ConstantConv, GATConv, GATv2Conv, TransformerConv
from graphattn.models.layered import Layered
from graphattn.ops import feature_dropout

Attention = list[tuple[Tensor, Tensor]]  # for each layer its edge_index [2, E'] and weights [E', H]


class _AttentionNetwork(Layered):
    """Layers of concatenated heads with ELU between, the last one's heads averaged into the logits.

    `conv(in_channels, out_channels, heads, concat)` builds a layer. With `skip`, the layers between the first and the
    last add what enters them to what they give, before the ELU.
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
        skip: bool,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [hidden * heads] * (num_layers - 1)
        self.layers = nn.ModuleList(conv(width, hidden, heads, True) for width in widths[:-1])
        self.layers.append(conv(widths[-1], num_classes, out_heads, False))
        self.dropout, self.skip = dropout, skip

    def step(self, i: int, x: Any, edge_index: Tensor) -> Tensor:
        entering = x if i == 0 else F.elu(x)
        out = self.layers[i](feature_dropout(entering, self.dropout, self.training), edge_index)
        return self._with_skip(i, out, entering)

    def inspect(self, x: Any, edge_index: Tensor) -> tuple[list[Tensor], Attention]:
        """Each layer's output (before the next one's ELU), and its attention."""
        outputs, attention = [], []
        for i, layer in enumerate(self.layers):
            entering = x if i == 0 else F.elu(x)
            dropped = feature_dropout(entering, self.dropout, self.training)
            x, weights = layer(dropped, edge_index, return_attention_weights=True)
            x = self._with_skip(i, x, entering)
            outputs.append(x)
            attention.append(weights)
        return outputs, attention

    def _with_skip(self, i: int, x: Tensor, entering: Tensor) -> Tensor:
        return x + entering if self.skip and 0 < i < len(self.layers) - 1 else x


class GAT(_AttentionNetwork):
    """The graph attention network, by default as the paper runs it on Cora: 8 heads of 8, then 1 head, ELU between.

    Its three dropouts: `dropout` on the inputs of each layer, `attention_dropout` on the weights, `feature_dropout`
    on the transformed features that are summed (in the authors' code only). Pubmed takes `out_heads=8`; PPI three
    layers, `skip` (across the middle one), 4 heads of 256 and 6 `out_heads`, without dropout.

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
        skip: bool = False,
        dropout: float = 0.6,
        attention_dropout: float = 0.6,
        feature_dropout: float = 0.6,
    ) -> None:
        def conv(width: int, out: int, heads: int, concat: bool) -> nn.Module:
            return GATConv(width, out, heads, concat, dropout=attention_dropout, feature_dropout=feature_dropout)

        super().__init__(conv, in_channels, num_classes, hidden, heads, out_heads, num_layers, dropout, skip)


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
        skip: bool = False,
        dropout: float = 0.6,
        attention_dropout: float = 0.6,
        share_weights: bool = False,
    ) -> None:
        def conv(width: int, out: int, heads: int, concat: bool) -> nn.Module:
            return GATv2Conv(width, out, heads, concat, dropout=attention_dropout, share_weights=share_weights)

        super().__init__(conv, in_channels, num_classes, hidden, heads, out_heads, num_layers, dropout, skip)


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
        skip: bool = False,
        dropout: float = 0.6,
        attention_dropout: float = 0.6,
        beta: bool = False,
    ) -> None:
        def conv(width: int, out: int, heads: int, concat: bool) -> nn.Module:
            return TransformerConv(width, out, heads, concat, beta=beta, dropout=attention_dropout)

        super().__init__(conv, in_channels, num_classes, hidden, heads, out_heads, num_layers, dropout, skip)


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
        skip: bool = False,
        dropout: float = 0.6,
        attention_dropout: float = 0.6,
        feature_dropout: float = 0.6,
    ) -> None:
        def conv(width: int, out: int, heads: int, concat: bool) -> nn.Module:
            return ConstantConv(width, out, heads, concat, dropout=attention_dropout, feature_dropout=feature_dropout)

        super().__init__(conv, in_channels, num_classes, hidden, heads, out_heads, num_layers, dropout, skip)
