"""Sums with given weights, and dropout on features: what the kernels compute beside attention."""

import pytest
import torch
from cases import GRAPHS, TOLERANCE, close
from torch.autograd import gradcheck, gradgradcheck

from graphattn import Graph, ops
from graphattn.ops.dropout import Dropout, scale

BACKENDS = ["reference", "cpu"]


def summed(weights, rows, graph, dropout=None):
    """The definition, edge by edge and head by head in float64."""
    heads = rows.shape[1] if rows.dim() == 3 else 1
    factors = weights.double().unsqueeze(1).expand(-1, heads)
    if dropout is not None:
        factors = factors * scale(dropout, torch.arange(graph.num_edges), heads, torch.float64)
    if rows.dim() == 3:
        factors = factors.unsqueeze(2)
    zeros = torch.zeros(graph.num_receivers, *rows.shape[1:], dtype=torch.float64)
    return zeros.index_add(0, graph.receivers, rows.double()[graph.senders] * factors)


def arguments(graph, dtype=torch.float64, *width):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(graph.num_edges, generator=generator, dtype=torch.float64) / 4
    rows = torch.randn(graph.num_senders, *(width or (5,)), generator=generator, dtype=torch.float64)
    return weights.to(dtype), rows.to(dtype).requires_grad_()


MASKS = [None, Dropout(0.4, torch.tensor(123456789123456789))]


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state:UserWarning")
@pytest.mark.parametrize("dropout", MASKS, ids=["all", "dropout"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("width", [(5,), (1, 4), (3, 5)], ids=["rows", "a head", "heads"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_weighted_sums_and_their_gradient_are_those_of_the_definition(backend, width, name, dtype, dropout):
    graph = GRAPHS[name]
    weights, rows = arguments(graph, dtype, *width)
    with ops.use(backend=backend):
        out = ops.weighted_sum(weights, rows, graph, dropout)
        upstream = torch.randn(out.shape, dtype=torch.float64).to(dtype)
        (gradient,) = torch.autograd.grad(out, rows, upstream)
    close(out, summed(weights, rows.detach(), graph, dropout).to(dtype))
    turned = Graph(graph.receivers, graph.senders, graph.num_receivers, graph.num_senders)
    close(gradient, summed(weights, upstream, turned, dropout).to(dtype))


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state:UserWarning")
@pytest.mark.parametrize("backend", BACKENDS)
def test_weighted_sums_agree_with_finite_differences(backend):
    graph = GRAPHS["more_senders"]
    weights, rows = arguments(graph)

    def cubed(x):
        return ops.weighted_sum(weights, x, graph, MASKS[1]).pow(3)

    with ops.use(backend=backend):
        assert gradcheck(cubed, rows, fast_mode=True)
        assert gradgradcheck(cubed, rows, fast_mode=True)


def test_weighted_sums_over_hubs_are_the_same_bits_for_any_number_of_threads(set_threads):
    senders, receivers = torch.randint(900, (16_000,)), torch.randint(700, (16_000,))
    receivers[::4], senders[1::4] = 300, 500
    found = []
    for count in (1, 2, 3, 4):
        set_threads(count)
        graph = Graph(senders, receivers, 900, 700)
        weights, rows = arguments(graph, torch.float32, 33)
        with ops.use(backend="cpu"):
            out = ops.weighted_sum(weights, rows, graph, MASKS[1])
            found.append((out, *torch.autograd.grad(out.square().sum(), rows)))
        assert all(map(torch.equal, found[-1], found[0]))
    torch.testing.assert_close(
        found[0][0].double(), summed(weights, rows.detach(), graph, MASKS[1]), rtol=1e-4, atol=1e-4
    )


def test_weighted_sums_refuse_weights_that_need_a_gradient_and_wrong_sizes():
    graph = GRAPHS["random"]
    weights, rows = arguments(graph)
    with pytest.raises(ValueError, match=r"weights need a gradient.*detach"):
        ops.weighted_sum(weights.requires_grad_(), rows, graph)
    for wrong in (rows[1:], rows[1:].unsqueeze(1)):
        with pytest.raises(ValueError, match=r"rows has shape \[29, .*5\]: needed \[N_s=30"):
            ops.weighted_sum(weights.detach(), wrong, graph)


SHAPES = [(0,), (), (1,), (7, 3), (40, 1000)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_feature_dropout_is_the_documented_function_of_the_seed_and_the_position(shape, dtype):
    x = torch.randn(shape).to(dtype).requires_grad_()
    with ops.use(backend="cpu"):
        torch.manual_seed(5)
        out = ops.feature_dropout(x, 0.3)
        torch.manual_seed(5)
        mask = Dropout(0.3, torch.randint(1 << 62, ()))
    factors = scale(mask, torch.arange(x.numel()), 1, torch.float64).view(shape)
    close(out, (x.detach().double() * factors).to(dtype))
    upstream = torch.randn(shape).to(dtype)
    (gradient,) = torch.autograd.grad(out, x, upstream)
    close(gradient, (upstream.double() * factors).to(dtype))


def test_feature_dropout_is_the_same_for_any_number_of_threads_and_any_strides(set_threads):
    x = torch.randn(300, 200)
    found = []
    with ops.use(backend="cpu"):
        for count in (1, 2, 3, 4):
            set_threads(count)
            for given in (x, x.t().contiguous().t(), torch.stack([x, x], 2)[..., 0]):
                torch.manual_seed(5)
                found.append(ops.feature_dropout(given, 0.5))
    assert all(torch.equal(out, found[0]) for out in found)
    assert 0.45 < (found[0] == 0).double().mean() < 0.55


@pytest.mark.parametrize("backend", BACKENDS)
def test_feature_dropout_at_its_limits(backend):
    x = torch.randn(50, 4)
    with ops.use(backend=backend):
        assert torch.equal(ops.feature_dropout(x, 0.0), x)
        assert torch.equal(ops.feature_dropout(x, 0.9, training=False), x)
        assert torch.equal(ops.feature_dropout(x, 1.0), torch.zeros_like(x))
        for p in (-0.1, 1.1):
            with pytest.raises(ValueError, match="probability"):
                ops.feature_dropout(x, p)


def test_feature_dropout_has_gradients_of_all_orders_and_keeps_the_rules_of_torch_library():
    x, seed = torch.randn(6, 3, dtype=torch.float64, requires_grad=True), torch.randint(1 << 62, ())
    function = torch.ops.graphattn.dropout
    assert gradcheck(lambda x: function(x, 0.4, seed), x)
    assert gradgradcheck(lambda x: function(x, 0.4, seed).pow(3), x)
    torch.library.opcheck(function.default, (x, 0.4, seed))
