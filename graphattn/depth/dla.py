"""Deep layer aggregation, iterative and hierarchical.

Yu, Wang, Shelhamer and Darrell, "Deep Layer Aggregation", CVPR 2018. A node is N(x_1, ..., x_n) = ReLU(BN(W [x_1, ...,
x_n])): its edges carry matrices, run as one 1x1 convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from graphattn.depth.memory import LayerMemory
from graphattn.depth.rule import Place, Rule, Score
from graphattn.graph import Graph
from graphattn.layer_dags import residual, tree


@dataclass(frozen=True, kw_only=True)
class IterativeAggregation(Rule):
    """I_t = N(I_{t-1}, x_t), I_1 = x_1: from shallow to deep, each node refines the aggregate. The next block reads
    I_t, so that a scope's last aggregate is what leaves it.
    """

    score: ClassVar[Score] = "matrix"
    normalisation: ClassVar[str] = "none"
    cost: ClassVar[str] = "O(1); holds the aggregate"
    identity: ClassVar[bool] = False
    maps_only: ClassVar[bool] = True
    holds_one: ClassVar[bool] = True

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        return [First(), *(Refine(place.channels) for place in places[1:])]

    def graph(self, num_layers: int) -> Graph:
        return residual(num_layers)


class First(nn.Module):
    """The aggregate of one layer is the layer."""

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        memory.state = x
        return x


class Refine(nn.Module):
    """N(aggregate, x), which is then the aggregate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.node = Node(2, channels)

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        assert memory.state is not None
        memory.state = self.node([memory.state, x])
        return memory.state


@dataclass(frozen=True, kw_only=True)
class HierarchicalAggregation(Rule):
    """A binary tree over the blocks of a scope. Behind block t = 2^n m, m odd and n > 0, stands one node that closes
    the subtrees of 2, 4, ..., 2^n blocks ending there:

        x_t <- N(x_t, x_{t-1}, roots of the left halves)  (+ x_t with `residual`)

    where the left half of the subtree of 2^k blocks ended behind block t - 2^(k-1). As in the paper, the aggregate is
    what the next block reads, and intermediate aggregates of one subtree are merged into one node. Other blocks
    pass on what they gave.

    Differs from the released code in two ways: any number of blocks goes (of 9, the ninth stands alone), and the
    input of a stage is no child of its outermost node (`level_root`).
    """

    residual: bool = False

    score: ClassVar[Score] = "matrix"
    normalisation: ClassVar[str] = "none"
    cost: ClassVar[str] = "O(log t); holds log t maps"
    identity: ClassVar[bool] = False
    maps_only: ClassVar[bool] = True

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        children = tree(len(places)).in_degree.tolist()
        return [
            Close(count, place.channels, self.residual) if count > 1 else Leaf()
            for count, place in zip(children, places, strict=True)
        ]

    def graph(self, num_layers: int) -> Graph:
        return tree(num_layers)


class Leaf(nn.Module):
    """A block whose subtree is still open."""

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        memory.push(None, x)
        return x


class Close(nn.Module):
    """The node that closes the subtrees ending here; their left halves are the last ones the memory holds."""

    def __init__(self, children: int, channels: int, residual: bool) -> None:
        super().__init__()
        self.left, self.residual = children - 1, residual
        self.node = Node(children, channels)

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        left = memory.values[-self.left :]
        del memory.values[-self.left :]
        out = self.node([x, *reversed(left)], x if self.residual else None)
        memory.push(None, out)
        return out


class Node(nn.Module):
    """ReLU(BN(W [x_1, ..., x_n]) + residual)."""

    def __init__(self, children: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(children * channels, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, children: Sequence[Tensor], residual: Tensor | None = None) -> Tensor:
        out = self.norm(self.conv(torch.cat(list(children), dim=1)))
        return (out if residual is None else out + residual).relu()
