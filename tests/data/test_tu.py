"""Labelled graphs in TUDataset's layout: small ones written here, and ENZYMES."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from small_sets import Writer

from graphattn.data import GraphSet, load, load_graphs

FILES = {
    "A": "2, 1\n1, 2\n2, 3\n3, 2\n4, 5\n5, 4\n5, 5\n",  # node 6 has no edge, 5 a loop
    "graph_indicator": "1\n1\n1\n2\n2\n3\n",
    "graph_labels": "7\n-1\n7\n",
    "node_attributes": "0.5, 1\n 1.5, 2\n2.5,3\n3.5,4\n4.5,5\n5.5,6\n",
    "node_labels": "2\n4\n2\n2\n9\n4\n",
}
SIZES = {"graphs": 3, "nodes": 6, "edges": 6, "features": 5, "classes": 2}


@pytest.fixture
def write_tu(write: Writer) -> Writer:
    def write_set(changed: Mapping[str, str | None] | None = None, **keys: Any) -> Path:
        texts = {kind: text for kind, text in {**FILES, **(changed or {})}.items() if text is not None}
        files = {f"A_SET_{kind}.txt": text.encode() for kind, text in texts.items()}
        table = {
            "title": "Tiny",
            "licence": "none",
            "citation": "none",
            "source": "none",
            "format": "tu",
            "default_split": "folds",
            "sizes": SIZES,
            "splits": {"folds": {"folds": 3}},
            "files": [
                {"name": name, "url": "", "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in files.items()
            ],
        }
        return write(table | keys, files)

    return write_set


def loaded(path: Path, **options: Any) -> GraphSet:
    return load_graphs(path, folder=path.parent, **options)


def by_size(data: GraphSet) -> dict[int, Any]:
    """The graphs by their number of nodes, which all differ."""
    return {graph.num_nodes: graph for graph in (*data.train, *data.val, *data.test)}


def test_graphs_come_apart_with_a_class_each(write_tu: Writer) -> None:
    data = loaded(write_tu())
    graphs = by_size(data)
    assert graphs[3].edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
    assert graphs[2].edge_index.tolist() == [[0, 1], [1, 0]], "the loop is gone"
    assert graphs[1].edge_index.shape == (2, 0)
    assert {size: graph.y.tolist() for size, graph in graphs.items()} == {3: [1], 2: [0], 1: [1]}
    assert graphs[3].y.dtype == torch.int64
    assert data.labels_of == "graphs"
    assert data.summary().startswith("3 graphs, 6 nodes, 6 edges, 5 features, 2 classes; 1 graphs train")


def test_features_are_attributes_then_labels_one_hot(write_tu: Writer) -> None:
    graphs = by_size(loaded(write_tu()))
    assert graphs[3].x.tolist() == [[0.5, 1, 1, 0, 0], [1.5, 2, 0, 1, 0], [2.5, 3, 1, 0, 0]]
    assert graphs[2].x.tolist() == [[3.5, 4, 1, 0, 0], [4.5, 5, 0, 0, 1]]
    for absent, features in (("node_attributes", slice(2, 5)), ("node_labels", slice(0, 2))):
        sizes = {**SIZES, "features": features.stop - features.start}
        alone = by_size(loaded(write_tu({absent: None}, sizes=sizes)))
        assert torch.equal(alone[3].x, graphs[3].x[:, features])


def test_standardised_features_are_scaled_by_the_training_nodes(write_tu: Writer) -> None:
    plain, scaled = loaded(write_tu()), loaded(write_tu(standardise=True))
    sample = torch.cat([graph.x for graph in plain.train])
    assert len(sample) < 6, "not all nodes train"
    std = sample.std(0, correction=0)
    for part in ("train", "val", "test"):
        for mine, other in zip(getattr(scaled, part), getattr(plain, part), strict=True):
            torch.testing.assert_close(mine.x, (other.x - sample.mean(0)) / torch.where(std > 0, std, 1))


WRONG = {
    "no table": ({"A": "1, 2\n3\n"}, {}, "tiny, A_SET_A.txt is no table of numbers"),
    "nothing": ({"A": ""}, {}, "tiny, A_SET_A.txt is empty"),
    "words": ({"node_labels": "a\n" * 6}, {}, "tiny, A_SET_node_labels.txt is no table of numbers"),
    "half a line": ({"node_attributes": FILES["node_attributes"][:-3]}, {}, "node_attributes.txt is no table"),
    "three ends": ({"A": "1, 2, 3\n"}, {}, "A_SET_A.txt has 3 numbers a line, needed 2"),
    "lines": ({"node_labels": "1\n2\n3\n"}, {}, r"the files of nodes have \[3, 6\] lines"),
    "a far end": ({"A": "1, 7\n"}, {}, "an edge ends at node 6, needed 0 to 5"),
    "from 0": ({"A": "0, 1\n"}, {}, "an edge ends at node -1"),
    "a bridge": ({"A": "3, 4\n"}, {}, "2 edges run between two graphs, .* node 2 to 3"),
    "mixed graphs": ({"graph_indicator": "1\n2\n1\n2\n2\n3\n"}, {}, "the nodes of a graph must follow"),
    "a label too many": ({"graph_labels": "1\n2\n1\n2\n"}, {}, "4 labels, needed one a graph, 3"),
    "a class too many": ({"graph_labels": "1\n2\n3\n"}, {}, "found 3 classes, needed 2"),
    "a NaN": ({"node_attributes": "1\n2\nnan\n4\n5\n6\n"}, {"sizes": {**SIZES, "features": 4}}, "NaN .* at node 2"),
    "no features": ({"node_attributes": None, "node_labels": None}, {}, "the manifest lists .* at least one of"),
    "no labels": ({"graph_labels": None}, {}, "the manifest lists the files"),
    "other files": ({"graph_attributes": "1\n"}, {}, "the manifest lists the files"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(write_tu: Writer, what: str) -> None:
    changed, keys, message = WRONG[what]
    with pytest.raises(ValueError, match=message):
        loaded(write_tu(changed, **keys))


def test_an_altered_file_is_not_read(write_tu: Writer) -> None:
    path = write_tu()
    file = path.parent / "tiny" / "A_SET_A.txt"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated or altered: SHA-256"):
        loaded(path)


def test_enzymes(real: Path) -> None:
    data = load("enzymes", folder=real)
    assert isinstance(data, GraphSet)
    assert (len(data.train), len(data.val), len(data.test)) == (480, 60, 60)
    for part in (data.train, data.val, data.test):
        assert torch.bincount(torch.cat([graph.y for graph in part])).tolist() == [len(part) // 6] * 6
    train = torch.cat([graph.x for graph in data.train])
    torch.testing.assert_close(train.mean(0), torch.zeros(21), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(21))
    assert not any(graph.has_self_loops() or graph.is_directed() for graph in data.test)


def test_ten_folds_of_enzymes_test_every_graph_once(real: Path) -> None:
    tested = [load("enzymes", folder=real, seed=fold) for fold in range(10)]
    assert sum(len(data.test) for data in tested) == 600
    assert len({data.digest() for data in tested}) == 10
