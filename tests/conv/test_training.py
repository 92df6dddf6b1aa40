"""Dropout of the layers in training: reproducible, right on average, absent in eval."""

import pytest
import torch
from cases import GRAPHS, close, edge_index
from torch_geometric import nn as pyg

from graphattn import conv as ours

LAYERS = ("GATConv", "GATv2Conv", "TransformerConv", "ConstantConv")
GRAPH = GRAPHS["random"]
EDGES = edge_index(GRAPH)
X = torch.randn(GRAPH.num_senders, 4, generator=torch.Generator().manual_seed(0))


def copies(graph, x, count):
    """`count` disjoint copies of a graph as one: a single call then draws that many masks."""
    shift = (torch.arange(count) * len(x)).repeat_interleave(graph.num_edges)
    return x.repeat(count, 1), edge_index(graph).repeat(1, count) + shift


def mean_over_draws_is_the_output_in_eval(layer, count=4000):
    graph = GRAPHS["directed"]
    x = X[: graph.num_senders]
    expected = layer.eval()(x, edge_index(graph))
    torch.manual_seed(0)
    outs = layer.train()(*copies(graph, x, count)).view(count, *expected.shape)
    error = (outs.mean(0) - expected).abs()
    assert (error <= 5 * outs.std(0) / count**0.5 + 1e-5).all()
    assert outs.std(0).max() > 0.01


@pytest.mark.parametrize("layer", LAYERS)
def test_the_mean_over_many_masks_is_the_output_in_eval(layer):
    torch.manual_seed(0)
    mean_over_draws_is_the_output_in_eval(getattr(ours, layer)(4, 3, heads=2, dropout=0.6))


@pytest.mark.parametrize("layer", LAYERS)
def test_manual_seed_reproduces_a_training_step_and_another_step_differs(layer):
    mine = getattr(ours, layer)(4, 3, heads=2, dropout=0.5)

    def step():
        mine.zero_grad()
        out = mine(X, EDGES)
        out.square().sum().backward()
        return [out, *(parameter.grad.clone() for parameter in mine.parameters())]

    torch.manual_seed(1)
    first, other = step(), step()
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first, step(), strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("layer", LAYERS)
def test_eval_drops_nothing(layer):
    mine = getattr(ours, layer)(4, 3, heads=2, dropout=0.5)
    plain = getattr(ours, layer)(4, 3, heads=2)
    plain.load_state_dict(mine.state_dict())
    assert torch.equal(mine.eval()(X, EDGES), plain(X, EDGES))


def test_feature_dropout_does_nothing_in_eval():
    mine, theirs = ours.GATConv(4, 3, heads=2, feature_dropout=0.9), pyg.GATConv(4, 3, heads=2)
    theirs.load_state_dict(mine.state_dict())
    close(mine.eval()(X, EDGES), theirs(X, EDGES))


def test_feature_dropout_keeps_the_mean():
    torch.manual_seed(0)
    mean_over_draws_is_the_output_in_eval(ours.GATConv(4, 3, heads=2, feature_dropout=0.5))


def test_feature_dropout_drops_what_is_summed_and_not_what_is_scored():
    mine = ours.GATConv(4, 3, heads=2, feature_dropout=0.5, bias=False)
    edges = EDGES[:, (EDGES[1] < 20)]  # the last ten nodes hear themselves alone: out is their own dropped feature
    _, (_, expected) = mine.eval()(X, edges, return_attention_weights=True)
    out, (_, weights) = mine.train()(X, edges, return_attention_weights=True)
    close(weights, expected)
    kept = out[20:] != 0
    assert 0 < kept.sum() < kept.numel()
    close(out[20:], torch.where(kept, 2 * mine.lin(X)[20:], 0))


def test_feature_dropout_is_refused_where_pygs_path_cannot_apply_it():
    mine = ours.GATConv(4, 3, feature_dropout=0.5, aggr="mean")
    with pytest.raises(RuntimeError, match=r"feature_dropout is 0.5.*PyG's own message passing.*eval\(\).*set it to 0"):
        mine(X, EDGES)
    mine.eval()(X, EDGES)
    mine.train().feature_dropout = 0.0
    mine(X, EDGES)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_learns(layer):
    """Ten steps of gradient descent bring the loss down."""
    torch.manual_seed(0)
    mine = getattr(ours, layer)(4, 3)
    target = torch.randn(len(X), 3)
    optimizer = torch.optim.Adam(mine.parameters(), lr=0.05)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = (mine(X, EDGES) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
