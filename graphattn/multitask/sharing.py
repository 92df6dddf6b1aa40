"""What every way of sharing has: tasks with a head each, some of which are asked, and one that is left in the end."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from graphattn.record import one_of


class Sharing(nn.Module):
    """`model(*inputs)` -> what the head of each task gives, by the task's name. The first task is the main one.

    A kind of sharing says in `features` what the head of each task gets. Trunks and heads are any modules: a trunk is
    called with the inputs, a head with what the trunks give.

    Raises:
        ValueError: no task.
    """

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not heads:
            raise ValueError("heads is empty, needed a head for each task, the main task's first")
        self.heads = nn.ModuleDict(heads)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.heads)

    @property
    def main(self) -> str:
        return self.tasks[0]

    def forward(self, *inputs: Any, tasks: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Of all tasks, or of those that are named.

        Raises:
            ValueError: a task that there is none of.
        """
        wanted = self.tasks if tasks is None else tuple(one_of(task, self.tasks, "task") for task in tasks)
        features = self.features(wanted, *inputs)
        return {task: self.heads[task](features[task]) for task in wanted}

    def features(self, tasks: tuple[str, ...], *inputs: Any) -> dict[str, Any]:
        """What the heads of these tasks get."""
        raise NotImplementedError

    def trunk_of(self, task: str) -> nn.Module:
        """What the features of this task come from."""
        raise NotImplementedError

    def run_for(self, task: str) -> nn.Module:
        """All trunks that run where this task is asked."""
        return self.trunk_of(task)

    def shared(self) -> list[nn.Parameter]:
        """The parameters before the heads that are trained."""
        of_heads = {id(p) for p in self.heads.parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in of_heads]

    def penalty(self) -> Tensor | None:
        """What is added to the tasks' losses, whatever their weights."""
        return None

    def only(self, task: str | None = None) -> nn.Module:
        """The main task, or another, without the rest: a copy that is called as a trunk is, for inference."""
        kept = copy.deepcopy(self)
        kept.keep(self.main if task is None else one_of(task, self.tasks, "task"))
        return _Only(kept)

    def keep(self, task: str) -> None:
        """Drop what no output of this task depends on."""
        self.heads = nn.ModuleDict({task: self.heads[task]})


class _Only(nn.Module):
    def __init__(self, sharing: Sharing) -> None:
        super().__init__()
        self.sharing = sharing

    def forward(self, *inputs: Any) -> Tensor:
        return self.sharing(*inputs)[self.sharing.main]
