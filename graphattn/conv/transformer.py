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
from graphattn.conv.fallback import check_edges, check_features, dense, needs_pyg
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
        check_edges(self, edge_index, edge_attr)
        check_features(self, x)
        dropout = self.dropout if self.training else 0.0
        weights_before_dropout = isinstance(return_attention_weights, bool) and dropout > 0
        if weights_before_dropout or needs_pyg(self, pyg.TransformerConv, edge_index):
            return super().forward(dense(x), edge_index, edge_attr, return_attention_weights)

        senders, receivers = x if isinstance(x, tuple | list) else (x, x)
        if receivers is None:
            raise ValueError("TransformerConv: the receivers' features are None: queries need them; pass (x_s, x_r)")
        shape = (-1, self.heads, self.out_channels)
        edges = edges_of(edge_index, senders.shape[0], receivers.shape[0], None)
        wanted = return_attention_weights is not None
        if self._maps_late(senders, receivers):
            out, weights = self._late(senders, receivers, edges.graph, dropout, wanted)
        else:
            edge = None
            if self.edge_dim is not None:
                if edge_attr is None:
                    raise ValueError(f"TransformerConv has edge_dim={self.edge_dim}: needed edge_attr, one row an edge")
                edge = self.lin_edge(edge_attr.view(-1, 1) if edge_attr.dim() == 1 else edge_attr).view(shape)
            query = self.lin_query(receivers).view(shape)
            key, value = self.lin_key(senders).view(shape), self.lin_value(senders).view(shape)
            tensors = (query, key, value, edges.graph, edge)
            out, weights = attended(ops.dot_product, *tensors, dropout=dropout, wanted=wanted)
        out = out.flatten(1) if self.concat else out.mean(1)
        if self.root_weight:
            out = self._with_root(out, self.lin_skip(receivers))
        return (out, (edge_index, weights)) if wanted else out

    def _maps_late(self, senders: Any, receivers: Any) -> bool:
        return (
            self.edge_dim is None
            and isinstance(senders, Tensor)
            and isinstance(receivers, Tensor)
            and all(narrow.plain(linear) for linear in (self.lin_query, self.lin_key, self.lin_value))
            and narrow.pays_for_products(senders.shape, receivers.shape, self.out_channels)
        )

    def _late(
        self, senders: Tensor, receivers: Tensor, graph: Graph, dropout: float, wanted: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Over the senders' features themselves, with a one appended for the biases: x' = (x, 1), W' = (W, b).

        q_i . k_j = (W_k'^T W_q' x_i') . x_j', and the sum of w v_j is W_v' times the sum of w x_j'.
        """
        rows = narrow.with_one(senders)
        key, value = (narrow.with_bias(linear, rows.shape[1]) for linear in (self.lin_key, self.lin_value))
        query = narrow.with_bias(self.lin_query, receivers.shape[1] + 1)
        product = torch.bmm(narrow.by_head(key, self.heads).transpose(1, 2), narrow.by_head(query, self.heads))
        asked = F.linear(receivers, product[..., :-1].flatten(0, 1), product[..., -1].flatten())
        asked, rows = asked.view(-1, self.heads, rows.shape[1]), rows.unsqueeze(1)
        scale = self.out_channels**-0.5
        out, weights = attended(ops.dot_product, asked, rows, rows, graph, scale=scale, dropout=dropout, wanted=wanted)
        return narrow.map_heads(out, value), weights

    def _with_root(self, out: Tensor, root: Tensor) -> Tensor:
        if self.lin_beta is None:
            return root.add_(out) if narrow.plain(self.lin_skip) else out + root  # in place where nobody else sees it
        beta = self.lin_beta(torch.cat([out, root, out - root], -1)).sigmoid()
        return beta * root + (1 - beta) * out
