"""The contract of every node layer. A new layer adds one line to LAYERS."""

import copy

import pytest
import torch
from cases import GRAPHS, SQUARE, close, edge_index
from torch_geometric.nn import MessagePassing

from graphattn import conv
from graphattn.models.cheb import ChebConv

IN, OUT = 4, 6

LAYERS = {
    "GATConv": lambda: conv.GATConv(IN, 3, heads=2),
    "GATConv, residual": lambda: conv.GATConv(IN, OUT, heads=3, concat=False, residual=True),
    "GATv2Conv": lambda: conv.GATv2Conv(IN, 3, heads=2),
    "GATv2Conv, no loops": lambda: conv.GATv2Conv(IN, OUT, share_weights=True, add_self_loops=False),
    "TransformerConv": lambda: conv.TransformerConv(IN, 3, heads=2, beta=True),
    "ConstantConv": lambda: conv.ConstantConv(IN, 3, heads=2),
    "ChebConv": lambda: ChebConv(IN, OUT, K=3),
}


# Scales by the largest entry of the whole graph's Laplacian: no graph beside another, and no empty one.
GLOBAL = ("ChebConv",)


@pytest.fixture(params=LAYERS)
def layer(request) -> MessagePassing:
    torch.manual_seed(0)
    return LAYERS[request.param]().double()


def features(graph):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(graph.num_senders, IN, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", [name for name in SQUARE if GRAPHS[name].num_edges])
def test_permuting_nodes_permutes_outputs_and_permuting_edges_changes_nothing(layer, name):
    graph = GRAPHS[name]
    generator = torch.Generator().manual_seed(1)
    nodes = torch.randperm(graph.num_senders, generator=generator)  # new node n is old node nodes[n]
    edges = torch.randperm(graph.num_edges, generator=generator)
    x, index = features(graph), edge_index(graph)
    close(layer(x[nodes], nodes.argsort()[index[:, edges]]), layer(x, index)[nodes])


@pytest.mark.parametrize("name", [name for name in SQUARE if name != "no_nodes"])
def test_output_and_gradients_are_finite_on_every_graph(layer, name):
    graph = GRAPHS[name]
    x = features(graph).requires_grad_()
    out = layer(x, edge_index(graph))
    assert out.shape == (graph.num_receivers, OUT)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters() if p.grad is not None)


@pytest.mark.parametrize("layer", sorted(LAYERS.keys() - GLOBAL), indirect=True)
def test_no_nodes_give_no_rows(layer):
    x = torch.zeros(0, IN, dtype=torch.float64, requires_grad=True)
    out = layer(x, torch.zeros(2, 0, dtype=torch.long))
    assert out.shape == (0, OUT)
    out.sum().backward()
    assert x.grad.shape == (0, IN)


@pytest.mark.parametrize("layer", sorted(LAYERS.keys() - GLOBAL), indirect=True)
def test_a_disjoint_graph_beside_it_changes_nothing(layer):
    graph = GRAPHS["random"]
    x, index = features(graph), edge_index(graph)
    beside = layer(torch.cat([x, x + 1]), torch.cat([index, index + graph.num_senders], 1))
    close(beside[: graph.num_senders], layer(x, index))


def test_a_copy_computes_the_same_with_parameters_of_its_own(layer):
    graph = GRAPHS["random"]
    expected = layer(features(graph), edge_index(graph))
    again = copy.deepcopy(layer)
    assert torch.equal(again(features(graph), edge_index(graph)), expected)
    again.reset_parameters()
    assert torch.equal(layer(features(graph), edge_index(graph)), expected)


def test_the_output_moves_with_the_device(layer, device):
    graph = GRAPHS["random"]
    expected = layer(features(graph), edge_index(graph))
    close(layer.to(device)(features(graph).to(device), edge_index(graph).to(device)).cpu(), expected)
