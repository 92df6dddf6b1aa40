"""Sets of graphs in the layout of inductive PPI: small ones written here, and the files with rebuilt labels."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_sets import Writer

from graphattn.data import GraphSet, load, load_graphs, load_nodes

KINDS = ("graph.json", "feats.npy", "labels.npy", "graph_id.npy")
FEATURES = np.arange(24, dtype=np.float64).reshape(8, 3) / 7
LABELS = np.array([[1, 0], [0, 0], [1, 1], [0, 1], [1, 0], [0, 0], [1, 1], [0, 1]])


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def links(*pairs: tuple[Any, Any]) -> bytes:
    return json.dumps({"nodes": [], "links": [{"source": a, "target": b} for a, b in pairs]}).encode()


def parts() -> dict[str, bytes]:
    """Two graphs of 3 and 2 nodes train, one of 2 validates, one of a single node is tested."""
    rows = {"train": slice(0, 5), "valid": slice(5, 7), "test": slice(7, 8)}
    ids = {"train": [1, 1, 1, 2, 2], "valid": [3, 3], "test": [4]}
    edges = {"train": links((0, 1), (1, 0), (2, 1), (4, 3), (3, 3)), "valid": links((0, 1), (0, 1)), "test": links()}
    files = {}
    for part, own in rows.items():
        contents = (edges[part], npy(FEATURES[own]), npy(LABELS[own]), npy(np.array(ids[part])))
        files |= {f"{part}_{kind}": content for kind, content in zip(KINDS, contents, strict=True)}
    return files


@pytest.fixture
def write_ppi(write: Writer) -> Writer:
    def write_set(changed: Mapping[str, bytes] | None = None, **keys: Any) -> Path:
        files = parts() | dict(changed or {})
        table = {
            "title": "Tiny",
            "licence": "none",
            "citation": "none",
            "source": "none",
            "format": "ppi",
            "default_split": "fixed",
            "sizes": {"graphs": 4, "nodes": 8, "edges": 8, "features": 3, "classes": 2},
            "splits": {"fixed": {}},
            "files": [
                {"name": name, "url": "", "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in files.items()
            ],
        }
        return write(table | keys, files)

    return write_set


def loaded(path: Path) -> GraphSet:
    return load_graphs(path, folder=path.parent)


def test_graphs_come_apart(write_ppi: Writer) -> None:
    data = loaded(write_ppi())
    assert (len(data.train), len(data.val), len(data.test)) == (2, 1, 1)
    assert (data.num_features, data.num_classes) == (3, 2)
    first, second = data.train
    assert first.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert second.edge_index.tolist() == [[0, 1], [1, 0]], "node ids begin at 0 in each graph; loops are gone"
    assert data.val[0].edge_index.tolist() == [[0, 1], [1, 0]]
    assert data.test[0].edge_index.shape == (2, 0)
    x = torch.cat([graph.x for graph in (*data.train, *data.val, *data.test)])
    y = torch.cat([graph.y for graph in (*data.train, *data.val, *data.test)])
    assert x.dtype == y.dtype == torch.float32
    assert torch.equal(x, torch.from_numpy(FEATURES).float())
    assert torch.equal(y, torch.from_numpy(LABELS).float())


def test_the_one_door_opens_it(write_ppi: Writer) -> None:
    path = write_ppi()
    data = load(path, folder=path.parent)
    assert isinstance(data, GraphSet)
    assert (
        data.summary() == "4 graphs, 8 nodes, 8 edges, 3 features, 2 labels; 2 graphs train, 1 validate, 1 are tested"
    )
    for option in ("dense", "row_normalise"):
        with pytest.raises(ValueError, match=f"handed out as they are: leave out {option}"):
            load(path, folder=path.parent, **{option: True})


def test_the_wrong_door_says_so(write_ppi: Writer) -> None:
    path = write_ppi()
    with pytest.raises(ValueError, match="format of one-graph sets in tiny: 'ppi'"):
        load_nodes(path, folder=path.parent)
    with pytest.raises(ValueError, match="format of sets of graphs in cora: 'planetoid'"):
        load_graphs("cora")


def test_another_device_has_the_same_numbers(write_ppi: Writer) -> None:
    data = loaded(write_ppi())
    moved = data.to("cpu")
    assert torch.equal(moved.train[0].x, data.train[0].x)
    assert moved.name == data.name


WRONG = {
    "labels above 1": ({"test_labels.npy": npy(np.array([[0, 2]]))}, {}, "label 1 of node 7 is 2, needed 0 or 1"),
    "a NaN": ({"test_feats.npy": npy(np.array([[0, np.nan, 0]]))}, {}, "1 feature values are NaN .* at node 7"),
    "a bridge": (
        {"train_graph.json": links((0, 3))},
        {},
        "2 edges run between two graphs, .* node 0 to 3",
    ),
    "a far link": (
        {"valid_graph.json": links((0, 2))},
        {},
        "tiny, valid: links run from 0 to 2, needed 0 to 1",
    ),
    "no JSON": ({"valid_graph.json": b"{"}, {}, "tiny, valid_graph.json is no graph in node-link form"),
    "no links": ({"valid_graph.json": b"{}"}, {}, "no graph in node-link form.*KeyError: 'links'"),
    "half a node": (
        {"valid_graph.json": links((0, 0.5))},
        {},
        "valid_graph.json is no graph .*: the ends of links are of type float64, needed whole numbers",
    ),
    "nodes by name": ({"valid_graph.json": links(("0", "1"))}, {}, "are of type <U1"),
    "a huge node": ({"valid_graph.json": links((0, 10**30))}, {}, "are of type object"),
    "half an archive": ({"test_feats.npy": b"PK\x03\x04" + bytes(9)}, {}, "test_feats.npy is no readable array"),
    "too few labels": ({"valid_labels.npy": npy(LABELS[:1])}, {}, r"labels \(1, 2\) .*needed \[N, F\], \[N, C\]"),
    "other features": ({"test_feats.npy": npy(np.zeros((1, 4)))}, {}, "features and labels, needed the same in each"),
    "half an array": ({"test_feats.npy": npy(FEATURES[7:])[:-4]}, {}, "tiny, test_feats.npy is no readable array"),
    "a pickle": ({"test_feats.npy": npy(np.array([print]))}, {}, "no readable array: Object arrays cannot be loaded"),
    "words": ({"test_feats.npy": npy(np.array([["a", "b", "c"]]))}, {}, "holds no array of numbers"),
    "mixed graphs": ({"train_graph_id.npy": npy(np.array([1, 2, 1, 2, 2]))}, {}, "the nodes of a graph must follow"),
    "graphs": ({}, {"sizes": {"graphs": 5, "nodes": 8, "features": 3, "classes": 2}}, "found 4 graphs, needed 5"),
    "nodes": ({}, {"sizes": {"graphs": 4, "nodes": 9, "features": 3, "classes": 2}}, "found 8 nodes, needed 9"),
    "classes": ({}, {"sizes": {"graphs": 4, "nodes": 8, "features": 3, "classes": 3}}, "found 2 classes, needed 3"),
    "edges": (
        {},
        {"sizes": {"graphs": 4, "nodes": 8, "edges": 9, "features": 3, "classes": 2}},
        "found 8 directed edges, needed 9",
    ),
    "no test graph": (
        {
            "test_feats.npy": npy(FEATURES[8:]),
            "test_labels.npy": npy(LABELS[8:]),
            "test_graph_id.npy": npy(LABELS[8:, 0]),
        },
        {"sizes": {"graphs": 3, "nodes": 7, "features": 3, "classes": 2}},
        "no test graph at all",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(write_ppi: Writer, what: str) -> None:
    changed, keys, message = WRONG[what]
    path = write_ppi(changed, **keys)
    with pytest.raises(ValueError, match=message):
        loaded(path)


def test_an_altered_file_is_not_read(write_ppi: Writer) -> None:
    path = write_ppi()
    file = path.parent / "tiny" / "test_feats.npy"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"truncated or altered: SHA-256 .* Delete it and take it again$"):
        loaded(path)


def test_a_file_without_an_address_is_asked_for(write_ppi: Writer) -> None:
    path = write_ppi()
    (path.parent / "tiny" / "test_feats.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"downloading it failed: .*it has no public address.*Ways out"):
        loaded(path)


def test_other_files_are_refused(write_ppi: Writer) -> None:
    path = write_ppi()
    text = path.read_text(encoding="utf-8").replace("test_feats.npy", "test_feat.npy")
    path.write_text(text, encoding="utf-8")
    (path.parent / "tiny" / "test_feats.npy").rename(path.parent / "tiny" / "test_feat.npy")
    with pytest.raises(ValueError, match=r"lists the files .* needed"):
        loaded(path)


def test_the_files_with_rebuilt_labels(real: Path) -> None:
    data = load_graphs("ppi-rebuilt", folder=real)
    assert (len(data.train), len(data.val), len(data.test)) == (20, 2, 2)
    train = torch.cat([graph.x for graph in data.train])
    assert train.shape == (44906, 50)
    assert sum(graph.num_nodes for graph in data.val) == 6514
    assert sum(graph.num_nodes for graph in data.test) == 5524
    torch.testing.assert_close(train.mean(0), torch.zeros(50), atol=1e-5, rtol=0)
    assert not any(graph.has_self_loops() or graph.is_directed() for graph in data.test)


def test_official_ppi_waits_for_its_sums(real: Path) -> None:
    with pytest.raises(ValueError, match="graphattn data pin NAME"):
        load_graphs("ppi", folder=real)
