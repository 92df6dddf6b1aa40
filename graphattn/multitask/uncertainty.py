"""Weights by uncertainty: a task counts less the larger its own noise, which is learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphattn.multitask.weighting import Weighting


def uncertainty_loss(losses: Tensor, log_variances: Tensor) -> Tensor:
    """sum_t L_t / (2 exp(s_t)) + s_t / 2, of losses L [T] and log variances s [T]; least where exp(s_t) = L_t."""
    return (losses / (2 * log_variances.exp()) + log_variances / 2).sum()


class Uncertainty(Weighting):
    """Each task's log variance s_t is a parameter, which begins at `first`.

    Paper: Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018; the form is that
    of a regression for every task, as is usual, though the paper's for a classification has no 1/2 before the loss.
    """

    needs_all: ClassVar[bool] = True

    def __init__(
        self, weights: Mapping[str, float], schedule: Callable[[int], float] | None = None, *, first: float = -0.5
    ) -> None:
        super().__init__(weights, schedule)
        self.log_variances = nn.Parameter(torch.full((len(weights),), first))

    def combined(self, losses: Tensor, values: Tensor, gradients: Tensor | None, shared: Sequence[Any]) -> Tensor:
        return uncertainty_loss(losses, self.log_variances)
