"""The kernels as torch's own tools see them: the rules of torch.library, torch.compile, autocast, checkpoints."""

import pytest
import torch
from cases import GRAPHS, OPERATIONS, TOLERANCE, close
from torch.utils.checkpoint import checkpoint

from graphattn import attend, ops
from graphattn.ops.dropout import Dropout, scale

GRAPH = GRAPHS["random"]
NAMES = ("attention", "attention_backward")


def calls_of(function) -> list:
    """Our operations that a function runs, each with its arguments as the public functions make them."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            original = getattr(torch.ops.graphattn, name)
            patch.setattr(torch.ops.graphattn, name, lambda *a, f=original: made.append((f.default, a)) or f(*a))
        function()
    return made


def detached(arguments, keep_gradients=True):
    """Copies of the tensors; leaves again where they need gradients."""
    return [
        argument.detach().clone().requires_grad_(keep_gradients and argument.requires_grad)
        if isinstance(argument, torch.Tensor)
        else argument
        for argument in arguments
    ]


def check_rules(calls):
    """A call forward, differentiably, and a call backward, which torch cannot compile differentiably."""
    assert [str(function) for function, _ in calls] == [f"graphattn.{name}.default" for name in NAMES]
    for (function, arguments), keep_gradients in zip(calls, (True, False), strict=True):
        torch.library.opcheck(function, detached(arguments, keep_gradients))


def run(operation, tensors, graph=GRAPH, **options):
    return getattr(ops, operation.name)(**tensors, graph=graph, **options)


SAMPLES = [
    pytest.param(operation, dtype, dropout, weights, id=f"{operation}-{dtype}-{dropout}-{weights}")
    for operation, dtype, dropout, weights in zip(
        [*OPERATIONS, *OPERATIONS[:1]],
        [*TOLERANCE, *TOLERANCE],
        [0.0, 0.3, 0.0, 0.3, 0.3, 0.3, 0.0, 0.3],
        [True, False, False, True, True, True, False, True],
        strict=True,
    )
]


@pytest.mark.parametrize(("operation", "dtype", "dropout", "weights"), SAMPLES)
def test_attention_and_its_backward_keep_the_rules_of_torch_library(operation, dropout, dtype, weights):
    def forward_and_backward():
        tensors = operation.arguments(GRAPH, dtype=dtype)
        out = run(operation, tensors, dropout=dropout, return_weights=weights, backend="cpu")
        (out[0].sum() + out[1].sum() if weights else out.sum()).backward()

    check_rules(calls_of(forward_and_backward))


def test_a_shared_head_keeps_the_rules_of_torch_library():
    q, k, v = OPERATIONS[3].arguments(GRAPH).values()
    check_rules(calls_of(lambda: ops.dot_product(q, k[:, :1], v[:, :1], GRAPH, backend="cpu").sum().backward()))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_sums_with_given_weights_keep_the_rules_of_torch_library_and_are_right(dtype):
    order, mask = GRAPH.by_sender, Dropout(0.4, torch.randint(1 << 62, ()))
    weights, rows = torch.randn(GRAPH.num_edges).to(dtype), torch.randn(GRAPH.num_receivers, 5).to(dtype)
    factors = scale(mask, torch.arange(GRAPH.num_edges), 1, torch.float64)
    for dropout, factor in [((0.0, None), 1), (mask, factors)]:
        arguments = (weights, rows, [order.ptr, order.edges, order.others], *dropout)
        torch.library.opcheck(torch.ops.graphattn.weighted_sum.default, arguments)
        messages = rows.double()[GRAPH.receivers] * weights.double().unsqueeze(1) * factor
        expected = torch.zeros(GRAPH.num_senders, 5, dtype=torch.float64).index_add(0, GRAPH.senders, messages)
        close(torch.ops.graphattn.weighted_sum(*arguments), expected.to(dtype))


def test_grouping_keeps_the_rules_of_torch_library():
    for graph in (GRAPH, GRAPHS["no_edges"], GRAPHS["more_senders"], GRAPHS["strided"]):
        sizes = graph.num_receivers, graph.num_senders
        torch.library.opcheck(torch.ops.graphattn.group.default, (graph.receivers, graph.senders, *sizes))


def out_and_gradients(function, leaves):
    sources = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    out = function(*leaves)[0]
    return [out, *torch.autograd.grad(out.square().sum(), sources)]


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_called_without_the_doors_they_take_tensors_that_are_not_contiguous(operation):
    ((function, arguments),) = calls_of(lambda: run(operation, operation.arguments(GRAPH), backend="cpu"))
    expected = out_and_gradients(function, detached(arguments))
    strided = [
        t.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
        if isinstance(t, torch.Tensor) and t.requires_grad
        else t
        for t in arguments
    ]
    for ours, theirs in zip(out_and_gradients(function, strided), expected, strict=True):
        close(ours, theirs)


TORCHS_OWN = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # its compiler uses it


def outcome(function, tensors):
    torch.manual_seed(3)
    out, weights = function(**tensors)
    loss = out.square().sum() + (0 if weights is None else weights.square().sum())
    gradients = torch.autograd.grad(loss, tuple(tensors.values()))
    return {"out": out, "weights": weights, **dict(zip(tensors, gradients, strict=True))}


def sorted_graph(name="random"):
    graph = GRAPHS[name]
    assert graph.by_receiver and graph.by_sender
    return graph


@TORCHS_OWN
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_compiled_whole_they_give_the_same(operation, dropout):
    """Nothing beside them that a C++ compiler would have to build: random numbers stay torch's own."""
    graph = sorted_graph()

    def function(**tensors):
        if dropout:
            return run(operation, tensors, graph, dropout=dropout, return_weights=True)
        return run(operation, tensors, graph), None

    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=False, options={"fallback_random": True})
    expected, actual = outcome(function, operation.arguments(graph)), outcome(compiled, operation.arguments(graph))
    for what in expected:
        torch.testing.assert_close(actual[what], expected[what], rtol=0, atol=0, msg=what)
    assert dropout == 0 or (actual["weights"] == 0).any()


def test_traced_with_code_before_and_after_sizes_that_change_and_no_edges_they_give_the_same():
    def function(values, attention, graph):
        shared = values.sin().view(-1, 2, 3)
        out = attend((shared * attention).sum(-1)[graph.senders], shared, graph, dropout=0.4, return_weights=True)
        return out[0].relu(), out[1]

    torch.compiler.reset()
    traced = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager_decomp_partition")
    for graph in (sorted_graph(), sorted_graph("more_senders"), sorted_graph("no_edges")):
        tensors = {"values": torch.randn(graph.num_senders, 6), "attention": torch.randn(2, 3)}
        tensors = {name: tensor.requires_grad_() for name, tensor in tensors.items()}
        expected = outcome(lambda graph=graph, **given: function(**given, graph=graph), tensors)
        actual = outcome(lambda graph=graph, **given: traced(**given, graph=graph), tensors)
        for what in expected:
            close(actual[what], expected[what], what)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_under_autocast_arguments_meet_in_their_common_dtype(operation):
    tensors = operation.arguments(GRAPH, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert run(operation, tensors, backend="cpu").dtype == torch.float32
        halves = {name: (tensor * 1).bfloat16() for name, tensor in tensors.items()}
        out = run(operation, halves, backend="cpu")
        assert out.dtype == torch.bfloat16
        first = next(iter(tensors))
        mixed = run(operation, {**halves, first: tensors[first]}, backend="cpu")
        assert mixed.dtype == torch.float32
    (out.float().sum() + mixed.sum()).backward()
    for name, tensor in tensors.items():
        assert tensor.grad.dtype == torch.float32, name
        assert tensor.grad.isfinite().all(), name


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_checkpoint_drops_the_same_weights_when_it_runs_again(operation, use_reentrant):
    names = list(operation.arguments(GRAPH))

    def function(*tensors):
        return run(operation, dict(zip(names, tensors, strict=True)), dropout=0.4, return_weights=True, backend="cpu")

    def again(**tensors):
        return checkpoint(function, *tensors.values(), use_reentrant=use_reentrant)

    tensors = operation.arguments(GRAPH)
    expected = outcome(lambda **given: function(*given.values()), tensors)
    if use_reentrant:  # it knows backward() only
        torch.manual_seed(3)
        out, weights = again(**tensors)
        (out.square().sum() + weights.square().sum()).backward()
        actual = {"out": out, "weights": weights, **{name: tensor.grad for name, tensor in tensors.items()}}
    else:
        actual = outcome(again, tensors)
    for what in expected:
        assert torch.equal(actual[what], expected[what]), what
    assert (expected["weights"] == 0).any()
