"""The two .npz formats: what their arrays mean, and that a pickled array inside is never opened."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from small_sets import Writer, npz_table

from graphattn.conv.sparse_linear import SparseFeatures
from graphattn.data import load

# five nodes; edges in one direction, in both, a self-loop; counts as features
ADJACENCY = np.array([[0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
COUNTS = np.array([[2, 0, 1], [0, 0, 0], [0, 5, 0], [1, 1, 1], [0, 0, 3]])
LABELS = np.array([0, 1, 0, 1, 0])
FEATURES = np.array([[0.5, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 2], [0, 0, 1]], dtype=np.float32)


class Evil:
    def __reduce__(self) -> Any:
        return (exit, ("a pickle was opened",))


def zipped(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def gnn_benchmark_arrays() -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for name, dense in (("adj", ADJACENCY), ("attr", COUNTS)):
        csr = scipy.sparse.csr_matrix(dense.astype(np.float32))
        arrays |= {f"{name}_data": csr.data, f"{name}_indices": csr.indices, f"{name}_indptr": csr.indptr}
        arrays[f"{name}_shape"] = np.array(dense.shape)
    return arrays | {"labels": LABELS}


def heterophilous_arrays() -> dict[str, Any]:
    masks = np.eye(5, dtype=bool)
    return {
        "node_features": FEATURES,
        "node_labels": LABELS,
        "edges": np.array([[0, 1], [1, 2], [4, 0]]),
        "train_masks": masks[[0, 1, 2]],
        "val_masks": masks[[1, 2, 3]],
        "test_masks": masks[[2, 3, 4]] | masks[[4, 4, 0]],
    }


SIZES = {"nodes": 5, "edges": 6, "features": 3, "classes": 2}


@pytest.fixture
def gnn_benchmark(write: Writer) -> Writer:
    def write_set(changed: Mapping[str, Any] | None = None, **keys: Any) -> Path:
        arrays = gnn_benchmark_arrays() | dict(changed or {})
        table = npz_table(
            "gnn-benchmark",
            "tiny.npz",
            arrays,
            sparse=True,
            row_normalise=False,
            default_split="random",
            sizes=SIZES,
            splits={"random": {"train_per_class": 1, "val_per_class": 1}},
        )
        names = np.array([Evil()], dtype=object)
        return write(table | keys, {"tiny.npz": zipped(arrays | {"class_names": names})})

    return write_set


@pytest.fixture
def heterophilous(write: Writer) -> Writer:
    def write_set(changed: Mapping[str, Any] | None = None, **keys: Any) -> Path:
        arrays = heterophilous_arrays() | dict(changed or {})
        table = npz_table("heterophilous", "tiny.npz", arrays, default_split="fixed", sizes=SIZES, splits={"fixed": {}})
        return write(table | keys, {"tiny.npz": zipped(arrays)})

    return write_set


def test_gnn_benchmark(gnn_benchmark: Writer) -> None:
    path = gnn_benchmark()
    data = load(path, folder=path.parent)
    assert isinstance(data.x, SparseFeatures)
    assert torch.equal(data.x.to_dense(), torch.from_numpy(COUNTS).float())
    assert data.edge_index.tolist() == [[0, 0, 1, 1, 2, 4], [1, 4, 0, 2, 1, 0]]
    assert data.y.tolist() == LABELS.tolist()
    parts = (data.train, data.val, data.test)
    assert [sorted(data.y[part].tolist()) for part in parts] == [[0, 1], [0, 1], [0]]


def test_counts_become_zero_or_one_if_asked(gnn_benchmark: Writer) -> None:
    path = gnn_benchmark(binary=True)
    expected = torch.from_numpy(COUNTS > 0).float()
    assert torch.equal(load(path, folder=path.parent, dense=True).x, expected)
    scaled = load(path, folder=path.parent, dense=True, row_normalise=True).x
    assert torch.equal(scaled, expected / expected.sum(1, keepdim=True).clamp(min=1))


def test_heterophilous(heterophilous: Writer) -> None:
    path = heterophilous()
    data = load(path, folder=path.parent)
    assert torch.equal(data.x, torch.from_numpy(FEATURES))
    assert data.x.dtype == torch.float32
    assert data.edge_index.tolist() == [[0, 0, 1, 1, 2, 4], [1, 4, 0, 2, 1, 0]]
    assert data.y.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("seed", "expected"), [(0, ([0], [1], [2, 4])), (1, ([1], [2], [3, 4])), (5, ([2], [3], [0, 4]))]
)
def test_seed_chooses_the_fixed_split(heterophilous: Writer, seed: int, expected: Any) -> None:
    path = heterophilous()
    data = load(path, folder=path.parent, seed=seed)
    assert (data.train.tolist(), data.val.tolist(), data.test.tolist()) == expected


def test_what_its_nodes_are_judged_by(heterophilous: Writer) -> None:
    """Labels are 0, 1, 0, 1, 0: nodes 0 and 1 validate, 2 and 3 are tested, 4 trains."""
    path = heterophilous()
    assert load(path, folder=path.parent).score == "accuracy"
    masks = np.array([[[0, 0, 0, 0, 1]], [[1, 1, 0, 0, 0]], [[0, 0, 1, 1, 0]]], dtype=bool)
    named = dict(zip(("train_masks", "val_masks", "test_masks"), masks, strict=True))
    path = heterophilous(named, score="roc_auc")
    assert load(path, folder=path.parent).score == "roc_auc"


def test_roc_auc_of_one_class_alone(heterophilous: Writer) -> None:
    path = heterophilous(score="roc_auc")
    with pytest.raises(ValueError, match=r"tiny: all val nodes are of class 1; ROC-AUC needs nodes of both classes"):
        load(path, folder=path.parent)


def test_dense_file_can_be_handed_out_sparse(heterophilous: Writer) -> None:
    path = heterophilous(sparse=True)
    data = load(path, folder=path.parent)
    assert isinstance(data.x, SparseFeatures)
    assert torch.equal(data.x.to_dense(), torch.from_numpy(FEATURES))
    assert torch.equal(load(path, folder=path.parent, dense=True).x, torch.from_numpy(FEATURES))


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: data[: len(data) // 2], lambda data: b"x"])
def test_truncated_npz(gnn_benchmark: Writer, damage: Any) -> None:
    path = gnn_benchmark()
    victim = path.parent / "tiny" / "tiny.npz"
    victim.write_bytes(damage(victim.read_bytes()))
    with pytest.raises(ValueError, match=r"tiny\.npz is truncated or altered"):
        load(path, folder=path.parent)


def test_altered_npz(gnn_benchmark: Writer) -> None:
    path = gnn_benchmark()
    arrays = gnn_benchmark_arrays() | {"labels": 1 - LABELS}
    (path.parent / "tiny" / "tiny.npz").write_bytes(zipped(arrays))
    with pytest.raises(ValueError, match=r"tiny\.npz is truncated or altered: content SHA-256"):
        load(path, folder=path.parent)


def test_npz_without_an_array(gnn_benchmark: Writer) -> None:
    path = gnn_benchmark()
    arrays = gnn_benchmark_arrays()
    del arrays["labels"]
    (path.parent / "tiny" / "tiny.npz").write_bytes(zipped(arrays))
    with pytest.raises(ValueError, match=r"tiny\.npz has no array 'labels"):
        load(path, folder=path.parent)


def test_pickled_array_is_refused(gnn_benchmark: Writer) -> None:
    path = gnn_benchmark()
    arrays = gnn_benchmark_arrays() | {"labels": np.array([Evil()], dtype=object)}
    (path.parent / "tiny" / "tiny.npz").write_bytes(zipped(arrays))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load(path, folder=path.parent)


def test_npy_called_npz(gnn_benchmark: Writer) -> None:
    path = gnn_benchmark()
    with (path.parent / "tiny" / "tiny.npz").open("wb") as stream:
        np.save(stream, LABELS)
    with pytest.raises(ValueError, match=r"tiny\.npz is truncated or altered"):
        load(path, folder=path.parent)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": LABELS[:4]}, r"features have shape \(5, 3\) and labels \(4,\)"),
        ({"labels": np.array([0, 1, 2, 0, 1])}, "found 3 classes, needed 2"),
        ({"labels": np.array([0, 1, -2, 0, 1])}, "a label is -2"),
        ({"attr_shape": np.array([5, 2])}, "columns of a sparse matrix run from 0 to 2, needed 0 to 1"),
        ({"attr_shape": np.array([6, 3])}, "has 6 row pointers"),
        ({"attr_indptr": np.array([0, 2, 1, 3, 6, 7])}, "row pointers of a sparse matrix must rise"),
        ({"adj_shape": np.array([5, 9]), "adj_indices": np.array([1, 2, 1, 8, 0])}, "ends at node 8, needed 0 to 4"),
    ],
)
def test_contradicting_gnn_benchmark(gnn_benchmark: Writer, changed: dict[str, Any], message: str) -> None:
    path = gnn_benchmark(changed)
    with pytest.raises(ValueError, match=message):
        load(path, folder=path.parent)


NAN = FEATURES.copy()
NAN[3, 1] = np.nan
NAN[4, 2] = np.inf


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"edges": np.array([0, 1, 2, 3])}, r"edges have shape \(4,\), needed \[E, 2\]"),
        ({"edges": np.array([[0, 5]])}, "ends at node 5, needed 0 to 4"),
        ({"train_masks": np.eye(4, dtype=bool)[:3]}, "split masks have shapes"),
        ({"train_masks": np.zeros((3, 5), dtype=bool)}, "split 'fixed': no train node at all"),
        ({"val_masks": heterophilous_arrays()["train_masks"]}, "node 0 is listed 2 times"),
        ({"node_features": NAN}, "2 feature values are NaN or infinite, the first at node 3"),
        ({"node_features": FEATURES[:, :2]}, "found 2 features, needed 3"),
        ({"node_features": FEATURES[:, 0]}, r"features have shape \(5,\)"),
    ],
)
def test_contradicting_heterophilous(heterophilous: Writer, changed: dict[str, Any], message: str) -> None:
    path = heterophilous(changed)
    with pytest.raises(ValueError, match=message):
        load(path, folder=path.parent)


def test_manifest_must_pin_the_arrays_of_the_format(gnn_benchmark: Writer, write: Writer) -> None:
    arrays = heterophilous_arrays()
    table = npz_table("gnn-benchmark", "tiny.npz", arrays, default_split="random", sizes=SIZES, splits={"random": {}})
    path = write(table, {"tiny.npz": zipped(arrays)})
    with pytest.raises(ValueError, match=r"needed one file with the arrays .*adj_data"):
        load(path, folder=path.parent)
