"""Every back end against the reference: output, weights and each gradient, on every graph, with the same dropout."""

import importlib

import pytest
import torch
from cases import COMPLETE, GRAPHS, OPERATIONS, close, complete, results
from jaxtyping import TypeCheckError

from graphattn import ops

OTHERS = [backend for backend in ops.BACKENDS if backend != "reference"]
PAIRS = [
    pytest.param(backend, name, id=f"{backend}-{name}")
    for backend in OTHERS
    for name in (COMPLETE if backend == "dense" else GRAPHS)
]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize(("backend", "name"), PAIRS)
def test_output_weights_and_gradients_are_those_of_the_reference(backend, name, operation, dropout, device):
    graph = GRAPHS[name].to(device)
    expected = results(operation, graph, "reference", dropout)
    actual = results(operation, graph, backend, dropout)
    for what in expected:
        close(actual[what], expected[what], what)
    if dropout and graph.num_edges > 20:
        assert (expected["weights"] == 0).any()


@pytest.mark.parametrize("heads_and_width", [(1, 1), (1, 8), (5, 1), (8, 16)])
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize(("backend", "name"), [(b, "complete_bipartite" if b == "dense" else "random") for b in OTHERS])
def test_heads_and_widths_of_any_size_agree(backend, name, operation, heads_and_width):
    expected = results(operation, GRAPHS[name], "reference", 0.0, *heads_and_width)
    actual = results(operation, GRAPHS[name], backend, 0.0, *heads_and_width)
    for what in expected:
        close(actual[what], expected[what], what)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize(("backend", "name"), [(b, "complete" if b == "dense" else "random") for b in OTHERS])
def test_the_path_without_weights_gives_the_same_output_and_gradients(backend, name, operation):
    graph, outputs = GRAPHS[name], []
    for chosen in ("reference", backend):
        arguments = operation.arguments(graph)
        out = getattr(ops, operation.name)(**arguments, graph=graph, backend=chosen)
        out.square().sum().backward()
        outputs.append({"out": out, **{key: tensor.grad for key, tensor in arguments.items()}})
    for what in outputs[0]:
        close(outputs[1][what], outputs[0][what], what)


SHARED = [
    pytest.param(operation, names, id=f"{operation}-{'+'.join(names)}")
    for operation in OPERATIONS
    for names in {"additive_v2": [], "dot_product": [("k", "v"), ("k",), ("v",)]}.get(operation.name, [("values",)])
]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("operation", "names"), SHARED)
@pytest.mark.parametrize("backend", ops.BACKENDS)
def test_one_head_that_all_share_is_as_good_as_a_copy_for_each(backend, operation, names, dropout):
    graph = GRAPHS["complete" if backend == "dense" else "random"]
    single, arguments = operation.arguments(graph, heads=1), operation.arguments(graph, heads=3)
    copies = {name: single[name].expand(-1, 3, -1) for name in names}
    expected = results(operation, graph, "reference", dropout, arguments={**arguments, **copies})
    actual = results(operation, graph, backend, dropout, arguments={**arguments, **{n: single[n] for n in names}})
    for what in expected:
        shared = what.removeprefix("gradient of ") in names
        close(actual[what], expected[what].sum(1, keepdim=True) if shared else expected[what], what)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("backend", ops.BACKENDS)
def test_arguments_need_not_be_contiguous(backend, operation):
    graph = GRAPHS["complete"]
    arguments = operation.arguments(graph)
    strided = {name: t.detach().transpose(0, -1).contiguous().transpose(0, -1) for name, t in arguments.items()}
    run = getattr(ops, operation.name)
    close(run(**strided, graph=graph, backend=backend), run(**arguments, graph=graph, backend=backend))


@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in COMPLETE])
def test_dense_refuses_a_graph_that_is_not_complete(name):
    graph = GRAPHS[name]
    for operation in OPERATIONS:
        with pytest.raises(ValueError, match=r"back end 'dense' needs .* exactly once .*use backend='reference'"):
            getattr(ops, operation.name)(**operation.arguments(graph), graph=graph, backend="dense")


@pytest.mark.parametrize("backend", ["reference", "dense", "scatter"])
def test_shapes_inside_the_back_ends_are_checked_while_tests_run(backend):
    module = importlib.import_module(f"graphattn.ops.{backend}")
    with pytest.raises(TypeCheckError):
        module.attend(torch.zeros(4), torch.zeros(2, 1, 3), complete(2, 2), None, False)


def test_fresh_memory_is_nan_while_tests_run():
    assert torch.empty(100).isnan().all()
    assert torch.ones(2).new_empty(100).isnan().all()
    assert torch.empty_like(torch.ones(100)).isnan().all()
