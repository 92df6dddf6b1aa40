"""The fused kernels: every instruction set, any number of threads, any of the gradients."""

from functools import cache
from itertools import combinations

import pytest
import torch
from cases import GRAPHS, OPERATIONS, TOLERANCE, close, results

from graphattn import Graph, attend, native, ops
from graphattn.ops.dropout import Dropout, scale

WIDTHS = [*range(1, 21), 33, 64, 100, 256]
NAMED = {str(operation): operation for operation in OPERATIONS}


def random(num_edges: int, num_senders: int, num_receivers: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    senders = torch.randint(num_senders, (num_edges,), generator=generator)
    return senders, torch.randint(num_receivers, (num_edges,), generator=generator)


# Several chunks of edges a node in both directions, the last seldom full; one sender and one receiver have no edge.
DENSE = Graph(*random(300, 4, 5), 5, 6)


def rounded(operation, width, low):
    """Arguments as `low` can hold them, small enough that the logits of wide rows leave more than one weight."""
    arguments = operation.arguments(DENSE, (1, 3, 8)[width % 3], width)
    return {
        name: (tensor.detach() / (width**0.5 if name in ("att", "edge") else 1)).to(low)
        for name, tensor in arguments.items()
    }


@cache
def exact(name, width, low):
    leaves = {key: t.double().requires_grad_() for key, t in rounded(NAMED[name], width, low).items()}
    return results(NAMED[name], DENSE, "reference", 0.3, arguments=leaves)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_every_instruction_set_agrees_with_the_reference_at_every_width(instruction_set, operation, dtype):
    for width in WIDTHS:
        leaves = {name: t.requires_grad_() for name, t in rounded(operation, width, dtype).items()}
        actual = results(operation, DENSE, "cpu", 0.3, arguments=leaves)
        expected = exact(str(operation), width, dtype)
        size = max(1.0, *(tensor.abs().max().item() for tensor in expected.values()))  # of the terms that may cancel
        for what, tensor in expected.items():
            assert actual[what].dtype == dtype
            lost = (actual[what].double() - tensor).abs().max().item()
            assert lost <= 2 * TOLERANCE[dtype]["atol"] * size, f"width {width}: {what}"  # out and its gradient round


def test_an_instruction_set_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no instruction set 'abacus' on this machine"):
        native.kernels.use_instruction_set("abacus")


def large() -> Graph:
    """Enough for a dozen tasks in each direction, with a receiver and a sender whose edges are cut into pieces."""
    senders, receivers = random(16_000, 2000, 1500)
    receivers[::4], senders[1::4] = 700, 900
    return Graph(senders, receivers, 2000, 1500)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_any_number_of_threads_gives_the_same_bits_every_time(operation, dtype, set_threads):
    graph = large()
    set_threads(1)
    expected = results(operation, graph, "cpu", 0.3, width=5, dtype=dtype)
    for count in (1, 2, 3, 4, 2):
        set_threads(count)
        again = Graph(graph.senders, graph.receivers, graph.num_senders, graph.num_receivers)
        for what, tensor in results(operation, again, "cpu", 0.3, width=5, dtype=dtype).items():
            assert torch.equal(tensor, expected[what]), f"{count} threads: {what}"


def some(names):
    return [chosen for size in range(1, len(names) + 1) for chosen in combinations(names, size)]


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_gradient_does_not_depend_on_which_others_are_wanted(operation):
    graph = GRAPHS["random"]
    expected = results(operation, graph, "cpu", 0.4)
    for chosen in some(list(operation.arguments(graph))):
        arguments = {name: t.detach().requires_grad_(name in chosen) for name, t in operation.arguments(graph).items()}
        actual = results(operation, graph, "cpu", 0.4, arguments=arguments)
        assert set(actual) == {"out", "weights", *(f"gradient of {name}" for name in chosen)}
        for what, tensor in actual.items():
            close(tensor, expected[what], f"{what} of {chosen}")


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("used", ["out", "weights"])
def test_gradients_come_through_the_output_alone_and_the_weights_alone(used, operation):
    for name in ("hub", "more_receivers", "no_edges"):
        gradients = []
        for backend in ("reference", "cpu"):
            torch.manual_seed(1)
            arguments = operation.arguments(GRAPHS[name])
            run = getattr(ops, operation.name)
            out, weights = run(**arguments, graph=GRAPHS[name], dropout=0.4, return_weights=True, backend=backend)
            loss = (out if used == "out" else weights).pow(3).sum()
            loss.backward()
            gradients.append({key: torch.zeros_like(t) if t.grad is None else t.grad for key, t in arguments.items()})
        for key, expected in gradients[0].items():
            close(gradients[1][key], expected, f"{name}: {key}")


def test_backward_drops_the_weights_that_forward_dropped():
    """The gradient of a sum of values is the sum of the weights that were used, written with the seed's own mask."""
    graph = GRAPHS["random"]
    logits, values = OPERATIONS[0].arguments(graph).values()
    torch.manual_seed(5)
    out, weights = attend(logits, values, graph, dropout=0.5, return_weights=True, backend="cpu")
    torch.manual_seed(5)
    seed = torch.randint(1 << 62, ())
    full = attend(logits, values, graph, return_weights=True, backend="reference")[1]
    used = full * scale(Dropout(0.5, seed), torch.arange(graph.num_edges), 2, torch.float64)
    close(weights, used)
    (gradient,) = torch.autograd.grad(out.sum(), values)
    expected = torch.zeros(graph.num_senders, 2, dtype=torch.float64).index_add(0, graph.senders, used)
    close(gradient, expected.unsqueeze(-1).expand_as(gradient))


def test_nothing_is_kept_when_no_gradient_is_wanted():
    logits, values = OPERATIONS[0].arguments(GRAPHS["random"]).values()
    graph = Graph(GRAPHS["random"].senders, GRAPHS["random"].receivers, 30, 30)
    with torch.no_grad():
        out = attend(logits, values, graph, backend="cpu")
    assert out.grad_fn is None
    assert not [name for name in vars(graph) if "by_sender" in name]
    with torch.inference_mode():
        close(attend(logits, values, graph, backend="cpu").clone(), out)


def as_function(operation, backend=None):
    arguments = operation.arguments(GRAPHS["duplicates"])

    def run(*tensors):
        given = dict(zip(arguments, tensors, strict=True))
        return getattr(ops, operation.name)(**given, graph=GRAPHS["duplicates"], backend=backend)

    return run, tuple(arguments.values())


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_third_derivatives_are_refused_rather_than_wrong(operation):
    run, tensors = as_function(operation, "cpu")
    result = run(*tensors).square().sum()
    first = torch.autograd.grad(result, tensors, create_graph=True)
    with pytest.raises(RuntimeError, match=r"no third derivatives: use backend='reference'"):
        torch.autograd.grad(sum(gradient.square().sum() for gradient in first), tensors, create_graph=True)


def transformed(operation, backend):
    """What torch's function transforms make of an operation: forward derivative, gradient, many at once."""
    run, tensors = as_function(operation, backend)
    tensors = tuple(tensor.detach() for tensor in tensors)
    tangents = tuple(torch.linspace(-1, 2, t.numel(), dtype=t.dtype).view_as(t) for t in tensors)
    yield lambda: torch.func.jvp(run, tensors, tangents)[1]
    yield lambda: torch.func.grad(lambda *given: run(*given).square().sum())(*tensors)
    yield lambda: torch.func.vmap(run)(*(torch.stack([tensor, 2 * tensor]) for tensor in tensors))


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_function_transforms_run_on_the_reference_unless_the_kernels_are_asked_for(operation):
    for ours, theirs, asked_for in zip(*(transformed(operation, b) for b in (None, "reference", "cpu")), strict=True):
        close(ours(), theirs())
        with pytest.raises(RuntimeError, match=r"'cpu' was asked for, but it knows no .* use backend='reference'"):
            asked_for()
