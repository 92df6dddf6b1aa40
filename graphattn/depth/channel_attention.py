"""Squeeze-excitation and efficient channel attention: gates of a layer on itself, the baselines of layer attention.

Hu, Shen and Sun, "Squeeze-and-Excitation Networks", CVPR 2018; Wang et al., "ECA-Net: Efficient Channel Attention for
Deep Convolutional Neural Networks", CVPR 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from graphattn.depth.memory import LayerMemory
from graphattn.depth.rule import Place, Rule, Score
from graphattn.graph import Graph
from graphattn.layer_dags import window


def eca_kernel(channels: int, gamma: int = 2, b: int = 1) -> int:
    """The odd size of a convolution along so many channels: |log2 C + b| / gamma, rounded down, plus one if even."""
    size = int(abs(math.log2(channels) + b) / gamma)
    return size if size % 2 else size + 1


class SqueezeExcitation(nn.Module):
    """x sigmoid(W_2 ReLU(W_1 GAP(x))), without biases: 2 C (C / reduction) parameters. x is [B, C, H, W]."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        if reduction < 1 or channels < reduction:
            raise ValueError(f"reduction is {reduction}, needed between 1 and the {channels} channels")
        self.squeeze = nn.Linear(channels, channels // reduction, bias=False)
        self.excite = nn.Linear(channels // reduction, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()[..., None, None]


class ECA(nn.Module):
    """x sigmoid(Conv1d_k(GAP(x))), along the channels: k parameters. x is [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernel = eca_kernel(channels)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x.mean((2, 3)).unsqueeze(1)).sigmoid().transpose(1, 2).unsqueeze(-1)


@dataclass(frozen=True, kw_only=True)
class ChannelAttention(Rule):
    """Squeeze-excitation, or ECA where `reduction` is None, behind each block by itself: no layer reads another.

    The papers gate the branch before the addition: name its last norm, such as "layer*.*.bn2", not the block.
    """

    reduction: int | None = None

    score: ClassVar[Score] = "key-only"
    normalisation: ClassVar[str] = "sigmoid"
    cost: ClassVar[str] = "O(1); holds nothing"
    identity: ClassVar[bool] = False
    maps_only: ClassVar[bool] = True
    one_shape: ClassVar[bool] = False

    @property
    def remembers(self) -> bool:
        return False

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        return [
            Gate(ECA(p.channels) if self.reduction is None else SqueezeExcitation(p.channels, self.reduction))
            for p in places
        ]

    def graph(self, num_layers: int) -> Graph:
        return window(num_layers, 1)


class Gate(nn.Module):
    """A gate that needs no memory."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        return self.gate(x)
