"""oneDNN keeps few primitives where batches differ in size, as many as it does by itself where they do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Data

from graphattn import data, experiment
from graphattn.data import GraphSet
from graphattn.training import Job
from graphattn.training.runs import prepared

NAMES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in NAMES:
        monkeypatch.setenv(variable, "set, so that what a run sets is taken back")
        monkeypatch.delenv(variable)


def found(name: str, folder: Path) -> list[str | None]:
    prepared(Job(experiment.load(name), 0, folder, device="cpu"))
    return [os.environ.get(variable) for variable in NAMES]


@pytest.mark.parametrize(
    ("name", "capacity"), [("extracts/light-conv", "64"), ("digits/mlp", None), ("digits-images/resnet8", None)]
)
def test_where_batches_differ_in_size(name: str, capacity: str | None, tmp_path: Path) -> None:
    assert found(name, tmp_path) == [capacity, capacity]


def test_graphs_differ_in_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [Data(x=torch.ones(3, 4), edge_index=torch.zeros(2, 1, dtype=torch.int64), y=torch.ones(3, 2))]
    monkeypatch.setattr(data, "load", lambda name, **options: GraphSet(name, graphs, graphs, graphs, 4, 2))
    assert found("ppi-like/mlp", tmp_path) == ["64", "64"]


def test_what_the_environment_says_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAMES[0], "8")
    assert found("extracts/light-conv", tmp_path) == ["8", "64"]
