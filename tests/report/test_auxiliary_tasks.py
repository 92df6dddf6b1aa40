"""The table of auxiliary tasks: differences seed by seed to the main task alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from graphattn import experiment
from graphattn.report import write_results
from graphattn.report.auxiliary_tasks import differences
from graphattn.training import Finished, summary

TEXT = """
title = "Small"
[data]
name = "digits"
[model]
name = "mlp"
[multitask]
{plan}
[run]
seeds = 3
[presets.dwa.multitask]
weighting = "dwa"
"""
LINK = "auxiliaries = { link = 1.0 }\nlog_conflicts = true"


def record(
    folder: Path, name: str, plan: str, accuracies: dict[int, float], preset: str | None = None, **more: float
) -> None:
    path = folder / name / "definition.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEXT.format(plan=plan), encoding="utf-8")
    if not accuracies:
        return
    rows: list[dict[str, Any]] = [
        {"seed": k, "val_accuracy": 79.0, "test_accuracy": value, **more, "best_epoch": 1, "epochs": 9, "seconds": 2.5}
        | {"parameters": 1234}
        for k, value in accuracies.items()
    ]
    definition = experiment.read(name, path, preset=preset)
    result = summary(definition, [Finished(row["seed"], row) for row in rows], folder, "cpu")
    result |= {"commit": "abc1234", "date": "2026-01-02", "machine": "a machine"}
    experiment.save(result, folder / name / experiment.result_name(preset))


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, list[str]]:
    folder = tmp_path / "experiments"
    record(folder, "multitask/digits-single", "", {0: 80.0, 1: 82.0, 2: 84.0})
    record(folder, "multitask/digits-hard", LINK, {0: 81.0, 1: 85.0, 2: 83.0}, cosine_link=-0.125)
    record(folder, "multitask/digits-hard", LINK, {0: 79.0, 2: 82.0}, preset="dwa", cosine_link=0.5)
    record(folder, "multitask/digits-later", LINK, {})
    record(folder, "multitask/other-hard", LINK, {0: 50.0}, cosine_link=0.0)
    text = write_results(folder).read_text(encoding="utf-8")
    lines = [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines}


def test_rows(rows: dict[str, list[str]]) -> None:
    when = "abc1234, 2026-01-02"
    assert rows == {
        "experiment": [
            *("test accuracy", "less the main task alone", "better in", "cosine", "parameters", "seeds", "commit, date")
        ],
        "multitask/digits-single": ["82.0 ± 2.0", "", "", "", "1,234", "3", when],
        "multitask/digits-hard": ["83.0 ± 2.0", "+1.0 ± 2.0", "2 of 3", "link -0.12", "1,234", "3", when],
        "multitask/digits-hard, dwa": ["80.5 ± 2.1", "-1.5 ± 0.7", "0 of 2", "link +0.50", "1,234", "2 of 3", when],
        "multitask/digits-later": ["not run here", "", "", "", "", "", ""],
        "multitask/other-hard": ["50.0", "", "", "link +0.00", "1,234", "1 of 3", when],
    }


def test_differences_are_of_the_same_seeds() -> None:
    def result(**scores: float) -> dict[str, Any]:
        return {"seeds": [{"seed": int(k[1:]), "test_accuracy": v} for k, v in scores.items()]}

    assert differences(result(s2=5.0, s1=3.0, s7=1.0), result(s1=1.0, s2=9.0, s3=0.0)) == [-4.0, 2.0]
