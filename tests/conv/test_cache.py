"""The edges of an edge_index are sorted once, noticed when changed, and forgotten with the tensor."""

import weakref

import pytest
import torch
from cases import GRAPHS, close, edge_index
from torch_geometric import EdgeIndex
from torch_geometric.nn import GATConv as PyGGATConv

from graphattn import conv
from graphattn.conv import GATConv, GATv2Conv, edges
from graphattn.conv.edges import edges_of

N = GRAPHS["random"].num_senders


@pytest.fixture
def given() -> torch.Tensor:
    """An edge_index that nothing else holds."""
    return edge_index(GRAPHS["random"]).clone()


def test_the_same_tensor_gives_the_same_edges_and_another_tensor_others(given):
    assert edges_of(given, N, N, N) is edges_of(given, N, N, N)
    assert edges_of(given.clone(), N, N, N) is not edges_of(given, N, N, N)


def test_each_size_and_number_of_loops_has_its_own_edges(given):
    keys = [(N, N, None), (N, N, N), (N + 1, N, N), (N, N + 1, N)]
    made = [edges_of(given, *key) for key in keys]
    assert len({id(one) for one in made}) == len(keys)
    assert all(edges_of(given, *key) is one for key, one in zip(keys, made, strict=True))


def test_edges_without_loops_have_no_looped_edge_index(given):
    made = edges_of(given, N, N, None)
    assert made.looped is None
    assert torch.equal(edge_index(made.graph), given)
    with_loops = edges_of(given, N, N, N)
    assert torch.equal(edge_index(with_loops.graph), with_loops.looped)


def test_all_layers_of_a_model_sort_an_edge_index_once(given, monkeypatch):
    made = []
    original = edges._made
    monkeypatch.setattr(edges, "_made", lambda *key: made.append(key) or original(*key))
    x = torch.randn(N, 4)
    for layer in (GATConv(4, 3), GATv2Conv(4, 3), GATConv(4, 2, heads=2)):
        for _ in range(3):
            layer(x, given)
    assert len(made) == 1


def test_a_change_in_place_is_noticed(given):
    layer, judge = GATConv(4, 3), PyGGATConv(4, 3)
    judge.load_state_dict(layer.state_dict())
    x = torch.randn(N, 4)
    before = layer(x, given)
    given[1, 0] = (given[1, 0] + 1) % N
    close(layer(x, given), judge(x, given))
    assert not torch.equal(layer(x, given), before)


def test_a_change_in_place_of_an_edge_index_with_metadata_is_noticed(given):
    carried = EdgeIndex(given, sparse_size=(N, N))
    before = edges_of(carried, N, N, None)
    carried[0, 0] = (carried[0, 0] + 1) % N
    after = edges_of(carried, N, N, None)
    assert after is not before
    assert torch.equal(edge_index(after.graph), carried.as_tensor())


def test_a_change_of_the_tensor_that_a_view_looks_into_is_noticed(given):
    view = given[:, :10]
    before = edges_of(view, N, N, None)
    given[0, 0] = (given[0, 0] + 1) % N
    assert edges_of(view, N, N, None).graph.senders[0] == given[0, 0]
    assert edges_of(view, N, N, None) is not before


@pytest.mark.parametrize("loops", [None, N])
@pytest.mark.parametrize("carrier", [torch.clone, lambda t: EdgeIndex(t.clone(), sparse_size=(N, N))])
def test_an_entry_is_freed_with_its_tensor(given, carrier, loops):
    mine = carrier(given)
    entry = weakref.ref(edges_of(mine, N, N, loops))
    assert entry() is edges_of(mine, N, N, loops)
    del mine
    assert entry() is None


def test_inference_tensors_are_not_remembered_since_a_change_could_not_be_noticed():
    with torch.inference_mode():
        given = edge_index(GRAPHS["random"]).clone()
        before = edges_of(given, N, N, None).graph.senders[0].item()
        given[0, 0] = (before + 1) % N
        assert edges_of(given, N, N, None).graph.senders[0] == (before + 1) % N


@pytest.mark.parametrize("layer", ["GATConv", "GATv2Conv", "TransformerConv", "ConstantConv"])
def test_a_graph_first_met_in_inference_mode_can_be_trained_on(layer, given):
    module = getattr(conv, layer)(4, 3, heads=2)
    x = torch.randn(N, 4)
    with torch.inference_mode():
        module(x, given)
    module(x, given).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_orders_first_made_in_inference_mode_can_be_trained_on():
    graph = GRAPHS["random"].to("cpu").reverse()
    with torch.inference_mode():
        order = graph.by_receiver
    assert not any(part.is_inference() for part in (order.ptr, order.edges, order.others))


@pytest.mark.parametrize("layer", ["GATConv", "GATv2Conv", "ConstantConv"])
def test_the_returned_edge_index_belongs_to_the_caller(layer, given):
    module = getattr(conv, layer)(4, 3)
    x = torch.randn(N, 4)
    _, (first, _) = module(x, given, return_attention_weights=True)
    expected = first.clone()
    first += 100
    _, (second, _) = module(x, given, return_attention_weights=True)
    close(second, expected)


def test_new_data_under_the_same_tensor_are_noticed(given):
    before = edges_of(given, N, N, None)
    given.data = given.flip(0).contiguous()
    after = edges_of(given, N, N, None)
    close(after.graph.senders, before.graph.receivers)
