"""TransformerConv: dot-product attention over a graph's edges."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import OptTensor

from graphattn import ops
from graphattn.conv import narrow
from graphattn.conv.edges import edges_of
from graphattn.conv.fallback import check_edge_attr, check_features, dense, needs_pyg
from graphattn.conv.weights import attended
from graphattn.graph import Graph


class TransformerConv(pyg.TransformerConv):
    """The graph transformer layer, a drop-in for `torch_geometric.nn.TransformerConv`.

        z_e = q_i . (k_j + W_e e_ij) / sqrt(D)        out_i = sum over j -> i of softmax_i(z)_e (v_j + W_e e_ij)

    with q, k, v linear maps of x; per head, the heads then concatenated (`concat=True`) or averaged; plus the linear
    skip W_s x_i, or with `beta=True` a learned mixture of the two.

    Shapes: x [N, F] (dense, or `SparseFeatures`) or a pair for senders and receivers, edge_index [2, E], edge_attr
    [E, edge_dim]; out [N, H * D], or [N, D] if averaged. Weights come as [E, H] in the order of edge_index and, as in
    PyG's layer of this name, before dropout and for True and False alike.

    Arguments, parameters, initialisation and state dict are PyG's.

    Differs from PyG: edge_attr without edge_dim raises ValueError instead of being added to the values unmapped;
    dropout masks for a given seed are other ones.

    Paper: Shi et al., Masked Label Prediction: Unified Message Passing Model for Semi-Supervised Classification,
    IJCAI 2021.
    """

    # PyG's machinery expects no subclass: it finds a class's source, where these types are, by the class's name, which
    # is ours too, and would take the compiled propagate of its own layer for the plain one that explainers need.
    propagate_type: ClassVar = {"query": Tensor, "key": Tensor, "value": Tensor, "edge_attr": OptTensor}
    propagate = pyg.MessagePassing.propagate

    def forward(
        self,
        x: Any,
        edge_index: Any,
        edge_attr: Tensor | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        check_edge_attr(self, edge_index, edge_attr)
        check_features(self, x)
        dropout = self.dropout if self.training else 0.0
        weights_before_dropout = isinstance(return_attention_weights, bool) and dropout > 0
        if weights_before_dropout or needs_pyg(self, pyg.TransformerConv, edge_index):
            return super().forward(dense(x), edge_index, edge_attr, return_attention_weights)

        senders, receivers = x if isinstance(x, tuple | list) else (x, x)
        if receivers is None:
            raise ValueError("TransformerConv: the receivers' features are None: queries need them; pass (x_s, x_r)")
        shape = (-1, self.heads, self.out_channels)
        query = self.lin_query(receivers).view(shape)
        edges = edges_of(edge_index, senders.shape[0], query.shape[0], None)
        wanted = return_attention_weights is not None
        if self._maps_late(senders, edges.graph):
            out, weights = self._late(query, senders, edges.graph, dropout, wanted)
        else:
            edge = None
            if self.edge_dim is not None:
                if edge_attr is None:
                    raise ValueError(f"TransformerConv has edge_dim={self.edge_dim}: needed edge_attr, one row an edge")
                edge = self.lin_edge(edge_attr.view(-1, 1) if edge_attr.dim() == 1 else edge_attr).view(shape)
            key, value = self.lin_key(senders).view(shape), self.lin_value(senders).view(shape)
            tensors = (query, key, value, edges.graph, edge)
            out, weights = attended(ops.dot_product, *tensors, dropout=dropout, wanted=wanted)
        out = out.flatten(1) if self.concat else out.mean(1)
        if self.root_weight:
            out = self._with_root(out, self.lin_skip(receivers))
        return (out, (edge_index, weights)) if wanted else out

    def _maps_late(self, senders: Any, graph: Graph) -> bool:
        return (
            self.edge_dim is None
            and isinstance(senders, Tensor)
            and narrow.plain(self.lin_key)
            and narrow.plain(self.lin_value)
            and narrow.pays(senders.shape[1] + 1, self.out_channels, graph.num_edges, graph.num_receivers)
        )

    def _late(
        self, query: Tensor, senders: Tensor, graph: Graph, dropout: float, wanted: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Over the senders' features themselves, with a column of ones for the biases.

        q . (W x + b) = (W^T q, b . q) . (x, 1), and the sum of w (W x + b) is (W, b) times the sum of w (x, 1).
        """
        rows = F.pad(senders, (0, 1), value=1.0).unsqueeze(1)
        query = narrow.map_heads(query, _heads_transposed(_with_bias(self.lin_key), self.heads))
        scale = self.out_channels**-0.5
        out, weights = attended(ops.dot_product, query, rows, rows, graph, scale=scale, dropout=dropout, wanted=wanted)
        return narrow.map_heads(out, _with_bias(self.lin_value)), weights

    def _with_root(self, out: Tensor, root: Tensor) -> Tensor:
        if self.lin_beta is None:
            return out + root
        beta = self.lin_beta(torch.cat([out, root, out - root], -1)).sigmoid()
        return beta * root + (1 - beta) * out


def _with_bias(linear: Any) -> Tensor:
    """[W, b]: [H * D, F + 1]."""
    bias = linear.weight.new_zeros(linear.weight.shape[0]) if linear.bias is None else linear.bias
    return torch.cat([linear.weight, bias.unsqueeze(1)], 1)


def _heads_transposed(weight: Tensor, heads: int) -> Tensor:
    """Each head's [D, F] turned to [F, D]: [H * D, F] -> [H * F, D]."""
    return weight.view(heads, -1, weight.shape[1]).transpose(1, 2).flatten(0, 1)
