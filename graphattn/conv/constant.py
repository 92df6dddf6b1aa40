"""ConstantConv: the GAT layer with equal weights, the baseline that shows what attention adds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import Linear, MessagePassing
from torch_geometric.nn.inits import zeros

from graphattn import ops, topology
from graphattn.conv.edges import edges_of
from graphattn.conv.fallback import check_edges, check_features, check_size, needs_pyg


class ConstantConv(MessagePassing):
    """Const-GAT: each sender of a node has the same weight.

        out_i = sum over j -> i of W x_j / (number of edges entering i)

    per head, the heads then concatenated (`concat=True`) or averaged, plus residual and bias: `GATConv` with all
    logits equal, so without its attention vectors and all that goes into a logit.

    Shapes: x [N, F] (dense, or `SparseFeatures`) or a pair for senders and receivers, edge_index [2, E] or a sparse
    adjacency; out [N, H * D], or [N, D] if averaged. Weights come as [E', H] in the order of the returned edge_index
    (given edges, then self-loops), after dropout. `dropout` and `feature_dropout` are those of `GATConv`.

    Raises:
        ValueError: edge_attr, of which equal weights can take no account; flow other than source_to_target; features
            or sizes of a wrong shape.

    Paper: the Const-GAT baseline of Velickovic et al., Graph Attention Networks, ICLR 2018.
    """

    edge_dim = None  # what `check_edges` asks

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        bias: bool = True,
        residual: bool = False,
        feature_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(node_dim=0, **{"aggr": "add", **kwargs})
        if self.flow != "source_to_target":
            raise ValueError(f"flow is {self.flow!r}: ConstantConv needs source_to_target; flip the rows of edge_index")
        self.in_channels, self.out_channels, self.heads = in_channels, out_channels, heads
        self.concat, self.add_self_loops = concat, add_self_loops
        self.dropout, self.feature_dropout = dropout, feature_dropout
        sender_channels, receiver_channels = (in_channels,) * 2 if isinstance(in_channels, int) else in_channels
        self.lin = Linear(sender_channels, heads * out_channels, bias=False, weight_initializer="glorot")
        width = out_channels * (heads if concat else 1)
        self.res = Linear(receiver_channels, width, False, weight_initializer="glorot") if residual else None
        self.bias = torch.nn.Parameter(torch.zeros(width)) if bias else None

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.lin.reset_parameters()
        if self.res is not None:
            self.res.reset_parameters()
        zeros(self.bias)

    def forward(
        self,
        x: Any,
        edge_index: Any,
        edge_attr: Tensor | None = None,
        size: tuple[int | None, int | None] | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        check_edges(self, edge_index, edge_attr)
        check_features(self, x)
        senders, receivers = x if isinstance(x, tuple | list) else (x, x)
        if not _is_pairs(edge_index):
            edge_index = topology.from_edge_index(edge_index).edge_index
        values = self.lin(senders).view(-1, self.heads, self.out_channels)
        values = ops.feature_dropout(values, self.feature_dropout, self.training)
        num_receivers = (senders if receivers is None else receivers).shape[0]
        if size is not None:
            check_size(size, values.shape[0], None if receivers is None else num_receivers)
            num_receivers = num_receivers if size[1] is None else size[1]
        loops = min(values.shape[0], num_receivers) if self.add_self_loops else None
        edges = edges_of(edge_index, values.shape[0], num_receivers, loops)
        logits = values.new_zeros(edges.graph.num_edges, self.heads)
        dropout = self.dropout if self.training else 0.0
        out, weights = ops.attend(logits, values, edges.graph, dropout=dropout, return_weights=True)
        looped = edges.listed(edge_index)
        if needs_pyg(self, ConstantConv, edge_index):
            # propagate_type: (x: Tensor, alpha: Tensor)
            out = self.propagate(looped, x=values, alpha=weights, size=(values.shape[0], num_receivers))
        out = out.flatten(1) if self.concat else out.mean(1)
        if self.res is not None and receivers is not None:
            out = out + self.res(receivers)
        if self.bias is not None:
            out = out + self.bias
        return (out, (looped, weights)) if return_attention_weights else out

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, heads={self.heads})"

    def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
        return alpha.unsqueeze(-1) * x_j


def _is_pairs(edge_index: Any) -> bool:
    return isinstance(edge_index, Tensor) and edge_index.layout == torch.strided
