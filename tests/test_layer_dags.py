"""Makers of layer DAGs against their definitions."""

import networkx
import pytest
import torch

from graphattn import layer_dags, topology
from graphattn.graph import Graph


def edges(graph: Graph) -> list[tuple[int, int]]:
    return list(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True))


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (layer_dags.chain(3), [(0, 1), (1, 2)]),
        (layer_dags.residual(3), [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)]),
        (layer_dags.history(3), [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2)]),
        (layer_dags.history(3, own=False), [(0, 1), (0, 2), (1, 2)]),
        (layer_dags.window(4, 2), [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 3)]),
        (layer_dags.dilated(5, 2), [(0, 0), (1, 1), (0, 2), (2, 2), (1, 3), (3, 3), (0, 4), (2, 4), (4, 4)]),
        (layer_dags.readout(3), [(0, 2), (1, 2), (2, 2)]),
        (layer_dags.staged([2, 1]), [(0, 0), (0, 1), (1, 1), (2, 2)]),
        (layer_dags.staged([2, 2], layer_dags.chain), [(0, 1), (2, 3)]),
        # Blocks 1..8: 2 reads 1; 4 reads 3 and the node at 2; 8 reads 7, the nodes at 6 and 4.
        (
            layer_dags.tree(8),
            [
                *[(0, 0), (0, 1), (1, 1), (2, 2), (1, 3), (2, 3), (3, 3)],
                *[(4, 4), (4, 5), (5, 5), (6, 6), (3, 7), (5, 7), (6, 7), (7, 7)],
            ],
        ),
    ],
)
def test_edges(graph: Graph, expected: list[tuple[int, int]]) -> None:
    assert edges(graph) == expected


@pytest.mark.parametrize("maker", [layer_dags.chain, layer_dags.residual, layer_dags.history, layer_dags.tree])
@pytest.mark.parametrize("size", [0, 1, 2, 9])
def test_layers_run_forward(maker, size: int) -> None:
    graph = maker(size)
    assert graph.num_senders == graph.num_receivers == size
    assert bool((graph.senders <= graph.receivers).all())
    drawn = topology.to_networkx(graph.without_self_loops())
    assert networkx.is_directed_acyclic_graph(drawn)
    assert drawn.number_of_nodes() == size


def test_no_stages() -> None:
    assert layer_dags.staged([]).num_edges == 0


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="num_layers is -1"):
        layer_dags.chain(-1)
    with pytest.raises(ValueError, match="width is 0, needed at least 1"):
        layer_dags.window(3, 0)
    with pytest.raises(ValueError, match="dilation is 0, needed at least 1"):
        layer_dags.dilated(3, 0)


def test_a_hundred_layers_have_all_pairs() -> None:
    assert layer_dags.history(100).num_edges == 100 * 101 // 2
    assert torch.equal(layer_dags.history(100).in_degree, torch.arange(1, 101))
