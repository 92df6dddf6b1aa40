"""Hyper-connections: n residual streams between which every layer mixes.

Zhu et al., "Hyper-Connections", ICLR 2025.
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


def step(streams: Tensor, branch: Tensor, mixing: Tensor, spread: Tensor) -> Tensor:
    """H <- A^T H + beta (x) F: `streams` H [n, *x], `branch` F [*x]; `mixing` A [n, n, *x] and `spread` beta [n, *x]
    of any shapes that broadcast. Holds n maps at a time, not n^2.
    """
    out = spread * branch.unsqueeze(0)
    for share, stream in zip(mixing, streams, strict=True):
        out = torch.addcmul(out, share, stream.unsqueeze(0))
    return out


@dataclass(frozen=True, kw_only=True)
class HyperConnections(Rule):
    """n `streams` H; a branch reads alpha^T H and is written back by H <- A^T H + beta (x) F(alpha^T H); the streams
    are summed where they leave the scope. With `dynamic`, each of alpha, A, beta is static + s tanh(W LN(H)), position
    by position.

    alpha = e_{t mod n}, A = I, beta = 1, W = 0, s = 0.01 at first. All streams begin as what enters, so that the first
    branch reads just that, and all stay equal: residual connections, whose sum is n times theirs where they leave.

    Equals a dense DAG of rank n over branches; run as the recurrence it is.
    """

    scope: str | int = "network"
    streams: int = 4
    dynamic: bool = True

    score: ClassVar[Score] = "static"
    normalisation: ClassVar[str] = "none"
    cost: ClassVar[str] = "O(n^2); holds n maps"
    identity: ClassVar[bool] = False  # but for the factor n
    replaces_shortcut: ClassVar[bool] = True
    reads_entry: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.streams < 1:
            raise ValueError(f"streams is {self.streams}, needed at least 1")

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        return [
            Connect(p.channels, 1 if len(p.shape) == 3 else -1, self, t, last=t == len(places) - 1)
            for t, p in enumerate(places)
        ]

    def graph(self, num_layers: int) -> Graph:
        return history(num_layers + 1)


class Connect(nn.Module):
    """Writes branch t back and gives what branch t + 1 reads, or the sum of the streams."""

    def __init__(self, channels: int, axis: int, options: HyperConnections, index: int, *, last: bool) -> None:
        super().__init__()
        n = self.streams = options.streams
        self.axis, self.last = axis, last
        self.mixing = Coefficients(torch.eye(n), channels, axis, options.dynamic)
        self.spread = Coefficients(torch.ones(n, 1), channels, axis, options.dynamic)
        alpha = torch.eye(n)[(index + 1) % n].unsqueeze(-1)
        self.read = None if last else Coefficients(alpha, channels, axis, options.dynamic)

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        if memory.entry is not None:
            memory.values, memory.entry = [memory.entry] * self.streams, None
        streams = torch.cat(memory.values).unflatten(0, (self.streams, -1))  # a stack, in the layout they have
        streams = step(streams, x, self.mixing(streams), self.spread(streams).squeeze(1))
        memory.values = list(streams.unbind())  # by themselves, so that each can be aligned
        if self.read is None:
            return streams.sum(0)
        return (self.read(streams).squeeze(1) * streams).sum(0)


class Coefficients(nn.Module):
    """static + s tanh(W LN(H)): k numbers for each stream of H [n, *x] and position, [n, k, *x with one channel]."""

    def __init__(self, static: Tensor, channels: int, axis: int, dynamic: bool) -> None:
        super().__init__()
        self.axis = axis
        self.static = nn.Parameter(static)
        self.norm = nn.LayerNorm(channels) if dynamic else None
        self.weight = nn.Parameter(torch.zeros(static.shape[1], channels)) if dynamic else None
        self.scale = nn.Parameter(torch.tensor(0.01)) if dynamic else None

    def forward(self, streams: Tensor) -> Tensor:
        dims = streams.dim() - 1
        static = self.static.reshape(*self.static.shape, *[1] * dims)
        if self.norm is None or self.weight is None or self.scale is None:
            return static
        normed = self.norm(streams.movedim(self._channel_axis, -1))
        moved = (normed @ self.weight.T).tanh().movedim(-1, 1)  # [n, k, B, positions]
        return static + self.scale * moved.unsqueeze(self._channel_axis + 1 if self.axis > 0 else -1)

    @property
    def _channel_axis(self) -> int:
        return self.axis + 1 if self.axis > 0 else -1
