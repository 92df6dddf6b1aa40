"""GradNorm: factors that give the tasks gradients of similar size, larger where a task has learned less."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphattn.multitask.weighting import Weighting


def gradnorm_loss(factors: Tensor, norms: Tensor, losses: Tensor, first: Tensor, alpha: float = 1.5) -> Tensor:
    """sum_t | G_t - mean(G) r_t^alpha |, what the factors [T] follow.

    G_t = factors_t norms_t, of the norms [T] of the tasks' gradients; r_t = (L_t / first_t) over its mean, of the
    losses now and at first, [T]. mean(G) r_t^alpha is a constant.
    """
    sizes, ratios = factors * norms, losses / first
    aim = sizes.mean() * (ratios / ratios.mean()) ** alpha
    return (sizes - aim.detach()).abs().sum()


class GradNorm(Weighting):
    """The factors are T softmax(v), with v a parameter that begins at 0 and moves with the model's.

    Paper: Chen et al., GradNorm: Gradient Normalization for Adaptive Loss Balancing, ICML 2018. There the norms are of
    the last shared layer and the factors are scaled to sum T after each step; here the norms are of all that is shared.
    """

    uses_gradients: ClassVar[bool] = True
    needs_all: ClassVar[bool] = True
    first: Tensor

    def __init__(
        self, weights: Mapping[str, float], schedule: Callable[[int], float] | None = None, *, alpha: float = 1.5
    ) -> None:
        super().__init__(weights, schedule)
        self.alpha = alpha
        self.logits = nn.Parameter(torch.zeros(len(weights)))
        self.register_buffer("first", torch.ones(len(weights)))

    def combined(self, losses: Tensor, values: Tensor, gradients: Tensor | None, shared: Sequence[Any]) -> Tensor:
        assert gradients is not None
        if self.step == 0:
            self.first.copy_(values)
        factors = len(self.tasks) * self.logits.softmax(0)
        own = gradnorm_loss(factors, gradients.norm(dim=1), values, self.first, self.alpha)
        return (factors.detach() * losses).sum() + (own - own.detach())
