"""What the layers refuse, and that the message names the value found, the value needed and the way out."""

import re

import pytest
import torch

from graphattn import topology
from graphattn.conv import ConstantConv, GATConv, GATv2Conv, TransformerConv
from graphattn.models import GCN, SAGE, Cheb, MoNet

ATTENTION = (GATConv, GATv2Conv, TransformerConv)
LAYERS = (*ATTENTION, ConstantConv)
EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])
X = torch.ones(3, 4)


def refused(error, *parts):
    return pytest.raises(error, match=".*".join(map(re.escape, parts)))


@pytest.mark.parametrize("layer", ATTENTION)
@pytest.mark.parametrize(("edge_attr", "width"), [(torch.ones(3, 5), 5), (torch.ones(3), 1)])
def test_edge_features_without_edge_dim(layer, edge_attr, width):
    with refused(ValueError, str(list(edge_attr.shape)), layer.__name__, "edge_dim=None", f"edge_dim={width}"):
        layer(4, 2)(X, EDGES, edge_attr)


@pytest.mark.parametrize("layer", ATTENTION)
def test_edge_features_of_another_number_of_edges(layer):
    with refused(ValueError, "edge_attr has 4 rows", "3 edges", "one row an edge"):
        layer(4, 2, edge_dim=5)(X, EDGES, torch.ones(4, 5))


@pytest.mark.parametrize("layer", ATTENTION)
@pytest.mark.parametrize("edge_attr", [torch.ones(3, 2), torch.ones(3)])
def test_edge_features_of_another_width(layer, edge_attr):
    with refused(ValueError, str(list(edge_attr.shape)), "needed [E, 5]", "edge_dim"):
        layer(4, 2, edge_dim=5)(X, EDGES, edge_attr)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_graph_in_place_of_its_edges(layer):
    graph = topology.from_edge_index(EDGES)
    with refused(TypeError, "edge_index is Graph(E=3", "graph.edge_index"):
        layer(4, 2)(X, graph)
    net = layer(4, 2)
    assert torch.equal(net(X, graph.edge_index), net(X, EDGES))


@pytest.mark.parametrize("model", [GCN, Cheb, MoNet, SAGE])
def test_a_graph_given_to_a_model_on_edges(model):
    graph = topology.from_edge_index(EDGES)
    net = model(4, 2).eval()
    with refused(TypeError, "edge_index is Graph(E=3", "graph.edge_index"):
        net(X, graph)
    assert torch.equal(net(X, graph.edge_index), net(X, EDGES))


def test_a_graph_where_the_transformers_weights_before_dropout_are_asked_for():
    with refused(TypeError, "edge_index is Graph(E=3", "graph.edge_index"):
        TransformerConv(4, 2, dropout=0.5)(X, topology.from_edge_index(EDGES), return_attention_weights=True)


def test_edge_features_missing_where_the_transformer_needs_them():
    with refused(ValueError, "edge_dim=5", "needed edge_attr"):
        TransformerConv(4, 2, edge_dim=5)(X, EDGES)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("wrong", "node"), [(3, "3"), (-1, "-1")])
@pytest.mark.parametrize(("row", "role"), [(0, "senders"), (1, "receivers")])
def test_an_index_out_of_range_never_reaches_a_kernel(layer, wrong, node, row, role):
    edges = EDGES.clone()
    edges[row, 1] = wrong
    with refused(IndexError, f"{role} holds node {node}", "3 nodes (0 to 2)"):
        layer(4, 2)(X, edges)


@pytest.mark.parametrize("layer", LAYERS)
def test_features_of_another_width(layer):
    with refused(ValueError, f"{layer.__name__}: features of the senders have shape [3, 5]", "needed [N, 4]"):
        layer(4, 2)(torch.ones(3, 5), EDGES)


@pytest.mark.parametrize("layer", LAYERS)
def test_receivers_of_another_width(layer):
    with refused(ValueError, f"{layer.__name__}: features of the receivers have shape [3, 4]", "needed [N, 6]"):
        layer((4, 6), 2)((X, X), EDGES)


@pytest.mark.parametrize("layer", LAYERS)
def test_features_of_three_dimensions(layer):
    with refused(ValueError, f"{layer.__name__}: features of the senders have shape [2, 3, 4]", "needed [N, 4]"):
        layer(4, 2)(X.expand(2, 3, 4), EDGES)
    with refused(ValueError, "[2, 3, 4]", "needed [N, F]"):
        layer(-1, 2)(X.expand(2, 3, 4), EDGES)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("edges", [EDGES.t(), EDGES[0], EDGES[:, :, None]], ids=["transposed", "1-D", "3-D"])
def test_an_edge_index_of_another_shape(layer, edges):
    wrong = torch.cat([edges, edges]) if edges.shape[0] == 2 else edges
    with refused(ValueError, f"edge_index has shape {list(wrong.shape)}", "[2, E]"):
        layer(4, 2)(X, wrong)


@pytest.mark.parametrize("layer", LAYERS)
def test_an_edge_index_of_floats(layer):
    with refused(TypeError, "torch.float32", "integers"):
        layer(4, 2)(X, EDGES.float())


@pytest.mark.parametrize("layer", [GATConv, ConstantConv])
@pytest.mark.parametrize("size", [(4, 3), (3, 4)])
def test_a_size_that_contradicts_the_features(layer, size):
    with refused(ValueError, f"size is {size}", "(3, 3) senders and receivers"):
        layer(4, 2)(X, EDGES, size=size)


@pytest.mark.parametrize("layer", [GATConv, ConstantConv])
def test_a_size_that_contradicts_the_senders_alone(layer):
    with refused(ValueError, "size is (4, 3)", "(3, 'any') senders and receivers"):
        layer((4, 4), 2)((X, None), EDGES, size=(4, 3))


def test_receivers_without_features_where_each_logit_needs_them():
    with refused(ValueError, "GATv2Conv", "receivers' features are None", "(x_s, x_r)"):
        GATv2Conv((4, 4), 2)((X, None), EDGES)


def test_receivers_without_features_for_the_transformer():
    with refused(ValueError, "TransformerConv", "receivers' features are None", "(x_s, x_r)"):
        TransformerConv((4, 4), 2)((X, None), EDGES)
