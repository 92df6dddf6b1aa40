"""Digits: the graph is the nearest-neighbour graph, and the public split never changes."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from graphattn.data import NodeData, load


@pytest.fixture(scope="module")
def data() -> NodeData:
    return load("digits")


def test_features_and_labels(data: NodeData) -> None:
    from sklearn.datasets import load_digits

    images, target = load_digits(return_X_y=True)
    assert torch.equal(data.x * 16, torch.from_numpy(images).float())
    assert torch.equal(data.y, torch.from_numpy(target))
    assert (data.num_nodes, data.num_features, data.num_classes) == (1797, 64, 10)


def test_edges_join_the_eight_nearest(data: NodeData) -> None:
    pixels = (data.x * 16).numpy().astype(np.int64)
    squares = (pixels**2).sum(1)
    distance = squares[:, None] + squares[None] - 2 * pixels @ pixels.T  # exact, in integers
    np.fill_diagonal(distance, np.iinfo(np.int64).max)
    eighth = np.sort(distance, axis=1)[:, 7]
    joined = np.zeros(distance.shape, dtype=bool)
    joined[tuple(data.edge_index.numpy())] = True
    near, tied = distance < eighth[:, None], distance == eighth[:, None]
    assert joined[near | near.T].all(), "every nearer node is a neighbour"
    assert not joined[~(near | near.T | tied | tied.T)].any(), "no farther node is one"
    assert (joined.sum(1) >= 8).all()
    assert (joined == joined.T).all() and not joined.diagonal().any()


def test_public_split(data: NodeData) -> None:
    assert [part.numel() for part in (data.train, data.val, data.test)] == [200, 500, 1097]
    assert torch.bincount(data.y[data.train]).tolist() == [20] * 10
    assert torch.cat([data.train, data.val, data.test]).sort().values.tolist() == list(range(1797))


def test_public_split_is_the_recorded_one(data: NodeData) -> None:
    order = [i * 997 % 1797 for i in range(1797)]
    taken = {digit: [node for node in order if data.y[node] == digit][:20] for digit in range(10)}
    assert data.train.tolist() == sorted(node for nodes in taken.values() for node in nodes)
    digest = hashlib.sha256(repr(data.train.tolist() + data.val.tolist()).encode()).hexdigest()
    assert digest == "fa09d3689aaafdf85917ab6fbe63dffa6370aecb406d7cae9c071a9a1aabbde5"
    assert torch.equal(load("digits", seed=7).train, data.train)


def test_random_split_follows_the_seed() -> None:
    first, again, other = (load("digits", split="random", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.train, again.train)
    assert not torch.equal(first.train, other.train)
    assert torch.bincount(other.y[other.train]).tolist() == [20] * 10


def test_needs_neither_files_nor_network(tmp_path: Path, data: NodeData) -> None:
    assert torch.equal(load("digits", folder=tmp_path).edge_index, data.edge_index)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"digits: .* scikit-learn, which is not installed: `pip install"):
        load("digits")
