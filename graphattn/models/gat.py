"""Attention networks over a graph: GAT, GATv2, the graph transformer, and GAT with its weights held equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import Linear

from graphattn.conv import ConstantConv, GATConv, GATv2Conv, TransformerConv
from graphattn.models.layered import Layered
from graphattn.ops import feature_dropout

Attention = list[tuple[Tensor, Tensor]]  # for each layer its edge_index [2, E'] and weights [E', H]


class _AttentionNetwork(Layered):
    """Layers of concatenated heads with ELU between, the last one's heads averaged into the logits.

    `conv(in_channels, out_channels, heads, concat)` builds a layer. With `skip`, the layers between the first and the
    last add what enters them to what they give, before the ELU; with `skip_mapped`, a linear map of it. With
    `batch_norm` all but the last are normalised over the nodes there. Dropout on what enters each layer, on what enters
    the first by `input_dropout` if it is given.
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
        skip_mapped: bool = False,
        input_dropout: float | None = None,
        batch_norm: bool = False,
        edge_dim: int | None = None,
    ) -> None:
        super().__init__()
        widths = [in_channels] + [hidden * heads] * (num_layers - 1)
        self.layers = nn.ModuleList(conv(width, hidden, heads, True) for width in widths[:-1])
        self.layers.append(conv(widths[-1], num_classes, out_heads, False))
        self.dropout = dropout if input_dropout is None else input_dropout  # of what enters the first layer
        self.dropouts = [self.dropout] + [dropout] * (num_layers - 1)
        if skip and num_layers < 3:
            raise ValueError(f"skip is across the layers between the first and the last: {num_layers} have none")
        if skip_mapped and not skip:
            raise ValueError("skip_mapped is true without skip, what is to be mapped: set both")
        self.skip, self.edge_dim = skip, edge_dim
        maps = (Linear(width, width, False, weight_initializer="glorot") for width in widths[2:])
        self.skips = nn.ModuleList(maps) if skip_mapped else None
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for width in widths[1:]) if batch_norm else None

    def step(self, i: int, x: Any, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        entering, dropped = self._entering(i, x)
        given = () if self.edge_dim is None else (edge_attr,)
        return self._with_skip(i, self.layers[i](dropped, edge_index, *given), entering)

    def inspect(self, x: Any, edge_index: Tensor, edge_attr: Tensor | None = None) -> tuple[list[Tensor], Attention]:
        """Each layer's output (before the next one's ELU), and its attention."""
        outputs, attention = [], []
        given = () if self.edge_dim is None else (edge_attr,)
        for i, layer in enumerate(self.layers):
            entering, dropped = self._entering(i, x)
            x, weights = layer(dropped, edge_index, *given, return_attention_weights=True)
            x = self._with_skip(i, x, entering)
            outputs.append(x)
            attention.append(weights)
        return outputs, attention

    def _entering(self, i: int, x: Any) -> tuple[Any, Any]:
        """What enters layer i, without and with dropout."""
        if i > 0:
            x = F.elu(x if self.norms is None else self.norms[i - 1](x))
        return x, feature_dropout(x, self.dropouts[i], self.training)

    def _with_skip(self, i: int, x: Tensor, entering: Tensor) -> Tensor:
        if not self.skip or i == 0 or i == len(self.layers) - 1:
            return x
        return x + (entering if self.skips is None else self.skips[i - 1](entering))


class GAT(_AttentionNetwork):
    """The graph attention network, by default as the paper runs it on Cora: 8 heads of 8, then 1 head, ELU between.

    Its three dropouts: `dropout` on the inputs of each layer, `attention_dropout` on the weights, `feature_dropout`
    on the transformed features that are summed (in the authors' code only). Pubmed takes `out_heads=8`; PPI three
    layers, 4 heads of 256 and 6 `out_heads`, without dropout, and `skip` across the middle layer, where the authors'
    code adds a linear map of what enters (`skip_mapped`). With `residual` each layer adds such a map, as models for OGB
    do, and PyG's example for PPI. `edge_dim` counts the features of edges.

    Paper: Velickovic et al., Graph Attention Networks, ICLR 2018. In the authors' code each head draws its own input
    mask; here the heads of a layer share one.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        edge_dim: int | None = None,
        *,
        hidden: int = 8,
        heads: int = 8,
        out_heads: int = 1,
        num_layers: int = 2,
        skip: bool = False,
        skip_mapped: bool = False,
        dropout: float = 0.6,
        attention_dropout: float = 0.6,
        feature_dropout: float = 0.6,
        input_dropout: float | None = None,
        residual: bool = False,
        batch_norm: bool = False,
    ) -> None:
        def conv(width: int, out: int, heads: int, concat: bool) -> nn.Module:
            return GATConv(
                width,
                out,
                heads,
                concat,
                dropout=attention_dropout,
                feature_dropout=feature_dropout,
                residual=residual,
                edge_dim=edge_dim,
            )

        sizes = (in_channels, num_classes, hidden, heads, out_heads, num_layers)
        super().__init__(conv, *sizes, dropout, skip, skip_mapped, input_dropout, batch_norm, edge_dim)


class GATv2(_AttentionNetwork):
    """GAT with dynamic attention: Brody, Alon and Yahav, How Attentive are Graph Attention Networks?, ICLR 2022."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        edge_dim: int | None = None,
        *,
        hidden: int = 8,
        heads: int = 8,
        out_heads: int = 1,
        num_layers: int = 2,
        skip: bool = False,
        skip_mapped: bool = False,
        dropout: float = 0.6,
        attention_dropout: float = 0.6,
        share_weights: bool = False,
        input_dropout: float | None = None,
        residual: bool = False,
        batch_norm: bool = False,
    ) -> None:
        def conv(width: int, out: int, heads: int, concat: bool) -> nn.Module:
            return GATv2Conv(
                width,
                out,
                heads,
                concat,
                dropout=attention_dropout,
                share_weights=share_weights,
                residual=residual,
                edge_dim=edge_dim,
            )

        sizes = (in_channels, num_classes, hidden, heads, out_heads, num_layers)
        super().__init__(conv, *sizes, dropout, skip, skip_mapped, input_dropout, batch_norm, edge_dim)


class GraphTransformer(_AttentionNetwork):
    """Dot-product attention over the edges: Shi et al., Masked Label Prediction, IJCAI 2021, without label inputs."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        edge_dim: int | None = None,
        *,
        hidden: int = 8,
        heads: int = 8,
        out_heads: int = 1,
        num_layers: int = 2,
        skip: bool = False,
        skip_mapped: bool = False,
        dropout: float = 0.6,
        attention_dropout: float = 0.6,
        beta: bool = False,
        input_dropout: float | None = None,
        batch_norm: bool = False,
    ) -> None:
        def conv(width: int, out: int, heads: int, concat: bool) -> nn.Module:
            return TransformerConv(width, out, heads, concat, beta=beta, dropout=attention_dropout, edge_dim=edge_dim)

        sizes = (in_channels, num_classes, hidden, heads, out_heads, num_layers)
        super().__init__(conv, *sizes, dropout, skip, skip_mapped, input_dropout, batch_norm, edge_dim)


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
        skip_mapped: bool = False,
        dropout: float = 0.6,
        attention_dropout: float = 0.6,
        feature_dropout: float = 0.6,
    ) -> None:
        def conv(width: int, out: int, heads: int, concat: bool) -> nn.Module:
            return ConstantConv(width, out, heads, concat, dropout=attention_dropout, feature_dropout=feature_dropout)

        super().__init__(
            conv, in_channels, num_classes, hidden, heads, out_heads, num_layers, dropout, skip, skip_mapped
        )
