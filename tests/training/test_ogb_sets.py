"""OGB's kinds of data from files to a result: sampled nodes with features of edges and tasks, molecules, labels."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import Data

from graphattn import experiment
from graphattn.data import GraphSet, NodeData
from graphattn.training import (
    GraphClassification,
    Job,
    NodeClassification,
    SampledNodeClassification,
    run_seed,
    summary,
    task,
)
from graphattn.training.runs import Finished, prepared

pytest.importorskip("pandas")

N, EDGES = 60, 240


def csv(table: Any) -> bytes:
    rows = np.asarray(table)
    rows = rows[:, None] if rows.ndim == 1 else rows
    return gzip.compress("".join(",".join(map(str, row)) + "\n" for row in rows.tolist()).encode(), mtime=0)


def proteins() -> tuple[dict[str, Any], dict[str, Any]]:
    """A node has a function if the edges that enter it are strong in one way or the other, on average."""
    random = np.random.RandomState(0)
    ends = random.randint(0, N, (EDGES, 2))
    strength = np.round(random.random_sample((EDGES, 3)), 3)
    sums = np.stack([np.bincount(ends.T.reshape(-1), np.tile(column, 2), N) for column in strength.T], 1)
    mean = sums / np.maximum(np.bincount(ends.reshape(-1), minlength=N), 1)[:, None]
    tables = {
        "raw/edge": ends,
        "raw/num-node-list": [N],
        "raw/num-edge-list": [EDGES],
        "raw/edge-feat": strength,
        "raw/node-label": (mean > np.median(mean, 0)).astype(int),
        "split/species/train": range(36),
        "split/species/valid": range(36, 48),
        "split/species/test": range(48, N),
    }
    return tables, {
        "format": "ogbn",
        "tasks": True,
        "score": "roc_auc",
        "default_split": "species",
        "sizes": {"nodes": N, "features": 3, "edge_features": 3, "classes": 3},
    }


def molecules() -> tuple[dict[str, Any], dict[str, Any]]:
    """Chains of atoms; one inhibits if one of its bonds is double."""
    random = np.random.RandomState(0)
    sizes = random.randint(3, 7, 60)
    bonds = [np.stack([np.arange(size - 1), np.arange(1, size)], 1) for size in sizes]
    double = [random.randint(0, size - 1) if graph % 2 else -1 for graph, size in enumerate(sizes)]
    kinds = [(np.arange(size - 1) == where).astype(int) for size, where in zip(sizes, double, strict=True)]
    kind = np.concatenate(kinds)
    tables = {
        "raw/edge": np.concatenate(bonds),
        "raw/num-node-list": sizes,
        "raw/num-edge-list": sizes - 1,
        "raw/node-feat": np.ones((sizes.sum(), 9), dtype=int),
        "raw/edge-feat": np.stack([kind, 0 * kind, 0 * kind], 1),
        "raw/graph-label": [graph % 2 for graph in range(60)],
        "split/scaffold/train": range(36),
        "split/scaffold/valid": range(36, 48),
        "split/scaffold/test": range(48, 60),
    }
    return tables, {
        "format": "ogbg",
        "tasks": True,
        "molecules": True,
        "score": "roc_auc",
        "default_split": "scaffold",
        "sizes": {"graphs": 60, "features": 9, "edge_features": 3, "classes": 1},
    }


def write(folder: Path, tables: Mapping[str, Any], keys: Mapping[str, Any]) -> Path:
    """The files below `folder`/tiny and a manifest beside them."""
    files = []
    for name, table in tables.items():
        content = csv(list(table) if isinstance(table, range) else table)
        path = folder / "tiny" / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files.append((f"{name}.csv.gz", hashlib.sha256(content).hexdigest()))
    table = {"title": "Tiny", "licence": "none", "citation": "none", "source": "none"} | dict(keys)
    sizes = table.pop("sizes")
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    lines += [f"[splits.{table['default_split']}]", "[sizes]", *(f"{key} = {value}" for key, value in sizes.items())]
    for name, digest in files:
        lines += ["[[files]]", f'name = "{name}"', 'url = ""', f'sha256 = "{digest}"']
    manifest = folder / "tiny.toml"
    manifest.write_text("\n".join(lines), encoding="utf-8")
    return manifest


def job(folder: Path, manifest: Path, **sections: Any) -> Job:
    table = {"title": "Tiny", "data": {"name": str(manifest)}, **sections}
    return Job(experiment.from_table("tiny/one", table, "here"), 0, folder / "runs", folder, "cpu")


GAT = {"name": "gat", "hidden": 8, "heads": 2, "dropout": 0.0, "attention_dropout": 0.0, "feature_dropout": 0.0}


@pytest.mark.parametrize("sampled", [False, True])
def test_proteins_are_learned_whole_and_sampled(tmp_path: Path, sampled: bool) -> None:
    train: dict[str, Any] = {"epochs": 40, "lr": 0.02, "weight_decay": 0.0, "stop": "best-score"}
    train |= {"batch": 12, "neighbors": [5, 5]} if sampled else {}
    own = job(tmp_path, write(tmp_path, *proteins()), model=GAT, train=train)
    model, data, _ = prepared(own)
    assert isinstance(data, NodeData)
    assert model.edge_dim == 3
    asked = task(data, own.experiment.train, model)
    assert type(asked) is (SampledNodeClassification if sampled else NodeClassification)
    result = run_seed(own)
    assert {"val_loss", "val_roc_auc", "test_roc_auc", "parameters"} <= set(result)
    assert result["test_roc_auc"] > 75
    assert result["parameters"] == sum(p.numel() for p in model.parameters())
    found = summary(own.experiment, [Finished(0, result)], tmp_path, "cpu")
    assert found["parameters"] == result["parameters"]
    assert "parameters" not in found["result"]


def test_molecules_are_learned_by_their_bonds(tmp_path: Path) -> None:
    pytest.importorskip("ogb.graphproppred.mol_encoder")
    train = {"epochs": 60, "lr": 0.01, "weight_decay": 0.0, "batch": 12, "stop": "best-score"}
    manifest = write(tmp_path, *molecules())
    seeing = job(tmp_path, manifest, model=GAT, readout={"width": 16}, train=train)
    assert run_seed(seeing)["test_roc_auc"] > 85
    (tmp_path / "runs" / "seed-0").rename(tmp_path / "runs" / "seen")
    blind = job(tmp_path, manifest, model={"name": "gcn", "hidden": 8}, readout={"width": 16}, train=train)
    model, data, _ = prepared(blind)
    assert isinstance(data, GraphSet)
    assert isinstance(task(data, blind.experiment.train, model), GraphClassification)
    assert model.encoder.bonds is None  # type: ignore[union-attr]
    assert run_seed(blind)["test_roc_auc"] < 75, "chains of like atoms differ in their length alone"


def test_the_loss_of_molecules_leaves_out_what_is_not_known() -> None:
    y = [[1.0, torch.nan], [torch.nan, torch.nan], [0.0, 1.0]]
    graphs = [Data(x=torch.ones(2, 1), edge_index=torch.empty(2, 0).long(), y=torch.tensor([row])) for row in y]
    data = GraphSet("tiny", graphs, graphs, graphs, 1, 2, labels_of="graphs", score="roc_auc")

    class Given(nn.Module):
        def forward(self, x: Any, edges: Any, batch: Any, num_graphs: int, edge_attr: Any) -> torch.Tensor:
            return torch.tensor([[2.0, 3.0]]).expand(num_graphs, 2)

    asked = GraphClassification(data, batch=3)
    (batch,) = asked.batches()
    logits, answers = torch.tensor([2.0, 2.0, 3.0]), torch.tensor([1.0, 0.0, 1.0])
    torch.testing.assert_close(asked.loss(Given(), batch), F.binary_cross_entropy_with_logits(logits, answers))
