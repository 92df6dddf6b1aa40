"""ConstantConv against mean aggregation, and that it behaves as the attention layers do."""

import copy

import pytest
import torch
from cases import GRAPHS, close, edge_index
from torch_geometric.explain import AttentionExplainer, Explainer, GNNExplainer
from torch_geometric.nn import SAGEConv
from torch_geometric.utils import scatter

from graphattn.conv import ConstantConv

WIDTH, OUT = 4, 3


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


def mean(x, graph):
    return scatter(x[graph.senders], graph.receivers, 0, dim_size=graph.num_receivers, reduce="mean")


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("name", GRAPHS)
def test_it_is_the_mean_of_the_mapped_senders(name, loops):
    graph = GRAPHS[name]
    heard = graph.with_self_loops() if loops else graph
    torch.manual_seed(0)
    layer = ConstantConv((WIDTH, WIDTH), OUT, heads=2, add_self_loops=loops).double()
    x = random(graph.num_senders, WIDTH), random(graph.num_receivers, WIDTH, seed=1)
    out = layer(x, edge_index(graph))
    expected = mean(layer.lin(x[0]), heard) + layer.bias
    close(out, expected)
    leaves = (x[0], layer.lin.weight, layer.bias)
    ours = torch.autograd.grad(out.square().sum(), leaves)
    judged = torch.autograd.grad(expected.square().sum(), leaves)
    for a, b in zip(ours, judged, strict=True):
        close(a, b)


@pytest.mark.parametrize("name", ["random", "isolated", "duplicates", "hub"])
def test_it_is_sage_with_mean_and_no_root(name):
    graph = GRAPHS[name]
    judge = SAGEConv(WIDTH, OUT, aggr="mean", root_weight=False).double()
    layer = ConstantConv(WIDTH, OUT, add_self_loops=False).double()
    with torch.no_grad():
        layer.lin.weight.copy_(judge.lin_l.weight)
        layer.bias.copy_(judge.lin_l.bias)
    x = random(graph.num_senders, WIDTH)
    # SAGE maps after the mean, bias included
    close(layer(x, edge_index(graph)), judge(x, edge_index(graph)))


@pytest.mark.parametrize("name", ["random", "self_loops", "more_senders", "more_receivers"])
def test_heads_are_concatenated_or_averaged_and_the_residual_is_added(name):
    graph = GRAPHS[name]
    x = random(graph.num_senders, WIDTH), random(graph.num_receivers, WIDTH, seed=1)
    for concat in (True, False):
        layer = ConstantConv((WIDTH, WIDTH), OUT, heads=3, concat=concat, residual=True, bias=False).double()
        heads = mean(layer.lin(x[0]), graph.with_self_loops()).view(-1, 3, OUT)
        expected = (heads.flatten(1) if concat else heads.mean(1)) + layer.res(x[1])
        close(layer(x, edge_index(graph)), expected)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_weights_are_one_over_the_number_of_edges_entering(name):
    graph = GRAPHS[name]
    layer = ConstantConv((WIDTH, WIDTH), OUT, heads=2)
    x = torch.ones(graph.num_senders, WIDTH), torch.ones(graph.num_receivers, WIDTH)
    _, (looped, weights) = layer(x, edge_index(graph), return_attention_weights=True)
    heard = graph.with_self_loops()
    assert torch.equal(looped, edge_index(heard))
    close(weights, (1 / heard.in_degree.float())[heard.receivers].unsqueeze(1).expand(-1, 2))


def test_the_edge_index_is_returned_as_it_was_given_where_no_loops_are_added():
    edges = edge_index(GRAPHS["random"])
    _, (returned, _) = ConstantConv(WIDTH, OUT, add_self_loops=False)(
        torch.ones(30, WIDTH), edges, return_attention_weights=True
    )
    assert returned is edges


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_a_sparse_adjacency_gives_what_the_edge_index_gives(layout):
    graph = GRAPHS["more_senders"]
    matrix = torch.sparse_coo_tensor(
        edge_index(graph).flip(0), torch.ones(graph.num_edges), (3, 6), check_invariants=True
    ).coalesce()
    matrix = {"coo": matrix, "csr": matrix.to_sparse_csr(), "csc": matrix.to_sparse_csc()}[layout]
    layer = ConstantConv((WIDTH, WIDTH), OUT)
    x = torch.randn(6, WIDTH), torch.randn(3, WIDTH)
    close(layer(x, matrix), layer(x, edge_index(graph)))


def test_receivers_without_features_are_as_many_as_the_size_says():
    graph = GRAPHS["more_senders"]
    layer = ConstantConv((WIDTH, WIDTH), OUT)
    x = torch.randn(6, WIDTH), torch.randn(3, WIDTH)
    close(layer((x[0], None), edge_index(graph), size=(6, 3)), layer(x, edge_index(graph)))


@pytest.mark.parametrize("change", [{"aggr": "max"}, {"flow": "source_to_target"}], ids=str)
def test_another_aggregation_is_honoured(change):
    graph = GRAPHS["random"]
    layer = ConstantConv(WIDTH, OUT, add_self_loops=False, bias=False, **change).double()
    x = random(30, WIDTH)
    messages = layer.lin(x)[graph.senders] / graph.in_degree[graph.receivers].unsqueeze(1)
    expected = scatter(messages, graph.receivers, 0, dim_size=30, reduce=change.get("aggr", "sum"))
    close(layer(x, edge_index(graph)), expected)


def explained(layer, graph, algorithm, **options):
    config = {"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"}
    explainer = Explainer(
        layer, algorithm, explanation_type="model", edge_mask_type="object", model_config=config, **options
    )
    return explainer(torch.ones(graph.num_senders, WIDTH), edge_index(graph), index=4).edge_mask


def test_explainers_see_the_weights_and_mask_the_edges():
    graph = GRAPHS["directed"]  # node 4 hears nodes 3 and 1, and itself
    layer = ConstantConv(WIDTH, OUT).eval()
    attention = explained(layer, graph, AttentionExplainer())
    close(attention, torch.where(graph.receivers == 4, 1 / 3, 0.0))
    # GNNExplainer raises where no gradient reaches its mask: that it ends shows that the mask was applied.
    mask = explained(layer, graph, GNNExplainer(epochs=2), node_mask_type="attributes")
    assert torch.equal(mask > 0, graph.receivers == 4)


def test_a_message_hook_fires_and_its_result_is_used():
    layer = ConstantConv(WIDTH, OUT, bias=False)
    x, edges = torch.randn(30, WIDTH), edge_index(GRAPHS["random"])
    plain = layer(x, edges)
    handle = layer.register_message_forward_hook(lambda module, inputs, out: 2 * out)
    close(layer(x, edges), 2 * plain)
    handle.remove()
    close(layer(x, edges), plain)


def test_reset_draws_new_weights_and_a_zero_bias():
    layer = ConstantConv(WIDTH, OUT, residual=True)
    before = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        layer.bias.fill_(1)
    layer.reset_parameters()
    assert not layer.bias.any()
    assert not torch.equal(layer.lin.weight, before["lin.weight"])
    assert not torch.equal(layer.res.weight, before["res.weight"])


def test_the_other_flow_and_edge_features_are_refused():
    with pytest.raises(ValueError, match=r"flow is 'target_to_source'.*flip the rows"):
        ConstantConv(4, 3, flow="target_to_source")
    graph = GRAPHS["random"]
    with pytest.raises(ValueError, match="edge_dim=None"):
        ConstantConv(4, 3)(torch.randn(graph.num_senders, 4), edge_index(graph), torch.randn(graph.num_edges, 2))


def test_feature_dropout_acts_in_training_only():
    graph = GRAPHS["random"]
    x = torch.randn(graph.num_senders, 4)
    layer = ConstantConv(4, 3, feature_dropout=0.5)
    plain = ConstantConv(4, 3)
    plain.load_state_dict(layer.state_dict())
    close(layer.eval()(x, edge_index(graph)), plain(x, edge_index(graph)))
    assert not torch.equal(layer.train()(x, edge_index(graph)), plain(x, edge_index(graph)))
