"""SuperGAT is GAT, and tells the logits of any pairs."""

from __future__ import annotations

import pytest
import torch

from graphattn.conv import GATConv
from graphattn.conv.sparse_linear import SparseFeatures
from graphattn.models import MODELS
from graphattn.models.supergat import ScoredGATConv

EDGE_INDEX = torch.tensor([[0, 1, 2, 3, 3], [1, 0, 3, 2, 0]])


def test_it_is_gat_number_for_number() -> None:
    x, found = torch.randn(5, 6), []
    for name in ("gat", "supergat"):
        torch.manual_seed(0)
        model = MODELS[name](6, 3, hidden=4, heads=2)
        found.append((model(x, EDGE_INDEX), model.eval()(x, EDGE_INDEX), sum(p.numel() for p in model.parameters())))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert found[0][2] == found[1][2]
    outputs, attention = model.inspect(x, EDGE_INDEX)
    assert len(outputs) == len(attention) == 2


@pytest.mark.parametrize("sparse", [False, True])
def test_logits_of_edges_are_those_of_the_attention(sparse: bool) -> None:
    """Attention is their softmax over the edges that enter a node, self-loops among them."""
    layer = ScoredGATConv(GATConv(6, 4, heads=3))
    x = torch.randn(5, 6)
    given = SparseFeatures.from_dense(x) if sparse else x
    _, (edges, weights) = layer(given, EDGE_INDEX, return_attention_weights=True)
    logits = layer.pair_logits(edges)
    assert logits.shape == (edges.shape[1], 3)
    for node in range(5):
        entering = edges[1] == node
        torch.testing.assert_close(logits[entering].softmax(0), weights[entering])


def test_logits_teach_the_layer() -> None:
    layer = ScoredGATConv(GATConv(6, 4, heads=3))
    layer(torch.randn(5, 6), EDGE_INDEX)
    layer.pair_logits(torch.tensor([[0, 4], [4, 2]])).sum().backward()
    grads = {name for name, p in layer.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert grads == {"conv.lin.weight", "conv.att_src", "conv.att_dst"}


def test_nothing_is_kept() -> None:
    layer = ScoredGATConv(GATConv(6, 4))
    pairs = torch.tensor([[0], [1]])
    layer(torch.randn(5, 6), EDGE_INDEX)
    layer.pair_logits(pairs)
    with pytest.raises(RuntimeError, match="no input is left to score"):
        layer.pair_logits(pairs)
    layer.eval()(torch.randn(5, 6), EDGE_INDEX)
    with torch.no_grad():
        layer.train()(torch.randn(5, 6), EDGE_INDEX)
    with pytest.raises(RuntimeError, match="no input is left to score"):
        layer.pair_logits(pairs)
