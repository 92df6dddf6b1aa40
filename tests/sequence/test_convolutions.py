"""Lightweight and dynamic convolution are attention on a band graph; conv1d judges the former as well."""

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from bands import BANDS, PADDINGS, judge, paddings
from cases import TOLERANCE, close
from torch.autograd import gradcheck

from graphattn import native, ops
from graphattn.sequence import DynamicConv, LightweightConv, dynamic_conv, lightweight_conv

HEADS, CHANNELS = 2, 6
CONVOLUTIONS = {"light": lightweight_conv, "dynamic": dynamic_conv}
# Where there is no GPU, Triton's kernels are interpreted.
GPU = pytest.param("cuda", marks=[pytest.mark.gpu]) if torch.cuda.is_available() else "cpu"
BACKENDS = ["reference", *(["cpu"] if native.kernels is not None else [])]


def sample(kind, batch, steps, taps, dtype=torch.float64):
    x = torch.randn(batch, steps, CHANNELS, dtype=torch.float64)
    logits = torch.randn(*((batch, steps) if kind == "dynamic" else ()), HEADS, taps, dtype=torch.float64) * 2
    return x.to(dtype).requires_grad_(), logits.to(dtype).requires_grad_()


def with_gradients(out, *inputs):
    upstream = torch.linspace(-1, 1, out.numel()).to(out).view_as(out)
    return out, *torch.autograd.grad(out, inputs, upstream)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("norm", ["taps", "edges"])
@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_they_are_attention_on_a_band_graph_in_output_and_gradients(kind, band, norm, padding, backend):
    steps, left, right = BANDS[band]
    x, logits = sample(kind, 3, steps, left + 1 + right)
    missing = paddings(3, steps)[padding]
    with ops.use(backend=backend):
        ours = with_gradients(CONVOLUTIONS[kind](x, logits, left, norm=norm, padding=missing), x, logits)
    for actual, expected in zip(ours, with_gradients(judge(x, logits, left, norm, missing), x, logits), strict=True):
        close(actual, expected)


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
@pytest.mark.parametrize("where", [GPU])
@pytest.mark.parametrize("band", ["causal", "longer than the sequence", "one step"])
@pytest.mark.parametrize("norm", ["taps", "edges"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_on_the_back_end_for_gpus_too(kind, norm, band, where):
    steps, left, right = BANDS[band]
    x, logits = sample(kind, 3, steps, left + 1 + right)
    missing = paddings(3, steps)["scattered"]
    there = [leaf.detach().to(where).requires_grad_() for leaf in (x, logits)]
    with ops.use(backend="gpu"):
        ours = with_gradients(CONVOLUTIONS[kind](*there, left, norm=norm, padding=missing.to(where)), *there)
    for actual, expected in zip(ours, with_gradients(judge(x, logits, left, norm, missing), x, logits), strict=True):
        close(actual.cpu(), expected)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("norm", ["taps", "edges"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_they_keep_the_dtype_and_the_accuracy_it_allows(kind, norm, dtype):
    x, logits = sample(kind, 2, 20, 5, dtype)
    out = CONVOLUTIONS[kind](x, logits, 2, norm=norm)
    close(out, judge(x.double(), logits.double(), 2, norm).to(dtype))


@pytest.mark.parametrize("padding", ["none", "scattered"])
@pytest.mark.parametrize("norm", ["taps", "edges"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_their_gradients_agree_with_finite_differences(kind, norm, padding):
    x, logits = sample(kind, 2, 5, 4)
    missing = paddings(2, 5)[padding]
    assert gradcheck(lambda x, z: CONVOLUTIONS[kind](x, z, 2, norm=norm, padding=missing), (x, logits))


@pytest.mark.parametrize("band", [name for name, (steps, _, _) in BANDS.items() if steps])
def test_lightweight_convolution_is_a_depthwise_conv1d_with_a_softmaxed_kernel(band):
    steps, left, right = BANDS[band]
    x, logits = sample("light", 3, steps, left + 1 + right)
    kernel = logits.softmax(-1).repeat_interleave(CHANNELS // HEADS, 0).unsqueeze(1)
    judged = F.conv1d(F.pad(x.transpose(1, 2), (left, right)), kernel, groups=CHANNELS).transpose(1, 2)
    ours = with_gradients(lightweight_conv(x, logits, left), x, logits)
    for actual, expected in zip(ours, with_gradients(judged, x, logits), strict=True):
        close(actual, expected)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_the_two_rules_differ_at_the_borders_only_where_taps_sum_to_less_than_one(kind):
    x, logits = sample(kind, 1, 12, 5)
    ones = torch.ones_like(x)
    taps, edges = (CONVOLUTIONS[kind](ones, logits, 2, norm=norm) for norm in ("taps", "edges"))
    close(edges, ones)
    close(taps[:, 2:-2], ones[:, 2:-2])
    assert (taps[:, :2] < 1 - 1e-6).all() and (taps[:, -2:] < 1 - 1e-6).all()


@pytest.mark.parametrize("norm", ["taps", "edges"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_step_that_hears_nobody_gets_zeros_and_what_stands_at_padding_does_not_matter(kind, norm):
    x, logits = sample(kind, 2, 8, 3)
    padding = torch.zeros(2, 8, dtype=torch.bool)
    padding[0, 4:], padding[1] = True, True
    spoilt = torch.where(padding.unsqueeze(-1), torch.nan, x)
    out = CONVOLUTIONS[kind](spoilt, logits, 1, norm=norm, padding=padding)
    assert (out[0, 5:] == 0).all() and (out[1] == 0).all()
    shorter = logits[:1, :4] if kind == "dynamic" else logits
    close(out[:1, :4], CONVOLUTIONS[kind](x[:1, :4], shorter, 1, norm=norm))


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_edges_with_hardly_any_weight_inside_are_still_softmaxed_exactly_at_the_border(kind):
    """Dividing the sum of all taps by the weight that is there would divide by nothing."""
    x, _ = sample(kind, 1, 6, 3)
    logits = torch.tensor([0.0, -900.0, 900.0], dtype=torch.float64).expand(
        *((1, 6) if kind == "dynamic" else ()), 2, 3
    )
    out = CONVOLUTIONS[kind](x, logits, 1, norm="edges")
    close(out[:, -1], x[:, -2])


@pytest.mark.parametrize("norm", ["taps", "edges"])
def test_drop_connect_drops_normalised_weights_one_mask_for_the_batch_or_one_a_step(norm):
    dropped = {}
    for kind, convolution in CONVOLUTIONS.items():
        x, logits = sample(kind, 4, 50, 3)
        ones, logits = torch.ones_like(x), torch.zeros_like(logits)
        out = convolution(ones, logits, 1, norm=norm, dropout=0.5)[..., :: CHANNELS // HEADS]
        inside = out[:, 1:-1]
        close(inside, (inside * 1.5).round() / 1.5)  # each of three weights is 0 or 2 / 3
        border = 2.0 if norm == "edges" else 4 / 3  # at most: two weights of 1 or 2 / 3 each
        assert out[:, 0].max() <= border + 1e-9
        dropped[kind] = inside
    assert (dropped["light"] == dropped["light"][:1, :1]).all()
    assert dropped["dynamic"].unique().numel() == 4
    assert 0.8 < dropped["dynamic"].mean() < 1.2


@pytest.mark.parametrize("norm", ["taps", "edges"])
@pytest.mark.parametrize("module", [LightweightConv, DynamicConv])
def test_modules_drop_weights_in_training_only_and_at_probability_one_all_of_them(module, norm):
    layer = module(CHANNELS, 3, HEADS, weight_dropout=1.0, norm=norm)
    x = torch.randn(2, 5, CHANNELS)
    assert (layer(x) == 0).all()
    assert (layer.eval()(x) != 0).all()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("module", [LightweightConv, DynamicConv])
def test_modules_compute_what_the_functions_do_and_a_causal_one_never_looks_ahead(module, causal):
    layer = module(CHANNELS, 4, HEADS, causal=causal, norm="edges").double()
    x = torch.randn(2, 9, CHANNELS, dtype=torch.float64)
    close(layer(x), judge(x, layer.logits(x), 3 if causal else 2, "edges"))
    later = x.clone()
    later[:, 5:] += 1
    assert torch.equal(layer(x)[:, :5], layer(later)[:, :5]) == causal


def test_channels_of_a_head_share_its_kernel():
    """Head h holds channels h d / H up to (h + 1) d / H."""
    logits = torch.full((2, 3), -torch.inf)
    logits[0, 0] = logits[1, 2] = 0.0  # head 0 takes the step before, head 1 the step after
    x = torch.randn(1, 6, CHANNELS)
    out = lightweight_conv(x, logits, 1)
    close(out[:, 1:, :3], x[:, :-1, :3])
    close(out[:, :-1, 3:], x[:, 1:, 3:])


def weights(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_published_counts_of_weights_at_1024_channels_31_taps_16_heads():
    assert weights(LightweightConv(1024, 31, 16)) == 496
    assert weights(LightweightConv(1024, 31, 1024)) == 31_744  # a depthwise convolution
    assert weights(DynamicConv(1024, 31, 16)) == 507_904
    assert weights(torch.nn.Conv1d(1024, 1024, 31, bias=False)) == 32_505_856  # what they replace, 32.5 million


def test_initial_weights_are_xavier_uniform_in_the_published_shapes():
    light, dynamic = LightweightConv(512, 31, 256), DynamicConv(512, 31, 16)
    for weight, fans in ((light.weight, 31 + 256 * 31), (dynamic.predictor.weight, 512 + 16 * 31)):
        bound = (6 / fans) ** 0.5
        assert 0.95 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((6, 3, 4), {}, "6 channels and 4 heads"),
        ((6, 3, 0), {}, "6 channels and 0 heads"),
        ((6, 0, 2), {}, "for 0 taps"),
        ((6, 3, 2), {"norm": "softmax"}, "norm is 'softmax': needed 'taps'"),
        ((6, 3, 2), {"weight_dropout": 1.5}, "weight_dropout is 1.5"),
    ],
)
@pytest.mark.parametrize("module", [LightweightConv, DynamicConv])
def test_modules_that_make_no_sense_are_refused(module, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        module(*arguments, **options)


_X, _STATIC, _DYNAMIC = torch.zeros(2, 5, 6), torch.zeros(2, 3), torch.zeros(2, 5, 2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lightweight_conv(_X[0], _STATIC, 1), r"x has shape \[5, 6\]: needed \[B, T, d\]"),
        (lambda: lightweight_conv(_X[..., 1:], _STATIC, 1), "multiple of 2 heads"),
        (lambda: lightweight_conv(_X, _STATIC, 3), "left is 3 for 3 taps"),
        (lambda: lightweight_conv(_X, _DYNAMIC, 1), r"logits have shape \[2, 5, 2, 3\]: needed \[H, K\]"),
        (lambda: LightweightConv(12, 3, 2)(_X), r"x has shape \[2, 5, 6\]: needed \[B, T, 12\]"),
        (lambda: DynamicConv(12, 3, 2)(_X), r"x has shape \[2, 5, 6\]: needed \[B, T, 12\]"),
        (lambda: lightweight_conv(_X, _STATIC, -1), "left is -1 for 3 taps"),
        (lambda: lightweight_conv(_X, _STATIC, 1, norm="none"), "norm is 'none'"),
        (lambda: lightweight_conv(_X, _STATIC, 1, padding=torch.zeros(2, 5)), "padding is torch.float32"),
        (
            lambda: dynamic_conv(_X, _DYNAMIC, 1, padding=torch.zeros(2, 4).bool()),
            r"needed torch.bool of shape \[2, 5\]",
        ),
        (lambda: dynamic_conv(_X, _DYNAMIC[:, 1:], 1), r"logits have shape \[2, 4, 2, 3\]: needed"),
        (lambda: dynamic_conv(_X, _STATIC, 1), r"logits have shape \[2, 3\]: needed"),
        (lambda: dynamic_conv(_X, _DYNAMIC, 5), "left is 5 for 3 taps"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_value_found(call, message):
    with pytest.raises(ValueError, match=message):
        call()
