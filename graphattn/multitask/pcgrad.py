"""PCGrad: where the gradients of two tasks are in conflict, each loses what goes against the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphattn.multitask.gradients import steered
from graphattn.multitask.weighting import Weighting


def without_conflicts(gradients: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """[P], of the tasks' gradients [T, P]: the sum of

        g_t, for each other s in random order: g_t -= min(0, g_t . g_s) / |g_s|^2 g_s

    where g_s are the gradients as they came. Without conflict it is their sum.
    """
    count, total = len(gradients), torch.zeros_like(gradients[0])
    squares = gradients.square().sum(1)
    for task in range(count):
        own = gradients[task]
        for other in torch.randperm(count, generator=generator).tolist():
            product = own @ gradients[other]
            if other != task:
                own = own - torch.where(product < 0, product / squares[other], 0) * gradients[other]
        total = total + own
    return total


class PCGrad(Weighting):
    """Gradients of what is shared are freed of conflicts; each head follows its own task.

    Where nothing is shared but a penalty, as in soft sharing, no two gradients meet and nothing changes.

    Paper: Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020.
    """

    uses_gradients: ClassVar[bool] = True

    def combined(self, losses: Tensor, values: Tensor, gradients: Tensor | None, shared: Sequence[Any]) -> Tensor:
        assert gradients is not None
        order = torch.Generator().manual_seed(self.step)  # no draw of the model's, and the same on all ranks
        more = without_conflicts(gradients, order) - gradients.sum(0)
        return steered(losses.sum(), shared, more)
