"""An order in which neighbours are near: what it does to a graph, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_sets import Writer

from graphattn.data import NodeData, load, locality_order
from graphattn.data.locality import places


def ring(num_nodes: int) -> torch.Tensor:
    """Each node beside two others, called by random names."""
    names = torch.randperm(num_nodes, generator=torch.Generator().manual_seed(0))
    ends = torch.stack([names, names.roll(1)])
    return torch.cat([ends, ends.flip(0)], 1)


def bandwidth(edge_index: torch.Tensor) -> int:
    return int((edge_index[0] - edge_index[1]).abs().max())


def test_the_neighbours_on_a_ring_come_near() -> None:
    edge_index = ring(500)
    order = locality_order(edge_index, 500)
    assert torch.equal(order.sort().values, torch.arange(500))
    assert bandwidth(edge_index) > 400
    assert bandwidth(places(order)[edge_index]) == 2


def test_nodes_without_edges_and_no_nodes_at_all_have_an_order() -> None:
    assert sorted(locality_order(torch.tensor([[1, 3], [3, 1]]), 5).tolist()) == [0, 1, 2, 3, 4]
    assert locality_order(torch.empty(2, 0, dtype=torch.int64), 0).numel() == 0


def dense_graph(data: NodeData) -> torch.Tensor:
    adjacency = torch.zeros(data.num_nodes, data.num_nodes)
    adjacency[data.edge_index[0], data.edge_index[1]] = 1
    return adjacency


@pytest.mark.parametrize("dense", [True, False])
def test_a_reordered_set_is_the_same_set_under_other_names(write_planetoid: Writer, dense: bool) -> None:
    path: Path = write_planetoid()
    before = load(path, folder=path.parent, dense=dense)
    after = load(path, folder=path.parent, dense=dense, reorder=True)
    order = locality_order(before.edge_index, before.num_nodes)
    assert not torch.equal(order, torch.arange(before.num_nodes))
    x = (before.x, after.x) if dense else (before.x.to_dense(), after.x.to_dense())
    assert torch.equal(x[1], x[0][order]) and torch.equal(after.y, before.y[order])
    assert torch.equal(dense_graph(after), dense_graph(before)[order][:, order])
    keys = after.edge_index[0] * after.num_nodes + after.edge_index[1]
    assert (keys.diff() > 0).all(), "sorted by sender, then receiver"
    for part in ("train", "val", "test"):
        nodes = getattr(after, part)
        assert (nodes.diff() > 0).all()
        assert torch.equal(order[nodes].sort().values, getattr(before, part))


def test_sets_of_graphs_are_not_reordered() -> None:
    with pytest.raises(
        ValueError, match="ppi-like is a set of graphs, which are handed out as they are: leave out reorder"
    ):
        load("ppi-like", reorder=True)
