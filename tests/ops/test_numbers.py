"""Numbers at their limits: exponentials and logarithms, infinities and NaN, every half-precision number there is."""

import pytest
import torch
from cases import GRAPHS, OPERATIONS, TOLERANCE

from graphattn import Graph, attend, dot_product, ops

HALF = [torch.bfloat16, torch.float16]
WIDE = [torch.float32, torch.float64]


@pytest.fixture(autouse=True)
def _on_each_instruction_set(instruction_set):
    with ops.use(backend="cpu"):
        yield


def star(num_edges: int) -> Graph:
    """All edges enter the one receiver, each from a sender of its own."""
    return Graph(torch.arange(num_edges), torch.zeros(num_edges, dtype=torch.int64), num_edges, 1)


def parallel(nodes: int, edges: int = 1) -> Graph:
    """Each node hears itself, so many times."""
    index = torch.arange(nodes).repeat(edges)
    return Graph(index, index, nodes, nodes)


@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_the_weights_of_two_edges_are_exact_to_a_few_roundings_from_minus_to_plus_ten_thousand(dtype):
    far = torch.linspace(-1e4, 1e4, 4001)
    near = torch.linspace(-100, 100, 20_001)
    gap = torch.cat([far, near]).to(dtype)
    logits = torch.cat([gap, torch.zeros_like(gap)]).unsqueeze(1)
    graph = parallel(len(gap), 2)
    _, weights = attend(logits, torch.zeros(len(gap), 1, 1, dtype=dtype), graph, return_weights=True)
    expected = torch.stack([gap, -gap]).double().sigmoid().view(-1, 1)
    rounding = torch.finfo(dtype).eps * (3 + logits.view(2, -1).abs().amax(0).repeat(2).unsqueeze(1).double())
    smallest = 2e-38 if dtype == torch.float32 else 1e-300  # exponentials below it are 0
    assert ((weights.double() - expected).abs() <= rounding * expected + smallest).all()


@pytest.mark.parametrize("dtype", WIDE, ids=str)
def test_the_weights_of_any_number_of_equal_edges_are_its_inverse(dtype):
    numbers = torch.tensor([*range(1, 200), 1000, 1023, 1024, 1025, 3000, 10_000])
    receivers = torch.arange(len(numbers)).repeat_interleave(numbers)
    graph = Graph(torch.zeros_like(receivers), receivers, 1, len(numbers))
    for level in (0.0, 12.5, -3000.0):
        logits = torch.full((len(receivers), 1), level, dtype=dtype)
        out, weights = attend(logits, torch.ones(1, 1, 1, dtype=dtype), graph, return_weights=True)
        exact = (1 / numbers.double())[receivers].unsqueeze(1)
        relative = torch.finfo(dtype).eps * (8 + abs(level))
        assert ((weights.double() / exact - 1).abs() <= relative).all()
        assert ((out.double() - 1).abs() <= 1e2 * torch.finfo(dtype).eps).all()


@pytest.mark.parametrize("dtype", WIDE, ids=str)
@pytest.mark.parametrize("span", [1.0, 100.0, 1e4])
@pytest.mark.parametrize("order", ["rising", "falling", "shuffled", "a step up", "a step down", "masked first"])
def test_what_was_summed_before_a_larger_logit_shrinks_with_it(order, span, dtype):
    num_edges = 300
    rising = torch.linspace(-span, span, num_edges, dtype=dtype)
    step = torch.where(rising > 0, span, -span)
    logits = {
        "rising": rising,
        "falling": rising.flip(0),
        "shuffled": rising[torch.randperm(num_edges)],
        "a step up": step,
        "a step down": step.flip(0),
        "masked first": torch.where(rising > 0, rising, -torch.inf),
    }[order].unsqueeze(1)
    values = torch.randn(num_edges, 1, 3, dtype=dtype) + 3
    out, weights = attend(logits, values, star(num_edges), return_weights=True)
    exact = logits.double().softmax(0)
    close = {"rtol": TOLERANCE[dtype]["rtol"] + torch.finfo(dtype).eps * span, "atol": TOLERANCE[dtype]["atol"]}
    torch.testing.assert_close(weights.double(), exact, **close)
    torch.testing.assert_close(out.double(), (exact.unsqueeze(-1) * values.double()).sum(0, keepdim=True), **close)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_number_that_is_not_finite_reaches_what_it_reaches_in_the_reference(operation, bad):
    graph = GRAPHS["random"]
    for name in operation.arguments(graph):
        arguments = {key: tensor.detach() for key, tensor in operation.arguments(graph).items()}
        arguments[name].view(-1)[7 % arguments[name].numel()] = bad
        run = getattr(ops, operation.name)
        expected = run(**arguments, graph=graph, backend="reference")
        actual = run(**arguments, graph=graph, backend="cpu")
        torch.testing.assert_close(actual, expected, equal_nan=True, **TOLERANCE[torch.float64], msg=name)
        assert expected.isfinite().any()


@pytest.mark.parametrize("degree", [3, 40, 5000])
@pytest.mark.parametrize("rest", [0.0, -torch.inf])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_one_nan_among_the_logits_is_nan_for_its_receiver_and_head_alone(degree, rest, place):
    senders, receivers = torch.zeros(3 * degree, dtype=torch.int64), torch.arange(3).repeat_interleave(degree)
    logits = torch.full((3 * degree, 2), rest)
    logits[degree : 2 * degree][place, 1] = torch.nan
    out, weights = attend(logits, torch.ones(1, 2, 4), Graph(senders, receivers, 1, 3), return_weights=True)
    assert out[1, 1].isnan().all()
    assert weights[degree : 2 * degree, 1].isnan().any()
    other = torch.ones(3, 2, dtype=torch.bool)
    other[1, 1] = False
    torch.testing.assert_close(out[other], torch.full((5, 4), float(rest == 0)))
    assert not weights[other.repeat_interleave(degree, 0)].isnan().any()


@pytest.mark.parametrize("degree", [3, 40, 5000])
def test_receivers_whose_edges_are_all_masked_get_zeros_and_pass_none_on(degree):
    logits = torch.full((degree, 1), -torch.inf, requires_grad=True)
    values = torch.ones(degree, 1, 2, requires_grad=True)
    out, weights = attend(logits, values, star(degree), return_weights=True)
    assert not out.any()
    assert not weights.any()
    for gradient in torch.autograd.grad(out.sum() + weights.sum(), (logits, values)):
        assert not gradient.any()


def every(dtype: torch.dtype) -> torch.Tensor:
    """[65536]: each number of a 16-bit dtype."""
    return torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    wrong = ~((actual == expected) | (actual.isnan() & expected.isnan()))
    assert not wrong.any(), f"{actual[wrong][:5]} should be {expected[wrong][:5]}"


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_every_half_precision_number_passes_through_one_edge_unchanged(dtype):
    numbers = every(dtype)
    for columns in (1, 2, 3, 8, 16):  # vectorised differently
        usable = numbers[: len(numbers) // columns * columns].view(-1, 1, columns)
        out = attend(torch.zeros(len(usable), 1, dtype=dtype), usable, parallel(len(usable)))
        assert_same(out, usable)
    zeros, infinities = numbers == 0, numbers.isinf()
    assert zeros.sum() == infinities.sum() == 2


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_sums_round_to_nearest_ties_to_even(dtype):
    """One edge's value plus its term, of all numbers with partners near and far; torch rounds the float32 sum."""
    numbers = every(dtype)
    near = torch.stack([numbers, numbers.roll(1), numbers.flip(0), numbers.roll(1024)])
    far = numbers[torch.randint(2**16, (4, 2**16))]
    half = torch.full((1, 2**16), torch.finfo(dtype).smallest_normal, dtype=dtype)  # a tie beside every larger normal
    edge = torch.cat([near, far, half, -half]).t().reshape(2**16, 1, -1)
    value = numbers.view(-1, 1, 1).expand_as(edge)
    query = torch.zeros_like(edge)
    out = dot_product(query, query, value, parallel(2**16), edge)
    expected = (value.float() + edge.float()).to(dtype)
    with_nan = edge.isnan().any(-1, keepdim=True)  # the logit is 0 times the edge's term, over all columns
    infinite = edge.isinf().any(-1, keepdim=True)
    usable = ~(with_nan | infinite)
    assert usable.sum() > 50_000
    assert_same(out[usable.flatten()], expected[usable.flatten()])
    assert expected[usable.flatten()].isinf().any()


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_the_mean_of_two_neighbours_is_the_even_one(dtype):
    numbers = every(dtype)
    numbers = numbers[numbers.abs() < torch.finfo(dtype).max / 2]  # the sum of both has to fit in float32
    first, second = numbers[:-1], numbers[1:]
    values = torch.cat([first, second]).view(-1, 1, 1)
    count = len(first)
    graph = Graph(torch.arange(2 * count), torch.arange(count).repeat(2), 2 * count, count)
    out = attend(torch.zeros(2 * count, 1, dtype=dtype), values, graph).flatten()
    assert_same(out, (0.5 * first.float() + 0.5 * second.float()).to(dtype))
    between = (first.abs() > torch.finfo(dtype).smallest_normal) & (first.sign() == second.sign())
    assert not (out.view(torch.int16) & 1)[between].any()
