"""GATv2Conv: attention whose ranking of the senders depends on the receiver."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import OptTensor, PairTensor

from graphattn import ops
from graphattn.conv.edges import edges_of
from graphattn.conv.fallback import check_edges, check_features, dense, needs_pyg
from graphattn.conv.weights import attended


class GATv2Conv(pyg.GATv2Conv):
    """The dynamic graph attention layer, a drop-in for `torch_geometric.nn.GATv2Conv`.

        z_e = a . leaky(W_l x_j + W_r x_i + W_e e_ij)        out_i = sum over j -> i of softmax_i(z)_e W_l x_j

    per head, the heads then concatenated (`concat=True`) or averaged, plus residual and bias.

    Shapes: x [N, F] (dense, or `SparseFeatures`) or a pair for senders and receivers, edge_index [2, E], edge_attr
    [E, edge_dim]; out [N, H * D], or [N, D] if averaged. Weights come as [E', H] in the order of the returned
    edge_index (given edges, then self-loops) and, as in PyG, after dropout.

    Arguments, parameters, initialisation and state dict are PyG's.

    Differs from PyG: edge_attr without edge_dim raises ValueError instead of failing an assertion; dropout masks for
    a given seed are other ones.

    Paper: Brody, Alon and Yahav, How Attentive are Graph Attention Networks?, ICLR 2022.
    """

    # PyG's machinery expects no subclass: it finds a class's source, where these types are, by the class's name, which
    # is ours too, and would take the compiled propagate of its own layer for the plain one that explainers need.
    propagate_type: ClassVar = {"x": PairTensor, "alpha": Tensor}
    edge_updater_type: ClassVar = {"x": PairTensor, "edge_attr": OptTensor}
    propagate = pyg.MessagePassing.propagate

    def forward(
        self,
        x: Any,
        edge_index: Any,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        check_edges(self, edge_index, edge_attr)
        check_features(self, x)
        if needs_pyg(self, pyg.GATv2Conv, edge_index):
            return super().forward(dense(x), edge_index, edge_attr, return_attention_weights)

        senders, receivers = x if isinstance(x, tuple | list) else (x, x)
        if receivers is None:
            raise ValueError("GATv2Conv: the receivers' features are None: every logit needs them; pass (x_s, x_r)")
        shape = (-1, self.heads, self.out_channels)
        left = self.lin_l(senders).view(shape)
        right = left if self.share_weights and receivers is senders else self.lin_r(receivers).view(shape)
        loops = min(left.shape[0], right.shape[0]) if self.add_self_loops else None
        edges = edges_of(edge_index, left.shape[0], right.shape[0], loops)
        edge = None
        if edge_attr is not None:
            edge_attr = edges.attr(edge_attr, edge_index, self.fill_value)
            edge = self.lin_edge(edge_attr.view(-1, 1) if edge_attr.dim() == 1 else edge_attr).view(shape)
        wanted = bool(return_attention_weights)
        out, weights = attended(
            ops.additive_v2,
            left,
            right,
            self.att[0],
            edges.graph,
            edge,
            negative_slope=self.negative_slope,
            dropout=self.dropout if self.training else 0.0,
            wanted=wanted,
        )
        out = out.flatten(1) if self.concat else out.mean(1)
        if self.res is not None:
            out = out + self.res(receivers)
        if self.bias is not None:
            out = out + self.bias
        return (out, (edges.listed(edge_index), weights)) if wanted else out
