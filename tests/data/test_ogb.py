"""Sets in OGB's raw layout, written here to the letter, against what OGB's own reader makes of the same files."""

from __future__ import annotations

import gzip
import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_sets import Writer

from graphattn.data import GraphSet, NodeData, load

ogb_raw = pytest.importorskip("ogb.io.read_graph_raw")

RANDOM = np.random.RandomState(0)


def csv(table: Any) -> bytes:
    rows = np.asarray(table)
    rows = rows[:, None] if rows.ndim == 1 else rows
    text = "".join(",".join("" if value != value else str(value) for value in row) + "\n" for row in rows.tolist())
    return gzip.compress(text.encode(), mtime=0)


EDGES = np.array([[0, 1], [1, 0], [1, 2], [2, 2], [5, 3], [3, 4], [0, 5]])  # both ways, a loop, 6 has none
NODES = {
    "raw/edge": EDGES,
    "raw/num-node-list": [7],
    "raw/num-edge-list": [7],
    "raw/node-feat": np.round(RANDOM.standard_normal((7, 3)), 4),
    "raw/node-label": [2, 0, 1, 1, 0, 2, 0],
    "split/time/train": [4, 0, 1],
    "split/time/valid": [6, 2],
    "split/time/test": [5, 3],
}
NODE_SIZES = {"nodes": 7, "edges": 10, "features": 3, "classes": 3}

ANSWERS = np.array([[1, 0], [0, 1], [1, np.nan], [0, 1], [0, 0], [1, 1], [np.nan, np.nan]])
PROTEINS = {
    **{name: table for name, table in NODES.items() if name not in ("raw/node-feat", "raw/node-label")},
    "raw/edge-feat": np.round(RANDOM.random_sample((7, 2)), 3),
    "raw/node-label": ANSWERS,
    "split/time/train": [4, 0, 6],
    "split/time/valid": [1, 2],
}
PROTEIN_KEYS = {
    "sizes": {"nodes": 7, "features": 2, "edge_features": 2, "classes": 2},
    "score": "roc_auc",
    "tasks": True,
}

MOLECULES = {
    "raw/edge": [[0, 1], [1, 2], [0, 1]],
    "raw/num-node-list": [3, 1, 2, 1, 1, 1],
    "raw/num-edge-list": [2, 0, 1, 0, 0, 0],
    "raw/node-feat": RANDOM.randint(0, 2, (9, 9)),
    "raw/edge-feat": RANDOM.randint(0, 2, (3, 3)),
    "raw/graph-label": [0, 1, 1, 0, 1, 0],
    "split/scaffold/train": [2, 0],
    "split/scaffold/valid": [1, 3],
    "split/scaffold/test": [5, 4],
}
MOLECULE_KEYS = {
    "format": "ogbg",
    "default_split": "scaffold",
    "splits": {"scaffold": {}},
    "sizes": {"graphs": 6, "features": 9, "edge_features": 3, "classes": 1},
    "score": "roc_auc",
    "tasks": True,
    "molecules": True,
}


@pytest.fixture
def write_ogb(write: Writer) -> Writer:
    def write_set(tables: Mapping[str, Any], changed: Mapping[str, Any] | None = None, **keys: Any) -> Path:
        contents = {**tables, **(changed or {})}
        files = {
            f"{name}.csv.gz": table if isinstance(table, bytes) else csv(table)
            for name, table in contents.items()
            if table is not None
        }
        table = {
            "title": "Tiny",
            "licence": "none",
            "citation": "none",
            "source": "none",
            "format": "ogbn",
            "default_split": "time",
            "sizes": NODE_SIZES,
            "splits": {"time": {}},
            "files": [
                {
                    "name": name,
                    "url": "https://example.org/tiny.zip",
                    "member": f"tiny/{name}",
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
                for name, content in files.items()
            ],
        }
        return write(table | keys, files)

    return write_set


def nodes(path: Path) -> NodeData:
    data = load(path, folder=path.parent)
    assert isinstance(data, NodeData)
    return data


def graphs(path: Path) -> GraphSet:
    data = load(path, folder=path.parent)
    assert isinstance(data, GraphSet)
    return data


def theirs(path: Path) -> list[dict[str, Any]]:
    """What OGB's reader makes of the files: each edge twice, one direction after the other, nothing cleaned."""
    return ogb_raw.read_csv_graph_raw(path.parent / "tiny" / "raw", add_inverse_edge=True)


def edge_set(edge_index: Any, *features: Any) -> set[tuple[float, ...]]:
    """The edges between different nodes, each with its features."""
    columns = np.concatenate([np.asarray(edge_index), *(np.asarray(f).T for f in features)]).T
    return {tuple(np.round(row, 5)) for row in columns.tolist() if row[0] != row[1]}


def test_one_graph_is_what_ogb_reads(write_ogb: Writer) -> None:
    path = write_ogb(NODES)
    data = nodes(path)
    (judge,) = theirs(path)
    assert edge_set(data.edge_index) == edge_set(judge["edge_index"])
    assert data.edge_index.shape == (2, 10)
    assert isinstance(data.x, torch.Tensor)
    torch.testing.assert_close(data.x, torch.from_numpy(judge["node_feat"]))
    assert data.y.tolist() == NODES["raw/node-label"]
    assert [part.tolist() for part in (data.train, data.val, data.test)] == [[0, 1, 4], [2, 6], [3, 5]]
    assert (data.num_classes, data.score, data.edge_attr) == (3, "accuracy", None)


def test_proteins_have_features_of_edges_and_tasks(write_ogb: Writer) -> None:
    edges = {
        "raw/edge": np.delete(EDGES, 1, 0),
        "raw/edge-feat": PROTEINS["raw/edge-feat"][:6],
        "raw/num-edge-list": [6],
    }
    path = write_ogb(PROTEINS, edges, **PROTEIN_KEYS)
    data = nodes(path)
    (judge,) = theirs(path)
    assert edge_set(data.edge_index, data.edge_attr) == edge_set(judge["edge_index"], judge["edge_feat"])
    entering = [judge["edge_feat"][judge["edge_index"][1] == node] for node in range(7)]
    expected = np.stack([own.mean(0) if len(own) else np.zeros(2) for own in entering])
    assert isinstance(data.x, torch.Tensor)
    torch.testing.assert_close(data.x, torch.from_numpy(expected).float())
    assert data.y.dtype == torch.float32
    np.testing.assert_array_equal(data.y.numpy(), ANSWERS.astype(np.float32))
    assert (data.num_classes, data.score, data.num_edge_features, data.num_nodes) == (2, "roc_auc", 2, 7)
    assert data.summary().startswith("7 nodes, 10 edges, 2 features, 2 of edges, 2 tasks; 3 train")
    assert torch.equal(data.to("cpu").edge_attr, data.edge_attr)
    assert data.to_pyg().edge_attr is data.edge_attr


def test_molecules_are_what_ogb_reads(write_ogb: Writer) -> None:
    path = write_ogb(MOLECULES, **MOLECULE_KEYS)
    data = graphs(path)
    judges = theirs(path)
    order = {"train": [0, 2], "val": [1, 3], "test": [4, 5]}
    for part, numbers in order.items():
        for mine, number in zip(getattr(data, part), numbers, strict=True):
            judge = judges[number]
            assert mine.num_nodes == judge["num_nodes"]
            assert mine.x.tolist() == judge["node_feat"].tolist()
            assert edge_set(mine.edge_index, mine.edge_attr) == edge_set(judge["edge_index"], judge["edge_feat"])
            assert mine.y.tolist() == [[MOLECULES["raw/graph-label"][number]]]  # type: ignore[index]
    assert data.molecules
    assert (data.score, data.labels_of, data.num_edge_features) == ("roc_auc", "graphs", 3)
    assert data.summary().startswith("6 graphs, 9 nodes, 6 edges, 9 features, 1 tasks; 2 graphs train")


def test_features_of_edges_are_part_of_the_digest(write_ogb: Writer) -> None:
    first = nodes(write_ogb(PROTEINS, **PROTEIN_KEYS)).digest()
    table = PROTEINS["raw/edge-feat"].copy()  # type: ignore[union-attr]
    table[3] += 1  # of a loop: only the mean of node 2 changes
    assert nodes(write_ogb(PROTEINS, {"raw/edge-feat": table}, **PROTEIN_KEYS)).digest() != first
    first = graphs(write_ogb(MOLECULES, **MOLECULE_KEYS)).digest()
    bonds = 1 - np.asarray(MOLECULES["raw/edge-feat"])
    assert graphs(write_ogb(MOLECULES, {"raw/edge-feat": bonds}, **MOLECULE_KEYS)).digest() != first


def test_nothing_processed_is_looked_at(write_ogb: Writer) -> None:
    path = write_ogb(NODES)
    for name in ("processed/data_processed", "split/time/split_dict.pt"):
        file = path.parent / "tiny" / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"a pickle that must not be opened")
    assert nodes(path).num_nodes == 7


NODES_WRONG = {
    "half a file": ({"raw/edge": csv(EDGES)[:-9]}, "tiny, raw/edge.csv.gz is no gzipped CSV"),
    "no gzip": ({"raw/edge": b"0,1\n"}, "tiny, raw/edge.csv.gz is no gzipped CSV"),
    "words": ({"raw/node-feat": [["a", "b", "c"]] * 7}, "raw/node-feat.csv.gz holds no table of numbers"),
    "ragged": ({"raw/edge": gzip.compress(b"0,1\n0,1,2\n")}, "raw/edge.csv.gz is no gzipped CSV"),
    "edges are missing": ({"raw/edge": EDGES[:-1]}, "raw/num-edge-list 1 with 7 edges, raw/edge 6 edges"),
    "edges of three": ({"raw/edge": np.ones((7, 3), int)}, "has 3 columns of int64, needed 2 of integers"),
    "edges of floats": ({"raw/edge": EDGES + 0.5}, "has 2 columns of float64, needed 2 of integers"),
    "a far edge": ({"raw/edge": EDGES + 2}, "an edge ends at node 7, needed 0 to 6"),
    "two graphs": ({"raw/num-node-list": [3, 4], "raw/num-edge-list": [3, 4]}, "has 2 graphs, needed one"),
    "a class too many": (
        {"raw/node-label": [3, 0, 1, 1, 0, 2, 0]},
        "labels run to 3, needed whole numbers from 0 to 2",
    ),
    "an endless class": ({"raw/node-label": [np.inf, 0, 1, 1, 0, 2, 0]}, "labels run to inf"),
    "half a class": ({"raw/node-label": [0.5, 0, 1, 1, 0, 2, 0]}, "needed whole numbers"),
    "a negative class": ({"raw/node-label": [-2, 0, 1, 1, 0, 2, 0]}, "a label is -2"),
    "classes in columns": ({"raw/node-label": ANSWERS}, "labels have 2 columns, needed 1"),
    "too few labels": ({"raw/node-label": [2, 0, 1, 1, 0, 2]}, r"features have shape \(7, 3\) and labels \(6,\)"),
    "a node twice": ({"split/time/valid": [0, 2]}, "node 0 is listed 2 times"),
    "a node too far": ({"split/time/test": [7]}, "node ids run from 0 to 7, needed 0 to 6"),
    "no training nodes": ({"split/time/train": np.empty((0, 1), int)}, "no train node at all"),
    "no labels file": ({"raw/node-label": None}, "the manifest lists the files"),
    "no split": ({f"split/time/{part}": None for part in ("train", "valid", "test")}, "needed .*split/NAME/test"),
    "no features": ({"raw/node-feat": None}, "neither raw/node-feat nor raw/edge-feat"),
    "features of edges": ({"raw/edge-feat": np.ones((7, 2))}, "found 2 edge_features, needed 0"),
}


@pytest.mark.parametrize("what", NODES_WRONG)
def test_what_is_wrong_with_a_graph_is_said(write_ogb: Writer, what: str) -> None:
    changed, message = NODES_WRONG[what]
    with pytest.raises(ValueError, match=message):
        nodes(write_ogb(NODES, changed))


PROTEINS_WRONG = {
    "an answer of 2": (
        {"raw/node-label": np.where(ANSWERS == 1, 2, ANSWERS)},
        "train node 0 for task 0 is 2, needed 0",
    ),
    "a task too many": ({"raw/node-label": np.ones((7, 3), int)}, "found 3 classes, needed 2"),
    "nothing to train on": ({"split/time/train": [6]}, "no train node has a label"),
    "all alike": ({"split/time/test": [3]}, "no task has both a 0 and a 1 among the test nodes"),
    "a feature row less": ({"raw/edge-feat": np.ones((6, 2))}, "6 edge features, 7 edges"),
    "a NaN": ({"raw/edge-feat": np.full((7, 2), np.nan)}, "NaN or infinite"),
}


@pytest.mark.parametrize("what", PROTEINS_WRONG)
def test_what_is_wrong_with_tasks_is_said(write_ogb: Writer, what: str) -> None:
    changed, message = PROTEINS_WRONG[what]
    with pytest.raises(ValueError, match=message):
        nodes(write_ogb(PROTEINS, changed, **PROTEIN_KEYS))


def test_tasks_are_judged_by_roc_auc(write_ogb: Writer) -> None:
    with pytest.raises(ValueError, match="score is 'accuracy', needed 'roc_auc' for yes-or-no tasks"):
        nodes(write_ogb(PROTEINS, **{**PROTEIN_KEYS, "score": "accuracy"}))


MOLECULES_WRONG = {
    "a bond too far": (
        {"raw/edge": [[0, 1], [1, 3], [0, 1]]},
        "edge 1 runs from 1 to 3, needed 0 to 2, the nodes of gr",
    ),
    "atoms are missing": ({"raw/node-feat": np.ones((8, 9), int)}, "raw/node-feat has 8 lines, needed 9"),
    "bonds are missing": ({"raw/num-edge-list": [2, 0, 1, 1, 0, 0]}, "with 4 edges, raw/edge 3 edges"),
    "an unknown element": ({"raw/node-feat": np.full((9, 9), 200)}, "atom feature 0 is 200, needed 0 to 118"),
    "an unknown bond": ({"raw/edge-feat": np.full((3, 3), -1)}, "bond feature 0 is -1, needed 0 to 4"),
    "atoms of floats": ({"raw/node-feat": np.full((9, 9), 0.5)}, "9 columns of float64, needed 9 of integers"),
    "labels are missing": ({"raw/graph-label": [0, 1]}, "2 labels, needed one a graph, 6"),
    "no training graphs": ({"split/scaffold/train": np.empty((0, 1), int)}, "no train graph at all"),
    "a label of 2": ({"raw/graph-label": [2, 1, 1, 0, 1, 0]}, "train graph 0 for task 0 is 2"),
}


@pytest.mark.parametrize("what", MOLECULES_WRONG)
def test_what_is_wrong_with_molecules_is_said(write_ogb: Writer, what: str) -> None:
    changed, message = MOLECULES_WRONG[what]
    with pytest.raises(ValueError, match=message):
        graphs(write_ogb(MOLECULES, changed, **MOLECULE_KEYS))


def test_an_altered_file_is_not_read(write_ogb: Writer) -> None:
    path = write_ogb(NODES)
    (path.parent / "tiny" / "raw" / "edge.csv.gz").write_bytes(csv(EDGES[:-1]))
    with pytest.raises(ValueError, match="truncated or altered: SHA-256"):
        nodes(path)


@pytest.mark.parametrize(("missing", "tables", "keys"), [("pandas", NODES, {}), ("ogb", MOLECULES, MOLECULE_KEYS)])
def test_a_package_that_is_not_here_is_asked_for(
    write_ogb: Writer, monkeypatch: pytest.MonkeyPatch, missing: str, tables: Any, keys: Any
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setitem(sys.modules, f"{missing}.utils", None)
    path = write_ogb(tables, **keys)
    with pytest.raises(ImportError, match=r"pip install 'graphattn\[ogb\]'"):
        load(path, folder=path.parent)


def test_a_file_that_is_not_here_is_asked_for() -> None:
    message = r"raw/edge.csv.gz is not here.*https://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip failed.*Ways out"
    with pytest.raises(FileNotFoundError, match=message):
        load("ogbn-arxiv")
