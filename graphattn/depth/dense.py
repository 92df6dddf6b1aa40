"""Dense connectivity: a layer reads the concatenation of all earlier ones.

Huang, Liu, van der Maaten and Weinberger, "Densely Connected Convolutional Networks", CVPR 2017.
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
from graphattn.layer_dags import history


@dataclass(frozen=True, kw_only=True)
class Dense(Rule):
    """x_t = W_t ReLU(BN([F_0, F_1, ..., F_t])), with F_0 what enters and F_j what branch j gave: a matrix W_tj an edge,
    run as one 1x1 convolution of the concatenation, for which a matrix-valued score is only another name.

    Differs from the paper, where each layer adds a few channels to a growing map and a 1x1 convolution stands before
    the 3x3 one: here the blocks keep the width they have, and the 1x1 convolution stands behind them.
    """

    score: ClassVar[Score] = "matrix"
    normalisation: ClassVar[str] = "none"
    cost: ClassVar[str] = "O(t); holds t maps"
    identity: ClassVar[bool] = False
    maps_only: ClassVar[bool] = True
    replaces_shortcut: ClassVar[bool] = True
    reads_entry: ClassVar[bool] = True

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        return [Concatenate(place.channels * (index + 2), place.channels) for index, place in enumerate(places)]

    def graph(self, num_layers: int) -> Graph:
        return history(num_layers + 1)


class Concatenate(nn.Module):
    """1x1 convolution of the activated concatenation."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        assert memory.entry is not None
        memory.push(None, x)
        return self.conv(self.norm(torch.cat([memory.entry, *memory.values], dim=1)).relu())
