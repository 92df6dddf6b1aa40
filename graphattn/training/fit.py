"""The one training loop: a step, the measures, the stopping rule, a checkpoint; until the rule or the epochs end it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from graphattn.training.averaging import average_states
from graphattn.training.captured import CapturedGradients, captured
from graphattn.training.ranks import check_same, same_random_state
from graphattn.training.schedules import set_rate
from graphattn.training.stopping import Rule
from graphattn.training.tasks import Task


@dataclass(frozen=True)
class Outcome:
    """The measures at the epoch that was kept, and what it took.

    `history` has one dict an epoch: epoch, train_loss and the task's measures.
    """

    measures: dict[str, float]
    best_epoch: int
    epochs: int
    seconds: float
    history: list[dict[str, float]]


class Diverged(RuntimeError):
    """The training loss or the parameters became NaN or infinite, or no epoch's validation loss was finite."""


def fit(
    model: nn.Module,
    task: Task,
    optimizer: torch.optim.Optimizer | None,
    rule: Rule,
    *,
    fabric: Fabric,
    epochs: int,
    folder: Path,
    rate: Callable[[int], float] | None = None,
    checkpoint_every: float = 10.0,
    cuda_graph: bool = False,
    average: int = 1,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
) -> Outcome:
    """Train `model` on `task` and leave the kept parameters in it and in `folder`/best.pt.

    With `rate`, the optimizer's learning rates are multiplied by rate(k) in the run's k-th step, from 0 on.
    With `average`, the parameters kept are the mean of those of so many last epochs, and measured once more.
    Every `checkpoint_every` seconds all that the run needs is written to `folder`/last.pt (whole, then renamed); a
    call that finds this file goes on from there and, on the CPU, ends with the numbers of a run never stopped. A
    model without parameters (`optimizer` None) is only measured. Of several ranks the first writes, and its measures
    count for all. With `cuda_graph` the step is recorded once and replayed, which needs a GPU, and one batch for all
    steps or batches of tensors, most of one shape.

    Raises:
        Diverged: the loss or the parameters are not finite; says the epoch, the last checkpoint and what to try.
        ValueError: no epochs for a model with parameters, or steps that cannot be recorded.
    """
    if optimizer is None:
        model = fabric.setup_module(model)
        model.eval()
        return Outcome(task.measures(model), best_epoch=0, epochs=0, seconds=0.0, history=[])
    if epochs == 0:
        raise ValueError("train.epochs is 0, needed at least 1: the model has parameters to train")
    model, optimizer = fabric.setup(model, optimizer)
    course, last = Course(rule, epochs - average if average > 1 else None), folder / "last.pt"
    if last.exists():
        content = torch.load(last, map_location=fabric.device, weights_only=True)
        restore(content, model, optimizer)
        course.resume(content)
    check_same("the epochs done in the folder of runs", str(course.epoch))
    epoch: Callable[[int], Tensor] = partial(train_epoch, fabric, model, task, optimizer, rate)
    if cuda_graph:
        epoch = _replayed(fabric, model, task, optimizer, rate)
    saved = time.monotonic()
    while course.epoch < epochs and not course.stopped:
        started = time.perf_counter()
        loss: Any = fabric.all_reduce(epoch(course.epoch * task.steps), reduce_op="mean")
        row = {"epoch": course.epoch, "train_loss": float(loss)}
        check_finite(row, last, optimizer)
        model.eval()
        row |= fabric.broadcast(task.measures(model))
        course.add(row, task.score, model.state_dict, time.perf_counter() - started, penalty(course.rule, optimizer))
        on_epoch(row)
        if fabric.is_global_zero and time.monotonic() - saved >= checkpoint_every:
            write_whole(checkpoint(model, optimizer) | course.content(), last)
            saved = time.monotonic()
    if course.recent:
        model.load_state_dict(average_states(course.recent))
        model.eval()
        course.replace(model.state_dict, fabric.broadcast(task.measures(model)))
    outcome = course.outcome()
    assert course.best is not None
    model.load_state_dict(course.best["model"])
    if fabric.is_global_zero:
        write_whole(course.best, folder / "best.pt")
    return outcome


def write_whole(content: Any, path: Path) -> None:
    """torch.save to a file beside `path`, then rename: a reader finds the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    torch.save(content, part)
    part.replace(path)


class Steps(Protocol):
    """Of a task what an epoch of training asks."""

    def batches(self) -> Iterable[Any]: ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor: ...


def train_epoch(
    fabric: Fabric,
    model: nn.Module,
    task: Steps,
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float] | None = None,
    done: int = 0,
    gradients: Callable[[Any], Tensor] | None = None,
) -> Tensor:
    """A step on each batch, after so many that are done; the mean of their losses, [], or [K] if each is that of K
    models that share nothing. `gradients` gives a batch's loss and leaves its gradients in the parameters.
    """
    gradients = gradients or partial(_gradients, fabric, model, task, optimizer)
    same_random_state()  # else what is sampled could not be drawn again by a run that goes on from the first's state
    losses = []
    for step, batch in enumerate(task.batches(), done):
        if rate is not None:
            set_rate(optimizer, rate(step))
        losses.append(gradients(batch))
        optimizer.step()
    return torch.stack(losses).mean(0)


def _replayed(
    fabric: Fabric, model: nn.Module, task: Task, optimizer: torch.optim.Optimizer, rate: Callable[[int], float] | None
) -> Callable[[int], Tensor]:
    if fabric.world_size > 1:
        raise ValueError(f"a step is captured in one process, here are {fabric.world_size}: leave out --cuda-graph")
    gradients = partial(_gradients, fabric, model, task, optimizer)
    if not task.whole:
        recorded = CapturedGradients(gradients, model, optimizer)
        return partial(train_epoch, fabric, model, task, optimizer, rate, gradients=recorded)
    (batch,) = task.batches()
    if rate is not None or not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        recorded = CapturedGradients(lambda nothing: gradients(batch), model, optimizer)  # the update is not recorded
        return partial(train_epoch, fabric, model, task, optimizer, rate, gradients=lambda whole: recorded(()))

    def step() -> Tensor:
        loss = gradients(batch)
        optimizer.step()
        return loss

    replay = captured(step, model, optimizer)
    return lambda done: replay()


def _gradients(fabric: Fabric, model: nn.Module, task: Steps, optimizer: torch.optim.Optimizer, batch: Any) -> Tensor:
    model.train()
    optimizer.zero_grad()
    loss = task.loss(model, batch)
    fabric.backward(loss.sum())
    return loss.detach()


def penalty(rule: Rule, optimizer: torch.optim.Optimizer, member: int | None = None) -> float:
    """What weight decay adds to the loss whose gradient is followed, half the decay times the sum of squares, if the
    rule counts it; of one of the models where the parameters are those of several, [K, ...].
    """
    if not getattr(rule, "penalised", False):
        return 0.0
    groups = [group for group in optimizer.param_groups if group["weight_decay"]]
    held = [(group["weight_decay"], p.detach()) for group in groups for p in group["params"]]
    return sum(float(decay / 2 * (p if member is None else p[member]).square().sum()) for decay, p in held)


def check_finite(
    row: dict[str, float], last: Path, optimizer: torch.optim.Optimizer, member: int | None = None
) -> None:
    """A loss that is not finite, or parameters that are not after the epoch's last step, are the end of a run: of one
    of the models where the parameters are those of several, [K, ...].

    Raises:
        Diverged: says which, the epoch, the last checkpoint and what to try.
    """
    found = f"the training loss is {row['train_loss']}"
    if math.isfinite(row["train_loss"]):
        held = [p.detach() for group in optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.get_total_norm(held if member is None else [p[member] for p in held]))
        if math.isfinite(norm):
            return
        found = f"the norm of the parameters is {norm}"
    group = optimizer.param_groups[0]
    lr = group.get("initial_lr", group["lr"])
    raise Diverged(
        f"{found} at epoch {row['epoch']}; the last good checkpoint is "
        f"{last if last.exists() else 'none yet'}. Try a lower train.lr (it is {lr}), "
        f"train.precision=64-true, or ops.use(check_nan=True) to find where it begins"
    )


def checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The part of last.pt that is the same for one model and for several: parameters, optimizer, random states."""
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(content: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put what `checkpoint` gave back where it was."""
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    torch.set_rng_state(content["random"].cpu())
    if content["random_cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([state.cpu() for state in content["random_cuda"]])


class Course:
    """A model's way through its epochs: the stopping rule, the rows so far, and the parameters to be kept: those of one
    epoch, and those to be averaged, of all from the epoch `averaged_from` on.
    """

    def __init__(self, rule: Rule, averaged_from: int | None = None) -> None:
        self.rule, self.averaged_from = rule, averaged_from
        self.recent: list[dict[str, Tensor]] = []
        self.epoch, self.seconds, self.stopped = 0, 0.0, False
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] | None = None

    def add(
        self,
        row: dict[str, float],
        score: str,
        state: Callable[[], dict[str, Tensor]],
        seconds: float,
        penalty: float = 0.0,
    ) -> None:
        """An epoch that took so long; `state` gives the parameters as they are, should the rule keep them; `penalty`
        is what the rule is to count on top of the validation loss.
        """
        loss, found = (row.get(f"val_{name}", math.nan) for name in ("loss", score))
        keep, self.stopped = self.rule.update(loss + penalty, found)
        self.history.append(row)
        if self.averaged_from is not None and self.epoch >= self.averaged_from:
            self.recent.append(_copied(state()))
        self.epoch += 1
        self.seconds += seconds
        if keep:
            self.best = {"model": _copied(state()), "row": row}

    def replace(self, state: Callable[[], dict[str, Tensor]], measures: dict[str, float]) -> None:
        """Keep these parameters, with these measures, in the place of those of the epoch that is kept."""
        assert self.best is not None
        self.best = {"model": _copied(state()), "row": self.best["row"] | measures}

    def outcome(self) -> Outcome:
        """Of the epochs so far.

        Raises:
            Diverged: none was good enough to be kept.
        """
        if self.best is None:
            raise Diverged(f"no epoch of {self.epoch} had a finite validation loss: lower train.lr or check the data")
        row = self.best["row"]
        measures = {name: value for name, value in row.items() if name not in ("epoch", "train_loss")}
        return Outcome(measures, int(row["epoch"]), self.epoch, self.seconds, self.history)

    def content(self) -> dict[str, Any]:
        """As last.pt holds it."""
        names = ("epoch", "seconds", "stopped", "history", "best", "recent")
        return {
            "rule": asdict(self.rule),  # type: ignore[call-overload]
            "progress": {name: getattr(self, name) for name in names},
        }

    def resume(self, content: dict[str, Any]) -> None:
        for holder, values in ((self.rule, content["rule"]), (self, content["progress"])):
            for name, value in values.items():
                setattr(holder, name, value)


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
