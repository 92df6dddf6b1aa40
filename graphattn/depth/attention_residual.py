"""Attention residuals: instead of the sum of all branches, a block reads a softmax-weighted mean of them.

Kimi Team, "Attention Residuals", arXiv:2603.15031.
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


def layer_logits(query: Tensor, scale: Tensor, x: Tensor, axis: int, eps: float = 1e-6) -> Tensor:
    """<w, RMSNorm(x)> along the channels at each position: `query` w and the norm's `scale` [C], channels of `x` along
    `axis`; gives x's shape with one channel.
    """
    shape = [1] * x.dim()
    shape[axis] = -1
    mean_square = x.square().mean(axis, keepdim=True)
    return (x * (query * scale).reshape(shape)).sum(axis, keepdim=True) * torch.rsqrt(mean_square + eps)


def merge(logits: Sequence[Tensor], values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """sum_t softmax_t(logits) v_t of T tensors each: (out, weights [T, ...])."""
    weights = torch.stack(list(logits)).softmax(0)
    out = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        out = torch.addcmul(out, weight, value)
    return out, weights


@dataclass(frozen=True, kw_only=True)
class AttentionResidual(Rule):
    """h_{t+1} = sum over j <= t of softmax_j(<w_t, RMSNorm_t(x_j)>) x_j, position by position: x_0 is what enters, x_j
    what branch j gave, w_t a learned query of the layer that reads. What leaves the scope is read the same way.

    w starts at zeros: the mean of all so far, which is not what a residual network computes. Keys are normalised with
    the reader's own RMS weights, so they are computed anew by each reader.

    block    0: over all branches (full). S > 0: branches are summed within blocks of S, and a reader attends to the
             entry, the sums of finished blocks and the unfinished one: O(L / S) instead of O(L) maps held.
    """

    scope: str | int = "network"
    block: int = 0

    score: ClassVar[Score] = "key-only"
    normalisation: ClassVar[str] = "softmax"
    cost: ClassVar[str] = "O(t), O(t / S) in blocks of S; holds as many maps"
    identity: ClassVar[bool] = False
    replaces_shortcut: ClassVar[bool] = True
    reads_entry: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block < 0:
            raise ValueError(f"block is {self.block}, needed 0 (all branches) or a number of branches")

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        block = self.block or 1
        return [Read(p.channels, 1 if len(p.shape) == 3 else -1, block, t) for t, p in enumerate(places)]

    def graph(self, num_layers: int) -> Graph:
        """Over branches; those of one block have one weight. Node 0 enters and reads nothing but itself."""
        return history(num_layers + 1)


class Read(nn.Module):
    """The reader behind branch `index`, which joins the unfinished block of branches if there is one."""

    def __init__(self, channels: int, axis: int, block: int, index: int) -> None:
        super().__init__()
        self.axis, self.adds = axis, index % block > 0
        blocks = [min(block, index + 1 - first) for first in range(0, index + 1, block)]
        self.sizes = [1, *blocks]  # how many branches stand behind each weight
        self.query = nn.Parameter(torch.zeros(channels))
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        assert memory.entry is not None
        if self.adds:
            memory.values[-1] = memory.values[-1] + x
        else:
            memory.push(None, x)
        read = [memory.entry, *memory.values]
        out, weights = merge([layer_logits(self.query, self.scale, value, self.axis) for value in read], read)
        if memory.weights is not None:
            shown = weights.movedim(0, -1).squeeze(self.axis if self.axis > 0 else -2)
            memory.note(shown.repeat_interleave(torch.tensor(self.sizes, device=x.device), dim=-1))
        return out
