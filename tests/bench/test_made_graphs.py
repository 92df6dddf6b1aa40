"""Generated graphs have the sizes, the loops and the skew that they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from graphattn.bench import graphs
from graphattn.bench.graphs import MadeGraph

KINDS = ("uniform", "power-law", "hub")


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_and_loops(kind: str) -> None:
    graph = MadeGraph("g", kind, 50, 300)  # type: ignore[arg-type]
    edges = graph.edge_index()
    assert edges.shape == (2, 300) and edges.dtype == torch.int64
    assert torch.equal(edges[:, 250:], torch.arange(50).expand(2, 50))
    assert (edges[0, :250] != edges[1, :250]).all(), "one loop a node"
    assert edges.min() >= 0 and edges.max() < 50
    assert torch.equal(edges[0, :250], edges[0, :250].sort().values)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_at_every_call(kind: str) -> None:
    graph = MadeGraph("g", kind, 50, 300)  # type: ignore[arg-type]
    state = torch.get_rng_state()
    assert torch.equal(graph.edge_index(), graph.edge_index())
    assert torch.equal(state, torch.get_rng_state()), "torch's own generator is left alone"
    assert not torch.equal(graph.edge_index(), MadeGraph("g", kind, 50, 300, seed=1).edge_index())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS[:2])
@pytest.mark.parametrize("num_edges", [20, 60, 20 + 190])
def test_no_edge_twice(kind: str, num_edges: int) -> None:
    edges = MadeGraph("g", kind, 20, num_edges).edge_index()  # type: ignore[arg-type]
    assert edges.unique(dim=1).shape == (2, num_edges)


def test_skew() -> None:
    largest = {}
    for kind in KINDS:
        edges = MadeGraph("g", kind, 1000, 11_000).edge_index()  # type: ignore[arg-type]
        largest[kind] = [int(torch.bincount(end).max()) for end in edges]
    assert max(largest["uniform"]) < 40
    assert min(largest["power-law"]) > 100, "both ends are skewed"
    assert largest["hub"][1] == 10_001 and largest["hub"][0] < 40


@pytest.mark.parametrize(("num_nodes", "num_edges"), [(10, 9), (10, 10 + 46)])
def test_what_cannot_be_made(num_nodes: int, num_edges: int) -> None:
    with pytest.raises(ValueError, match=f"{num_edges} edges between 10 nodes: needed between 10 .* and 55"):
        MadeGraph("g", "uniform", num_nodes, num_edges).edge_index()


def test_large_graphs_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs.tempfile, "gettempdir", lambda: str(tmp_path))
    graph = MadeGraph("any", "power-law", 50, 300)
    expected = graph.edge_index()
    assert not list(tmp_path.iterdir()), "small ones are not kept"
    monkeypatch.setattr(graphs, "_KEPT", 300)
    assert torch.equal(graph.edge_index(), expected) and len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(MadeGraph, "_made", None)
    assert torch.equal(graph.edge_index(), expected)
    with pytest.raises(TypeError):
        MadeGraph("any", "power-law", 50, 301).edge_index()
