"""The definition itself, and the kernels beside it: gradients by finite differences, twice, and symmetries."""

import pytest
import torch
from cases import GRAPHS, OPERATIONS, close
from torch.autograd import gradcheck, gradgradcheck

from graphattn import Graph, ops

SMALL = ["no_edges", "one_node_loop", "isolated", "duplicates", "more_senders", "more_receivers", "complete_bipartite"]


ALONE = ["reference", "cpu"]  # the other back ends are plain PyTorch, whose derivatives torch tests


def as_function(operation, graph, **options):
    """The operation as a function of its tensors alone, and those tensors."""
    arguments = operation.arguments(graph)

    def function(*tensors):
        torch.manual_seed(3)  # the same dropout mask at every call
        given = dict(zip(arguments, tensors, strict=True))
        return getattr(ops, operation.name)(**given, graph=graph, return_weights=True, **options)

    return function, tuple(arguments.values())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("backend", ALONE)
def test_gradients_agree_with_finite_differences(backend, name, operation, dropout):
    assert gradcheck(*as_function(operation, GRAPHS[name], dropout=dropout, backend=backend), fast_mode=True)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("name", ["no_edges", "isolated", "complete_bipartite"])
@pytest.mark.parametrize("backend", ALONE)
def test_second_gradients_agree_with_finite_differences(backend, name, operation, dropout):
    assert gradgradcheck(*as_function(operation, GRAPHS[name], dropout=dropout, backend=backend), fast_mode=True)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("backend", ALONE)
def test_each_entry_of_each_gradient_agrees_with_finite_differences(backend, operation):
    assert gradcheck(*as_function(operation, GRAPHS["duplicates"], backend=backend))


@pytest.mark.parametrize("backend", ops.BACKENDS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_permuting_edges_changes_nothing(operation, backend):
    graph = GRAPHS["complete"] if backend == "dense" else GRAPHS["random"]
    order = torch.randperm(graph.num_edges, generator=torch.Generator().manual_seed(1))
    shuffled = Graph(graph.senders[order], graph.receivers[order], graph.num_senders, graph.num_receivers)
    arguments = operation.arguments(graph)
    letters = {**operation.tensors, **operation.edge_term}
    permuted = {name: t[order] if letters[name].startswith("E") else t for name, t in arguments.items()}
    run = getattr(ops, operation.name)
    out, weights = run(**arguments, graph=graph, return_weights=True, backend=backend)
    again, shuffled_weights = run(**permuted, graph=shuffled, return_weights=True, backend=backend)
    close(again, out)
    close(shuffled_weights, weights[order])


@pytest.mark.parametrize("backend", ops.BACKENDS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_permuting_nodes_permutes_outputs(operation, backend):
    graph = GRAPHS["complete_bipartite"] if backend == "dense" else GRAPHS["more_senders"]
    generator = torch.Generator().manual_seed(2)
    senders = torch.randperm(graph.num_senders, generator=generator)  # new node n is old node senders[n]
    receivers = torch.randperm(graph.num_receivers, generator=generator)
    renamed = Graph(
        senders.argsort()[graph.senders], receivers.argsort()[graph.receivers], graph.num_senders, graph.num_receivers
    )
    arguments = operation.arguments(graph)
    moves = {"N_s": senders, "N_r": receivers}
    letters = {**operation.tensors, **operation.edge_term}
    permuted = {}
    for name, tensor in arguments.items():
        move = moves.get(letters[name].split()[0])
        permuted[name] = tensor if move is None else tensor[move]
    run = getattr(ops, operation.name)
    out = run(**arguments, graph=graph, backend=backend)
    close(run(**permuted, graph=renamed, backend=backend), out[receivers])


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("backend", ALONE)
def test_weights_entering_a_node_sum_to_one(backend, operation):
    for name in ("hub", "random", "duplicates", "more_receivers"):
        graph, run = GRAPHS[name], getattr(ops, operation.name)
        _, weights = run(**operation.arguments(graph), graph=graph, return_weights=True, backend=backend)
        total = weights.new_zeros(graph.num_receivers, 2).index_add(0, graph.receivers, weights)
        close(total, (graph.in_degree > 0).to(total).unsqueeze(1).expand_as(total))
