"""The drop-in layers against PyG's: output, attention and every gradient, on every graph, in every setting."""

import pytest
import torch
from cases import BIPARTITE, GRAPHS, SQUARE, close, edge_index
from torch_geometric import EdgeIndex
from torch_geometric import nn as pyg

from graphattn import conv as ours

LAYERS = ("GATConv", "GATv2Conv", "TransformerConv")
WIDTH, OUT = 4, 3

_GAT = {
    "default": {},
    "heads": {"heads": 3},
    "mean of heads": {"heads": 3, "concat": False},
    "no loops": {"heads": 3, "add_self_loops": False},
    "slope": {"negative_slope": 0.7, "bias": False},
    "residual": {"heads": 3, "residual": True},
    "residual, mean of heads": {"heads": 3, "concat": False, "residual": True, "bias": False},
    "edge 1, mean": {"edge_dim": 1, "fill_value": "mean"},
    "edge 1, 0.5": {"edge_dim": 1, "fill_value": 0.5, "heads": 3, "concat": False},
    "edge 4, mean": {"edge_dim": 4, "fill_value": "mean", "heads": 3, "residual": True},
    "edge 4, max": {"edge_dim": 4, "fill_value": "max", "heads": 3, "concat": False},
    "edge 4, 0.5": {"edge_dim": 4, "fill_value": 0.5, "heads": 3, "bias": False},
    "edge 4, tensor": {"edge_dim": 4, "fill_value": torch.tensor([1.0, -2.0, 0.5, 3.0]), "heads": 3},
    "edge 4, no loops": {"edge_dim": 4, "add_self_loops": False, "residual": True},
}
_SHARED = {
    "shared weights": {"heads": 3, "share_weights": True},
    "shared weights, edge 4": {"share_weights": True, "edge_dim": 4, "residual": True, "bias": False},
    "shared weights, no loops": {"share_weights": True, "add_self_loops": False, "heads": 3, "concat": False},
}
_TRANSFORMER = {
    "default": {},
    "heads": {"heads": 3},
    "mean of heads": {"heads": 3, "concat": False},
    "no bias": {"heads": 3, "bias": False},
    "no root": {"heads": 3, "root_weight": False},
    "no root, mean of heads": {"heads": 3, "root_weight": False, "concat": False, "edge_dim": 1},
    "beta": {"beta": True},
    "beta, mean of heads": {"heads": 3, "beta": True, "concat": False, "bias": False},
    "edge 1": {"edge_dim": 1, "heads": 3},
    "edge 4": {"edge_dim": 4, "concat": False, "heads": 3},
    "edge 4, beta": {"edge_dim": 4, "beta": True, "heads": 3, "bias": False},
    "edge 4, no root": {"edge_dim": 4, "root_weight": False},
}
OPTIONS = {"GATConv": _GAT, "GATv2Conv": {**_GAT, **_SHARED}, "TransformerConv": _TRANSFORMER}
SETTINGS = [
    pytest.param(layer, options, id=f"{layer}-{name}") for layer in LAYERS for name, options in OPTIONS[layer].items()
]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def twins(layer: str, in_channels, options: dict, out: int = OUT):
    """Our layer and PyG's with the same parameters, in float64."""
    torch.manual_seed(0)
    theirs = getattr(pyg, layer)(in_channels, out, **options).double()
    torch.manual_seed(0)
    mine = getattr(ours, layer)(in_channels, out, **options).double()
    for name, parameter in theirs.named_parameters():
        assert torch.equal(parameter, mine.get_parameter(name)), "the same seed draws the same parameters"
    with torch.no_grad():  # PyG starts biases at zero, which would hide a forgotten one
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            b.normal_(generator=torch.Generator().manual_seed(a.numel()))
            a.copy_(b)
    return mine, theirs


def features(graph, square: bool, none: bool = False):
    if square:
        return random(graph.num_senders, WIDTH)
    receivers = None if none else random(graph.num_receivers, WIDTH, seed=1)
    return random(graph.num_senders, WIDTH), receivers


def results(layer, x, edges, edge_attr, **call):
    """Output, attention and all gradients of a loss that looks at both."""
    leaves = [part for part in (x if isinstance(x, tuple) else (x,)) if part is not None]
    leaves = {f"x[{i}]": part for i, part in enumerate(leaves)} | dict(layer.named_parameters())
    if edge_attr is not None:
        leaves["edge_attr"] = edge_attr
    layer.zero_grad()
    out, (looped, weights) = layer(x, edges, edge_attr, return_attention_weights=True, **call)
    loss = (out * torch.linspace(1, 2, out.numel(), dtype=out.dtype).view_as(out)).sum() + weights.square().sum()
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    alone = layer(x, edges, edge_attr, **call)
    named = {
        f"gradient of {name}": torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), grads, strict=True)
    }
    return {"out": out, "edges": looped, "weights": weights, "out alone": alone, **named}


def agree(mine, theirs, *call, **keywords):
    expected = results(theirs, *call, **keywords)
    actual = results(mine, *call, **keywords)
    assert actual.keys() == expected.keys()
    for what in expected:
        close(actual[what], expected[what], what)


def pyg_cannot_fill(layer, graph, options) -> bool:
    """PyG's mean and max over edges fail where an edge enters a receiver that, being no sender, gets no loop."""
    filled = layer != "TransformerConv" and "edge_dim" in options and options.get("add_self_loops", True)
    lonely = bool((graph.receivers >= graph.num_senders).any())
    return lonely and filled and isinstance(options.get("fill_value", "mean"), str)


@pytest.mark.parametrize("name", SQUARE)
@pytest.mark.parametrize(("layer", "options"), SETTINGS)
def test_square_graphs_agree(layer, options, name):
    graph = GRAPHS[name]
    edge_dim = options.get("edge_dim")
    edge_attr = random(graph.num_edges, edge_dim, seed=2) if edge_dim else None
    mine, theirs = twins(layer, WIDTH, options)
    agree(mine, theirs, features(graph, square=True), edge_index(graph), edge_attr)


@pytest.mark.parametrize("name", [*BIPARTITE, "isolated", "duplicates"])
@pytest.mark.parametrize(("layer", "options"), SETTINGS)
def test_pairs_of_senders_and_receivers_agree(layer, options, name):
    graph = GRAPHS[name]
    edge_dim = options.get("edge_dim")
    edge_attr = random(graph.num_edges, edge_dim, seed=2) if edge_dim else None
    mine, theirs = twins(layer, (WIDTH, WIDTH), options)
    call = (features(graph, square=False), edge_index(graph), edge_attr)
    if pyg_cannot_fill(layer, graph, options):
        for conv in (mine, theirs):
            with pytest.raises(RuntimeError, match="out of bounds"):
                conv(*call)
        return
    agree(mine, theirs, *call)


@pytest.mark.parametrize("name", BIPARTITE)
@pytest.mark.parametrize("layer", LAYERS)
def test_senders_and_receivers_of_other_widths_agree(layer, name):
    graph = GRAPHS[name]
    mine, theirs = twins(layer, (2, 5), {"heads": 3})
    x = (random(graph.num_senders, 2), random(graph.num_receivers, 5, seed=1))
    agree(mine, theirs, x, edge_index(graph), None)


@pytest.mark.parametrize("name", [*BIPARTITE, "random", "self_loops"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heads": 3, "concat": False},
        {"heads": 3, "add_self_loops": False, "residual": True},
        {"edge_dim": 4, "fill_value": 0.5},
        {"edge_dim": 1, "add_self_loops": False, "heads": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("in_channels", [WIDTH, (WIDTH, WIDTH)], ids=["one width", "a width each"])
def test_receivers_without_features_agree_given_the_size(in_channels, options, name):
    graph = GRAPHS[name]
    edge_attr = random(graph.num_edges, options["edge_dim"], seed=2) if "edge_dim" in options else None
    mine, theirs = twins("GATConv", in_channels, options)
    size = (graph.num_senders, graph.num_receivers)
    agree(mine, theirs, features(graph, False, none=True), edge_index(graph), edge_attr, size=size)


@pytest.mark.parametrize("name", ["isolated", "random"])
def test_receivers_without_features_are_as_many_as_senders_if_no_size_is_given(name):
    graph = GRAPHS[name]
    mine, theirs = twins("GATConv", WIDTH, {"heads": 3})
    agree(mine, theirs, (random(graph.num_senders, WIDTH), None), edge_index(graph), None)


@pytest.mark.parametrize("name", ["random", "more_senders"])
def test_a_size_that_states_what_is_known_changes_nothing(name):
    graph = GRAPHS[name]
    mine, theirs = twins("GATConv", WIDTH, {"heads": 3})
    x = features(graph, square=graph.is_square)
    size = (graph.num_senders, graph.num_receivers)
    agree(mine, theirs, x, edge_index(graph), None, size=size)
    close(mine(x, edge_index(graph), size=size), mine(x, edge_index(graph)))


@pytest.mark.parametrize("in_channels", [WIDTH, (WIDTH, WIDTH)], ids=["one width", "a width each"])
@pytest.mark.parametrize("layer", LAYERS)
def test_one_tensor_and_twice_the_same_tensor_agree_with_pyg(layer, in_channels):
    graph = GRAPHS["random"]
    x = random(graph.num_senders, WIDTH)
    mine, theirs = twins(layer, in_channels, {"heads": 3})
    agree(mine, theirs, x, edge_index(graph), None)
    close(mine((x, x), edge_index(graph)), theirs((x, x), edge_index(graph)))


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("name", ["random", "self_loops", "isolated"])
@pytest.mark.parametrize("layer", ["GATConv", "GATv2Conv"])
def test_edge_features_of_one_dimension_agree(layer, name, loops):
    graph = GRAPHS[name]
    mine, theirs = twins(layer, WIDTH, {"edge_dim": 1, "heads": 3, "add_self_loops": loops})
    agree(mine, theirs, features(graph, True), edge_index(graph), random(graph.num_edges, seed=2))


def test_transformer_takes_edge_features_of_one_dimension_as_a_column():
    graph = GRAPHS["random"]
    mine, theirs = twins("TransformerConv", WIDTH, {"edge_dim": 1})
    x, edge_attr = features(graph, True), random(graph.num_edges, seed=2)
    close(mine(x, edge_index(graph), edge_attr), theirs(x, edge_index(graph), edge_attr.unsqueeze(1)))


@pytest.mark.parametrize("options", [{"add_self_loops": False}, {"heads": 3}, {"edge_dim": 4, "heads": 3}], ids=str)
@pytest.mark.parametrize("layer", LAYERS)
def test_an_edge_index_with_metadata_agrees(layer, options):
    graph = GRAPHS["self_loops"]
    if layer == "TransformerConv":
        options = {key: value for key, value in options.items() if key != "add_self_loops"}
    mine, theirs = twins(layer, WIDTH, options)
    edges = EdgeIndex(edge_index(graph), sparse_size=(graph.num_senders, graph.num_receivers))
    edge_attr = random(graph.num_edges, 4, seed=2) if "edge_dim" in options else None
    agree(mine, theirs, features(graph, True), edges, edge_attr)


def adjacency(graph, layout, values=None):
    """The transposed adjacency, rows receive, as PyG wants it; `graph` has no duplicate edges."""
    values = torch.ones(graph.num_edges, dtype=torch.float64) if values is None else values
    size = (graph.num_receivers, graph.num_senders, *values.shape[1:])
    matrix = torch.sparse_coo_tensor(edge_index(graph).flip(0), values, size, check_invariants=True)
    return matrix.coalesce() if layout == "coo" else matrix.coalesce().to_sparse_csr()


@pytest.mark.parametrize("layout", ["coo", "csr"])
@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_sparse_adjacency_agrees_with_pyg_and_with_the_edge_index(layer, loops, layout):
    graph = GRAPHS["isolated"]
    mine, theirs = twins(layer, WIDTH, {"heads": 3} if layer == "TransformerConv" else {"add_self_loops": loops})
    x, matrix = features(graph, True), adjacency(graph, layout)
    close(mine(x, matrix), theirs(x, matrix))
    close(mine(x, matrix), mine(x, edge_index(graph)))
    out, (returned, weights) = mine(x, matrix, return_attention_weights=True)
    expected, (theirs_returned, theirs_weights) = theirs(x, matrix, return_attention_weights=True)
    close(out, expected)
    close(weights, theirs_weights)
    assert returned.layout == theirs_returned.layout
    assert returned.shape == theirs_returned.shape


@pytest.mark.parametrize("layer", ["GATConv", "GATv2Conv"])
def test_the_attention_of_a_sparse_adjacency_comes_as_sparse_matrix_of_heads(layer):
    graph = GRAPHS["directed"]
    mine, _ = twins(layer, WIDTH, {"heads": 2})
    _, (matrix, weights) = mine(features(graph, True), adjacency(graph, "csr"), return_attention_weights=True)
    assert matrix.shape == (5, 5, 2)
    assert matrix._nnz() == graph.num_edges + 5
    assert weights.shape == (graph.num_edges + 5, 2)


@pytest.mark.parametrize("layout", ["coo", "csr"])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_bipartite_sparse_adjacency_agrees(layer, layout):
    graph = GRAPHS["more_senders"]
    options = {} if layer == "TransformerConv" else {"add_self_loops": False}
    mine, theirs = twins(layer, (WIDTH, WIDTH), {"heads": 3, **options})
    x, matrix = features(graph, False), adjacency(graph, layout)
    close(mine(x, matrix), theirs(x, matrix))
    close(mine(x, matrix), mine(x, edge_index(graph)))


@pytest.mark.parametrize("layer", LAYERS)
def test_the_values_of_a_sparse_adjacency_are_its_edge_features(layer):
    graph = GRAPHS["isolated"]
    options = {} if layer == "TransformerConv" else {"add_self_loops": False}
    mine, theirs = twins(layer, WIDTH, {"heads": 2, "edge_dim": 2, **options})
    edge_attr = random(graph.num_edges, 2, seed=2).detach()
    matrix = adjacency(graph, "coo", edge_attr)
    x = features(graph, True)
    close(mine(x, matrix), theirs(x, matrix))
    close(mine(x, matrix), mine(x, edge_index(graph), edge_attr))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
@pytest.mark.parametrize("layer", LAYERS)
def test_an_edge_index_of_any_integer_dtype_agrees_with_int64(layer, dtype):
    graph = GRAPHS["random"]
    mine, theirs = twins(layer, WIDTH, {"heads": 3})
    x = features(graph, True)
    out = mine(x, edge_index(graph).to(dtype))
    close(out, theirs(x, edge_index(graph)))
    if dtype == torch.int32 or layer != "TransformerConv":
        close(out, theirs(x, edge_index(graph).to(dtype)))


@pytest.mark.parametrize("layer", LAYERS)
def test_widths_left_open_are_learned_at_the_first_call(layer):
    graph = GRAPHS["random"]
    x = random(graph.num_senders, 7).float()
    torch.manual_seed(0)
    mine = getattr(ours, layer)(-1, OUT, heads=2)
    torch.manual_seed(0)
    theirs = getattr(pyg, layer)(-1, OUT, heads=2)
    torch.manual_seed(1)
    expected = theirs(x, edge_index(graph))
    torch.manual_seed(1)
    close(mine(x, edge_index(graph)), expected)
    pair = getattr(ours, layer)((-1, -1), OUT, heads=2)
    assert pair((x, x[:3]), torch.tensor([[0, 5], [1, 2]])).shape == (3, 6)


_RETURNED = {"GATConv": {True}, "GATv2Conv": {True}, "TransformerConv": {True, False}}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("asked", [None, False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_attention_is_returned_when_pyg_returns_it(layer, asked, training):
    graph = GRAPHS["random"]
    mine, theirs = (twin.train(training) for twin in twins(layer, WIDTH, {"dropout": 0.5}))
    x = features(graph, True)
    for twin in (mine, theirs):
        result = twin(x, edge_index(graph), return_attention_weights=asked)
        assert isinstance(result, tuple) == (asked in _RETURNED[layer])


@pytest.mark.parametrize("layer", LAYERS)
def test_attention_in_training_is_after_dropout_for_gat_and_before_it_for_transformer(layer):
    graph = GRAPHS["random"]
    mine, theirs = twins(layer, WIDTH, {"dropout": 0.5, "heads": 3})
    x = features(graph, True)
    for twin in (mine, theirs):
        _, (_, weights) = twin.train()(x, edge_index(graph), return_attention_weights=True)
        _, (_, whole) = twin.eval()(x, edge_index(graph), return_attention_weights=True)
        if layer == "TransformerConv":
            close(weights, whole)
        else:
            assert (weights == 0).any()
            close(weights, torch.where(weights == 0, 0, whole * 2))
