"""The rate at each step: by hand, and as torch's own schedulers have it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from graphattn.recipe import Train
from graphattn.training.schedules import schedule, set_rate

STEPS = 7  # an epoch


def rates(train: Train, steps: int = STEPS) -> list[float]:
    """Of each step of the run."""
    rate = schedule(train, steps)
    assert rate is not None
    return [rate(step) for step in range(train.epochs * steps)]


def torchs(make: Any, epochs: int, by: int) -> list[float]:
    """What torch's scheduler gives each step, itself stepped after every `by` steps; relative to the rate 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for step in range(1, epochs * STEPS + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step % by == 0 and step < epochs * STEPS:
            scheduler.step()
    return found


def test_a_constant_rate_is_left_alone() -> None:
    assert schedule(Train(), STEPS) is None


@pytest.mark.parametrize("epochs", [1, 2, 10, 30])
def test_one_cycle_is_torchs(epochs: int) -> None:
    due = torchs(
        lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 1.0, epochs * STEPS, cycle_momentum=False), epochs, 1
    )
    found = rates(Train(schedule="one-cycle", epochs=epochs))
    assert found == pytest.approx(due, rel=1e-9)
    assert max(found) > 0.97 and found[-1] < 1e-5


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_of_a_few_steps(steps: int) -> None:
    found = rates(Train(schedule="one-cycle", epochs=1), steps)
    assert found[-1] == pytest.approx(4e-6)
    assert all(0 < rate <= 1 for rate in found)


def test_cosine_is_torchs() -> None:
    due = torchs(lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 9 * STEPS), 9, 1)
    assert rates(Train(schedule="cosine", epochs=9)) == pytest.approx(due, rel=1e-9, abs=1e-12)


def test_steps_are_torchs() -> None:
    due = torchs(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [2, 5], gamma=0.2), 8, STEPS)
    found = rates(Train(schedule="steps", milestones=(2, 5), factor=0.2, epochs=8))
    assert found == pytest.approx(due, rel=1e-12)
    assert found[2 * STEPS - 1 : 2 * STEPS + 1] == [1.0, 0.2], "from the milestone's first step on"


def test_the_rate_rises_linearly_then_follows_the_schedule() -> None:
    found = rates(Train(schedule="cosine", epochs=10, warmup=2))
    assert found[: 2 * STEPS] == pytest.approx([(k + 1) / (2 * STEPS) for k in range(2 * STEPS)])
    assert found[2 * STEPS :] == pytest.approx(rates(Train(schedule="cosine", epochs=8))), "over what is left"
    assert rates(Train(epochs=10, warmup=2)) == pytest.approx([min((k + 1) / (2 * STEPS), 1.0) for k in range(70)])


def test_inverse_square_root_falls_from_the_top_of_the_warm_up_as_published() -> None:
    """Vaswani et al.: min(s^-0.5, s w^-1.5) in step s = 1, 2, ..., here times w^0.5, so that the top is 1."""
    found, w = rates(Train(schedule="inverse-sqrt", warmup=2, epochs=9)), 2 * STEPS
    assert found == pytest.approx([w**0.5 * min(s**-0.5, s * w**-1.5) for s in range(1, 9 * STEPS + 1)])
    assert max(found) == found[w - 1] == 1.0


def test_milestones_count_the_warm_up() -> None:
    train = Train(lr=0.1, schedule="steps", milestones=(2, 3), epochs=4, warmup=1, warmup_lr=0.01)
    assert rates(train, 2) == pytest.approx([0.1, 0.1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_each_group_keeps_its_own_rate() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.5, 0.125)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    for factor in (0.5, 0.0, 1.0, math.pi):
        set_rate(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [0.5 * factor, 0.125 * factor]
