"""Tables for the terminal hold the numbers, and no name is cut short."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from graphattn import experiment, report
from graphattn.data import manifest
from graphattn.experiment import Experiment, Paper
from graphattn.report.tables import mean_and_spread, published, score
from graphattn.training import Finished, summary


def rows(table: Table, width: int = 300) -> list[list[str]]:
    """The cells as printed, without the head."""
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.getvalue().splitlines() if "│" in line]


def result(definition: Experiment, folder: Path, *accuracies: float, failed: int = 0) -> dict[str, Any]:
    seeds = [
        {"seed": k, "val_loss": 1.0, "val_accuracy": 79.0 + k, "test_accuracy": value, "epochs": 120, "seconds": 2.5}
        for k, value in enumerate(accuracies)
    ]
    finished = [Finished(row["seed"], row) for row in seeds]
    finished += [Finished(len(seeds) + k, None, "it broke") for k in range(failed)]
    return summary(definition, finished, folder, "cpu")


@pytest.mark.parametrize(
    ("values", "text"),
    [([81.26], "81.3"), ([80.0, 82.0], "81.0 ± 1.4"), ([83.0] * 3, "83.0 ± 0.0"), ([1.0, 2.0, 6.0], "3.0 ± 2.6")],
)
def test_mean_and_unbiased_spread(values: list[float], text: str) -> None:
    assert mean_and_spread(values) == text


def test_what_a_run_has_reached() -> None:
    assert report.so_far([]) == ""
    assert report.so_far([{"seed": 0, "val_f1": 1.0, "test_f1": 50.0}]) == "test micro-F1 50.0"
    assert report.so_far([{"seed": 0, "val_roc_auc": 1.0, "test_roc_auc": 50.0}]) == "test ROC-AUC 50.0"
    seeds = [{"test_accuracy": 80.0}, {"test_accuracy": 82.0}]
    assert report.so_far(seeds) == "test accuracy 81.0 ± 1.4"
    assert score({"seeds": seeds}) == "accuracy"


@pytest.mark.parametrize(
    ("paper", "text"),
    [
        (None, ""),
        (Paper(83.0, "x"), "83.0"),
        (Paper(83.0, "x", 0.7), "83.0 ± 0.7"),
        (Paper(83.0, "x", 0), "83.0 ± 0.0"),
    ],
)
def test_published(paper: Paper | None, text: str) -> None:
    assert published(paper) == text


def test_comparison(tmp_path: Path) -> None:
    gat = replace(experiment.load("digits/gat"), paper=Paper(83.0, "x", 0.7))
    mlp = experiment.load("digits/mlp")
    entries = [(gat, result(gat, tmp_path, 80.0, 82.0)), (mlp, result(mlp, tmp_path, 55.5, failed=2))]
    assert rows(report.comparison(entries)) == [
        ["digits/gat", "81.0 ± 1.4", "83.0 ± 0.7", "79.5", "2", "120", "2.5"],
        ["digits/mlp", "55.5", "", "79.0", "1 (2 failed)", "120", "2.5"],
    ]


def test_overview(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gat, mlp = experiment.load("digits/gat"), experiment.load("digits/mlp")
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "experiments" / "digits" / "gat"
    mine.mkdir(parents=True)
    mine.joinpath("definition.toml").write_bytes(experiment.definition("digits/gat").read_bytes())
    experiment.save(result(gat, tmp_path, 80.0, 82.0), mine / "result.json")
    lines = rows(report.overview([gat, replace(mlp, name="cora/mlp", paper=Paper(55.1, "x"))]))
    assert lines[0] == ["digits/gat", gat.title, "", "81.0 ± 1.4", "2"]
    assert lines[1][:3] == ["cora/mlp", mlp.title, "55.1"]


def test_an_experiment_that_was_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    definition = experiment.load("digits/mlp")
    monkeypatch.setattr(experiment, "_SHIPPED", ())
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "experiments" / "digits" / "mlp" / "definition.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text('title = "x"\n[data]\nname = "digits"\n[model]\nname = "mlp"\n')
    assert rows(report.overview([definition]))[-1] == ["digits/mlp", definition.title, "", "not run here", ""]


def test_names_are_never_cut(tmp_path: Path) -> None:
    """They are what one types next."""
    definitions = [experiment.load(name) for name in experiment.names()]
    shown = {line[0] for line in rows(report.overview(definitions), width=80)}
    assert shown >= {definition.name for definition in definitions}
    entries = [(definition, result(definition, tmp_path, 80.0, 82.0)) for definition in definitions[:2]]
    assert {line[0] for line in rows(report.comparison(entries), width=60)} >= {d.name for d, _ in entries}


def test_data_sets() -> None:
    lines = rows(report.data_sets([manifest.read(name) for name in manifest.names()]))
    assert [line[0] for line in lines] == manifest.names()
    (cora,) = [line for line in lines if line[0] == "cora"]
    assert cora[2:6] == ["2,708", "10,556", "1,433", "7"]
    assert cora[6] == "public, random, full"
    (digits,) = [line for line in lines if line[0] == "digits"]
    assert digits[1] == manifest.read("digits").title and digits[7] == manifest.read("digits").licence


def test_ogb_is_shown_with_the_number_of_parameters(tmp_path: Path) -> None:
    plain = experiment.load("digits/gat")
    definition = replace(plain, name="ogbn-arxiv/gat", data=experiment.Data("ogbn-arxiv"))
    found = {**result(definition, tmp_path, 70.0, 72.0), "parameters": 1_234_567}
    assert rows(report.comparison([(definition, found)]))[-1][-1] == "1,234,567"
    found = {**found, "parameters": None}  # as one trained before they were counted
    assert rows(report.comparison([(definition, found)]))[-1][-1] == ""
    assert len(rows(report.comparison([(plain, found)]))[-1]) == 7
