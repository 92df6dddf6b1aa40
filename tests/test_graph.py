"""Graph: what it accepts, its two orders, and what is made from it."""

import re

import pytest
import torch
from cases import GRAPHS, edge_index
from torch_geometric.utils import add_self_loops, remove_self_loops

from graphattn import Graph, graph


def ends(*pairs: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    senders, receivers = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return senders, receivers


def pairs(graph: Graph) -> list[tuple[int, int]]:
    return list(zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True))


@pytest.fixture
def small() -> Graph:
    """Four senders, three receivers; receiver 1 hears none, edge 4 repeats edge 1."""
    return Graph(*ends((3, 2), (0, 0), (1, 2), (3, 0), (0, 0)), 4, 3)


def test_the_receiver_order_groups_edges_by_receiver_and_keeps_the_callers_order_within(small):
    order = small.by_receiver
    assert order.ptr.tolist() == [0, 3, 3, 5]
    assert order.edges.tolist() == [1, 3, 4, 0, 2]
    assert order.others.tolist() == [0, 3, 0, 3, 1]


def test_the_sender_order_groups_edges_by_sender_and_keeps_the_callers_order_within(small):
    order = small.by_sender
    assert order.ptr.tolist() == [0, 2, 3, 3, 5]
    assert order.edges.tolist() == [1, 4, 2, 0, 3]
    assert order.others.tolist() == [0, 0, 2, 2, 0]


@pytest.mark.parametrize("name", GRAPHS)
def test_edge_index_is_made_once_senders_above_receivers(name):
    g = GRAPHS[name]
    assert g.edge_index is g.edge_index
    assert torch.equal(g.edge_index[0], g.senders)
    assert torch.equal(g.edge_index[1], g.receivers)


@pytest.mark.parametrize("name", GRAPHS)
def test_an_order_lists_every_edge_once_with_the_node_at_its_other_end(name):
    g = GRAPHS[name]
    for order, own, other in ((g.by_receiver, g.receivers, g.senders), (g.by_sender, g.senders, g.receivers)):
        assert sorted(order.edges.tolist()) == list(range(g.num_edges))
        assert torch.equal(order.others, other[order.edges])
        nodes = torch.arange(order.ptr.numel() - 1).repeat_interleave(order.ptr.diff())
        assert torch.equal(nodes, own[order.edges])


def by_sorting(own: torch.Tensor, other: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    edges = torch.argsort(own, stable=True)
    counts = torch.bincount(own, minlength=size)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]), edges, other[edges]


def assert_sorted(g: Graph) -> None:
    receivers = by_sorting(g.receivers, g.senders, g.num_receivers)
    senders = by_sorting(g.senders, g.receivers, g.num_senders)
    for order, expected in ((g.by_receiver, receivers), (g.by_sender, senders)):
        for found, wanted in zip((order.ptr, order.edges, order.others), expected, strict=True):
            assert torch.equal(found, wanted)


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_orders_are_those_of_a_stable_sort_for_any_number_of_threads(threads):
    """Threads share the work where there are twice as many edges as nodes and 4096 more."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    try:
        for g in GRAPHS.values():
            assert_sorted(Graph(g.senders, g.receivers, g.num_senders, g.num_receivers))
        for num_edges, num_senders, num_receivers in [
            (1, 1, 1),
            (1000, 10, 2000),
            (12_289, 1, 2048),
            (20_000, 3, 5),
            (20_001, 5000, 900),
            (50_000, 4000, 1),
            (100_003, 7, 100_000),
        ]:
            ends = (torch.randint(size, (num_edges,), generator=generator) for size in (num_senders, num_receivers))
            assert_sorted(Graph(*ends, num_senders, num_receivers))
        rising = torch.arange(40_000) // 20
        assert_sorted(Graph(rising, rising.flip(0), 2000, 2000))
        assert_sorted(Graph(rising.flip(0)[::2], rising[1::2], 2000, 2000))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("size", [3, 30_000], ids=["one run of edges", "several"])
@pytest.mark.parametrize("node", [-1, 2, 2**40, -(2**63)])
@pytest.mark.parametrize("role", ["senders", "receivers"])
def test_an_index_changed_after_the_graph_was_made_is_refused_before_a_kernel_reads_it(role, node, size):
    ends = {"senders": torch.zeros(size, dtype=torch.int64), "receivers": torch.ones(size, dtype=torch.int64)}
    g = Graph(**ends, num_senders=2, num_receivers=2)
    ends[role][-1] = node
    for order in ("by_receiver", "by_sender"):
        with pytest.raises(IndexError, match="node"):
            getattr(g, order)


def test_each_order_is_sorted_once(small, monkeypatch):
    made = []
    grouped = graph._grouped
    monkeypatch.setattr(graph, "_grouped", lambda *given: made.append(given) or grouped(*given))
    assert small.by_receiver is small.by_receiver
    assert small.by_sender is small.by_sender
    assert len(made) == 2


def test_degrees_sizes_and_pairs_of_a_bipartite_graph(small):
    assert (small.num_edges, small.num_senders, small.num_receivers) == (5, 4, 3)
    assert small.in_degree.tolist() == [3, 0, 2]
    assert small.pair.tolist() == [11, 0, 9, 3, 0]
    assert not small.is_square
    assert repr(small) == "Graph(E=5, N_s=4, N_r=3, device=cpu)"


def test_no_edges_still_have_pointers_and_degrees_for_every_node():
    g = GRAPHS["no_edges"]
    assert g.by_receiver.ptr.tolist() == g.by_sender.ptr.tolist() == [0] * 5
    assert g.in_degree.tolist() == [0] * 4
    assert GRAPHS["no_nodes"].by_receiver.ptr.tolist() == [0]


@pytest.mark.parametrize(
    ("edges", "sizes", "complete"),
    [
        ([(0, 1), (1, 0), (0, 0), (1, 1)], (2, 2), True),
        ([(0, 1), (1, 0), (0, 0), (0, 0)], (2, 2), False),  # as many edges, one of them double
        ([(0, 0), (0, 1), (0, 2)], (1, 3), True),
        ([(0, 0), (0, 1)], (1, 3), False),
        ([], (0, 0), True),
        ([], (0, 3), True),
    ],
)
def test_a_graph_is_complete_if_every_pair_is_there_exactly_once(edges, sizes, complete):
    assert Graph(*ends(*edges), *sizes).is_complete is complete


@pytest.mark.parametrize("name", GRAPHS)
def test_self_loops_are_removed_and_added_as_in_pyg(name):
    g = GRAPHS[name]
    bare, _ = remove_self_loops(edge_index(g))
    looped, _ = add_self_loops(bare, num_nodes=min(g.num_senders, g.num_receivers))
    assert torch.equal(edge_index(g.without_self_loops()), bare)
    assert torch.equal(edge_index(g.with_self_loops()), looped)
    assert g.with_self_loops().num_receivers == g.num_receivers


def test_reverse_turns_every_edge_and_keeps_its_position(small):
    back = small.reverse()
    assert pairs(back) == [(b, a) for a, b in pairs(small)]
    assert (back.num_senders, back.num_receivers) == (3, 4)
    assert torch.equal(back.by_sender.edges, small.by_receiver.edges)


def test_a_move_to_the_same_device_is_the_graph_itself(small):
    assert small.to("cpu") is small


def test_a_move_to_another_device_moves_both_ends():
    moved = GRAPHS["no_edges"].to("meta")
    assert moved.device.type == moved.senders.device.type == moved.receivers.device.type == "meta"
    assert moved.num_senders == 4


def test_orders_are_the_same_on_every_device(small, device):
    moved = small.to(device)
    assert moved.to(device) is moved
    for name in ("by_receiver", "by_sender"):
        for field in ("ptr", "edges", "others"):
            assert torch.equal(getattr(getattr(moved, name), field).cpu(), getattr(getattr(small, name), field))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16, torch.uint32])
def test_any_integer_dtype_is_taken_and_becomes_int64(dtype):
    index = torch.tensor([1, 0]).to(dtype)
    g = Graph(index, index, 2, 2)
    assert g.senders.dtype == g.receivers.dtype == torch.int64
    assert g.senders.tolist() == [1, 0]


_TWO = torch.tensor([0, 1])
_ERRORS = {
    "a list": (TypeError, ([0, 1], _TWO, 2, 2), ["senders is a list", "1-D integer tensor"]),
    "floats": (TypeError, (_TWO, _TWO.float(), 2, 2), ["receivers has dtype torch.float32", ".long()"]),
    "booleans": (TypeError, (_TWO.bool(), _TWO, 2, 2), ["senders has dtype torch.bool"]),
    "complex": (TypeError, (_TWO.cfloat(), _TWO, 2, 2), ["senders has dtype torch.complex64"]),
    "a matrix": (ValueError, (_TWO[None], _TWO, 2, 2), ["senders has shape (1, 2)", "[E]"]),
    "a scalar": (ValueError, (_TWO, _TWO[0], 2, 2), ["receivers has shape ()", "[E]"]),
    "unequal lengths": (ValueError, (_TWO, _TWO[:1], 2, 2), ["2 senders but 1 receivers", "one of each"]),
    "negative size": (ValueError, (_TWO[:0], _TWO[:0], 2, -1), ["num_receivers is -1", "cannot be negative"]),
    "two devices": (ValueError, (_TWO[:0], _TWO[:0].to("meta"), 2, 2), ["on cpu", "receivers on meta", "one device"]),
    "sender too large": (IndexError, (_TWO, _TWO, 1, 2), ["senders holds node 1", "1 nodes (0 to 0)", "raise"]),
    "receiver too large": (IndexError, (_TWO, _TWO + 7, 2, 8), ["receivers holds node 8", "8 nodes (0 to 7)"]),
    "negative index": (IndexError, (_TWO - 1, _TWO, 2, 2), ["senders holds node -1", "2 nodes"]),
    "edges without nodes": (IndexError, (_TWO, _TWO, 0, 0), ["senders holds node 1", "0 nodes"]),
}


@pytest.mark.parametrize("name", _ERRORS)
def test_bad_input_is_refused_with_the_value_found_and_the_value_needed(name):
    error, arguments, parts = _ERRORS[name]
    with pytest.raises(error, match=".*".join(map(re.escape, parts))):
        Graph(*arguments)


def test_a_graph_cannot_be_changed(small):
    with pytest.raises(AttributeError):
        small.num_senders = 5
