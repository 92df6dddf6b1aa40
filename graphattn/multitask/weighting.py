"""How the losses of several tasks become one: what all ways of weighting have in common, and the plain sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphattn.multitask.gradients import cosines, task_gradients
from graphattn.multitask.sharing import Sharing


class Weighting(nn.Module):
    """`weighting(losses, sharing)` -> the loss to go back from: sum_t w_t L_t, plus the penalty of the sharing.

    weights: w_t by task, the main one first. This class itself takes them as they are; others take w_t L_t for the loss
        of a task and find a factor for it, or another gradient than the sum.
    schedule: what the weights of all tasks but the first are multiplied by, by epoch. Call `next_epoch` after each.

    What it knows is in its state dict, so a run goes on where it was.

    Raises:
        ValueError: no task, or a weight that is negative or not finite; where the way of weighting needs all losses, a
            weight of 0.
    """

    uses_gradients: ClassVar[bool] = False
    needs_all: ClassVar[bool] = False  # whether each step must have the loss of every task
    weights: Tensor

    def __init__(self, weights: Mapping[str, float], schedule: Callable[[int], float] | None = None) -> None:
        super().__init__()
        if not weights:
            raise ValueError("weights is empty, needed a weight for each task, the main task's first")
        for task, weight in weights.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"the weight of {task} is {weight}, needed a finite number that is not negative")
            if self.needs_all and not weight:
                raise ValueError(
                    f"the weight of {task} is 0, and {type(self).__name__} finds factors for what is there: leave the "
                    f"task out"
                )
        self.tasks, self.schedule = tuple(weights), schedule
        self.register_buffer("weights", torch.tensor(list(weights.values())), persistent=False)
        self.step = self.epoch = 0
        self.cosines: Tensor | None = None  # of the tasks' gradients when they were last looked at, [T, T]

    def forward(
        self,
        losses: Mapping[str, Tensor],
        sharing: Sharing,
        *,
        average: Callable[[Tensor], Tensor] = lambda own: own,
        watch: bool = False,
    ) -> Tensor:
        """The loss of this step.

        A task without a loss counts nothing and its gradients are zero, not missing, as DDP needs them to be.

        Args:
            average: over the ranks, where several train one model.
            watch: leave in `cosines` how the tasks' gradients agree in the parameters that they share.

        Raises:
            ValueError: a loss of no task, or, where the way of weighting needs all of them, a loss that is missing or
                a schedule that has come to 0.
        """
        scaled = self.scaled(losses, sharing)
        gradients, shared = None, sharing.shared()
        if self.uses_gradients or watch:
            gradients = average(task_gradients(scaled, shared))
            self.cosines = cosines(gradients)
        total = self.combined(scaled, average(scaled.detach()), gradients, shared)
        self.step += 1
        penalty = sharing.penalty()
        return total if penalty is None else total + penalty

    def combined(self, losses: Tensor, values: Tensor, gradients: Tensor | None, shared: Sequence[Any]) -> Tensor:
        """One loss of these [T], whose `values` [T] are those of all ranks, and `gradients` [T, P] if they are used."""
        return losses.sum()

    def next_epoch(self) -> None:
        self.epoch += 1

    def scaled(self, losses: Mapping[str, Tensor], sharing: Sharing) -> Tensor:
        """w_t L_t, [T]."""
        if unknown := losses.keys() - set(self.tasks):
            raise ValueError(f"there are losses of {sorted(unknown)}, needed a weight for each: {list(self.tasks)}")
        missing = [task for task in self.tasks if task not in losses]
        if missing and (self.needs_all or len(missing) == len(self.tasks)):
            raise ValueError(f"{type(self).__name__} has no loss of {missing}, needed one of every task in each step")
        nothing = torch.zeros(()) if not missing else 0 * sum(p.sum() for p in sharing.parameters() if p.requires_grad)
        found = torch.stack([losses.get(task, nothing) for task in self.tasks])  # type: ignore[arg-type]
        if self.schedule is None:
            return found * self.weights
        factor = self.schedule(self.epoch)
        if self.needs_all and not factor:
            raise ValueError(
                f"the schedule is 0 in epoch {self.epoch}, and {type(self).__name__} finds factors for what is there: "
                f"take Weighting or PCGrad"
            )
        return found * torch.cat([self.weights[:1], factor * self.weights[1:]])

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.step, self.epoch])

    def set_extra_state(self, state: Tensor) -> None:
        self.step, self.epoch = state.tolist()
