"""Dynamic weight average: a task counts more the more slowly its loss has fallen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphattn.multitask.weighting import Weighting


def dynamic_weights(last: Tensor, before: Tensor, temperature: float = 2.0) -> Tensor:
    """T softmax(r / temperature), r_t = last_t / before_t, of the tasks' losses [T] in the last two epochs."""
    return len(last) * (last / before / temperature).softmax(0)


class DynamicAverage(Weighting):
    """Losses are averaged over an epoch's steps; in the first two epochs all factors are 1.

    Paper: Liu, Johns and Davison, End-to-End Multi-Task Learning with Attention, CVPR 2019.
    """

    needs_all: ClassVar[bool] = True
    summed: Tensor
    counted: Tensor
    last: Tensor
    before: Tensor

    def __init__(
        self, weights: Mapping[str, float], schedule: Callable[[int], float] | None = None, *, temperature: float = 2.0
    ) -> None:
        super().__init__(weights, schedule)
        self.temperature = temperature
        for name in ("summed", "last", "before"):
            self.register_buffer(name, torch.zeros(len(weights)))
        self.register_buffer("counted", torch.zeros(()))

    def combined(self, losses: Tensor, values: Tensor, gradients: Tensor | None, shared: Sequence[Any]) -> Tensor:
        self.summed += values
        self.counted += 1
        if self.epoch < 2:
            return losses.sum()
        return (dynamic_weights(self.last, self.before, self.temperature) * losses).sum()

    def next_epoch(self) -> None:
        super().next_epoch()
        self.before.copy_(self.last)
        self.last.copy_(self.summed / self.counted)
        self.summed.zero_()
        self.counted.zero_()
