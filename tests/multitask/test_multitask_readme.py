"""The examples run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from graphattn import multitask
from graphattn.multitask.image_tasks import IMAGE_TASKS
from graphattn.training.multitask_building import NODE_TASKS

TEXT = (Path(multitask.__file__).parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_a_trunk_and_heads_of_ones_own() -> None:
    scope: dict[str, Any] = {}
    exec(EXAMPLES[0], scope)
    assert scope["logits"].shape == (16, 10)
    assert all(p.grad is not None for p in scope["model"].parameters())
    lines = [line for line in EXAMPLES[0].splitlines() if line and "import" not in line]
    ours = [
        line for line in lines if any(name in line for name in ("HardSharing", "PCGrad", "losses", "only", "trunk ="))
    ]
    assert len(lines) <= 10 and len(ours) == 6


def test_the_other_ways_of_sharing() -> None:
    scope: dict[str, Any] = {}
    exec(EXAMPLES[1], scope)
    for outputs in scope["outputs"]:
        assert {task: tuple(out.shape) for task, out in outputs.items()} == {"class": (5, 3), "degree": (5, 1)}
    assert set(scope["by_layer"]) == {name for name, _ in scope["trunk"]().named_parameters()}
    assert all(torch.isfinite(value) for value in scope["by_layer"].values())


@pytest.mark.parametrize("name", [*NODE_TASKS, *IMAGE_TASKS])
def test_every_auxiliary_is_in_the_table(name: str) -> None:
    assert f"`{name}`" in TEXT.split("## Auxiliary tasks")[1]


@pytest.mark.parametrize(
    "name", sorted(set(multitask.__all__) - {"Learner", "Plan", "Sharing", "cosines", "task_gradients"})
)
def test_every_way_has_its_row(name: str) -> None:
    assert f"| `{name}` |" in TEXT
