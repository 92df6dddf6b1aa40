"""What the doors of `ops` refuse, what they say, and how a back end is chosen."""

import importlib
import re
import sys

import pytest
import torch
from cases import OPERATIONS, Operation

from graphattn import Graph, additive, attend, dot_product, ops
from graphattn.ops import backends

GRAPH = Graph(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]), 3, 2)


def refused(error, *parts):
    return pytest.raises(error, match=".*".join(map(re.escape, parts)))


def call(operation: Operation, graph=GRAPH, **changes):
    return getattr(ops, operation.name)(**{**operation.arguments(GRAPH), **changes}, graph=graph)


ARGUMENTS = [
    pytest.param(operation, name, letters, id=f"{operation}-{name}")
    for operation in OPERATIONS
    for name, letters in {**operation.tensors, **(operation.edge_term if operation.with_edge_term else {})}.items()
]


@pytest.mark.parametrize(("operation", "name", "letters"), ARGUMENTS)
def test_an_argument_of_wrong_size_or_dimension_is_refused_with_shape_found_and_needed(operation, name, letters):
    given = operation.arguments(GRAPH)[name]
    sizes = {"E": "E=3", "N_s": "N_s=3", "N_r": "N_r=2"}
    needed = [sizes.get(letter, letter) for letter in letters.split()]
    if (first := letters.split()[0]) in sizes:
        wrong = torch.cat([given, given])
        with refused(ValueError, f"{operation.name}: {name} has shape {list(wrong.shape)}: needed", sizes[first]):
            call(operation, **{name: wrong})
    with refused(ValueError, f"{operation.name}: {name} has shape {list(given[None].shape)}: needed [", needed[0]):
        call(operation, **{name: given[None]})


@pytest.mark.parametrize(("operation", "name", "letters"), ARGUMENTS)
def test_numbers_of_heads_that_disagree_are_refused(operation, name, letters):
    given = operation.arguments(GRAPH)[name]
    wrong = torch.cat([given, given], letters.split().index("H"))
    with refused(ValueError, f"{operation.name}: ", "has shape", "needed"):
        call(operation, **{name: wrong})


@pytest.mark.parametrize(("operation", "name", "letters"), ARGUMENTS)
def test_integers_other_devices_lists_and_none_are_refused(operation, name, letters):
    given = operation.arguments(GRAPH)[name].detach()
    with refused(TypeError, f"{operation.name}: {name} has dtype torch.int64: needed a floating dtype", ".float()"):
        call(operation, **{name: given.long()})
    with refused(ValueError, f"{operation.name}: {name} is on meta, the graph on cpu", ".to()"):
        call(operation, **{name: given.to("meta")})
    with refused(TypeError, f"{operation.name}: {name} is a list: needed a tensor of shape [{letters}]"):
        call(operation, **{name: given.tolist()})
    if name not in operation.edge_term:
        with refused(TypeError, f"{operation.name}: {name} is None: needed a tensor of shape [{letters}]"):
            call(operation, **{name: None})


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_zero_heads_are_refused(operation):
    with refused(ValueError, f"{operation.name}: ", "has no heads", "at least one"):
        getattr(ops, operation.name)(**operation.arguments(GRAPH, heads=0), graph=GRAPH)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_graph_that_is_no_graph_is_refused(operation):
    with refused(TypeError, f"{operation.name}: graph is a Tensor: needed a Graph", "topology.from_edge_index"):
        call(operation, graph=torch.zeros(2, 3, dtype=torch.long))


def test_the_widths_of_values_may_be_zero():
    assert attend(torch.zeros(3, 1), torch.zeros(3, 1, 0), GRAPH).shape == (2, 1, 0)
    empty = {name: tensor[..., :0] for name, tensor in OPERATIONS[3].arguments(GRAPH).items()}
    assert dot_product(**empty, graph=GRAPH).shape == (2, 2, 0)


@pytest.mark.parametrize(("operation", "name", "letters"), ARGUMENTS)
def test_nan_is_refused_on_request_with_the_first_row_that_holds_one(operation, name, letters):
    arguments = {key: tensor.detach() for key, tensor in operation.arguments(GRAPH).items()}
    arguments[name][1] = torch.nan
    run = getattr(ops, operation.name)
    run(**arguments, graph=GRAPH)
    with ops.use(check_nan=True), refused(ValueError, f"{operation.name}: {name} holds NaN, first in row 1"):
        run(**arguments, graph=GRAPH)


def test_minus_infinity_is_no_nan():
    with ops.use(check_nan=True):
        attend(torch.full((3, 1), -torch.inf), torch.zeros(3, 1, 1), GRAPH)


def test_an_unknown_back_end_is_refused_with_those_there_are():
    for arguments in ({"backend": "cuda"}, {}):
        with ops.use(backend="cuda"), refused(ValueError, "no back end 'cuda'", ", ".join(ops.BACKENDS)):
            attend(torch.zeros(3, 1), torch.zeros(3, 1, 1), GRAPH, **arguments)


def test_a_back_end_whose_module_is_missing_is_refused_with_the_reason_and_the_way_out(monkeypatch):
    monkeypatch.delitem(sys.modules, "graphattn.ops.scatter", raising=False)
    monkeypatch.delitem(backends._loaded, "scatter", raising=False)
    monkeypatch.setitem(sys.modules, "torch_scatter", None)
    way_out = "pip install --no-build-isolation torch-scatter"
    with refused(ImportError, "back end 'scatter'", "torch_scatter", way_out, "backend='reference'"):
        attend(torch.zeros(3, 1), torch.zeros(3, 1, 1), GRAPH, backend="scatter")


@pytest.fixture
def ran(monkeypatch):
    """The back ends that `attend` ran on, in order."""
    names = []
    for name in ops.BACKENDS:
        module = importlib.import_module(f"graphattn.ops.{name}")
        original = module.attend
        monkeypatch.setattr(module, "attend", lambda *a, n=name, f=original, **k: names.append(n) or f(*a, **k))
    return names


def run_once(**options):
    attend(
        torch.zeros(4, 1),
        torch.zeros(2, 1, 1),
        Graph(*torch.cartesian_prod(*[torch.arange(2)] * 2).t(), 2, 2),
        **options,
    )


def test_contexts_nest_and_reset_and_an_argument_overrides_them(ran):
    run_once()
    with ops.use(backend="scatter"):
        run_once()
        with ops.use(backend="dense"):
            run_once()
            run_once(backend="reference")
        run_once()
    run_once()
    assert ran == ["cpu", "scatter", "dense", "reference", "scatter", "cpu"]


def test_a_context_resets_after_an_error(ran):
    with pytest.raises(KeyError), ops.use(backend="scatter"):
        raise KeyError
    run_once()
    assert ran == ["cpu"]


def test_the_package_offers_the_four_operations_and_the_graph():
    import graphattn

    assert set(graphattn.__all__) == {"Graph", "additive", "additive_v2", "attend", "dot_product"}
    assert graphattn.additive is additive


def test_nested_settings_keep_what_the_inner_one_leaves_open():
    logits = torch.full((GRAPH.num_edges, 1), torch.nan)
    values = torch.zeros(GRAPH.num_senders, 1, 1)
    with ops.use(backend="none of this name"), ops.use(check_nan=True), pytest.raises(ValueError, match="holds NaN"):
        attend(logits, values, GRAPH)
    with ops.use(backend="none of this name"), ops.use(check_nan=False), pytest.raises(ValueError, match="no back end"):
        attend(logits, values, GRAPH)
