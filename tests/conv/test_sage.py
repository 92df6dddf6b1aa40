"""GraphSAGE's aggregators against loops over neighbours and PyG's aggregations."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from cases import GRAPHS, SQUARE, close, edge_index
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch_geometric.nn.aggr import LSTMAggregation, MaxAggregation, MeanAggregation

from graphattn.conv import SAGEConv
from graphattn.conv.neighbour_lstm import LastHidden, last_state, packed
from graphattn.conv.sage import Aggregator, neighbours_max, neighbours_mean, shuffled
from graphattn.graph import Graph
from graphattn.models.sage import SAGE

AGGREGATORS: tuple[Aggregator, ...] = get_args(Aggregator)


def features(graph: Graph, width: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(graph.num_senders, width, generator=generator, dtype=torch.float64).requires_grad_()


def lstm(width: int = 5, state: int = 4) -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(width, state).double()


def gradients(out: Tensor, *leaves: Tensor) -> list[Tensor]:
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    total = (out * weights).sum() + sum(0 * leaf.sum() for leaf in leaves)  # where nothing depends on a leaf, zeros
    return list(torch.autograd.grad(total, leaves))


@pytest.mark.parametrize("name", GRAPHS)
def test_the_last_state_is_that_of_the_sequence_of_senders(name: str) -> None:
    graph, cell = GRAPHS[name], lstm()
    x = features(graph)
    out = last_state(cell, x, graph)
    rows = []
    for receiver in range(graph.num_receivers):
        heard = x[graph.senders[graph.receivers == receiver]]
        rows.append(cell(heard)[1][0][0] if len(heard) else heard.new_zeros(cell.hidden_size))
    expected = torch.stack(rows) if rows else x.new_zeros(0, cell.hidden_size)
    close(out, expected)
    leaves = [x, *cell.parameters()]
    for ours, theirs in zip(gradients(out, *leaves), gradients(expected, *leaves), strict=True):
        close(ours, theirs)


@pytest.mark.parametrize("name", [name for name in GRAPHS if GRAPHS[name].num_edges])
def test_pygs_aggregations_agree(name: str) -> None:
    graph = GRAPHS[name]
    x = features(graph).detach()
    order = graph.by_receiver
    heard, index = x[order.others], torch.arange(graph.num_receivers).repeat_interleave(order.ptr.diff())
    close(neighbours_mean(x, graph), MeanAggregation()(heard, index, dim_size=graph.num_receivers))
    close(neighbours_max(x, graph), MaxAggregation()(heard, index, dim_size=graph.num_receivers))
    judge = LSTMAggregation(5, 4).double()
    longest = order.ptr.diff() == order.ptr.diff().max()  # PyG's goes on over the padding of shorter sequences
    states = judge(heard, index, dim_size=graph.num_receivers)
    close(last_state(judge.lstm, x, graph)[longest], states[longest])


@pytest.mark.parametrize("name", [name for name in GRAPHS if GRAPHS[name].num_edges])
def test_the_steps_are_torchs_of_packed_sequences(name: str) -> None:
    graph, cell = GRAPHS[name], lstm()
    x = features(graph)
    _, senders, sizes = packed(graph)
    entering = F.linear(x, cell.weight_ih_l0, cell.bias_ih_l0 + cell.bias_hh_l0)
    ours = LastHidden.apply(entering, senders, cell.weight_hh_l0, sizes)
    theirs = cell(PackedSequence(x[senders], sizes))[1][0][0]
    close(ours, theirs)
    leaves = [x, *cell.parameters()]
    for own, judge in zip(gradients(ours, *leaves), gradients(theirs, *leaves), strict=True):
        close(own, judge)


def test_the_steps_gradients_are_their_slopes() -> None:
    cell, (_, senders, sizes) = lstm(), packed(GRAPHS["duplicates"])
    entering = torch.randn(GRAPHS["duplicates"].num_senders, 16, dtype=torch.float64).requires_grad_()
    torch.autograd.gradcheck(lambda a, b: LastHidden.apply(a, senders, b, sizes), (entering, cell.weight_hh_l0))


def test_gradients_that_vanish_over_a_hubs_neighbours_are_no_denormal_numbers() -> None:
    neighbours, cell = 2000, lstm().float()
    graph = Graph(torch.arange(1, neighbours + 1), torch.zeros(neighbours, dtype=torch.long), neighbours + 1, 1)
    x = torch.randn(neighbours + 1, 5).requires_grad_()
    found = gradients(last_state(cell, x, graph), x, *cell.parameters())
    expected = gradients(cell(x[1:])[1][0], x, *cell.parameters())
    for ours, theirs in zip(found, expected, strict=True):
        close(ours, theirs)
    seen = expected[0].abs() > 1e-25
    assert int((expected[0][seen].abs() < 1e-15).sum()) > 10
    torch.testing.assert_close(found[0][seen], expected[0][seen], rtol=0.01, atol=0.0, msg="small ones count too")
    assert denormal(expected[0]) > 0, "or they did not vanish"
    assert denormal(found[0]) == 0


def denormal(numbers: Tensor) -> int:
    """How many are."""
    return int(((numbers != 0) & (numbers.abs() < torch.finfo(numbers.dtype).tiny)).sum())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_a_gpu_gives_the_same(aggregator: Aggregator) -> None:
    graph = GRAPHS["random"]
    torch.manual_seed(0)
    layer = SAGEConv(5, 8, aggregator).double().eval()
    x, edges = features(graph), edge_index(graph)
    out = layer(x, edges)
    expected = gradients(out, x, *layer.parameters())
    found = layer.cuda()(x.cuda(), edges.cuda()).cpu()
    close(found, out)
    for ours, theirs in zip(gradients(found, x, *layer.parameters()), expected, strict=True):
        close(ours.cpu(), theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_lower_precision_is_near(aggregator: Aggregator, dtype: torch.dtype) -> None:
    graph = GRAPHS["hub"]
    torch.manual_seed(0)
    layer = SAGEConv(5, 8, aggregator).eval()
    x, edges = features(graph).detach().float(), edge_index(graph)
    out = layer(x, edges)
    expected = gradients(out, *layer.parameters())
    with torch.autocast("cpu", dtype):
        mixed = layer(x.to(dtype), edges)
    found = gradients(mixed.float(), *layer.parameters())
    low = layer.to(dtype)(x.to(dtype), edges)
    assert low.dtype == dtype
    for result in (mixed, low):
        torch.testing.assert_close(result.float(), out, atol=0.03, rtol=0.03)
    for gradient in (found, gradients(low.float(), *layer.parameters())):
        for ours, theirs in zip(gradient, expected, strict=True):
            assert float((ours.float() - theirs).norm()) <= 0.05 * float(theirs.norm())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # the compiler's own
@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_it_compiles(aggregator: Aggregator) -> None:
    torch._dynamo.reset()
    graph = GRAPHS["hub"]
    torch.manual_seed(0)
    layer = SAGEConv(5, 8, aggregator).eval()
    x, edges = features(graph).detach().float().requires_grad_(), edge_index(graph)
    out, compiled = layer(x, edges), torch.compile(layer, backend="aot_eager")(x, edges)
    close(compiled, out)
    leaves = [x, *layer.parameters()]
    for ours, theirs in zip(gradients(compiled, *leaves), gradients(out, *leaves), strict=True):
        close(ours, theirs)


def test_what_flows_back_is_left_as_it_is() -> None:
    graph, cell = GRAPHS["hub"], lstm()
    x = features(graph)
    out = last_state(cell, x, graph)
    flowing = torch.ones_like(out)
    twice = [torch.autograd.grad(out, x, flowing, retain_graph=True)[0] for _ in range(2)]
    assert bool((flowing == 1).all())
    assert torch.equal(*twice)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_second_derivatives(aggregator: Aggregator) -> None:
    graph = GRAPHS["duplicates"]
    torch.manual_seed(0)
    width = None if aggregator in ("gcn", "mean") else 3
    layer = SAGEConv(5, 4, aggregator, width).double().eval()
    leaves = (features(graph), *layer.parameters())
    assert torch.autograd.gradgradcheck(lambda x, *_: layer(x, edge_index(graph)), leaves)


def test_a_nan_is_the_largest_wherever_it_stands() -> None:
    graph = Graph(torch.arange(3), torch.zeros(3, dtype=torch.long), 3, 2)
    for place in range(3):
        x = torch.tensor([[1.0], [2.0], [3.0]]).index_fill(0, torch.tensor(place), torch.nan)
        out = neighbours_max(x, graph)
        assert bool(out[0].isnan())
        assert float(out[1]) == 0


def test_sequences_are_packed_without_padding() -> None:
    graph = GRAPHS["hub"]
    sequences, senders, sizes = packed(graph)
    assert senders.numel() == graph.num_edges == int(sizes.sum())
    assert sequences[0] == 0, "the hub comes first"
    assert sizes.tolist() == sorted(sizes.tolist(), reverse=True)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize("name", SQUARE)
def test_the_layer_is_its_formula(aggregator: Aggregator, name: str) -> None:
    graph = GRAPHS[name]
    torch.manual_seed(0)
    width = None if aggregator in ("gcn", "mean") else 3
    layer = SAGEConv(5, 8, aggregator, width).double().eval()
    x, edges = features(graph), edge_index(graph)
    rows = []
    for node in range(graph.num_receivers):
        heard = x[edges[0, edges[1] == node]]
        if aggregator == "gcn":
            others = x[edges[0, (edges[1] == node) & (edges[0] != node)]]
            rows.append(layer.lin(torch.cat([others, x[node : node + 1]]).mean(0)))
            continue
        if not len(heard):
            aggregated = x.new_zeros(5 if aggregator == "mean" else 3)
        elif aggregator == "mean":
            aggregated = heard.mean(0)
        elif aggregator == "max-pool":
            aggregated = layer.pool(heard).relu().max(0).values
        else:
            aggregated = layer.lstm(heard)[1][0][0]
        rows.append(torch.cat([layer.lin_self(x[node]), layer.lin(aggregated)]))
    expected = torch.stack(rows) if rows else x.new_zeros(0, 8)
    out = layer(x, edges)
    close(out, expected)
    leaves = [x, *layer.parameters()]
    for ours, theirs in zip(gradients(out, *leaves), gradients(expected, *leaves), strict=True):
        close(ours, theirs)


def test_neighbours_come_in_another_order_each_time_in_training_only() -> None:
    graph = GRAPHS["random"]
    layer = SAGEConv(5, 8, "lstm").double()
    x, edges = features(graph).detach(), edge_index(graph)
    assert not torch.equal(layer(x, edges), layer(x, edges))
    layer.eval()
    assert torch.equal(layer(x, edges), layer(x, edges))


def test_a_shuffled_graph_has_the_same_edges() -> None:
    graph = GRAPHS["duplicates"]
    other = shuffled(graph)
    assert sorted(zip(other.senders.tolist(), other.receivers.tolist(), strict=True)) == sorted(
        zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True)
    )


def test_what_cannot_be_built() -> None:
    with pytest.raises(ValueError, match=r"unknown aggregator 'max': .*max-pool"):
        SAGEConv(5, 8, "max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="out_channels is 7: needed an even number"):
        SAGEConv(5, 7)
    with pytest.raises(ValueError, match="width is 3, but mean aggregates the features as they are"):
        SAGEConv(5, 8, "mean", width=3)
    with pytest.raises(ValueError, match="hidden is empty"):
        SAGE(5, 3, hidden=())
    assert SAGEConv(5, 7, "gcn").out_channels == 7
