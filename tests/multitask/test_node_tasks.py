"""Auxiliary tasks on one graph: what they ask, judged by other libraries."""

from __future__ import annotations

import networkx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.conv.sparse_linear import SparseFeatures
from graphattn.multitask.node_pairs import NodePairs
from graphattn.multitask.node_tasks import (
    AttentionSupervision,
    FeatureReconstruction,
    LinkPrediction,
    NodeRegression,
    degrees,
    pagerank,
)

NODES = 12
EDGES = sorted(
    {
        pair
        for a, b in [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (5, 6), (7, 8), (8, 9), (0, 9)]
        for pair in ((a, b), (b, a))
    }
)
EDGE_INDEX = torch.tensor(EDGES).T


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_pairs_are_the_edges_and_as_many_that_are_none() -> None:
    count = EDGE_INDEX.shape[1]
    wrong = 0
    for seed in range(20):
        pairs = NodePairs(EDGE_INDEX, NODES).draw(generator(seed))
        assert torch.equal(pairs.ends[:, :count], EDGE_INDEX)
        assert pairs.edge.tolist() == [1.0] * count + [0.0] * count
        for (a, b), counts in zip(pairs.ends.T.tolist(), pairs.counts.tolist(), strict=True):
            place = (a, b) in EDGES
            assert counts == float(place or a != b) or counts == 0.0
        drawn = [tuple(pair) for pair in pairs.ends[:, count:].T.tolist()]
        assert pairs.counts[count:].tolist() == [float(p not in EDGES and p[0] != p[1]) for p in drawn]
        wrong += int((pairs.counts == 0).sum())
    assert wrong > 0, "some were drawn that do not count"


def test_edges_come_in_any_order() -> None:
    shuffled = EDGE_INDEX[:, torch.randperm(EDGE_INDEX.shape[1], generator=generator(1))]
    for seed in range(5):
        found, expected = (NodePairs(edges, NODES).draw(generator(seed)) for edges in (shuffled, EDGE_INDEX))
        assert torch.equal(found.counts, expected.counts)
    with pytest.raises(ValueError, match="the graph has no edges"):
        NodePairs(EDGE_INDEX[:, :0], NODES)


def test_pairs_repeat_with_the_generator_alone() -> None:
    first = NodePairs(EDGE_INDEX, NODES).draw(generator(3))
    before = torch.get_rng_state()
    second = NodePairs(EDGE_INDEX, NODES).draw(generator(3))
    assert torch.equal(first.ends, second.ends) and torch.equal(before, torch.get_rng_state())


def test_the_loss_of_pairs_leaves_out_what_does_not_count() -> None:
    pairs = NodePairs(EDGE_INDEX, NODES).draw(generator(1))
    logits = torch.randn(len(pairs.edge), 3)
    kept = pairs.counts.bool()
    expected = F.binary_cross_entropy_with_logits(logits[kept], pairs.edge[kept][:, None].expand(-1, 3))
    torch.testing.assert_close(pairs.loss(logits), expected)
    torch.testing.assert_close(pairs.loss(logits[:, 0]), pairs.loss(logits[:, :1]))


def test_link_prediction_is_the_inner_product() -> None:
    task, z = LinkPrediction(NodePairs(EDGE_INDEX, NODES)), torch.randn(NODES, 4)
    pairs = NodePairs(EDGE_INDEX, NODES).draw(generator(2))
    expected = pairs.loss((z @ z.T)[pairs.ends[0], pairs.ends[1]])
    torch.testing.assert_close(task.loss(z, nn.Identity(), generator(2)), expected)


def test_features_are_compared_by_their_angle() -> None:
    x = torch.rand(6, 5)
    task = FeatureReconstruction(x)
    assert task.channels == 5
    for out, loss in ((3 * x, 0.0), (-x, 2.0)):
        torch.testing.assert_close(task.loss(out, nn.Identity(), generator()), torch.tensor(loss), rtol=0, atol=1e-6)


def test_wide_features_keep_their_angles_and_sparse_ones_are_the_same() -> None:
    x = (torch.rand(20, 900) < 0.1).float()
    task = FeatureReconstruction(x)
    assert task.channels == 128
    kept = F.cosine_similarity(task.target[:, None], task.target[None], dim=2)
    angles = F.cosine_similarity(x[:, None], x[None], dim=2)
    assert (kept - angles).abs().max() < 0.4 and (kept - angles).abs().mean() < 0.1
    torch.testing.assert_close(FeatureReconstruction(SparseFeatures.from_dense(x)).target, task.target)


def test_numbers_of_nodes_are_standardised() -> None:
    task = NodeRegression(torch.tensor([1.0, 10.0, 100.0]))
    torch.testing.assert_close(task.target, torch.tensor([-1.0, 0.0, 1.0]) * 1.5**0.5)
    assert task.loss(task.target[:, None], nn.Identity(), generator()) == 0
    torch.testing.assert_close(task.loss(torch.zeros(3, 1), nn.Identity(), generator()), torch.tensor(1.0))
    assert NodeRegression(torch.ones(4)).target.tolist() == [0.0] * 4, "a regular graph has nothing to tell"


def test_degrees() -> None:
    graph = networkx.Graph(EDGES)
    graph.add_nodes_from(range(NODES))
    assert degrees(EDGE_INDEX, NODES).tolist() == [1 + graph.degree(n) for n in range(NODES)]


@pytest.mark.parametrize("edges", [EDGES, [(0, 1), (1, 2), (2, 0), (3, 1), (4, 5)]], ids=["both ways", "one way"])
def test_pagerank_is_that_of_networkx(edges: list[tuple[int, int]]) -> None:
    graph = networkx.DiGraph(edges)
    graph.add_nodes_from(range(NODES))
    expected = networkx.pagerank(graph, tol=1e-10, max_iter=500)
    found = pagerank(torch.tensor(edges).T, NODES)
    torch.testing.assert_close(
        found, torch.tensor([expected[n] for n in range(NODES)], dtype=torch.float64), rtol=1e-5, atol=1e-8
    )
    torch.testing.assert_close(found.sum(), torch.ones((), dtype=torch.float64))


class Layer(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def pair_logits(self, pairs: Tensor) -> Tensor:
        return torch.full((pairs.shape[1], 2), self.value)


def test_attention_is_supervised_in_each_layer() -> None:
    task = AttentionSupervision(NodePairs(EDGE_INDEX, NODES))
    pairs = NodePairs(EDGE_INDEX, NODES).draw(generator(4))
    found = task.loss(torch.zeros(0), nn.Sequential(Layer(0.0), nn.ReLU(), Layer(2.0)), generator(4))
    expected = [pairs.loss(torch.full((len(pairs.edge),), value)) for value in (0.0, 2.0)]
    torch.testing.assert_close(found, torch.stack(expected).mean())
    with pytest.raises(ValueError, match="Sequential has none: take the model supergat"):
        task.loss(torch.zeros(0), nn.Sequential(nn.ReLU()), generator())
