"""What [train] may say: ranges, and options that something else must ask for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from graphattn.recipe import Train


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch is 0, needed at least 1"),
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5, needed a part of 1"),
        ({"label_smoothing": -0.1}, "label_smoothing is -0.1, needed a finite number of at least 0.0"),
        ({"optimizer": "sgd", "momentum": -1.0}, "momentum is -1.0, needed a finite number of at least 0.0"),
        ({"warmup": -1}, "warmup is -1, needed a finite number of at least 0"),
        ({"warmup": 2, "warmup_lr": float("nan")}, "warmup_lr is nan, needed a finite number of at least 0.0"),
        ({"lr_of": {"head": -0.1}}, "lr_of 'head' is -0.1, needed a finite number of at least 0.0"),
        ({"lr_of": {"head": float("inf")}}, "lr_of 'head' is inf, needed a finite number"),
        (
            {"momentum": 0.9},
            "momentum is 0.9, which optimizer = 'adam' does not look at: leave it out, or take 'sgd'",
        ),
        ({"nesterov": True}, "nesterov is True, which optimizer = 'adam' does not look at"),
        ({"optimizer": "sgd", "nesterov": True}, "nesterov is true with momentum 0.0, needed a momentum"),
        (
            {"final_lr": 1.0},
            "final_lr is 1.0, which optimizer = 'adam' does not look at: leave it out, or take 'adabound' or",
        ),
        ({"factor": 0.2}, "factor is 0.2, which schedule = 'constant' does not look at: leave it out, or take 'steps'"),
        (
            {"schedule": "one-cycle", "warmup": 2},
            "warmup is 2, which schedule = 'one-cycle' does not look at: leave it out, or take 'constant' or",
        ),
        ({"schedule": "steps"}, "milestones is [] with schedule = 'steps', needed for 'steps' epochs from 1 on"),
        ({"schedule": "steps", "milestones": (0, 5)}, "milestones is [0, 5] with schedule = 'steps'"),
        ({"schedule": "steps", "milestones": (7, 5)}, "milestones is [7, 5] with schedule = 'steps'"),
        ({"schedule": "steps", "milestones": (5, 5)}, "milestones is [5, 5] with schedule = 'steps'"),
        ({"milestones": (5,)}, "milestones is [5] with schedule = 'constant'"),
        ({"warmup_lr": 0.01}, "warmup_lr is 0.01 with warmup 0 and lr 0.01, needed epochs that it is for"),
        ({"warmup": 1, "warmup_lr": 0.01, "lr": 0.0}, "warmup_lr is 0.01 with warmup 1 and lr 0.0"),
        (
            {"optimizer": "adamw", "stop": "patience"},
            "stop is 'patience', which counts the L2 penalty, whose gradient a",
        ),
        ({"optimizer": "adaboundw", "stop": "patience"}, "whose gradient adaboundw does not follow: take another rule"),
        ({"schedule": "cosine", "warmup": 5, "epochs": 5}, "warmup is 5 of 5 epochs, needed fewer"),
        (
            {"precision": "64-true", "matmul_precision": "medium"},
            "matmul_precision is medium, which precision = '64-true' does not look at: leave it out, or take '32-true'",
        ),
    ],
)
def test_what_a_recipe_may_not_say(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Train(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 1.0},
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True},
        {"schedule": "steps", "milestones": (1, 5), "factor": 0.2, "warmup": 1, "warmup_lr": 0.001},
        {"schedule": "cosine", "warmup": 5, "epochs": 6},
        {"schedule": "constant", "warmup": 2},
        {"schedule": "one-cycle"},
        {"optimizer": "adaboundw", "final_lr": 0.5},
        {"stop": "last"},
    ],
)
def test_what_it_may(options: dict[str, Any]) -> None:
    assert all(getattr(Train(**options), name) == value for name, value in options.items())
