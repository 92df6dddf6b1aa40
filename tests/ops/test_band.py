"""Sums over a band: every back end against the unfolded form, which holds each value once for each tap."""

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from cases import TOLERANCE, close
from torch.autograd import gradcheck, gradgradcheck

from graphattn import native, ops

GPU = "cuda" if torch.cuda.is_available() else "cpu"  # there Triton's kernels are interpreted
_ON_GPU = pytest.param("gpu", marks=[pytest.mark.gpu] if GPU == "cuda" else [])
BACKENDS = [
    "reference",
    *(["cpu"] if native.kernels is not None else []),
    *([_ON_GPU] if find_spec("triton") is not None else []),
]
needs_kernels = pytest.mark.skipif(native.kernels is None, reason="needs the compiled kernels")

# (B, T, H, D, K, left); runs of steps in a kernel are 64 long, its tiles of channels 4 to 32 wide
SIZES = {
    "plain": (2, 9, 3, 5, 4, 2),
    "causal": (2, 9, 1, 8, 5, 4),
    "to the right": (1, 9, 2, 3, 5, 0),
    "one tap": (2, 5, 2, 4, 1, 0),
    "more taps than steps": (2, 3, 2, 4, 11, 5),
    "one step": (3, 1, 2, 4, 3, 1),
    "several runs and a rest": (1, 135, 2, 6, 7, 3),
    "whole runs": (2, 128, 1, 2, 3, 2),
    "several tiles and a rest": (1, 6, 2, 71, 3, 1),
    "a whole tile": (1, 6, 1, 32, 9, 4),
    "more taps than a run has steps": (1, 130, 1, 3, 90, 45),
    "no step": (2, 0, 2, 3, 3, 1),
    "no sequence": (0, 4, 2, 3, 3, 1),
    "no channel": (2, 4, 2, 0, 3, 1),
}


def sample(size, shared, dtype=torch.float64, backend="reference"):
    """On the device that the back end knows."""
    batch, steps, heads, width, taps, _ = SIZES[size]
    weights = torch.randn(*(() if shared else (batch, steps)), heads, taps, dtype=torch.float64) / taps**0.5
    values = torch.randn(batch, steps, heads, width, dtype=torch.float64)
    place = GPU if backend == "gpu" else "cpu"
    return weights.to(place, dtype).requires_grad_(), values.to(place, dtype).requires_grad_()


def unfolded(weights, values, left):
    taps = weights.shape[-1]
    padded = F.pad(values, (0, 0, 0, 0, left, taps - 1 - left))
    rows = torch.stack([padded[:, j : j + values.shape[1]] for j in range(taps)], -1)
    return torch.einsum("bthk,bthdk->bthd", weights.expand(*values.shape[:3], taps), rows)


def outcome(function, weights, values, left, rounded=torch.float64):
    out = function(weights, values, left)
    upstream = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view(out.shape).to(rounded).to(out)
    return {
        "out": out,
        **dict(zip(("weights", "values"), torch.autograd.grad(out, (weights, values), upstream), strict=True)),
    }


def in_double(weights, values):
    return weights.detach().double().requires_grad_(), values.detach().double().requires_grad_()


def check(size, shared, dtype, backend):
    weights, values = sample(size, shared, dtype, backend)
    left = SIZES[size][-1]
    expected = outcome(unfolded, *in_double(weights, values), left, dtype)
    ours = outcome(lambda *given: ops.band_sum(*given, backend=backend), weights, values, left)
    for what, actual in ours.items():
        close(actual, expected[what].to(dtype), what)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shared", [False, True], ids=["of each step", "shared"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_sums_and_gradients_are_those_of_the_unfolded_form(backend, size, shared, dtype):
    check(size, shared, dtype, backend)


@pytest.mark.parametrize("shared", [False, True], ids=["of each step", "shared"])
@pytest.mark.parametrize("size", ["several runs and a rest", "several tiles and a rest", "more taps than steps"])
def test_every_instruction_set_computes_them(instruction_set, size, shared):
    for dtype in TOLERANCE:
        check(size, shared, dtype, "cpu")


@pytest.mark.parametrize("shared", [False, True], ids=["of each step", "shared"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_first_and_second_derivatives_agree_with_finite_differences(backend, shared):
    weights, values = sample("plain", shared, backend=backend)

    def cubed(weights, values):
        return ops.band_sum(weights, values, 2, backend=backend).pow(3)

    assert gradcheck(cubed, (weights, values), fast_mode=True)
    assert gradgradcheck(cubed, (weights, values), fast_mode=True)
    assert gradgradcheck(lambda w: cubed(w, values.detach()), weights, fast_mode=True)
    assert gradgradcheck(lambda v: cubed(weights.detach(), v), values, fast_mode=True)


@needs_kernels
@pytest.mark.parametrize("shared", [False, True], ids=["of each step", "shared"])
def test_results_are_the_same_bits_for_any_number_of_threads(set_threads, shared):
    weights, values = torch.randn(*(() if shared else (2, 500)), 3, 7), torch.randn(2, 500, 3, 20)
    found = []
    for count in (1, 2, 3, 4):
        set_threads(count)
        found.append(outcome(ops.band_sum, weights.requires_grad_(), values.requires_grad_(), 3))
        assert all(torch.equal(found[-1][what], found[0][what]) for what in found[0])


@needs_kernels
def test_only_the_gradients_that_are_wanted_are_computed():
    weights, values = sample("plain", False)
    expected = outcome(unfolded, weights, values, 2)
    with torch.no_grad():
        upstream = torch.linspace(-1, 1, values.numel(), dtype=torch.float64).view_as(values)
    for what, pair in {"weights": (weights, values.detach()), "values": (weights.detach(), values)}.items():
        (gradient,) = torch.autograd.grad(ops.band_sum(*pair, 2), [t for t in pair if t.requires_grad], upstream)
        close(gradient, expected[what])
    of_values = torch.ops.graphattn.band_sum_backward(upstream, weights, values, 2, False, True)
    assert of_values[0].numel() == 0


@needs_kernels
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shared", [False, True], ids=["of each step", "shared"])
def test_forward_and_backward_keep_the_rules_of_torch_library(shared, dtype):
    weights, values = sample("plain", shared, dtype)
    torch.library.opcheck(torch.ops.graphattn.band_sum.default, (weights, values, 2))
    arguments = torch.randn_like(values), weights.detach(), values.detach(), 2, True, True
    torch.library.opcheck(torch.ops.graphattn.band_sum_backward.default, arguments)


@needs_kernels
@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")  # torch's compiler uses it
def test_compiled_whole_they_give_the_same():
    weights, values = sample("plain", False)

    def function(weights, values, left):
        return ops.band_sum(weights.softmax(-1), values.sin(), left).relu()

    torch.compiler.reset()
    traced = torch.compile(function, fullgraph=True, backend="aot_eager_decomp_partition")
    expected = outcome(function, weights, values, 2)
    for what, actual in outcome(traced, weights, values, 2).items():
        close(actual, expected[what], what)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tensors_in_strides_give_the_same_and_so_do_dtypes_that_meet(backend):
    weights, values = sample("plain", False, backend=backend)
    expected = unfolded(weights, values, 2)
    strided = [t.detach().transpose(0, -1).contiguous().transpose(0, -1) for t in (weights, values)]
    close(ops.band_sum(*strided, 2, backend=backend), expected)
    mixed = ops.band_sum(weights.float(), values, 2, backend=backend)
    close(mixed, unfolded(weights.float().double(), values, 2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_value_that_is_no_number_reaches_the_steps_that_hear_it_and_no_others(backend):
    weights, values = torch.randn(1, 20, 1, 5), torch.randn(1, 20, 1, 3)
    values[0, 10] = torch.nan
    weights, values = (tensor.to(GPU if backend == "gpu" else "cpu") for tensor in (weights, values))
    broken = ops.band_sum(weights, values, 3, backend=backend).isnan().any(-1).flatten()
    assert broken.nonzero().flatten().tolist() == list(range(9, 14))


def test_what_is_no_fused_back_end_runs_as_the_reference():
    weights, values = sample("plain", False)
    with ops.use(backend="scatter"):
        assert torch.equal(ops.band_sum(weights, values, 2), ops.band_sum(weights, values, 2, backend="reference"))


_W, _V = torch.zeros(2, 5, 3, 4), torch.zeros(2, 5, 3, 6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], _V, 0), TypeError, "weights is a list: needed a tensor of shape"),
        ((_W, None, 0), TypeError, "values is a NoneType"),
        ((_W.long(), _V, 0), TypeError, r"weights has dtype torch.int64.*\.float"),
        ((_W[0], _V, 0), ValueError, r"weights has shape \[5, 3, 4\]: needed \[B, T, H, K\] or \[H, K\]"),
        ((_W, _V[0], 0), ValueError, r"values has shape \[5, 3, 6\]: needed \[B, T, H, D\]"),
        ((_W[:, 1:], _V, 0), ValueError, r"shape \[2, 4, 3, 4\], values \[2, 5, 3, 6\]: needed weights \[2, 5, 3, K\]"),
        ((_W[0, 0, 1:], _V, 0), ValueError, r"needed weights \[3, K\]"),
        ((_W.to("meta"), _V, 0), ValueError, "weights are on meta, values on cpu"),
        ((_W, _V, 4), ValueError, "left is 4 for 4 taps: needed 0 to 3"),
        ((_W, _V, -1), ValueError, "left is -1"),
        ((_W[..., :0], _V, 0), ValueError, "left is 0 for 0 taps"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_value_found(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.band_sum(*arguments)
