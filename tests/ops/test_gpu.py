"""The Triton kernels, on a GPU or interpreted: sizes, pieces, precision, repetition, torch's tools, compilation."""

import os
import subprocess
import sys

import pytest
import torch
from cases import GRAPHS, OPERATIONS, TOLERANCE, close, results

from graphattn import Graph, additive, attend, dot_product, ops
from graphattn.graph import Order
from graphattn.ops import gpu, gpu_launch
from graphattn.ops.dropout import Dropout, scale


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else ["cpu"])
def place(request):
    """Where the kernels run."""
    return torch.device(request.param)


def random(num_edges, num_senders, num_receivers, seed=4):
    generator = torch.Generator().manual_seed(seed)
    senders = torch.randint(num_senders, (num_edges,), generator=generator)
    return senders, torch.randint(num_receivers, (num_edges,), generator=generator)


DENSE = Graph(*random(60, 4, 5), 5, 6)


@pytest.fixture
def in_pieces(monkeypatch):
    """Nodes of more than three edges are cut."""
    monkeypatch.setattr(gpu_launch, "LONGEST", 3)
    monkeypatch.setattr(gpu_launch, "SHORTEST", 3)
    monkeypatch.setattr(gpu_launch, "WHOLE", 0)


def skewed():
    """A receiver and a sender with many edges, a receiver and a sender with none, and one with just enough."""
    senders, receivers = random(70, 7, 8)
    receivers[:20], senders[20:38] = 2, 5
    receivers[38:42] = 8
    return Graph(senders, receivers, 8, 10)


PIECED = {"skewed": skewed(), "turned": skewed().reverse(), "duplicates": GRAPHS["duplicates"]}


def fresh(graph, place):
    """With orders of its own, in pieces or not as the test has it."""
    return Graph(graph.senders, graph.receivers, graph.num_senders, graph.num_receivers).to(place)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@pytest.mark.parametrize("name", PIECED)
def test_nodes_in_pieces_agree_with_the_reference(place, in_pieces, name, operation):
    graph = fresh(PIECED[name], place)
    expected = results(operation, graph, "reference", 0.3)
    for what, tensor in results(operation, graph, "gpu", 0.3).items():
        close(tensor, expected[what], what)
    assert (gpu_launch.pieces(graph.by_receiver)[:, 0] >= 0).any()


def test_a_piece_is_a_programs_share_of_the_edges():
    found = [gpu_launch.split(edges) for edges in (0, 13_000, 328_000, 1_300_000, 62_000_000)]
    assert found == [64, 64, 160, 634, 1024]


def test_pieces_cover_each_heavy_node_once(in_pieces):
    degrees = torch.tensor([0, 3, 4, 0, 10, 1, 6, 7, 0])
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), degrees.cumsum(0)])
    order = Order(ptr, torch.arange(31), torch.zeros(31, dtype=torch.int64))
    found = gpu_launch.pieces(order)
    assert found.shape == (2 * 31 // 3, 2)
    needed = [[2, 3], [2, 6], [4, 7], [4, 10], [4, 13], [4, 16], [6, 18], [6, 21], [7, 24], [7, 27], [7, 30]]
    assert found[: len(needed)].tolist() == needed
    assert (found[len(needed) :, 0] == -1).all()
    assert gpu_launch.pieces(order) is found, "made once"


def test_pieces_whose_logits_are_far_apart_are_merged(place, in_pieces):
    graph = Graph(torch.arange(12), torch.zeros(12, dtype=torch.int64), 12, 1).to(place)
    values = torch.randn(12, 1, 3, dtype=torch.float64, device=place)
    for levels in ([-1e4, 1e4, -torch.inf, 0], [0, -torch.inf, -1e4, 0.5], [-torch.inf] * 4):
        noise = torch.randn(4, 3, dtype=torch.float64)
        logits = (noise + torch.tensor(levels).unsqueeze(1)).view(-1, 1).to(place)
        for got, due in zip(
            attend(logits, values, graph, return_weights=True, backend="gpu"),
            attend(logits, values, graph, return_weights=True, backend="reference"),
            strict=True,
        ):
            close(got, due)


def without_weights(operation, graph, arguments, backend):
    """Output and gradients of the plain call: no dropout, no weights."""
    leaves = {name: t.detach().clone().requires_grad_() for name, t in arguments.items()}
    out = getattr(ops, operation.name)(**leaves, graph=graph, backend=backend)
    return [out, *torch.autograd.grad(out.square().sum(), list(leaves.values()))]


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_without_dropout_and_weights(place, in_pieces, operation):
    graph = fresh(PIECED["skewed"], place)
    arguments = operation.arguments(graph)
    strided = {name: t.detach().transpose(0, -1).contiguous().transpose(0, -1) for name, t in arguments.items()}
    for got, due in zip(
        without_weights(operation, graph, strided, "gpu"),
        without_weights(operation, graph, arguments, "reference"),
        strict=True,
    ):
        close(got, due)


@pytest.mark.parametrize(
    ("operation", "names"), [(OPERATIONS[0], ["values"]), (OPERATIONS[1], ["values"]), (OPERATIONS[3], ["k", "v"])]
)
def test_a_head_that_all_share(place, in_pieces, operation, names):
    graph = fresh(PIECED["turned"], place)
    single, arguments = operation.arguments(graph, heads=1), operation.arguments(graph, heads=3)
    shared = {**arguments, **{name: single[name] for name in names}}
    for got, due in zip(
        without_weights(operation, graph, shared, "gpu"),
        without_weights(operation, graph, shared, "reference"),
        strict=True,
    ):
        close(got, due)


@pytest.mark.parametrize("operation", [OPERATIONS[1], OPERATIONS[5]], ids=str)
def test_heads_shared_out_to_programs_and_nodes_in_pieces(place, in_pieces, monkeypatch, operation):
    monkeypatch.setattr(gpu_launch, "SHARES", 3)  # programs take several nodes each
    graph = fresh(PIECED["duplicates"], place)
    assert gpu_launch.tile(5, 600, 2.0, 1, torch.float64).programs(5) == 3
    expected = results(operation, graph, "reference", 0.3, 5, 600)
    scale_ = max(tensor.abs().max().item() for tensor in expected.values())
    for what, tensor in results(operation, graph, "gpu", 0.3, 5, 600).items():
        torch.testing.assert_close(tensor, expected[what], rtol=1e-10, atol=1e-10 * scale_, msg=what)


def test_a_receiver_whose_logits_are_all_minus_infinity_gets_zeros(place):
    graph = fresh(GRAPHS["duplicates"], place)
    logits = torch.full((graph.num_edges, 1), -torch.inf, device=place, dtype=torch.float64).requires_grad_()
    values = torch.randn(graph.num_senders, 1, 3, device=place, dtype=torch.float64).requires_grad_()
    out, weights = attend(logits, values, graph, return_weights=True, backend="gpu")
    assert not out.any() and not weights.any()
    assert not any(grad.any() for grad in torch.autograd.grad(out.sum() + weights.sum(), (logits, values)))


SIZES = [(1, 1), (3, 5), (8, 8), (6, 121), (9, 300), (1, 2500)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_any_heads_and_width(place, operation, size):
    graph = DENSE.to(place)
    expected = results(operation, graph, "reference", 0.3, *size)
    scale_ = max(tensor.abs().max().item() for tensor in expected.values())
    for what, tensor in results(operation, graph, "gpu", 0.3, *size).items():
        torch.testing.assert_close(tensor, expected[what], rtol=1e-10, atol=1e-10 * scale_, msg=what)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_any_dtype(place, operation, dtype):
    graph = DENSE.to(place)
    arguments = {name: t.detach() for name, t in operation.arguments(graph, 3, 10).items()}
    leaves = {name: (t / 10**0.5 if name in ("att", "edge") else t).to(dtype) for name, t in arguments.items()}
    exact = results(
        operation, graph, "reference", 0.3, arguments={n: t.double().requires_grad_() for n, t in leaves.items()}
    )
    actual = results(operation, graph, "gpu", 0.3, arguments={n: t.clone().requires_grad_() for n, t in leaves.items()})
    size = max(1.0, *(tensor.abs().max().item() for tensor in exact.values()))
    for what, tensor in exact.items():
        assert actual[what].dtype == dtype
        lost = (actual[what].double() - tensor).abs().max().item()
        assert lost <= 2 * TOLERANCE[dtype]["atol"] * size, what


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_the_same_bits_every_time_and_the_same_numbers_for_permuted_edges(place, in_pieces, operation):
    graph = PIECED["duplicates"].to(place)
    arguments = operation.arguments(graph, dtype=torch.float32)

    def run(graph, arguments, dropout=0.3):
        again = Graph(graph.senders, graph.receivers, graph.num_senders, graph.num_receivers)
        leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in arguments.items()}
        return results(operation, again, "gpu", dropout, arguments=leaves)

    expected = run(graph, arguments)
    for what, tensor in run(graph, arguments).items():
        assert torch.equal(tensor, expected[what]), what
    order = torch.randperm(graph.num_edges, device=place)
    permuted = Graph(graph.senders[order], graph.receivers[order], graph.num_senders, graph.num_receivers)
    shuffled = {n: t.detach()[order] if t.shape[0] == len(order) else t for n, t in arguments.items()}
    expected = run(graph, arguments, 0.0)
    for what, tensor in run(permuted, shuffled, 0.0).items():
        due = expected[what]
        torch.testing.assert_close(
            tensor, due[order] if len(due) == len(order) else due, rtol=1e-4, atol=1e-5, msg=what
        )


@pytest.mark.parametrize("seed", [0, 2**31, 2**32 + 5, 2**62 - 1])
def test_dropout_masks_are_those_of_every_back_end(place, seed):
    graph = GRAPHS["random"].to(place)
    mask = Dropout(0.3, torch.tensor(seed, device=place))
    logits, values = torch.zeros(graph.num_edges, 5, device=place), torch.ones(graph.num_senders, 5, 1, device=place)
    _, weights = gpu.attend(logits, values, graph, mask, True)
    kept = scale(Dropout(0.3, torch.tensor(seed)), torch.arange(graph.num_edges), 5, torch.float32) > 0
    assert torch.equal(weights.cpu() > 0, kept)
    assert 0.6 < kept.float().mean() < 0.8


@pytest.mark.parametrize("dropout", [None, 0.3])
@pytest.mark.parametrize("width", [(9,), (3, 5)], ids=["rows", "heads"])
@pytest.mark.parametrize("name", ["random", "hub", "no_edges", "more_senders"])
def test_weighted_sums(place, in_pieces, name, width, dropout):
    graph = GRAPHS[name].to(place)
    order = Order(*(getattr(graph.by_receiver, field).clone() for field in ("ptr", "edges", "others")))
    weights, rows = torch.randn(graph.num_edges, device=place), torch.randn(graph.num_senders, *width, device=place)
    mask = None if dropout is None else Dropout(dropout, torch.tensor(77, device=place))
    expected = ops.reference.weighted_sum(weights, rows, order, mask)
    close(gpu.weighted_sum(weights, rows, order, mask), expected)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_first_and_second_derivatives_agree_with_finite_differences(place, operation):
    graph = GRAPHS["duplicates"].to(place)
    arguments = operation.arguments(graph, heads=2, width=2)

    def function(*tensors):
        given = dict(zip(arguments, tensors, strict=True))
        return getattr(ops, operation.name)(**given, graph=graph, return_weights=True, backend="gpu")

    assert torch.autograd.gradcheck(function, tuple(arguments.values()), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *t: function(*t)[0], tuple(arguments.values()), fast_mode=True)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_gradient_does_not_depend_on_which_others_are_wanted(place, operation):
    graph = GRAPHS["isolated"].to(place)
    expected = results(operation, graph, "gpu", 0.4)
    for chosen in operation.arguments(graph):
        arguments = {name: t.detach().requires_grad_(name == chosen) for name, t in operation.arguments(graph).items()}
        actual = results(operation, graph, "gpu", 0.4, arguments=arguments)
        assert set(actual) == {"out", "weights", f"gradient of {chosen}"}
        for what, tensor in actual.items():
            close(tensor, expected[what], f"{what} of {chosen}")


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_the_rules_of_torch_library_hold(place, operation):
    graph, made = GRAPHS["isolated"].to(place), []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("attention_gpu", "attention_gpu_backward"):
            original = getattr(torch.ops.graphattn, name)
            patch.setattr(torch.ops.graphattn, name, lambda *a, f=original: made.append((f.default, a)) or f(*a))
        arguments = operation.arguments(graph, dtype=torch.float32)
        out, weights = getattr(ops, operation.name)(
            **arguments, graph=graph, dropout=0.3, return_weights=True, backend="gpu"
        )
        (out.sum() + weights.sum()).backward()
    assert len(made) == 2
    for (function, given), keep in zip(made, (True, False), strict=True):
        copies = [
            a.detach().clone().requires_grad_(keep and a.requires_grad) if isinstance(a, torch.Tensor) else a
            for a in given
        ]
        torch.library.opcheck(function, copies)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # torch's compiler uses it
def test_compiled_whole(place):
    graph = GRAPHS["random"].to(place)
    assert graph.by_receiver and graph.by_sender
    arguments = OPERATIONS[3].arguments(graph)

    def function(q, k, v):
        return dot_product(q, k, v, graph, dropout=0.3, backend="gpu")

    torch.manual_seed(1)
    out = function(*arguments.values())
    expected = [out, *torch.autograd.grad(out.square().sum(), list(arguments.values()))]
    torch.manual_seed(1)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    out = compiled(*arguments.values())
    for got, due in zip(
        [out, *torch.autograd.grad(out.square().sum(), list(arguments.values()))], expected, strict=True
    ):
        close(got, due)


def test_tiles_hold_what_registers_can():
    for heads, width in ((1, 1), (8, 8), (4, 64), (4, 256), (8, 1024), (1, 5000)):
        for dtype in (torch.float32, torch.float64):
            for rows in (1, 2, 4):
                for degree in (0.0, 3.2, 500.0):
                    shape = gpu_launch.tile(heads, width, degree, rows, dtype)
                    assert all(number & (number - 1) == 0 for number in shape), "powers of two"
                    assert shape.values >= width
                    assert shape.programs(heads) * shape.heads >= heads
                    values = rows * shape.edges * shape.heads * shape.values / shape.warps
                    assert shape.edges == 1 or values <= 1024 * (1 if dtype == torch.float32 else 0.5)
                    assert shape.edges <= max(4, 2 * degree)


GUARDED = """
import torch
from graphattn import Graph, additive, ops

graph = Graph(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]), 3, 2)
values, scores = torch.randn(3, 2, 4, requires_grad=True), torch.randn(3, 2)
additive(values, scores, scores[:2], graph).sum().backward()
try:
    additive(values, scores, scores[:2], graph, backend="gpu")
except (ImportError, RuntimeError) as error:
    print(f"{type(error).__name__}: {error}")
"""


def refusal(tmp_path, before):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", before + GUARDED]
    environment["CUDA_VISIBLE_DEVICES"] = ""
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment)
    return done.stdout


def test_without_triton_the_cpu_trains_and_the_gpu_is_refused_with_the_way_out(tmp_path):
    said = refusal(tmp_path, "import sys\nsys.modules['triton'] = None\n")
    assert said.startswith("ImportError: back end 'gpu' was asked for")
    assert "pip install graphattn[gpu]" in said


def test_without_a_gpu_it_is_refused_with_the_reason(tmp_path):
    said = refusal(tmp_path, "")
    assert said.startswith("RuntimeError: back end 'gpu' was asked for, but the graph is on cpu")
    assert "there is none here" in said


def test_additive_on_real_widths(place):
    """As GAT on Cora calls it, in single precision, against the C++ kernels where there are some."""
    graph = Graph(*random(500, 100, 100), 100, 100).to(place)
    arguments = OPERATIONS[1].arguments(graph, 8, 8, torch.float32)
    expected = additive(**{name: t.cpu() for name, t in arguments.items()}, graph=graph.to("cpu"))
    close(additive(**arguments, graph=graph, backend="gpu").cpu(), expected)
