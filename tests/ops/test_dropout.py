"""Dropout on weights: its rate, its scale, its independence, and that a seed fixes it."""

import itertools

import pytest
import torch
from cases import GRAPHS, OPERATIONS, close

from graphattn import Graph, attend, ops
from graphattn.ops.dropout import Dropout, draw, scale

MASK32 = 2**32 - 1
CPU = torch.device("cpu")


def mixed(word: int) -> int:
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        word = (word ^ (word >> shift)) * factor & MASK32
    return word


def kept(dropout: Dropout, edge: int, head: int) -> bool:
    """Whether an edge and head survive, in whole numbers of Python: the rule every back end has to follow."""
    word = mixed((edge & MASK32) ^ (dropout.seed & MASK32))
    word = mixed((word + head * 0x9E3779B9 + (edge >> 32) & MASK32) ^ (dropout.seed >> 32))
    return word >= dropout.p * 2**32


def mask(seed: int, edges: torch.Tensor, heads: int = 4, p: float = 0.5) -> torch.Tensor:
    return scale(Dropout(p, seed), edges, heads, torch.float64) > 0


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1].item()


def five_sigma(samples: int) -> float:
    """What a correlation, or a rate with p = 1/2 doubled, of independent bits stays below."""
    return 5 / samples**0.5


EDGES = torch.arange(20_000)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 + 5, 2**62 - 1])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.999])
def test_the_mask_is_the_documented_function_of_seed_edge_and_head(seed, p):
    edges = [0, 1, 2, 1000, 2**31 - 1, 2**32 - 1, 2**32, 2**40 + 3]
    dropout = Dropout(p, seed)
    expected = [[kept(dropout, edge, head) for head in range(9)] for edge in edges]
    assert torch.equal(mask(seed, torch.tensor(edges), 9, p), torch.tensor(expected))


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_a_share_p_is_dropped_and_the_rest_is_scaled_to_keep_the_mean(p):
    factors = scale(Dropout(p, 12345), EDGES, 4, torch.float64)
    spread = (p * (1 - p) / factors.numel()) ** 0.5
    assert abs((factors == 0).double().mean().item() - p) < 5 * spread
    close(factors[factors > 0].unique(), torch.tensor([1 / (1 - p)], dtype=torch.float64))


def test_heads_edges_and_seeds_are_independent():
    a = mask(1, EDGES)
    limit = five_sigma(len(EDGES))
    for first, second in itertools.combinations(range(4), 2):
        assert abs(correlation(a[:, first], a[:, second])) < limit
    for distance in (1, 2, 64):
        assert abs(correlation(a[distance:], a[:-distance])) < limit
    for other in (0, 2, 1 + 2**32, 2**61):
        assert abs(correlation(a, mask(other, EDGES))) < limit


def test_edges_beyond_2_to_the_32_have_masks_of_their_own():
    near = mask(1, EDGES)
    for high in (2**32, 2**33, 2**32 * 12345):
        far = mask(1, EDGES + high)
        assert abs(far.double().mean().item() - 0.5) < five_sigma(far.numel())
        assert abs(correlation(near, far)) < five_sigma(len(EDGES))


def test_the_mask_of_an_edge_does_not_depend_on_where_it_is_asked_for():
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    a = mask(9, torch.arange(1000))
    assert torch.equal(mask(9, order), a[order])
    assert torch.equal(mask(9, order.view(10, 100)), a[order].view(10, 100, 4))
    assert torch.equal(mask(9, torch.arange(1000), heads=2), a[:, :2])


def test_manual_seed_fixes_the_mask_and_each_call_draws_another():
    torch.manual_seed(0)
    first, second = draw(0.5, CPU), draw(0.5, CPU)
    torch.manual_seed(0)
    assert draw(0.5, CPU) == first
    assert second != first


def test_p_0_draws_nothing_and_leaves_torchs_generator_alone():
    before = torch.get_rng_state()
    assert draw(0.0, CPU) is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_a_p_that_is_no_probability_is_refused(p):
    graph = GRAPHS["one_node_loop"]
    with pytest.raises(ValueError, match=rf"dropout is {p}: needed a probability between 0 and 1"):
        attend(torch.zeros(1, 1), torch.zeros(1, 1, 1), graph, dropout=p)


@pytest.mark.parametrize("backend", ops.BACKENDS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_p_1_gives_zeros_and_zero_gradients(operation, backend):
    graph = GRAPHS["complete"]
    arguments = operation.arguments(graph)
    out, weights = getattr(ops, operation.name)(
        **arguments, graph=graph, dropout=1.0, return_weights=True, backend=backend
    )
    assert not out.any()
    assert not weights.any()
    out.sum().backward()
    assert all(not tensor.grad.any() for tensor in arguments.values())


@pytest.mark.parametrize("backend", ops.BACKENDS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_weight_is_either_dropped_or_scaled_and_the_output_uses_it(operation, backend):
    graph = GRAPHS["complete"]
    arguments = operation.arguments(graph)
    run = getattr(ops, operation.name)
    _, full = run(**arguments, graph=graph, return_weights=True, backend=backend)
    torch.manual_seed(0)
    out, weights = run(**arguments, graph=graph, dropout=0.25, return_weights=True, backend=backend)
    close(weights, torch.where(weights == 0, 0, full / 0.75))
    assert 0 < (weights == 0).sum() < weights.numel()
    values = arguments[{"additive_v2": "left", "dot_product": "v"}.get(operation.name, "values")]
    messages = values[graph.senders]
    if operation.name == "dot_product" and operation.with_edge_term:
        messages = messages + arguments["edge"]
    close(out, torch.zeros_like(out).index_add(0, graph.receivers, weights.unsqueeze(-1) * messages))


@pytest.mark.parametrize("backend", ops.BACKENDS)
def test_the_mean_over_many_draws_is_the_output_without_dropout(backend):
    copies = 500 if backend == "gpu" else 20_000  # receivers that hear the same 3 senders: one call is as many draws
    receivers = torch.arange(copies).repeat(3)
    graph = Graph(torch.arange(3).repeat_interleave(copies), receivers, 3, copies)
    logits = torch.tensor([0.0, 1.0, 2.0]).repeat_interleave(copies).unsqueeze(1)
    values = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    expected = (logits[::copies, 0].softmax(0) * values.flatten()).sum()
    torch.manual_seed(0)
    out = attend(logits, values, graph, dropout=0.6, backend=backend)
    assert abs(out.mean() - expected) < 5 * out.std() / copies**0.5
