"""The learning rate over time: a function of the number of the step alone, so that no checkpoint needs to hold it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from graphattn.recipe import Train

_RISES, _FIRST, _LAST = 0.3, 25.0, 1e4  # of one-cycle: its part of the time; what it divides by there, and at the end


def schedule(train: Train, steps: int) -> Callable[[int], float] | None:
    """What each step, from 0 on, multiplies the rates of a recipe by, of `steps` an epoch; None if that is always 1.

    At step s of S, cosine is (1 + cos(pi s / S)) / 2, both counted after the warm-up; one-cycle goes from 1/25 to 1 in
    the first 0.3 S - 1 steps and to 1/250,000 at step S - 1, each half a cosine, as torch's OneCycleLR; inverse-sqrt is
    sqrt(w / (s + 1)) after w steps of warm-up.
    """
    if train.schedule == "constant" and not train.warmup:
        return None
    rises, total = train.warmup * steps, train.epochs * steps
    after = {
        "constant": lambda step: 1.0,
        "steps": lambda step: train.factor ** sum(step >= milestone * steps for milestone in train.milestones or ()),
        "cosine": lambda step: _between(1.0, 0.0, (step - rises) / (total - rises)),
        "one-cycle": lambda step: _one_cycle(step, total),
        "inverse-sqrt": lambda step: math.sqrt(rises / (step + 1)),
    }[train.schedule]

    def rate(step: int) -> float:
        if step >= rises:
            return after(step)
        return (step + 1) / rises if train.warmup_lr is None else train.warmup_lr / train.lr

    return rate


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Each group's rate becomes `factor` times what it was when this was called first."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group.setdefault("initial_lr", group["lr"])


def _one_cycle(step: int, total: int) -> float:
    top, end = _RISES * total - 1, total - 1
    if step <= top:
        return _between(1 / _FIRST, 1.0, step / top)
    return _between(1.0, 1 / _FIRST / _LAST, (step - top) / (end - top))


def _between(start: float, end: float, part: float) -> float:
    """Half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
