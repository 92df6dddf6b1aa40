"""load(): the handed-out graph, on small sets and on the official files, with PyG as an outside judge."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_sets import TINY, Writer, pickled

from graphattn.conv.sparse_linear import SparseFeatures
from graphattn.data import NodeData, load

# nodes, directed edges, features, classes, then the sizes of the default split
OFFICIAL = {
    "cora": (2708, 10556, 1433, 7, 140, 500, 1000),
    "citeseer": (3327, 9104, 3703, 6, 120, 500, 1000),
    "amazon-computers": (13752, 491722, 767, 10, 200, 300, 13252),
    "coauthor-physics": (34493, 495924, 8415, 5, 100, 150, 34243),
    "minesweeper": (10000, 78804, 7, 2, 5000, 2500, 2500),
    "tolokers": (11758, 1038000, 10, 2, 5879, 2939, 2940),
    "actor": (7600, 53318, 932, 5, 3648, 2432, 1520),
    "chameleon-filtered": (890, 17708, 2325, 5, 409, 287, 194),
    "squirrel-filtered": (2223, 93996, 2089, 5, 1053, 718, 452),
}


def check_is_clean(data: NodeData) -> None:
    senders, receivers = data.edge_index
    keys = senders * data.num_nodes + receivers
    assert data.edge_index.dtype == data.y.dtype == torch.int64
    assert (keys.diff() > 0).all(), "sorted by sender, then receiver; no duplicates"
    assert (senders != receivers).all(), "no self-loops"
    assert torch.equal((receivers * data.num_nodes + senders).sort().values, keys), "both directions"
    assert data.x.dtype == torch.float32
    nodes = torch.cat([data.train, data.val, data.test])
    assert nodes.unique().numel() == nodes.numel()


@pytest.fixture
def tiny(write_planetoid: Writer) -> Path:
    return write_planetoid()


def test_rows_sum_to_one_and_zero_rows_stay(tiny: Path) -> None:
    x = load(tiny, folder=tiny.parent).x.to_dense()
    raw = torch.from_numpy(TINY["allx"]).float()
    assert torch.allclose(x[[0, 1, 2, 4, 5, 6, 7, 8, 10, 11]].sum(1), torch.ones(10))
    assert torch.equal(x[0], raw[0] / 2) and torch.equal(x[5], raw[5] / 4)
    assert not x[[3, 9]].any()
    assert torch.equal(load(tiny, folder=tiny.parent, row_normalise=False).x.to_dense()[:8], raw)


def test_sparse_by_default_dense_on_request(tiny: Path) -> None:
    sparse, dense = load(tiny, folder=tiny.parent).x, load(tiny, folder=tiny.parent, dense=True).x
    assert isinstance(sparse, SparseFeatures) and isinstance(dense, torch.Tensor)
    assert torch.equal(sparse.to_dense(), dense)


def test_graph_is_clean(tiny: Path) -> None:
    check_is_clean(load(tiny, folder=tiny.parent))


def test_folder_can_come_from_the_environment(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHATTN_DATA", str(tiny.parent))
    assert load(tiny).name == "tiny"


def test_to_pyg(tiny: Path) -> None:
    ours = load(tiny, folder=tiny.parent)
    theirs = ours.to_pyg()
    theirs.validate()
    assert torch.equal(theirs.x, ours.x.to_dense())
    assert theirs.num_nodes == 12 and theirs.is_coalesced() and not theirs.has_self_loops() and theirs.is_undirected()
    for part in ("train", "val", "test"):
        assert theirs[f"{part}_mask"].dtype == torch.bool
        assert theirs[f"{part}_mask"].nonzero().view(-1).tolist() == getattr(ours, part).tolist()


def test_to_moves_every_tensor(tiny: Path) -> None:
    data = load(tiny, folder=tiny.parent, dense=True)
    moved = data.to("meta")
    assert all(value.is_meta for value in vars(moved).values() if isinstance(value, torch.Tensor))
    assert (moved.name, moved.num_nodes, moved.num_classes) == ("tiny", 12, 3)
    assert not data.y.is_meta
    sparse = load(tiny, folder=tiny.parent).to("cpu")
    assert torch.equal(sparse.x.to_dense(), data.x)


def test_unknown_split_gives_the_nearest(tiny: Path) -> None:
    with pytest.raises(
        ValueError, match=r"unknown split of tiny 'pubic': did you mean 'public'\?.*public, random, full"
    ):
        load(tiny, folder=tiny.parent, split="pubic")
    with pytest.raises(ValueError, match="unknown split of tiny ''"):
        load(tiny, folder=tiny.parent, split="")


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"nodes": 13}, "tiny: found 12 nodes, needed 13"),
        ({"features": 6}, "tiny: found 5 features, needed 6"),
        ({"classes": 4}, "tiny: found 3 classes, needed 4"),
        ({"edges": 9}, "tiny: found 8 directed edges, needed 9"),
    ],
)
def test_wrong_sizes(write_planetoid: Writer, sizes: dict[str, int], message: str) -> None:
    path = write_planetoid(sizes={"nodes": 12, "edges": 8, "features": 5, "classes": 3} | sizes)
    with pytest.raises(ValueError, match=message):
        load(path, folder=path.parent)


def test_graph_without_edges(write_planetoid: Writer) -> None:
    path = write_planetoid({"graph": pickled({})}, sizes={"nodes": 12, "edges": 0, "features": 5, "classes": 3})
    assert load(path, folder=path.parent).edge_index.shape == (2, 0)


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_files(real: Path, name: str) -> None:
    data = load(name, folder=real)
    parts = [part.numel() for part in (data.train, data.val, data.test)]
    assert (data.num_nodes, data.edge_index.shape[1], data.num_features, data.num_classes, *parts) == OFFICIAL[name]
    check_is_clean(data)


@pytest.mark.parametrize(("name", "train"), [("cora", 1208), ("citeseer", 1812)])
def test_full_and_random_splits_of_official_files(real: Path, name: str, train: int) -> None:
    full = load(name, folder=real, split="full")
    public = load(name, folder=real, split="public")
    assert full.train.numel() == train
    assert torch.equal(full.val, public.val) and torch.equal(full.test, public.test)
    drawn = load(name, folder=real, split="random", seed=4)
    assert torch.bincount(drawn.y[drawn.train]).tolist() == [20] * drawn.num_classes
    assert (drawn.val.numel(), drawn.test.numel()) == (500, 1000)


@pytest.mark.parametrize("name", ["cora", "citeseer"])
def test_planetoid_as_pyg_reads_it(real: Path, name: str) -> None:
    from torch_geometric.io import read_planetoid_data
    from torch_geometric.utils import coalesce

    with warnings.catch_warnings():  # PyG opens the pickles with numpy's and scipy's old module names
        warnings.simplefilter("ignore")
        theirs: Any = read_planetoid_data(str(real / name), name)
    ours = load(name, folder=real, row_normalise=False).to_pyg()
    assert torch.equal(ours.x, theirs.x)
    assert torch.equal(ours.y, theirs.y)
    assert torch.equal(ours.edge_index, coalesce(theirs.edge_index))
    for mask in ("train_mask", "val_mask", "test_mask"):
        assert torch.equal(ours[mask], theirs[mask])


def test_gnn_benchmark_as_pyg_reads_it(real: Path) -> None:
    from torch_geometric.io import read_npz

    theirs: Any = read_npz(str(real / "amazon-computers" / "amazon_electronics_computers.npz"))
    ours = load("amazon-computers", folder=real, row_normalise=False)
    assert torch.equal(ours.x, theirs.x)
    assert torch.equal(ours.y, theirs.y)
    assert torch.equal(ours.edge_index, theirs.edge_index)


@pytest.mark.parametrize("name", ["minesweeper", "chameleon-filtered"])
def test_heterophilous_features_and_splits_are_the_files(real: Path, name: str) -> None:
    with np.load(real / "heterophilous" / f"{name.replace('-', '_')}.npz", allow_pickle=False) as file:
        features, masks = file["node_features"], file["test_masks"]
    for seed in (3, 13):
        data = load(name, folder=real, seed=seed, dense=True)
        assert torch.equal(data.x, torch.from_numpy(features)), "not normalised by default"
        assert data.test.tolist() == masks[3].nonzero()[0].tolist()
