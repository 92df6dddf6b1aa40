"""GATConv: attention whose logit is a sum of a sender's and a receiver's score."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch_geometric.nn import conv as pyg
from torch_geometric.typing import OptPairTensor, OptTensor

from graphattn import ops
from graphattn.conv import narrow
from graphattn.conv.edges import edges_of
from graphattn.conv.fallback import check_edges, check_features, check_size, dense, needs_pyg
from graphattn.conv.weights import attended


class GATConv(pyg.GATConv):
    """The graph attention layer, a drop-in for `torch_geometric.nn.GATConv`.

        z_e = leaky(a_s . W x_j + a_r . W x_i + a_e . W_e e_ij)        out_i = sum over j -> i of softmax_i(z)_e W x_j

    per head, the heads then concatenated (`concat=True`) or averaged, plus residual and bias.

    Shapes: x [N, F] (dense, or `SparseFeatures`) or a pair for senders and receivers, edge_index [2, E], edge_attr
    [E, edge_dim]; out [N, H * D], or [N, D] if averaged. Weights come as [E', H] in the order of the returned
    edge_index (given edges, then self-loops) and, as in PyG, after dropout.

    Arguments, parameters, initialisation and state dict are PyG's. Beyond them:
        feature_dropout: dropout on the transformed features W x_j where they are summed, but not where they are
            scored: the third dropout of the authors' code, which PyG lacks.

    Differs from PyG: edge_attr without edge_dim raises ValueError instead of being ignored; dropout masks for a given
    seed are other ones. Differs from the paper's code, as PyG does: the two scores have no biases of their own.

    Paper: Velickovic et al., Graph Attention Networks, ICLR 2018.
    """

    # PyG's machinery expects no subclass: it finds a class's source, where these types are, by the class's name, which
    # is ours too, and would take the compiled propagate of its own layer for the plain one that explainers need.
    propagate_type: ClassVar = {"x": OptPairTensor, "alpha": Tensor}
    edge_updater_type: ClassVar = {"alpha": OptPairTensor, "edge_attr": OptTensor}
    propagate = pyg.MessagePassing.propagate

    def __init__(self, *args: Any, feature_dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.feature_dropout = feature_dropout

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
        if needs_pyg(self, pyg.GATConv, edge_index):
            self._refuse_feature_dropout()
            return super().forward(dense(x), edge_index, edge_attr, size, return_attention_weights)

        senders, receivers = x if isinstance(x, tuple | list) else (x, x)
        num_senders, num_receivers = senders.shape[0], (senders if receivers is None else receivers).shape[0]
        if size is not None:
            check_size(size, num_senders, None if receivers is None else num_receivers)
            num_receivers = num_receivers if size[1] is None else size[1]
        loops = min(num_senders, num_receivers) if self.add_self_loops else None
        edges = edges_of(edge_index, num_senders, num_receivers, loops)

        lin = self.lin if self.lin is not None else self.lin_src
        dropped = self.training and self.feature_dropout > 0
        late = (
            not dropped
            and isinstance(senders, Tensor)
            and narrow.plain(lin)
            and narrow.pays(senders.shape[1], self.out_channels, edge_index.shape[1] + (loops or 0), num_receivers)
        )
        values = None if late else lin(senders).view(-1, self.heads, self.out_channels)
        score_s, score_r = self._scores(senders, receivers, values, num_receivers)
        edge_logits = None
        if edge_attr is not None:
            edge_logits = self._edge_logits(edges.attr(edge_attr, edge_index, self.fill_value))
        wanted = bool(return_attention_weights)
        out, weights = attended(
            ops.additive,
            senders.unsqueeze(1)
            if values is None
            else ops.feature_dropout(values, self.feature_dropout, self.training),
            score_s,
            score_r,
            edges.graph,
            edge_logits,
            negative_slope=self.negative_slope,
            dropout=self.dropout if self.training else 0.0,
            wanted=wanted,
        )
        if late:
            out = narrow.map_heads(out, lin.weight)
        out = out.flatten(1) if self.concat else out.mean(1)
        if self.res is not None and receivers is not None:
            out = out + self.res(receivers)
        if self.bias is not None:
            out = out + self.bias
        return (out, (edges.listed(edge_index), weights)) if wanted else out

    def _scores(self, senders: Any, receivers: Any, values: Tensor | None, num_receivers: int) -> tuple[Tensor, Tensor]:
        """Of the senders [N_s, H] and of the receivers [N_r, H], which are zeros where these have no features."""
        lin_s, lin_r = (self.lin, self.lin) if self.lin is not None else (self.lin_src, self.lin_dst)
        if receivers is senders and lin_r is lin_s:
            return self._score(senders, lin_s, values, self.att_src, self.att_dst)  # type: ignore[return-value]
        (score_s,) = self._score(senders, lin_s, values, self.att_src)
        if receivers is None:
            return score_s, score_s.new_zeros(num_receivers, self.heads)
        return score_s, self._score(receivers, lin_r, None, self.att_dst)[0]

    def _score(self, x: Any, lin: Any, mapped: Tensor | None, *vectors: Tensor) -> tuple[Tensor, ...]:
        if self._folds(x, lin):
            return narrow.scores(x, lin.weight, *vectors)
        mapped = lin(x).view(-1, self.heads, self.out_channels) if mapped is None else mapped
        return narrow.scores_of_mapped(mapped, *vectors)

    def _folds(self, x: Any, lin: Any) -> bool:
        return isinstance(x, Tensor) and narrow.plain(lin) and x.shape[1] <= lin.weight.shape[0]

    def _edge_logits(self, edge_attr: Tensor) -> Tensor:
        edge_attr = edge_attr.view(-1, 1) if edge_attr.dim() == 1 else edge_attr
        return self._score(edge_attr, self.lin_edge, None, self.att_edge)[0]

    def _refuse_feature_dropout(self) -> None:
        if self.feature_dropout and self.training:
            raise RuntimeError(
                f"feature_dropout is {self.feature_dropout}, but explaining, hooks, exporting or a sparse adjacency "
                f"call for PyG's own message passing, which cannot apply it: call eval() first or set it to 0"
            )
