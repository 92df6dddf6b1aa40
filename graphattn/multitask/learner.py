"""What is trained: a model of several tasks, and how their losses are weighted, whose parameters move with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from graphattn.multitask.sharing import Sharing
from graphattn.multitask.statistics import statistics_left_alone
from graphattn.multitask.weighting import Weighting


class Learner(nn.Module):
    """`learner(*inputs)` is the sharing's; its weighting is beside it, so that one optimizer and one checkpoint do.

    Raises:
        ValueError: the two know different tasks.
    """

    def __init__(self, sharing: Sharing, weighting: Weighting) -> None:
        super().__init__()
        if sharing.tasks != weighting.tasks:
            raise ValueError(
                f"heads are for {list(sharing.tasks)} and weights for {list(weighting.tasks)}: needed one each"
            )
        self.sharing, self.weighting = sharing, weighting

    def forward(
        self, *inputs: Any, tasks: Iterable[str] | None = None, beside: tuple[Any, ...] | None = None
    ) -> dict[str, Tensor]:
        """Of all tasks, or of those that are named.

        With `beside`, the tasks that are not named have these inputs, in a pass of their own behind the first: batch
        norms see either by itself, and what they keep of the main task's trunk is of the first pass alone.
        """
        outputs = self.sharing(*inputs, tasks=tasks)
        if beside is None:
            return outputs
        with statistics_left_alone(self.sharing.run_for(self.sharing.main)):
            return outputs | self.sharing(*beside, tasks=[task for task in self.sharing.tasks if task not in outputs])
