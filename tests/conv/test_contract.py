"""What code written for PyG's layers does with them besides calling them: it must work on ours, with equal results."""

import copy
import io
import os
import pickle
import shutil
from contextlib import contextmanager

import pytest
import torch
from cases import GRAPHS, close, edge_index, on_our_operations
from torch_geometric import nn as pyg

from graphattn import conv as ours
from graphattn import ops

LAYERS = ("GATConv", "GATv2Conv", "TransformerConv")
GRAPH = GRAPHS["random"]
EDGES = edge_index(GRAPH)
X = torch.randn(GRAPH.num_senders, 4, generator=torch.Generator().manual_seed(0))
EDGE_ATTR = torch.randn(GRAPH.num_edges, 3, generator=torch.Generator().manual_seed(1))


def twins(layer, *args, **options):
    """Our layer and PyG's with the same parameters."""
    mine, theirs = getattr(ours, layer)(*args, **options), getattr(pyg, layer)(*args, **options)
    theirs.load_state_dict(mine.state_dict())
    return mine, theirs


@contextmanager
def on_pygs_path(layer):
    """A hook that does nothing but call for PyG's message passing."""
    handle = layer.register_message_forward_hook(lambda *_: None)
    assert not on_our_operations(layer, X, EDGES)
    yield
    handle.remove()


@pytest.mark.parametrize("layer", LAYERS)
def test_the_common_path_runs_on_our_operations(layer):
    mine = getattr(ours, layer)(4, 3, heads=2, edge_dim=3)
    for training in (True, False):
        assert on_our_operations(mine.train(training), X, EDGES, EDGE_ATTR)
        assert on_our_operations(mine, (X, X[:, :4]), EDGES, EDGE_ATTR)
    assert on_our_operations(mine, X, EDGES, EDGE_ATTR, return_attention_weights=True)


@pytest.mark.parametrize("backend", ["scatter", "dense"])
@pytest.mark.parametrize("layer", [*LAYERS, "ConstantConv"])
def test_layers_run_on_the_back_end_that_is_asked_for(layer, backend):
    graph = GRAPHS["complete"]
    mine = getattr(ours, layer)(4, 3, heads=2)
    expected = mine(X[:5], edge_index(graph))
    with ops.use(backend=backend):
        close(mine(X[:5], edge_index(graph)), expected)


@pytest.mark.parametrize("layer", LAYERS)
def test_our_layer_is_pygs_layer_with_its_repr_and_parameters(layer):
    mine, theirs = twins(layer, (4, 5), 3, heads=2, edge_dim=3)
    assert isinstance(mine, getattr(pyg, layer))
    assert repr(mine) == repr(theirs)
    assert [(n, p.shape) for n, p in mine.named_parameters()] == [(n, p.shape) for n, p in theirs.named_parameters()]


@pytest.mark.parametrize("layer", LAYERS)
def test_state_dicts_load_strictly_in_both_directions(layer):
    mine = getattr(ours, layer)(4, 3, heads=2, edge_dim=3)
    theirs = getattr(pyg, layer)(4, 3, heads=2, edge_dim=3)
    theirs.load_state_dict(mine.state_dict(), strict=True)
    close(theirs(X, EDGES, EDGE_ATTR), mine(X, EDGES, EDGE_ATTR))
    again = getattr(ours, layer)(4, 3, heads=2, edge_dim=3)
    again.load_state_dict(theirs.state_dict(), strict=True)
    assert torch.equal(again(X, EDGES, EDGE_ATTR), mine(X, EDGES, EDGE_ATTR))


def saved_and_loaded(layer):
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    layer = copy.deepcopy(layer)
    layer.reset_parameters()
    layer.load_state_dict(torch.load(file, weights_only=True))
    return layer


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)), saved_and_loaded],
    ids=["deepcopy", "pickle", "state dict on disk"],
)
@pytest.mark.parametrize("layer", LAYERS)
def test_copies_compute_the_same_on_both_paths_and_share_nothing(layer, copied):
    mine = getattr(ours, layer)(4, 3, heads=2)
    expected = mine(X, EDGES)
    again = copied(mine)
    assert torch.equal(again(X, EDGES), expected)
    with on_pygs_path(again):
        close(again(X, EDGES), expected)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    assert torch.equal(mine(X, EDGES), expected)


def test_swap_turns_pygs_layers_into_ours_and_keeps_their_parameters():
    class Mine(pyg.GATConv):
        """A subclass, which may compute something else."""

    model = torch.nn.ModuleList([pyg.GATConv(4, 3), pyg.GATv2Conv(4, 3), pyg.TransformerConv(4, 3), Mine(4, 3)])
    before = list(model.parameters())
    expected = [layer(X, EDGES) for layer in model]
    swapped = ours.swap(model)
    assert swapped is model
    assert [type(layer) for layer in model] == [ours.GATConv, ours.GATv2Conv, ours.TransformerConv, Mine]
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    for layer, out in zip(model, expected, strict=True):
        close(layer(X, EDGES), out)
        close(copy.deepcopy(layer)(X, EDGES), out)
    assert on_our_operations(model[0], X, EDGES)


def test_swap_of_a_layer_itself_works_and_keeps_its_hooks():
    layer, calls = pyg.GATConv(4, 3), []
    layer.register_forward_hook(lambda *_: calls.append(1))
    assert type(ours.swap(layer)) is ours.GATConv
    layer(X, EDGES)
    assert calls == [1]


HOOKS = [
    pytest.param(layer, hook, when, id=f"{layer}-{hook}-{when}")
    for layer in LAYERS
    for hook in ("propagate", "message", "aggregate", "edge_update")
    for when in ("forward_pre", "forward")
    if (layer, hook) != ("TransformerConv", "edge_update")  # it has none
]


def halved(value):
    if isinstance(value, tuple):
        return tuple(part / 2 for part in value)
    return value / 2


@pytest.mark.parametrize(("layer", "hook", "when"), HOOKS)
def test_message_passing_hooks_fire_and_change_the_output_as_in_pyg(layer, hook, when):
    calls, outputs = [], []

    def halve(module, inputs, *out):
        """Of what comes out, or goes in where it carries attention, a half."""
        calls.append(hook)
        if out:
            return halved(out[0])
        named = {k: halved(v) if k in ("alpha", "query", "query_i") else v for k, v in inputs[-1].items()}
        return (*inputs[:-1], named)

    for twin in twins(layer, 4, 3, heads=2):
        plain = twin(X, EDGES)
        handle = getattr(twin, f"register_{hook}_{when}_hook")(halve)
        outputs.append(twin(X, EDGES))
        handle.remove()
        close(twin(X, EDGES), plain)
    close(*outputs)
    assert calls == [hook, hook]


class DoubledGAT(ours.GATConv):
    def message(self, x_j, alpha):
        return 2 * super().message(x_j, alpha)


class DoubledGATv2(ours.GATv2Conv):
    def message(self, x_j, alpha):
        return 2 * super().message(x_j, alpha)


class DoubledTransformer(ours.TransformerConv):
    def message(self, query_i, key_j, value_j, edge_attr, index, ptr, size_i):
        return 2 * super().message(query_i, key_j, value_j, edge_attr, index, ptr, size_i)


class HalfScore(ours.GATConv):
    def edge_update(self, alpha_j, alpha_i, edge_attr, index, ptr, dim_size):
        return super().edge_update(alpha_j, alpha_i, edge_attr, index, ptr, dim_size) / 2


@pytest.mark.parametrize(
    ("changed", "factor", "options"),
    [
        (DoubledGAT, 2, {"bias": False}),
        (DoubledGATv2, 2, {}),
        (DoubledTransformer, 2, {"root_weight": False}),
        (HalfScore, 0.5, {"bias": False}),
    ],
)
def test_a_subclass_that_overrides_a_step_of_message_passing_is_honoured(changed, factor, options):
    mine, plain = changed(4, 3, **options), changed.__base__(4, 3, **options)
    plain.load_state_dict(mine.state_dict())
    close(mine(X, EDGES), factor * plain(X, EDGES))


def test_a_subclass_that_overrides_none_stays_on_our_path():
    class Renamed(ours.GATConv):
        pass

    assert on_our_operations(Renamed(4, 3), X, EDGES)


def test_a_subclass_of_the_same_name_still_has_pygs_path():
    class GATConv(ours.GATConv):
        pass

    mine = GATConv(4, 3)
    plain = mine(X, EDGES)
    with on_pygs_path(mine):
        close(mine(X, EDGES), plain)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_inspector_sees_message_and_no_fused_step(layer):
    mine, theirs = twins(layer, 4, 3)
    assert mine.inspector.implements("message")
    assert not mine.inspector.implements("message_and_aggregate")
    assert mine.inspector.get_param_names("message") == theirs.inspector.get_param_names("message")


@pytest.mark.parametrize("options", [{"aggr": "mean"}, {"aggr": "max"}, {"flow": "target_to_source"}], ids=str)
@pytest.mark.parametrize("layer", LAYERS)
def test_other_aggregations_and_flows_are_pygs(layer, options):
    mine, theirs = twins(layer, 4, 3, heads=2, **options)
    close(mine(X, EDGES), theirs(X, EDGES))
    assert not on_our_operations(mine, X, EDGES)


@pytest.mark.parametrize("layer", ["GATConv", "TransformerConv"])
def test_the_aggregation_named_sum_is_ours(layer):
    mine, theirs = twins(layer, 4, 3, aggr="sum")
    close(mine(X, EDGES), theirs(X, EDGES))
    assert on_our_operations(mine, X, EDGES)


@pytest.mark.parametrize("width", [3, 64])  # with 64 the input is narrower than a head
@pytest.mark.parametrize("edge_dim", [None, 3])
@pytest.mark.parametrize("layer", LAYERS)
def test_compiled_without_graph_breaks_it_computes_the_same(layer, edge_dim, width):
    mine = getattr(ours, layer)(4, width, heads=2, edge_dim=edge_dim)
    torch._dynamo.reset()
    compiled = torch.compile(mine, fullgraph=True, backend="aot_eager")
    edge_attr = None if edge_dim is None else EDGE_ATTR
    out, expected = compiled(X, EDGES, edge_attr), mine(X, EDGES, edge_attr)
    close(out, expected)
    parameters = [parameter for parameter in mine.parameters() if parameter.requires_grad]
    for found, judge in zip(
        torch.autograd.grad(out.square().sum(), parameters, allow_unused=True),
        torch.autograd.grad(expected.square().sum(), parameters, allow_unused=True),
        strict=True,
    ):
        close(found, judge)


@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "ConstantConv"])
def test_compiled_for_any_sizes_it_takes_features_of_edges(layer):
    mine = getattr(ours, layer)(4, 3, edge_dim=3)
    torch._dynamo.reset()
    compiled = torch.compile(mine, fullgraph=True, dynamic=True, backend="aot_eager")
    for edges, edge_attr in ((EDGES, EDGE_ATTR), (EDGES[:, 1:], EDGE_ATTR[1:])):
        close(compiled(X, edges, edge_attr), mine(X, edges, edge_attr))


class Two(torch.nn.Module):
    """Two layers with edge features, which each make their own list of edges with self-loops."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(ours.GATConv(4, 4, edge_dim=3) for _ in range(2))

    def forward(self, x, edge_index, edge_attr):
        for layer in self.layers:
            x = layer(x, edge_index, edge_attr)
        return x


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # torch's compiler uses it
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="Inductor needs a C++ compiler")
def test_inductor_compiles_the_backward_pass_of_two_layers_with_edge_features():
    model = Two()
    torch._dynamo.reset()
    out = torch.compile(model, fullgraph=True)(X, EDGES, EDGE_ATTR)
    expected, parameters = model(X, EDGES, EDGE_ATTR), list(model.parameters())
    close(out, expected)
    for found, judge in zip(
        torch.autograd.grad(out.square().sum(), parameters),
        torch.autograd.grad(expected.square().sum(), parameters),
        strict=True,
    ):
        close(found, judge)


def test_compiled_code_notices_edges_written_behind_torchs_back():
    """As compiled code does when it uses a buffer again for the next list of edges."""
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    (_, *before), _ = torch.ops.graphattn.edges(edges, 4, 4, 4), edges.numpy().__iadd__(1)
    (_, *after) = torch.ops.graphattn.edges(edges, 4, 4, 4)
    (_, *fresh) = torch.ops.graphattn.edges(edges.clone(), 4, 4, 4)
    assert not torch.equal(before[2], after[2])
    assert all(torch.equal(one, other) for one, other in zip(after, fresh, strict=True))


@pytest.mark.parametrize("layer", LAYERS)
def test_inference_mode_computes_the_same(layer):
    mine = getattr(ours, layer)(4, 3, heads=2).eval()
    expected = mine(X, EDGES)
    with torch.inference_mode():
        assert torch.equal(mine(X, EDGES), expected)
        assert torch.equal(mine(X.clone(), EDGES.clone()), expected)


@pytest.mark.parametrize("layer", LAYERS)
def test_autocast_gives_pygs_dtype_and_numbers(layer):
    mine, theirs = twins(layer, 4, 3, heads=2, edge_dim=3)
    with torch.autocast("cpu", torch.bfloat16):
        out, (_, weights) = mine(X, EDGES, EDGE_ATTR, return_attention_weights=True)
        expected, (_, theirs_weights) = theirs(X, EDGES, EDGE_ATTR, return_attention_weights=True)
    assert out.dtype == expected.dtype
    torch.testing.assert_close(out, expected, rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(weights, theirs_weights, rtol=2e-2, atol=2e-2, check_dtype=False)
    out.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in mine.parameters() if p.grad is not None)


@pytest.mark.parametrize("layer", LAYERS)
def test_second_gradients_are_pygs(layer):
    seconds = []
    for twin in twins(layer, 4, 3, heads=2):
        x = X.clone().requires_grad_()
        (grad,) = torch.autograd.grad(twin(x, EDGES).square().sum(), x, create_graph=True)
        seconds.append(torch.autograd.grad(grad.square().sum(), x)[0])
    torch.testing.assert_close(*seconds, rtol=1e-4, atol=1e-4)


def test_transformer_leaves_no_attention_behind():
    layer = ours.TransformerConv(4, 3)
    layer(X, EDGES, return_attention_weights=True)
    assert layer._alpha is None
