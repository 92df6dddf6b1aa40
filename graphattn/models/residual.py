"""Deep networks of residual blocks around any of the layers: what makes plain GNNs strong on heterophilous graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.conv import GATConv, GATv2Conv, TransformerConv
from graphattn.conv.edges import edges_of
from graphattn.models.layered import Layered
from graphattn.ops import feature_dropout, weighted_sum

Block = Literal["mlp", "gcn", "gat", "gatv2", "graph-transformer"]


class Residual(Layered):
    """A linear map to `hidden` channels, `num_layers` residual blocks, LayerNorm and a linear map to the classes.

        x <- x + feed_forward(hear(norm(x)))

    `x` [N, F], `edge_index` [2, E] -> logits [N, C]. The feed-forward part is two linear maps with GELU between and
    dropout after each. What a node hears is, by `block`: itself (mlp, a ResNet); the symmetrically normalised sum
    (gcn); attention of `heads` heads that share the channels (gat, gatv2); for the graph transformer the two parts are
    residual by themselves: x <- x + W hear(norm(x)), then x <- x + feed_forward(norm(x)).

    Each node hears itself too, by a self-loop. With `separate` it does not, and its own row is put beside what it
    hears, so that the map that follows can tell the two apart: the "-sep" models of the paper.

    Raises:
        ValueError: `hidden` that is no multiple of `heads` where there are heads; `separate` without neighbours.

    Paper: Platonov et al., A Critical Look at the Evaluation of GNNs under Heterophily, ICLR 2023 (arXiv:2302.11640),
    by default with its sizes. GAT's logits have a bias there and none here; GATv2 is not in the paper.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        block: Block = "gat",
        separate: bool = False,
        hidden: int = 512,
        heads: int | None = None,
        num_layers: int = 5,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if heads is not None and block not in _ATTENTION:
            raise ValueError(f"heads is {heads} for block {block}, which has none: leave it out")
        heads = 8 if heads is None else heads
        if block in _ATTENTION and hidden % heads:
            raise ValueError(f"hidden is {hidden} for {heads} heads: needed a multiple, the heads share the channels")
        if block == "mlp" and separate:
            raise ValueError("separate is true for block mlp, which hears no neighbours: leave it out")
        self.enter = nn.Linear(in_channels, hidden)
        self.layers = nn.ModuleList(_Layer(block, separate, hidden, heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(hidden)
        self.leave = nn.Linear(hidden, num_classes)
        self.dropout = dropout
        self.by_hop = block != "gcn"  # whose weights depend on the senders' degrees, which a sampled batch cuts

    def step(self, i: int, x: Any, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        if i == 0:
            x = F.gelu(feature_dropout(F.linear(x, self.enter.weight, self.enter.bias), self.dropout, self.training))
        x = self.layers[i](x, edge_index)
        return self.leave(self.norm(x)) if i == len(self.layers) - 1 else x


class _Layer(nn.Module):
    def __init__(self, block: Block, separate: bool, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.block, self.separate, self.dropout = block, separate, dropout
        self.norm = nn.LayerNorm(hidden)
        self.conv = _ATTENTION[block](hidden, hidden // heads, heads) if block in _ATTENTION else None
        width = 2 * hidden if separate else hidden
        if block == "graph-transformer":
            self.out, self.second_norm = nn.Linear(width, hidden), nn.LayerNorm(hidden)
            width = hidden
        self.widen, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        heard = self._heard(self.norm(x), edge_index)
        if self.block == "graph-transformer":
            x = x + self._dropped(self.out(heard))
            heard = self.second_norm(x)
        return x + self._dropped(self.narrow(F.gelu(self._dropped(self.widen(heard)))))

    def _heard(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self.block == "mlp":
            return x
        if not self.separate:
            looped = edges_of(edge_index, x.shape[0], x.shape[0], x.shape[0]).looped
            assert looped is not None  # loops were asked for
            edge_index = looped
        heard = normalised_sum(x, edge_index) if self.conv is None else self.conv(x, edge_index)
        return torch.cat([x, heard], 1) if self.separate else heard

    def _dropped(self, x: Tensor) -> Tensor:
        return feature_dropout(x, self.dropout, self.training)


def normalised_sum(x: Tensor, edge_index: Tensor) -> Tensor:
    """out_i = sum over j -> i of x_j / sqrt(d_i d_j), d the numbers of edges that enter; [N, F] -> [N, F]."""
    graph = edges_of(edge_index, x.shape[0], x.shape[0], None).graph
    scale = graph.by_receiver.ptr.diff().clamp(min=1).to(x.dtype).rsqrt().unsqueeze(1)
    return scale * weighted_sum(x.new_ones(graph.num_edges), scale * x, graph)


def _transformer(width: int, out: int, heads: int) -> nn.Module:
    conv = TransformerConv(width, out, heads, root_weight=False)
    del conv.lin_skip  # PyG's layer has it all the same
    return conv


_ATTENTION: dict[str, Callable[[int, int, int], nn.Module]] = {
    "gat": lambda width, out, heads: GATConv(width, out, heads, add_self_loops=False),
    "gatv2": lambda width, out, heads: GATv2Conv(width, out, heads, add_self_loops=False),
    "graph-transformer": _transformer,
}
