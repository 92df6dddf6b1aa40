"""The kernels of Attention-Wise against the definition: output, gradients, statistics, precision."""

import pytest
import torch
from attention_wise_cases import OPTIONS, SHAPES, answer, images, layer
from cases import close
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode

from graphattn import native, ops
from graphattn.grid import fused, reference

pytestmark = pytest.mark.skipif(native.kernels is None, reason="needs the compiled kernels")


class _Seen(TorchDispatchMode):
    """The names of graphattn's operations that were called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names |= {str(function)} if function.namespace == "graphattn" else set()
        return function(*args, **(kwargs or {}))


def both(made, x):
    """The answer and the state after it by the kernels, then by torch, from the same running statistics."""
    state = {name: value.clone() for name, value in made.state_dict().items()}
    with _Seen() as seen:
        mine = answer(made, x)
    assert {"graphattn.attention_wise.default", "graphattn.attention_wise_backward.default"} == seen.names
    after = {name: value.clone() for name, value in made.state_dict().items()}
    made.load_state_dict(state)
    with ops.use(backend="reference"), _Seen() as seen:
        theirs = answer(made, x)
    assert not seen.names
    return mine, after, theirs, made.state_dict()


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_output_gradients_and_statistics_are_the_definitions(shape, options, training):
    made, x = layer(shape, **options), images(shape)
    made(x)  # statistics that are no longer zero and one
    mine, state, theirs, expected = both(made.train(training), x)
    close(mine[0], theirs[0], "output")
    for name, grad, truth in zip(["x", *dict(made.named_parameters())], mine[1], theirs[1], strict=True):
        close(grad, truth, f"gradient of {name}")
    for name, value in expected.items():
        close(state[name], value, name)


def arguments(shape, biases, statistics):
    made = layer(shape, score_bias=biases)
    weights = [w if w is None else w.detach().requires_grad_() for w in (made.x_weight, made.y_weight)]
    weights += [b if b is None else b.detach().requires_grad_() for b in (made.x_bias, made.y_bias)]
    conv = made.conv.weight.detach().requires_grad_()
    maps = conv.shape[1]
    given = (torch.rand(maps).double(), torch.rand(maps).double()) if statistics else (None, None)
    return images(shape), *weights, conv, *given, 1e-3


@pytest.mark.parametrize("statistics", [False, True], ids=["of the batch", "given"])
@pytest.mark.parametrize("biases", [False, True], ids=["no biases", "biases"])
@pytest.mark.parametrize("run", [lambda *a: fused.merged(*a)[0], reference.merged], ids=["fused", "reference"])
def test_gradients_are_those_of_small_differences(run, biases, statistics):
    given = arguments((2, 2, 2, 3, 2), biases, statistics)
    assert torch.autograd.gradcheck(run, given)


@pytest.mark.parametrize("statistics", [False, True], ids=["of the batch", "given"])
@pytest.mark.parametrize("biases", [False, True], ids=["no biases", "biases"])
def test_second_derivatives_go_through_the_definition(biases, statistics):
    given = arguments((2, 1, 2, 2, 3), biases, statistics)
    assert torch.autograd.gradgradcheck(lambda *a: fused.merged(*a)[0], given)
    out = fused.merged(*given)[0]
    (grad,) = torch.autograd.grad(out.square().sum(), given[0], create_graph=True)
    expected = reference.merged(*given)
    (truth,) = torch.autograd.grad(expected.square().sum(), given[0])
    close(grad.detach(), truth)
    assert [out.requires_grad for out in fused.merged(*given)] == [True, False, False]


def test_gradients_that_may_be_differentiated_count_each_way_once():
    """Where one input is another, or is made of it."""
    made, x = layer(SHAPES["square"]), images(SHAPES["square"])

    def tied(weight, x):
        return torch.func.functional_call(made, {"x_weight": weight, "y_weight": weight}, x)

    def made_of_images(weight, x):
        return torch.func.functional_call(made, {"x_weight": weight * x.mean(0)}, x)

    for call in (tied, made_of_images):
        weight = made.x_weight.detach().requires_grad_()
        truth = torch.autograd.grad(call(weight, x).square().sum(), (weight, x))
        found = torch.autograd.grad(call(weight, x).square().sum(), (weight, x), create_graph=True)
        for a, b in zip(found, truth, strict=True):
            close(a.detach(), b)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4], ids=["small", "about the bound", "huge"])
def test_large_logits_neither_overflow_nor_vanish(scale):
    shape = SHAPES["wide"]
    made, x = layer(shape, torch.float32, std=scale, score_bias=True), images(shape, torch.float32)
    mine, _, theirs, _ = both(made, x)
    with ops.use(backend="reference"):
        wide, _ = answer(made.double(), x.double())
    for out in (mine[0], theirs[0]):  # a logit of 1e4 is itself only known to 1e-3
        assert (out - wide).norm() <= (1e-6 + 1e-7 * scale) * wide.norm()
    assert all(grad.isfinite().all() for grad in mine[1])


def test_logits_are_shifted_alike_below_and_above_the_bound():
    """A row far below zero would vanish if its exponentials were taken as they are."""
    shape = (3, 1, 1, 4, 4)
    made, x = layer(shape, torch.float32, score_bias=True), images(shape, torch.float32)
    with torch.no_grad():
        before = made.eval().inspect(x).scores
        for bias in (made.x_bias, made.y_bias):
            bias -= 500.0
    close(made.inspect(x).scores, before)
    mine, _, theirs, _ = both(made, x)
    close(mine[0], theirs[0])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(bad):
    shape = SHAPES["square"]
    made, x = layer(shape, torch.float32).eval(), images(shape, torch.float32).detach()
    x[2, 0, 3, 3] = bad
    out = made(x)
    with ops.use(backend="reference"):
        expected = made(x)
    assert torch.equal(out.isnan(), expected.isnan()) and out[2].isnan().any() and out[1].isfinite().all()


def test_float32_loses_little():
    shape = (64, 2, 4, 14, 14)
    made, x = layer(shape, torch.float32, std=0.02), images(shape, torch.float32)
    mine, _, theirs, _ = both(made, x)
    made = made.double()
    with ops.use(backend="reference"):
        truth = answer(made, x.detach().double().requires_grad_())
    for name, a, b, c in zip(
        ["output", "x", *dict(made.named_parameters())],
        [mine[0], *mine[1]],
        [theirs[0], *theirs[1]],
        [truth[0], *truth[1]],
        strict=True,
    ):
        lost, torchs = ((t - c).norm() / c.norm() for t in (a.double(), b.double()))
        assert lost <= 2 * torchs + 1e-6, f"{name}: {lost:.1e} against torch's {torchs:.1e}"


@pytest.mark.parametrize("name", native.kernels.instruction_sets() if native.kernels else [])
def test_each_instruction_set_computes_the_same(name):
    shape = (3, 2, 2, 5, 19)
    made, x = layer(shape, torch.float32, score_bias=True), images(shape, torch.float32)
    native.kernels.use_instruction_set(name)
    try:
        mine, _, theirs, _ = both(made, x)
    finally:
        native.kernels.use_instruction_set(None)
    for a, b in zip([mine[0], *mine[1]], [theirs[0], *theirs[1]], strict=True):
        close(a, b, name)


def test_any_number_of_threads_gives_the_same_bits():
    shape = SHAPES["chunks of images"]
    made, x = layer(shape, torch.float32, score_bias=True), images(shape, torch.float32)
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        out, grads = answer(made, x)
        found.append([out, *grads])
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_torch_takes_the_operation_as_its_own():
    for given in (arguments((2, 1, 2, 3, 2), False, False), arguments((2, 1, 2, 3, 2), True, True)):
        torch.library.opcheck(fused.merged, given)


def test_strided_images_are_taken():
    shape = SHAPES["wide"]
    made, x = layer(shape), images(shape).detach().to(memory_format=torch.channels_last).requires_grad_()
    mine, _, theirs, _ = both(made, x)
    close(mine[0], theirs[0])
    close(mine[1][0], theirs[1][0])


def test_nothing_the_size_of_all_heads_is_kept_for_backward():
    shape = (6, 1, 8, 10, 10)
    made, x = layer(shape, torch.float32), images(shape, torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        made(x)
    assert max(kept) == max(x.numel(), made.x_weight.numel())


@pytest.mark.parametrize("backend", [None, "reference"], ids=["fused", "torch"])
def test_bf16_under_autocast(backend):
    shape = SHAPES["square"]
    made, x = layer(shape, torch.float32, std=0.2, batch_norm=True), images(shape, torch.float32)
    with ops.use(backend="reference"):
        truth = made(x)
    with torch.autocast("cpu", torch.bfloat16), ops.use(backend=backend):
        out, grads = answer(made, x)
        again = made(out.bfloat16())
    assert out.dtype == torch.float32 and again.dtype == torch.bfloat16
    assert all(grad.isfinite().all() for grad in grads)
    torch.testing.assert_close(out, truth, rtol=2e-2, atol=2e-2)


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # torch's compiler uses torch.jit
@pytest.mark.parametrize("backend", [None, "reference"], ids=["fused", "torch"])
def test_compiles_whole(backend):
    shape = (4, 1, 2, 5, 5)
    made, x = layer(shape, torch.float32, batch_norm=True), images(shape, torch.float32)
    state = {name: value.clone() for name, value in made.state_dict().items()}
    with ops.use(backend=backend):
        expected = answer(made, x)
        after = {name: value.clone() for name, value in made.state_dict().items()}
        made.load_state_dict(state)
        found = answer(made, x, torch.compile(made, fullgraph=True))
    for a, b in zip([found[0], *found[1]], [expected[0], *expected[1]], strict=True):
        close(a, b)
    for name, value in made.state_dict().items():
        close(value, after[name], name)


def test_an_exchanged_norm_is_used():
    made, x = layer(SHAPES["square"]), images(SHAPES["square"])
    made.norm = torch.nn.Identity()
    a = made.inspect(x).scores
    heads = (a * x.unsqueeze(1)).flatten(1, 2)
    close(made(x), torch.relu(made.conv(heads) + x))


@pytest.mark.parametrize(
    "options",
    [{"padding_mode": "reflect"}, {"dilation": 2, "padding": 2}, {"kernel_size": 5, "padding": 2}, {"groups": 2}],
    ids=str,
)
def test_an_exchanged_convolution_is_used(options):
    made, x = layer(SHAPES["wide"]), images(SHAPES["wide"])
    channels = made.conv.in_channels, made.conv.out_channels
    made.conv = torch.nn.Conv2d(*channels, **{"kernel_size": 3, "padding": 1, **options}, dtype=x.dtype)
    close(made.eval()(x), made.inspect(x).output)


def test_a_convolution_of_other_channels_or_dtype_is_used():
    made, x = layer(SHAPES["wide"], skip=False), images(SHAPES["wide"])
    made.conv = torch.nn.Conv2d(made.conv.in_channels, 5, 3, padding=1, dtype=x.dtype)
    close(made.eval()(x), made.inspect(x).output)
    made, x = layer(SHAPES["wide"], torch.float32).eval(), images(SHAPES["wide"], torch.float32)
    made.conv.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        close(made(x), made.inspect(x).output)


def test_hooks_and_pruning_are_served():
    made, x, seen = layer(SHAPES["square"]), images(SHAPES["square"]), []
    for module in (made.norm, made.conv):
        module.register_forward_hook(lambda module, *_: seen.append(module))
    made(x)
    assert seen == [made.norm, made.conv]
    made = layer(SHAPES["square"])
    prune.random_unstructured(made.conv, "weight", 0.5)
    for _ in range(2):
        made(x).sum().backward()
    with torch.no_grad():
        made.conv.weight_orig.mul_(2)
        before = made(x)
    assert before.isfinite().all() and not torch.equal(made.conv.weight, made.conv.weight_orig)
    close(made.eval()(x), made.inspect(x).output)


def test_float64_stays_so_under_autocast():
    made, x = layer(SHAPES["square"]), images(SHAPES["square"])
    expected = made(x)
    with torch.autocast("cpu", torch.bfloat16):
        close(made(x), expected)


def test_torch_func_goes_through_the_definition():
    made, x = layer(SHAPES["square"]).eval(), images(SHAPES["square"]).detach()
    close(torch.func.vmap(lambda one: made(one.unsqueeze(0)).squeeze(0))(x), made(x))


def _door():
    sizes = {"x": (2, 3, 4, 5), "wx": (2, 3, 4, 5), "wy": (2, 3, 4, 5), "bx": (2, 3, 4, 5), "by": (2, 3, 4, 5)}
    given = {name: torch.ones(size) for name, size in sizes.items()} | {"conv": torch.ones(3, 6, 3, 3)}
    given |= {name: torch.ones(6, dtype=torch.float64) for name in ("mean", "var")}
    grads = {f"grad_{name}": torch.empty_like(given[name]) for name in ("x", "wx", "wy", "bx", "by", "conv")}
    return given, {"merged": torch.empty(2, 3, 4, 5)}, {"grad": torch.ones(2, 3, 4, 5)} | grads


def _call(name, given, **changes):
    arrays = {key: native.arrays(tensor)[0] for key, tensor in {**given, **changes}.items()}
    getattr(native.kernels, name)(eps=1e-5, training=True, threads=1, **arrays)


_DOORS = {
    "a weight of another shape": ({"wy": torch.ones(2, 3, 5, 4)}, ValueError, "wy has another shape"),
    "a convolution of too few maps": ({"conv": torch.ones(3, 5, 3, 3)}, ValueError, "conv has another shape"),
    "another dtype": ({"conv": torch.ones(3, 6, 3, 3).double()}, TypeError, "conv has another dtype"),
    "integers": ({"x": torch.ones(2, 3, 4, 5, dtype=torch.long)}, TypeError, "x must be float32 or float64"),
    "one bias": ({"by": None}, ValueError, "bx and by go together"),
    "no heads": ({"wx": torch.ones(0, 3, 4, 5)}, ValueError, "wx is empty"),
    "three dimensions": ({"x": torch.ones(3, 4, 5)}, ValueError, "four dimensions"),
    "a short mean": ({"mean": torch.ones(5, dtype=torch.float64)}, ValueError, "mean has another shape"),
}


@pytest.mark.parametrize(("changes", "error", "text"), _DOORS.values(), ids=_DOORS)
def test_the_compiled_module_checks_what_it_is_given(changes, error, text):
    given, forward, backward = _door()
    _call("attention_wise_forward", given | forward)
    _call("attention_wise_backward", given | backward)
    with pytest.raises(error, match=text):
        _call("attention_wise_forward", given | forward, **changes)
    with pytest.raises(error, match=text):
        _call("attention_wise_backward", given | backward, **changes)


def test_the_compiled_module_wants_the_gradients_of_given_biases():
    given, _, backward = _door()
    with pytest.raises(ValueError, match="grad_bx and grad_by are missing"):
        _call("attention_wise_backward", given | backward, grad_by=None)
