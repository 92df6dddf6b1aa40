"""A pass beside the main task's: what it gives, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from graphattn.multitask import CrossStitch, HardSharing, Learner, MMoE, Sharing, SoftSharing, Weighting
from graphattn.multitask.statistics import statistics_left_alone

TASKS = ("main", "other")


def trunk() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def heads() -> dict[str, nn.Module]:
    return {task: nn.Linear(4, 2) for task in TASKS}


KINDS: dict[str, Callable[[], Sharing]] = {
    "hard": lambda: HardSharing(trunk(), heads()),
    "soft": lambda: SoftSharing({task: trunk() for task in TASKS}, heads()),
    "cross-stitch": lambda: CrossStitch({task: trunk() for task in TASKS}, heads()),
    "mmoe": lambda: MMoE([trunk(), trunk()], {task: nn.Linear(3, 2) for task in TASKS}, heads()),
}


def test_batch_norms_forget_a_pass() -> None:
    norm, still = nn.BatchNorm1d(3), nn.BatchNorm1d(3, track_running_stats=False)
    x = 5 + torch.randn(7, 3)

    def look() -> torch.Tensor:
        with statistics_left_alone(nn.ModuleList([norm, still])):
            found.append(norm(x))
            raise RuntimeError("by the way")

    found: list[torch.Tensor] = []
    with pytest.raises(RuntimeError, match="by the way"):
        look()
    (inside,) = found
    assert not norm.running_mean.any() and norm.num_batches_tracked == 0
    assert torch.equal(inside, norm(x)) and norm.running_mean.all()
    assert not still.track_running_stats
    norm.eval()
    with statistics_left_alone(norm):
        assert norm(x).mean() > 1, "still by what is kept"


@pytest.mark.parametrize("kind", KINDS)
def test_two_passes(kind: str) -> None:
    torch.manual_seed(0)
    learner = Learner(KINDS[kind](), Weighting(dict.fromkeys(TASKS, 1.0)))
    x, others = torch.randn(5, 3), 3 + torch.randn(6, 3)
    first, second = (learner(inputs) for inputs in (x, others))
    before = {name: b.clone() for name, b in learner.named_buffers()}
    out = learner(x, tasks=("main",), beside=(others,))
    assert torch.equal(out["main"], first["main"]) and torch.equal(out["other"], second["other"])
    after = {name: b.clone() for name, b in learner.named_buffers()}
    learner.load_state_dict(before, strict=False)
    learner(x, tasks=("main",))
    alone = dict(learner.named_buffers())
    for name, kept in after.items():
        own = "towers.other" in name and kind == "soft"  # a tower that the first pass has not run
        assert torch.equal(kept, alone[name]) != own, name
