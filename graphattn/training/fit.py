"""The one training loop: a step, the measures, the stopping rule, a checkpoint; until the rule or the epochs end it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from graphattn.training.captured import captured
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
    """The training loss became NaN or infinite."""


def fit(
    model: nn.Module,
    task: Task,
    optimizer: torch.optim.Optimizer | None,
    rule: Rule,
    *,
    fabric: Fabric,
    epochs: int,
    folder: Path,
    checkpoint_every: float = 10.0,
    cuda_graph: bool = False,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
) -> Outcome:
    """Train `model` on `task` and leave the kept parameters in it and in `folder`/best.pt.

    Every `checkpoint_every` seconds all that the run needs is written to `folder`/last.pt (whole, then renamed); a
    call that finds this file goes on from there and, on the CPU, ends with the numbers of a run never stopped. A
    model without parameters (`optimizer` None) is only measured. Of several ranks the first writes, and its measures
    count for all. With `cuda_graph` the step is recorded once and
    replayed, which needs a GPU and a task with one batch.

    Raises:
        Diverged: the loss is not finite; says the epoch, the last checkpoint and what to try.
        ValueError: no epochs for a model with parameters, or steps that cannot be recorded.
    """
    if optimizer is None:
        model = fabric.setup_module(model)
        model.eval()
        return Outcome(task.measures(model), best_epoch=0, epochs=0, seconds=0.0, history=[])
    if epochs == 0:
        raise ValueError("train.epochs is 0, needed at least 1: the model has parameters to train")
    model, optimizer = fabric.setup(model, optimizer)
    progress = _Progress(folder / "last.pt", model, optimizer, rule)
    progress.resume(fabric.device)
    epoch = partial(_epoch, partial(_step, fabric, model, task, optimizer), task)
    if cuda_graph:
        epoch = captured(partial(_step, fabric, model, task, optimizer, _only(task)), model, optimizer)  # type: ignore[assignment]
    saved = time.monotonic()
    while progress.epoch < epochs and not progress.stopped:
        started = time.perf_counter()
        loss: Any = fabric.all_reduce(epoch(), reduce_op="mean")
        row = {"epoch": progress.epoch, "train_loss": float(loss)}
        if not math.isfinite(row["train_loss"]):
            raise Diverged(_advice(row, folder, optimizer))
        model.eval()
        row |= fabric.broadcast(task.measures(model))
        penalty = _penalty(optimizer) if getattr(rule, "penalised", False) else 0.0
        verdict = rule.update(row["val_loss"] + penalty, row[f"val_{task.score}"])
        progress.add(row, verdict.keep, verdict.stop, time.perf_counter() - started)
        on_epoch(row)
        if fabric.is_global_zero and time.monotonic() - saved >= checkpoint_every:
            progress.save()
            saved = time.monotonic()
    if progress.best is None:
        raise Diverged(f"no epoch of {progress.epoch} had a finite validation loss: lower train.lr or check the data")
    model.load_state_dict(progress.best["model"])
    if fabric.is_global_zero:
        write_whole(progress.best, folder / "best.pt")
    best = progress.best["row"]
    measures = {name: value for name, value in best.items() if name not in ("epoch", "train_loss")}
    return Outcome(measures, int(best["epoch"]), progress.epoch, progress.seconds, progress.history)


def write_whole(content: Any, path: Path) -> None:
    """torch.save to a file beside `path`, then rename: a reader finds the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    torch.save(content, part)
    part.replace(path)


def _epoch(step: Callable[[Any], Tensor], task: Task) -> Tensor:
    """The mean loss of the epoch's steps."""
    return torch.stack([step(batch) for batch in task.batches()]).mean()


def _only(task: Task) -> Any:
    if not task.whole:
        raise ValueError("a step is captured on one batch that never changes, these do: leave out --cuda-graph")
    (batch,) = task.batches()
    return batch


def _step(fabric: Fabric, model: nn.Module, task: Task, optimizer: torch.optim.Optimizer, batch: Any) -> Tensor:
    model.train()
    optimizer.zero_grad()
    loss = task.loss(model, batch)
    fabric.backward(loss)
    optimizer.step()
    return loss.detach()


def _penalty(optimizer: torch.optim.Optimizer) -> float:
    """What weight decay adds to the loss whose gradient is followed: half the decay times the sum of squares."""
    groups = [group for group in optimizer.param_groups if group["weight_decay"]]
    return sum(
        float(group["weight_decay"] / 2 * p.detach().square().sum()) for group in groups for p in group["params"]
    )


def _advice(row: dict[str, float], folder: Path, optimizer: torch.optim.Optimizer) -> str:
    last = folder / "last.pt"
    lr = optimizer.param_groups[0]["lr"]
    return (
        f"the training loss is {row['train_loss']} at epoch {row['epoch']}; the last good checkpoint is "
        f"{last if last.exists() else 'none yet'}. Try a lower train.lr (it is {lr}), train.precision=64-true, or "
        f"ops.use(check_nan=True) to find where it begins"
    )


class _Progress:
    """All that a resumed run needs, in memory and in last.pt: parameters, optimizer, rule, random states, history."""

    def __init__(self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, rule: Rule) -> None:
        self.path, self.model, self.optimizer, self.rule = path, model, optimizer, rule
        self.epoch, self.seconds, self.stopped = 0, 0.0, False
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Any] | None = None

    def add(self, row: dict[str, float], keep: bool, stop: bool, seconds: float) -> None:
        self.history.append(row)
        self.epoch, self.stopped = self.epoch + 1, stop
        self.seconds += seconds
        if keep:
            self.best = {"model": {k: v.detach().clone() for k, v in self.model.state_dict().items()}, "row": row}

    def save(self) -> None:
        content = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rule": asdict(self.rule),  # type: ignore[call-overload]
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "progress": {name: getattr(self, name) for name in ("epoch", "seconds", "stopped", "history", "best")},
        }
        write_whole(content, self.path)

    def resume(self, device: torch.device) -> None:
        if not self.path.exists():
            return
        content = torch.load(self.path, map_location=device, weights_only=True)
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        for holder, values in ((self.rule, content["rule"]), (self, content["progress"])):
            for name, value in values.items():
                setattr(holder, name, value)
        torch.set_rng_state(content["random"].cpu())
        if content["random_cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([state.cpu() for state in content["random_cuda"]])
