"""Depth-weighted average: every block reads a learned signed mean of all that came before.

Pagliardini, Mohtashami, Fleuret and Jaggi, "DenseFormer: Enhancing Information Flow in Transformers via Depth Weighted
Averaging", NeurIPS 2024.
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
from graphattn.layer_dags import dilated


@dataclass(frozen=True, kw_only=True)
class DepthWeighted(Rule):
    """y_t = sum over j <= t of a_tj x_j, with x_0 what enters the scope and x_t what block t made of y_{t-1}.

    a_tt = 1 and the others 0 at first: the identity. L layers have L (L + 3) / 2 weights. With `dilation` k, only j = t
    modulo k is read; with `period` p, only behind every p-th block.
    """

    dilation: int = 1
    period: int = 1

    score: ClassVar[Score] = "static"
    normalisation: ClassVar[str] = "none"
    cost: ClassVar[str] = "O(t / dilation); holds t maps"
    identity: ClassVar[bool] = True
    reads_entry: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dilation", "period"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, needed at least 1")

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        return [Average(t, self.dilation, t % self.period == 0) for t in range(1, len(places) + 1)]

    def graph(self, num_layers: int) -> Graph:
        reads = dilated(num_layers + 1, self.dilation)
        averaged = (reads.receivers % self.period == 0) & (reads.receivers > 0)
        kept = averaged | (reads.receivers == reads.senders)
        return Graph(reads.senders[kept], reads.receivers[kept], num_layers + 1, num_layers + 1)


class Average(nn.Module):
    """The weighted sum of every `dilation`-th remembered tensor, x last; x itself where none is `averaged`."""

    def __init__(self, index: int, dilation: int, averaged: bool) -> None:
        super().__init__()
        self.first, self.dilation = index % dilation, dilation
        self.weights = nn.Parameter(torch.eye(index // dilation + 1)[-1]) if averaged else None

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        assert memory.entry is not None
        memory.push(None, x)
        if self.weights is None:
            return x
        memory.note(self.weights)
        read = [memory.entry, *memory.values][self.first :: self.dilation]
        out = self.weights[-1] * x
        for weight, value in zip(self.weights[:-1], read[:-1], strict=True):
            out = torch.addcmul(out, weight, value)
        return out
