"""Neighbour sampling: what a batch holds, how likely each sample is, and that nothing else decides about it."""

from __future__ import annotations

import math
import pickle
import threading
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import GRAPHS, SQUARE, edge_index
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import LinkNeighborLoader

from graphattn import native
from graphattn.conv import GATConv
from graphattn.data import NeighborLoader, NeighborSampler, neighbor_loader

DRAWS = 6000


def data_of(name: str) -> Data:
    graph = GRAPHS[name]
    edges = edge_index(graph)
    return Data(
        x=torch.arange(float(graph.num_senders)).unsqueeze(1),
        edge_index=edges,
        edge_attr=torch.arange(float(edges.shape[1])),
        num_nodes=graph.num_senders,
    )


def star(degree: int, **attributes: Any) -> Data:
    """Nodes 1 .. degree send to node 0."""
    edges = torch.stack([torch.arange(1, degree + 1), torch.zeros(degree, dtype=torch.int64)])
    return Data(edge_index=edges, num_nodes=degree + 1, **attributes)


def drawn(data: Data, wanted: int, times: int = DRAWS, **options: Any) -> list[tuple[int, ...]]:
    """The senders drawn for node 0, sorted, each time."""
    sampler = NeighborSampler(data, [wanted], **options)
    found = []
    for _ in range(times):
        out = sampler._sample(torch.tensor([0]))
        found.append(tuple(sorted(data.edge_index[0, sampler.perm[out.edge]].tolist())))
    return found


def check_likely(counts: Counter[Any], probabilities: dict[Any, float], draws: int) -> None:
    """Every outcome came as often as it should, to within five standard deviations."""
    assert set(counts) <= {outcome for outcome, p in probabilities.items() if p > 0}
    for outcome, p in probabilities.items():
        spread = math.sqrt(max(draws * p * (1 - p), 1.0))
        assert abs(counts[outcome] - draws * p) < 5 * spread, (outcome, counts[outcome], draws * p)


def check_batch(data: Data, batch: Data, wanted: list[int], *, replace: bool = False) -> None:
    """The documented fields, and that the edges are edges of the graph."""
    senders, receivers = batch.n_id[batch.edge_index]
    assert torch.equal(torch.stack([senders, receivers]), data.edge_index[:, batch.e_id])
    assert torch.equal(batch.edge_attr, data.edge_attr[batch.e_id])
    assert torch.equal(batch.x, data.x[batch.n_id])
    assert len(batch.num_sampled_nodes) == len(wanted) + 1
    assert len(batch.num_sampled_edges) == len(wanted)
    assert sum(batch.num_sampled_nodes) == batch.num_nodes
    assert sum(batch.num_sampled_edges) == batch.num_edges
    assert batch.num_sampled_nodes[0] == batch.batch_size == batch.input_id.numel()
    degree = torch.bincount(data.edge_index[1], minlength=data.num_nodes)
    first_node, first_edge = 0, 0
    for hop, most in enumerate(wanted):
        nodes = range(first_node, first_node + batch.num_sampled_nodes[hop])
        edges = slice(first_edge, first_edge + batch.num_sampled_edges[hop])
        entering = Counter(batch.edge_index[1, edges].tolist())
        assert set(entering) <= set(nodes), "a hop draws for the nodes that the hop before has found"
        for node in nodes:
            there = int(degree[batch.n_id[node]])
            needed = there if most < 0 else most if replace and there else min(most, there)
            assert entering[node] == needed
        if not replace:
            pairs = zip(batch.edge_index[1, edges].tolist(), batch.e_id[edges].tolist(), strict=True)
            assert len(set(pairs)) == batch.num_sampled_edges[hop], "no edge is drawn twice for a node"
        first_node, first_edge = first_node + batch.num_sampled_nodes[hop], edges.stop


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("wanted", [[2], [3, 2], [-1, 1, 2], [0, 4]])
@pytest.mark.parametrize("name", [name for name in SQUARE if GRAPHS[name].num_senders])
def test_a_batch_has_the_documented_fields(name: str, wanted: list[int], replace: bool) -> None:
    data = data_of(name)
    loader = NeighborLoader(data, wanted, batch_size=3, replace=replace)
    batches = list(loader)
    assert torch.cat([batch.n_id[: batch.batch_size] for batch in batches]).tolist() == list(range(data.num_nodes))
    assert torch.cat([batch.input_id for batch in batches]).tolist() == list(range(data.num_nodes))
    for batch in batches:
        check_batch(data, batch, wanted, replace=replace)
        assert batch.n_id.unique().numel() == batch.num_nodes, "each node once"


@pytest.mark.parametrize("wanted", [1, 2, 4])
def test_every_set_of_neighbours_is_equally_likely(wanted: int) -> None:
    sets = list(combinations(range(1, 6), wanted))
    check_likely(Counter(drawn(star(5), wanted)), dict.fromkeys(sets, 1 / len(sets)), DRAWS)


@pytest.mark.parametrize(("degree", "wanted"), [(50, 40), (34, 33), (1200, 33)])
def test_large_sets_are_drawn_evenly_too(degree: int, wanted: int) -> None:
    """More than are looked through for one drawn before, of few and of many."""
    draws = drawn(star(degree), wanted, times=3000)
    found = Counter(node for nodes in draws for node in nodes)
    check_likely(found, dict.fromkeys(range(1, degree + 1), wanted / degree), 3000)
    assert all(len(set(nodes)) == wanted for nodes in draws)


def test_draws_with_replacement_do_not_know_of_each_other() -> None:
    outcomes = {(a, b): (1 if a == b else 2) / 9 for a in (1, 2, 3) for b in (1, 2, 3) if a <= b}
    check_likely(Counter(drawn(star(3), 2, replace=True)), outcomes, DRAWS)


def test_weights_are_the_odds_of_one_draw_after_the_other() -> None:
    """As torch.multinomial without replacement: each draw in proportion to the weights that are left."""
    weights = torch.tensor([1.0, 2.0, 5.0, 0.0])
    p = (weights / weights.sum()).tolist()
    pairs = {(a + 1, b + 1): p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b]) for a, b in combinations(range(4), 2)}
    assert sum(pairs.values()) == pytest.approx(1)
    check_likely(Counter(drawn(star(4, w=weights), 2, weight_attr="w")), pairs, DRAWS)
    alone = {(a + 1,): p[a] for a in range(4)}
    check_likely(Counter(drawn(star(4, w=weights), 1, weight_attr="w", replace=True)), alone, DRAWS)
    assert drawn(star(2, w=torch.zeros(2)), 1, times=3, weight_attr="w") == [()] * 3


def test_weights_follow_their_edges_when_these_are_sorted() -> None:
    data = data_of("random")
    data.w = (data.edge_index[0] % 2 == 0).double()
    for batch in NeighborLoader(data, [1], batch_size=30, weight_attr="w"):
        degree = torch.bincount(data.edge_index[1], minlength=30)
        drawn_by_chance = degree[batch.n_id[batch.edge_index[1]]] > 1
        assert (batch.n_id[batch.edge_index[0]] % 2 == 0)[drawn_by_chance].all()


@pytest.mark.parametrize("name", ["random", "hub", "duplicates", "isolated", "directed"])
def test_all_neighbours_give_the_layers_output_on_the_whole_graph(name: str) -> None:
    data = data_of(name)
    first, second = GATConv(1, 3, heads=2).double(), GATConv(6, 2).double()
    x = data.x.double() / data.num_nodes
    whole = second(first(x, data.edge_index).relu(), data.edge_index)
    for batch in NeighborLoader(data, [-1, -1], batch_size=4):
        hidden = first(x[batch.n_id], batch.edge_index).relu()
        out = second(hidden, batch.edge_index)[: batch.batch_size]
        torch.testing.assert_close(out, whole[batch.n_id[: batch.batch_size]])


def sampled(loader: NeighborLoader, used: int = 0) -> list[list[int]]:
    torch.manual_seed(5)
    found = []
    for batch in loader:
        torch.rand(used)
        found.append(batch.e_id.tolist())
    return found


def test_only_the_seed_decides() -> None:
    data = data_of("random")
    ready = {"data": data, "num_neighbors": [2, 2], "batch_size": 4, "shuffle": True}
    expected = sampled(NeighborLoader(**ready))
    assert expected != sampled(NeighborLoader(**ready | {"num_neighbors": [2, 3]}))
    for ahead in (0, 1, 2, 7):
        for used in (0, 3):  # random numbers taken by what is done with a batch
            assert sampled(NeighborLoader(**ready, prefetch=ahead), used) == expected
    own = [
        sampled(NeighborLoader(**ready, prefetch=k, neighbor_sampler=NeighborSampler(data, [2, 2]).seeded(4)))
        for k in (0, 2)
    ]
    assert own[0] == own[1] != expected
    torch.manual_seed(6)
    assert [batch.e_id.tolist() for batch in NeighborLoader(**ready)] != expected


def test_processes_make_the_same_batches_again() -> None:
    loader = NeighborLoader(data_of("random"), [2, 2], batch_size=8, num_workers=2)
    first = sampled(loader)
    assert first == sampled(loader)
    assert len(first) == 4


def test_a_sampler_can_be_sent_to_another_process() -> None:
    sampler = NeighborSampler(data_of("random"), [3])
    again = pickle.loads(pickle.dumps(sampler))
    seeds = torch.arange(10)
    assert torch.equal(sampler.seeded(3)._sample(seeds).edge, again.seeded(3)._sample(seeds).edge)


def test_leaving_early_stops_the_threads() -> None:
    for _ in range(5):
        batches = iter(NeighborLoader(data_of("random"), [2], batch_size=1, prefetch=3))
        next(batches)
        assert any(thread.name.startswith("sampling") for thread in threading.enumerate())
        del batches
    assert not any(thread.name.startswith("sampling") for thread in threading.enumerate())


def test_threads_pin_what_they_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    by = []

    def pinned(batch: Data) -> Data:
        by.append(threading.current_thread().name.split("_")[0])
        batch.pinned = True
        return batch

    monkeypatch.setattr(neighbor_loader, "pin_memory", pinned)
    ready = {"data": data_of("random"), "num_neighbors": [2], "batch_size": 15}
    assert all(batch.pinned for batch in NeighborLoader(**ready, pin_memory=True))
    assert by == ["sampling"] * 2
    fresh = NeighborLoader(**ready, pin_memory=True, transform=lambda batch: Data(x=batch.x.clone()))
    assert all(batch.pinned for batch in fresh), "what a transform makes too"
    late = NeighborLoader(**ready, pin_memory=True, transform_sampler_output=lambda out: out)
    assert all(batch.pinned for batch in late)
    by.clear()
    assert len(list(NeighborLoader(**ready))) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, where there is no GPU
        assert len(list(NeighborLoader(**ready, pin_memory=True, filter_per_worker=False))) == 2
    assert not by, "what lies on a GPU cannot be pinned"


@pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without a GPU")
def test_nothing_is_pinned_without_a_gpu() -> None:
    with pytest.warns(UserWarning, match="no accelerator is found"):
        batches = list(NeighborLoader(data_of("random"), [2], batch_size=15, pin_memory=True))
    assert len(batches) == 2
    assert not batches[0].x.is_pinned()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_batches_are_those_that_are_not() -> None:
    ready = {"data": data_of("random"), "num_neighbors": [2, 2], "batch_size": 4}
    batches = list(NeighborLoader(**ready, pin_memory=True))
    assert all(batch.x.is_pinned() and batch.edge_index.is_pinned() for batch in batches)
    assert sampled(NeighborLoader(**ready, pin_memory=True)) == sampled(NeighborLoader(**ready))


def test_a_seed_given_twice_is_there_twice() -> None:
    batch = next(iter(NeighborLoader(data_of("random"), [2], input_nodes=torch.tensor([4, 4, 1]), batch_size=3)))
    assert batch.n_id[:3].tolist() == [4, 4, 1]
    assert batch.batch_size == 3


def test_a_mask_chooses_the_seeds() -> None:
    mask = torch.zeros(30, dtype=torch.bool)
    mask[[3, 8]] = True
    batch = next(iter(NeighborLoader(data_of("random"), [2], input_nodes=mask, batch_size=3)))
    assert batch.n_id[:2].tolist() == [3, 8]


def test_induced_holds_every_edge_between_its_nodes() -> None:
    data = data_of("random")
    for batch in NeighborLoader(data, [2, 1], batch_size=3, subgraph_type="induced"):
        inside = torch.isin(data.edge_index, batch.n_id).all(0)
        assert sorted(batch.e_id.tolist()) == inside.nonzero().flatten().tolist()
        assert torch.equal(batch.n_id[batch.edge_index], data.edge_index[:, batch.e_id])
    old_way = next(iter(NeighborLoader(data, [2, 1], batch_size=3, directed=False)))
    assert "num_sampled_edges" not in old_way, "which hop an induced edge belongs to is not defined"


def test_bidirectional_adds_the_way_back() -> None:
    batch = next(iter(NeighborLoader(data_of("directed"), [2, 2], batch_size=2, subgraph_type="bidirectional")))
    pairs = set(map(tuple, batch.edge_index.t().tolist()))
    assert pairs
    assert pairs == {(b, a) for a, b in pairs}


def test_disjoint_seeds_have_nodes_of_their_own() -> None:
    data = data_of("random")
    batch = next(iter(NeighborLoader(data, [3, 3], batch_size=6, disjoint=True)))
    check_batch(data, batch, [3, 3])
    assert batch.batch[:6].tolist() == list(range(6))
    senders, receivers = batch.batch[batch.edge_index]
    assert torch.equal(senders, receivers)
    pairs = list(zip(batch.batch.tolist(), batch.n_id.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)


TIMES = torch.tensor([5, 1, 2, 3, 4, 5, 6, 7])  # of node 0, then of those that send to it


@pytest.mark.parametrize("of", ["nodes", "edges"])
def test_nothing_later_than_the_seed_is_drawn(of: str) -> None:
    times = {"time": TIMES} if of == "nodes" else {"time": TIMES[1:]}
    own = None if of == "nodes" else torch.tensor([5])
    order = torch.randperm(7)
    data = star(7, **times)
    data.edge_index = data.edge_index[:, order]
    if of == "edges":
        data.time = data.time[order]

    def senders(**options: Any) -> list[int]:
        loader = NeighborLoader(
            data, input_nodes=torch.tensor([0]), input_time=own, time_attr="time", batch_size=1, **options
        )
        return sorted(next(iter(loader)).n_id[1:].tolist())

    assert senders(num_neighbors=[-1]) == [1, 2, 3, 4, 5]
    assert senders(num_neighbors=[2], temporal_strategy="last") == [4, 5]
    found = Counter(node for _ in range(600) for node in senders(num_neighbors=[1]))
    check_likely(found, dict.fromkeys(range(1, 6), 0.2), 600)
    own = torch.tensor([2])
    assert senders(num_neighbors=[-1]) == [1, 2], "input_time overrides the seed's own"


def two_kinds() -> HeteroData:
    data = HeteroData()
    data["paper"].x = torch.arange(6.0).unsqueeze(1)
    data["author"].x = torch.arange(4.0).unsqueeze(1)
    data["paper", "cites", "paper"].edge_index = torch.tensor([[1, 2, 3, 4, 5, 3], [0, 0, 0, 1, 1, 2]])
    data["author", "writes", "paper"].edge_index = torch.tensor([[0, 1, 2, 3, 1], [0, 0, 1, 1, 5]])
    data["paper", "of", "author"].edge_index = torch.tensor([[4, 5], [0, 1]])
    return data


def test_several_kinds_of_nodes_and_edges() -> None:
    data = two_kinds()
    for subgraph_type in ("directional", "induced"):
        for batch in NeighborLoader(
            data, [2, 2], input_nodes=("paper", None), batch_size=2, subgraph_type=subgraph_type
        ):
            assert batch["paper"].batch_size == 2
            assert batch["paper"].n_id[:2].tolist() == batch["paper"].input_id.tolist()
            for kind in data.edge_types:
                ends = batch[kind].edge_index
                senders, receivers = batch[kind[0]].n_id[ends[0]], batch[kind[2]].n_id[ends[1]]
                assert torch.equal(torch.stack([senders, receivers]), data[kind].edge_index[:, batch[kind].e_id])
            for kind in data.node_types:
                assert torch.equal(batch[kind].x, data[kind].x[batch[kind].n_id])


@pytest.mark.parametrize(("kind", "things"), [("paper", "6 nodes"), (("paper", "cites", "paper"), "6 edges")])
@pytest.mark.parametrize("count", [5, 7])
def test_several_kinds_need_a_time_for_each_of_a_kind(kind: Any, things: str, count: int) -> None:
    data = two_kinds()
    data[kind].time = torch.arange(count)
    with pytest.raises(ValueError, match=rf"time_attr 'time' has shape \({count},\) for {things}: needed one each"):
        NeighborSampler(data, [2], time_attr="time")


def test_neighbours_are_counted_hop_by_hop() -> None:
    with pytest.raises(ValueError, match=r"num_neighbors is 5: needed a number for each hop, e.g. \[5\]"):
        NeighborLoader(star(3), 5)


@pytest.mark.parametrize("seeds", [None, "book", ("book", None)])
def test_seeds_are_of_a_kind_that_is_there(seeds: Any) -> None:
    data = two_kinds()
    with pytest.raises(ValueError, match=r"unknown kind of input_nodes .*: .*author"):
        NeighborLoader(data, [2], input_nodes=seeds)
    assert data.node_types == two_kinds().node_types, "none was added"


def test_sorted_edges_with_times_are_sampled_as_others() -> None:
    data = star(3, time=torch.tensor([2, 1, 2, 3]))
    loader = NeighborLoader(data, [-1], input_nodes=torch.tensor([0]), time_attr="time", is_sorted=True)
    assert next(iter(loader)).n_id.tolist() == [0, 1, 2]


def test_seeds_without_times_need_some() -> None:
    data = two_kinds()
    data["author"].time = torch.arange(4)
    with pytest.raises(ValueError, match="the seeds paper have no times of their own: give input_time"):
        list(NeighborLoader(data, [2], input_nodes=("paper", None), time_attr="time"))


def test_a_sorted_graph_may_be_changed_afterwards() -> None:
    data = star(3)
    sampler = NeighborSampler(data, [-1], is_sorted=True)
    data.edge_index += 10**12
    assert sampler._sample(torch.tensor([0])).node.tolist() == [0, 1, 2, 3]


def test_each_kind_of_edge_has_its_own_number() -> None:
    wanted = {kind: [0] for kind in two_kinds().edge_types} | {("author", "writes", "paper"): [-1]}
    batch = next(iter(NeighborLoader(two_kinds(), wanted, input_nodes=("paper", torch.tensor([0, 5])), batch_size=2)))
    assert batch["paper"].num_nodes == 2
    assert sorted(batch["author"].n_id.tolist()) == [0, 1]
    assert batch["author"].num_sampled_nodes == [0, 2]
    assert batch["author", "writes", "paper"].num_sampled_edges == [3]


def test_links_are_sampled_around_by_pygs_loader() -> None:
    data = data_of("random")
    loader = LinkNeighborLoader(
        data,
        [2, 2],
        edge_label_index=data.edge_index[:, :8],
        batch_size=4,
        neg_sampling_ratio=1.0,
        neighbor_sampler=NeighborSampler(data, [2, 2]),
    )
    for batch in loader:
        real = batch.edge_label_index[:, batch.edge_label == 1]
        assert torch.equal(batch.n_id[real], data.edge_index[:, batch.input_id])


def test_features_may_lie_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    x = torch.randn(30, 4)
    path.write_bytes(x.numpy().tobytes())
    data = data_of("random")
    data.x = torch.from_file(str(path), shared=False, size=120).view(30, 4)
    for batch in NeighborLoader(data, [3], batch_size=7):
        assert torch.equal(batch.x, x[batch.n_id])


def test_transforms_are_called_where_the_batch_is_used() -> None:
    where = []

    def noted(batch: Any) -> Any:
        where.append(threading.current_thread())
        return batch

    for option in ("transform", "transform_sampler_output"):
        for ahead in (0, 2):
            assert (
                len(list(NeighborLoader(data_of("random"), [2], batch_size=9, prefetch=ahead, **{option: noted}))) == 4
            )
    assert set(where) == {threading.current_thread()}
    assert len(where) == 16


def test_transforms_are_applied() -> None:
    def doubled(batch: Data) -> Data:
        batch.x = 2 * batch.x
        return batch

    data = data_of("random")
    batch = next(iter(NeighborLoader(data, [2], batch_size=3, transform=doubled)))
    assert torch.equal(batch.x, 2 * data.x[batch.n_id])


def test_a_failure_in_a_thread_is_the_callers() -> None:
    def broken(batch: Data) -> Data:
        raise RuntimeError("broken transform")

    with pytest.raises(RuntimeError, match="broken transform"):
        next(iter(NeighborLoader(data_of("random"), [2], transform=broken)))


def weighted(*weights: float) -> Data:
    return star(len(weights), w=torch.tensor(weights))


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (star(3), {"input_time": torch.tensor([1])}, "input_time is given without time_attr"),
        (star(3), {"time_attr": "when"}, "time_attr is 'when', but neither nodes nor edges have it"),
        (star(3), {"weight_attr": "w"}, "weight_attr is 'w', which the edges do not have"),
        (weighted(1, -1), {"weight_attr": "w"}, "edge 1 weighs -1.0, needed finite numbers that are not negative"),
        (weighted(math.nan, 1), {"weight_attr": "w"}, "edge 0 weighs nan"),
        (star(3), {"prefetch": -1}, "prefetch is -1"),
        (star(3), {"temporal_strategy": "first"}, "unknown temporal_strategy 'first': .*uniform, last"),
        (star(3), {"subgraph_type": "half"}, "'half' is not a valid SubgraphType"),
        (Data(edge_index=torch.tensor([[5], [0]]), num_nodes=2), {}, "holds node 5, but there are 2 nodes"),
        (star(3), {"input_nodes": torch.tensor([9])}, "a seed is node 9, needed 0 to 3"),
        (star(3, time=torch.arange(3)), {"time_attr": "time"}, "give input_time"),
        (star(3, time=torch.rand(4)), {"time_attr": "time"}, "has dtype torch.float32: needed whole numbers"),
        (star(3, time=torch.arange(4)), {"time_attr": "time", "input_time": torch.rand(4)}, "input_time has dtype"),
        (star(3), {"input_nodes": torch.tensor([0.5])}, "input_nodes has dtype torch.float32: needed numbers of nodes"),
        (star(3), {"input_nodes": torch.ones(2, dtype=torch.bool)}, r"a mask of shape \(2,\), needed \[4\]"),
        (star(3), {"input_nodes": np.array([True] * 4)}, "is a ndarray of torch.bool: .* or a mask as a tensor"),
        (star(3), {"input_nodes": [False, True, True, True]}, "is a list of torch.bool: needed numbers of nodes"),
        (star(3), {"input_nodes": [1.7]}, "is a list of torch.float32: needed numbers of nodes"),
        (
            star(3, time=torch.arange(4)),
            {"time_attr": "time", "input_nodes": torch.tensor([3]), "input_time": torch.arange(4)},
            r"input_time has shape \(4,\) for 1 input_nodes: needed a time for each",
        ),
        (star(3, time=torch.tensor([9, 2, 1, 0])), {"time_attr": "time", "is_sorted": True}, "not sorted by time"),
        (Data(adj_t=torch.eye(3).to_sparse_csr(), num_nodes=3), {}, "adj_t is a tensor: needed edge_index"),
        (star(3, time=torch.arange(4)), {"time_attr": "time", "subgraph_type": "induced"}, "edges of other times"),
        (star(3), {"temporal_strategy": "last", "replace": True}, "leave out replace and weight_attr"),
        (star(3, w=torch.ones(4)), {"weight_attr": "w"}, "has 4 entries for 3 edges"),
        (Data(edge_index=torch.tensor([[0, 0], [1, 0]]), num_nodes=2), {"is_sorted": True}, "not sorted by receiver"),
        (Data(edge_index=torch.tensor([[0], [9**9]]), num_nodes=2), {"is_sorted": True}, "but there are 2 nodes"),
    ],
)
def test_what_cannot_be_sampled(data: Data, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, IndexError), match=message):
        list(NeighborLoader(data, [2], **options))


def test_an_install_without_kernels_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "kernels", None)
    with pytest.raises(ImportError, match=r"needs the compiled kernels.*install a C\+\+ compiler"):
        NeighborSampler(star(3), [1])


def test_threads_keep_to_their_seeds() -> None:
    sampler = NeighborSampler(data_of("random"), [5, 5, 5])
    seeds = torch.arange(30)

    def edges(seed: int) -> Tensor:
        return sampler.seeded(seed)._sample(seeds).edge

    alone = [edges(seed) for seed in range(50)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(edges, range(50)))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
