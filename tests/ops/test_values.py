"""The four operations against values worked out by hand, on every back end."""

import math

import pytest
import torch
from cases import TOLERANCE, close

from graphattn import Graph, additive, additive_v2, attend, dot_product, ops


@pytest.fixture(params=ops.BACKENDS)
def backend(request):
    """Each back end, asked for by name for all calls of a test."""
    with ops.use(backend=request.param):
        yield request.param


@pytest.fixture
def pair() -> Graph:
    """Two nodes; each hears both, edges listed out of order: 1 -> 0, 0 -> 1, 0 -> 0, 1 -> 1."""
    return Graph(torch.tensor([1, 0, 0, 1]), torch.tensor([0, 1, 0, 1]), 2, 2)


def column(*values: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """[n, 1]: one head."""
    return torch.tensor(values, dtype=dtype).unsqueeze(1)


def vectors(*rows: tuple[float, ...]) -> torch.Tensor:
    """[n, 1, D]: one head."""
    return torch.tensor(rows, dtype=torch.float64).unsqueeze(1)


def softmax_of(first: float, second: float, third: float, fourth: float) -> torch.Tensor:
    """Weights [4, 1] of the edges of `pair` with these logits: edges 0 and 2 enter node 0, edges 1 and 3 node 1."""
    a, b, c, d = (math.exp(z) for z in (first, second, third, fourth))
    return column(a / (a + c), b / (b + d), c / (a + c), d / (b + d))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_attend_weighs_the_senders_by_the_softmax_over_the_edges_entering_each_receiver(backend, pair, dtype):
    # Node 0: exp = 3 from node 1, 1 from node 0. Node 1: equal.
    logits = column(math.log(3), 5, 0, 5, dtype=dtype)
    values = torch.tensor([[[4.0, 0.0]], [[8.0, -4.0]]], dtype=dtype)
    out, weights = attend(logits, values, pair, return_weights=True)
    close(weights, column(0.75, 0.5, 0.25, 0.5, dtype=dtype))
    close(out, torch.tensor([[[7.0, -3.0]], [[6.0, -2.0]]], dtype=dtype))
    assert torch.equal(attend(logits, values, pair), out)


def test_attend_gives_each_head_its_own_softmax(backend, pair):
    logits = torch.tensor([[0, math.log(3)], [0, 0], [0, 0], [0, 0]], dtype=torch.float64)
    values = torch.tensor([[[4.0], [4.0]], [[8.0], [8.0]]], dtype=torch.float64)
    close(attend(logits, values, pair), torch.tensor([[[6.0], [7.0]], [[6.0], [6.0]]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("edge_logits", "logits"),
    [(None, (1.8, 1, 0.2 * -0.2, 3)), (column(1, 0, 1, -4), (2.8, 1, 0.8, 0.2 * -1))],
    ids=["no edge term", "edge term"],
)
def test_additive_scores_an_edge_by_leaky_of_sender_plus_receiver_plus_edge(backend, pair, edge_logits, logits):
    values = vectors((1, 0), (0, 1))
    score_s, score_r = column(-1, 1), column(0.8, 2)
    out, weights = additive(values, score_s, score_r, pair, edge_logits, negative_slope=0.2, return_weights=True)
    expected = softmax_of(*logits)
    close(weights, expected)
    (a,), (b,), (c,), (d,) = expected.tolist()
    close(out, vectors((c, a), (b, d)))


@pytest.mark.parametrize(
    ("edge", "logits"),
    [
        (None, (1 + 2 * 2, 0 + 2 * -1, 2 + 2 * -0.5, -0.5 + 2 * 1)),
        (vectors((0, -4), (2, 2), (0, 0), (1, 0)), (1 + 2 * -1, 2 + 2 * 0, 2 + 2 * -0.5, 0 + 2 * 1)),
    ],
    ids=["no edge term", "edge term"],
)
def test_additive_v2_scores_an_edge_by_a_times_leaky_of_the_sum(backend, pair, edge, logits):
    left, right = vectors((1, -2), (0, 1)), vectors((1, 1), (-1, 0))
    att = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    out, weights = additive_v2(left, right, att, pair, edge, negative_slope=0.5, return_weights=True)
    expected = softmax_of(*logits)
    close(weights, expected)
    (a,), (b,), (c,), (d,) = expected.tolist()
    close(out, vectors((c, a - 2 * c), (b, d - 2 * b)))


@pytest.mark.parametrize("scale", [0.5, None])
@pytest.mark.parametrize("with_edge", [False, True])
def test_dot_product_scores_by_query_times_key_plus_edge_and_sums_value_plus_edge(backend, pair, with_edge, scale):
    q, k, v = vectors((2, 0), (1, 1)), vectors((1, 2), (0, -1)), vectors((1, 0), (0, 1))
    edge = vectors((1, 1), (0, 0), (0, 1), (2, 0)) if with_edge else None
    products = (2, 3, 2, 1) if with_edge else (0, 3, 2, -1)
    out, weights = dot_product(q, k, v, pair, edge, scale=scale, return_weights=True)
    expected = softmax_of(*(p * (scale or 2**-0.5) for p in products))
    close(weights, expected)
    (a,), (b,), (c,), (d,) = expected.tolist()
    summed = vectors((c + a, a + a + c), (b + 2 * d, d)) if with_edge else vectors((c, a), (b, d))
    close(out, summed)
    close(dot_product(q, k, v, pair, edge, scale=scale), out)


def test_a_receiver_whose_logits_are_all_minus_infinity_gets_zeros_and_passes_zero_gradients(backend, pair):
    logits = column(-torch.inf, 1, -torch.inf, 2).requires_grad_()
    values = vectors((1, 2), (3, 4)).requires_grad_()
    out, weights = attend(logits, values, pair, return_weights=True)
    assert torch.equal(out[0], torch.zeros(1, 2, dtype=torch.float64))
    assert torch.equal(weights[[0, 2]], torch.zeros(2, 1, dtype=torch.float64))
    out[0].sum().backward()
    assert not logits.grad.any()
    assert not values.grad.any()


def test_a_single_logit_of_minus_infinity_masks_its_edge(backend, pair):
    logits = column(-torch.inf, 1, 0, 2).requires_grad_()
    values = vectors((1, 2), (3, 4))
    out, weights = attend(logits, values, pair, return_weights=True)
    close(weights[[0, 2]], column(0, 1))
    out.square().sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad[0] == 0


@pytest.mark.parametrize("backend_name", [name for name in ops.BACKENDS if name != "dense"])
def test_a_receiver_without_edges_gets_zeros_and_passes_zero_gradients(backend_name):
    graph = Graph(torch.tensor([0, 1]), torch.tensor([0, 0]), 2, 3)
    logits = torch.zeros(2, 1, requires_grad=True)
    values = torch.ones(2, 1, 2, requires_grad=True)
    out = attend(logits, values, graph, backend=backend_name)
    assert torch.equal(out[1:], torch.zeros(2, 1, 2))
    out[1:].sum().backward()
    assert not logits.grad.any()
    assert not values.grad.any()


def test_large_logits_do_not_overflow(backend, pair):
    logits = column(1e4, -1e4, 1e4, -1e4, dtype=torch.float32)
    close(attend(logits, torch.ones(2, 1, 1), pair), torch.ones(2, 1, 1))


def test_dtypes_are_promoted_together(backend, pair):
    out = attend(column(0, 0, 0, 0), torch.ones(2, 1, 1, dtype=torch.float32), pair)
    assert out.dtype == torch.float64


def test_weights_that_are_not_asked_for_are_not_returned(backend, pair):
    assert isinstance(attend(column(0, 0, 0, 0), vectors((1,), (2,)), pair), torch.Tensor)
