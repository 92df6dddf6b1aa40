"""GAT whose attention can be supervised: its layers tell, of any pair of nodes, the logit that an edge would have."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.conv import GATConv
from graphattn.models.gat import _AttentionNetwork


class ScoredGATConv(nn.Module):
    """GATConv that remembers in training what entered it, until it is asked for the logits of pairs."""

    def __init__(self, conv: GATConv) -> None:
        super().__init__()
        self.conv = conv
        self._entered: Any = None

    def forward(self, x: Any, edge_index: Tensor, **options: Any) -> Any:
        if self.training and torch.is_grad_enabled():
            self._entered = x
        return self.conv(x, edge_index, **options)

    def train(self, mode: bool = True) -> ScoredGATConv:
        if not mode:
            self._entered = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_entered": None}  # a copy has seen nothing

    def pair_logits(self, pairs: Tensor) -> Tensor:
        """[P, H]: before the softmax, of edges from pairs[0] to pairs[1], of [2, P], on what entered last; once.

        Raises:
            RuntimeError: nothing entered in training since they were asked last.
        """
        x, self._entered = self._entered, None
        if x is None:
            raise RuntimeError("no input is left to score: call the layer once, in training, before pair_logits")
        conv = self.conv
        if isinstance(x, Tensor):
            x = x.to(conv.lin.weight.dtype)  # in mixed precision it is of another
        weight = conv.lin.weight.view(conv.heads, conv.out_channels, -1)
        vectors = (conv.att_src, conv.att_dst)
        scores = [F.linear(x, torch.einsum("hd,hdf->hf", vector.squeeze(0), weight)) for vector in vectors]
        senders, receivers = (score.index_select(0, ends) for score, ends in zip(scores, pairs, strict=True))
        return F.leaky_relu(senders + receivers, conv.negative_slope)


class SuperGAT(_AttentionNetwork):
    """GAT, number for number; with the auxiliary task `attention` its logits also learn to tell edges from other pairs.

    Paper: Kim and Oh, How to Find Your Friendly Neighborhood: Graph Attention Design with Self-Supervision, ICLR 2021.
    The supervision is theirs; the logit stays GAT's own sum of two scores, where their proposed layers (PyG's
    SuperGATConv) put a product of the two nodes in its place or beside it.
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
            return ScoredGATConv(
                GATConv(width, out, heads, concat, dropout=attention_dropout, feature_dropout=feature_dropout)
            )

        super().__init__(conv, in_channels, num_classes, hidden, heads, out_heads, num_layers, dropout, skip=False)
