"""Maps done where they are cheaper: after the sum, or before a product with a vector. The numbers stay PyG's."""

import pytest
import torch
from cases import GRAPHS, TOLERANCE, close, edge_index
from torch_geometric import nn as pyg
from torch_geometric.nn import Linear

from graphattn import conv as ours
from graphattn import ops
from graphattn.conv import narrow

WIDE = 40  # channels a head; inputs have 5 or 6 features
DENSE = GRAPHS["random"]  # five edges a node: mapping late pays


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.fixture
def late(monkeypatch):
    """The widths of the rows that the operations gather, call by call."""
    widths = []
    for name in ("additive", "dot_product"):
        original = getattr(ops, name)

        def noted(*args, original=original, value=0 if name == "additive" else 2, **options):
            widths.append(tuple(args[value].shape[1:]))
            return original(*args, **options)

        monkeypatch.setattr(ops, name, noted)
    return widths


def twins(layer, *args, **options):
    torch.manual_seed(0)
    theirs = getattr(pyg, layer)(*args, **options).double()
    mine = getattr(ours, layer)(*args, **options).double()
    mine.load_state_dict(theirs.state_dict())
    return mine, theirs


def compare(mine, theirs, inputs, *args, **options):
    """Outputs, and gradients of inputs and of every parameter."""
    x = inputs if len(inputs) > 1 else inputs[0]
    out, expected = mine(x, *args, **options), theirs(x, *args, **options)
    close(out, expected)
    leaves = [[*inputs, *layer.parameters()] for layer in (mine, theirs)]
    grads = torch.autograd.grad(out.square().sum(), leaves[0], allow_unused=True)  # PyG makes maps that it never uses
    judges = torch.autograd.grad(expected.square().sum(), leaves[1], allow_unused=True)
    for actual, judge in zip(grads, judges, strict=True):
        close(actual, judge)


@pytest.mark.parametrize("name", ["random", "hub", "isolated", "duplicates", "no_edges", "one_node"])
@pytest.mark.parametrize(
    ("layer", "options"),
    [
        ("GATConv", {"heads": 3, "add_self_loops": False}),
        ("GATConv", {"heads": 2, "concat": False, "residual": True}),
        ("GATConv", {"heads": 2, "edge_dim": 3}),
        ("TransformerConv", {"heads": 3}),
        ("TransformerConv", {"heads": 2, "concat": False, "bias": False, "root_weight": False}),
        ("TransformerConv", {"heads": 2, "beta": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_a_narrow_input_gives_what_pyg_gives(name, layer, options):
    graph = GRAPHS[name]
    mine, theirs = twins(layer, 5, WIDE, **options)
    attr = [random(graph.num_edges, 3, seed=1)] if "edge_dim" in options else []
    compare(mine, theirs, [random(graph.num_senders, 5)], edge_index(graph), *attr)


@pytest.mark.parametrize("name", ["more_senders", "more_receivers", "no_senders"])
@pytest.mark.parametrize(
    ("layer", "options"), [("GATConv", {"add_self_loops": False}), ("GATConv", {}), ("TransformerConv", {})]
)
def test_narrow_senders_and_receivers_of_different_kinds(name, layer, options):
    graph = GRAPHS[name]
    mine, theirs = twins(layer, (5, 6), WIDE, heads=2, **options)
    inputs = [random(graph.num_senders, 5), random(graph.num_receivers, 6, seed=1)]
    compare(mine, theirs, inputs, edge_index(graph))


@pytest.mark.parametrize(
    ("layer", "narrow_rows", "wide_rows"), [("GATConv", (1, 5), (2, WIDE)), ("TransformerConv", (1, 16), (2, WIDE))]
)
def test_only_the_narrow_input_is_gathered_and_only_where_it_is_narrower(layer, narrow_rows, wide_rows, late):
    options = {"heads": 2} if layer == "TransformerConv" else {"heads": 2, "add_self_loops": False}
    edges = edge_index(DENSE)
    getattr(ours, layer)(5, WIDE, **options)(torch.randn(30, 5), edges)
    getattr(ours, layer)(50, WIDE, **options)(torch.randn(30, 50), edges)
    assert late == [narrow_rows, wide_rows]


def test_with_an_edge_a_node_the_values_are_mapped_before_the_sum(late):
    ours.GATConv(5, WIDE)(torch.randn(4, 5), torch.empty(2, 0, dtype=torch.long))
    assert late == [(1, WIDE)]


@pytest.mark.parametrize("layer", ["GATConv", "TransformerConv"])
def test_a_linear_map_with_a_hook_is_called(layer, late):
    mine = getattr(ours, layer)(5, WIDE, heads=2)
    calls = []
    linear = mine.lin if layer == "GATConv" else mine.lin_value
    linear.register_forward_hook(lambda module, args, out: calls.append(out.shape))
    mine(torch.randn(30, 5), edge_index(DENSE))
    assert calls == [(30, 2 * WIDE)]
    assert late == [(2, WIDE)]


def test_feature_dropout_is_on_the_mapped_features(late):
    mine = ours.GATConv(5, WIDE, feature_dropout=0.5)
    mine(torch.randn(30, 5), edge_index(DENSE))
    mine.eval()(torch.randn(30, 5), edge_index(DENSE))
    assert late == [(1, WIDE), (1, 5)]


@pytest.mark.parametrize("layer", ["GATConv", "TransformerConv"])
def test_weights_are_those_of_pyg_and_dropout_stays_on_the_weights(layer, monkeypatch):
    mine, theirs = twins(layer, 5, WIDE, heads=2)
    x, edges = random(30, 5), edge_index(DENSE)
    (_, (_, weights)), (_, (_, judge)) = (twin(x, edges, return_attention_weights=True) for twin in (mine, theirs))
    close(weights, judge)
    mine.dropout = 0.5
    torch.manual_seed(3)
    dropped = mine(x, edges)
    torch.manual_seed(3)
    monkeypatch.setattr(narrow, "pays", lambda *sizes: False)
    monkeypatch.setattr(narrow, "pays_for_products", lambda *sizes: False)
    close(mine(x, edges), dropped)


def test_scores_of_inputs_are_scores_of_what_they_are_mapped_to():
    weight, x, first, second = random(6, 5), random(7, 5, seed=1), random(1, 2, 3, seed=2), random(1, 2, 3, seed=3)
    mapped = (x @ weight.t()).view(7, 2, 3)
    expected = [(mapped * vector).sum(-1) for vector in (first, second)]
    for found in (narrow.scores(x, weight, first, second), narrow.scores_of_mapped(mapped, first, second)):
        for ours_, theirs in zip(found, expected, strict=True):
            close(ours_, theirs)


def test_a_plain_map_has_no_hooks_is_made_and_not_parametrised():
    assert narrow.plain(Linear(3, 2))
    assert narrow.plain(torch.nn.Linear(3, 2))
    assert not narrow.plain(Linear(-1, 2))
    assert not narrow.plain(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 2)))
    hooked = Linear(3, 2)
    hooked.register_forward_hook(lambda *_: None)
    assert not narrow.plain(hooked)


@pytest.mark.parametrize("width", [4, WIDE])
@pytest.mark.parametrize("layer", ["GATConv", "TransformerConv"])
def test_under_autocast_dtypes_and_numbers_are_those_of_pyg(layer, width):
    mine, theirs = (twin.float() for twin in twins(layer, 5, width, heads=2))
    x, edges = torch.randn(30, 5), edge_index(DENSE)
    with torch.autocast("cpu", torch.bfloat16):
        out, judge = mine(x, edges), theirs(x, edges)
    assert out.dtype == judge.dtype
    torch.testing.assert_close(out, judge, **TOLERANCE[torch.bfloat16])
