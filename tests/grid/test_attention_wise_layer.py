"""The Attention-Wise layer: its definition by hand and by the toolkit's softmax, its options, its door."""

import re

import pytest
import torch
from attention_wise_cases import OPTIONS, SHAPES, answer, images, layer
from cases import close

from graphattn import ops
from graphattn.grid import AttentionWise, scores
from graphattn.ops.reference import segment_softmax
from graphattn.topology import columns, rows


def test_scores_by_hand():
    x = torch.tensor([[[[1.0, 2.0], [0.0, 4.0]]]])
    weights = torch.tensor([[[[1.0, 0.5], [3.0, 0.25]]]])  # products 1, 1 and 0, 1
    e = torch.tensor(1.0).exp()
    by_row = torch.tensor([[1 / 2, 1 / 2], [1 / (1 + e), e / (1 + e)]])
    by_column = torch.tensor([[e / (e + 1), 1 / 2], [1 / (e + 1), 1 / 2]])
    close(scores(x, weights, weights)[0, 0, 0], by_row * by_column)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_scores_are_attention_over_row_and_column_cliques(shape):
    """The logit of an edge is its sender's; all receivers of a clique have the same weights, so the loops' tell all."""
    _, _, _, height, width = shape
    made, x = layer(shape, score_bias=True), images(shape)
    product = torch.ones(())
    for graph, weight, bias in (
        (rows(height, width), made.x_weight, made.x_bias),
        (columns(height, width), made.y_weight, made.y_bias),
    ):
        logits = (x.unsqueeze(1) * weight + bias).flatten(0, 2).flatten(1).t()  # [pixels, B * H * C]
        values = torch.ones(graph.num_senders, 1, 1, dtype=logits.dtype).expand(-1, logits.shape[1], 1)
        _, weights = ops.attend(logits[graph.senders], values, graph, return_weights=True)
        own = graph.senders == graph.receivers
        pixels = graph.senders[own]
        on_pixels = torch.empty_like(logits).index_copy(0, pixels, weights[own])
        close(weights, on_pixels[graph.senders], "all receivers of a clique")
        number = torch.arange(height * width)
        cliques = number // width if weight is made.x_weight else number % width
        close(segment_softmax(logits, cliques, height * width), on_pixels, "a segment a clique")
        product = product * on_pixels
    found = scores(x, made.x_weight, made.y_weight, made.x_bias, made.y_bias)
    close(product.t().view_as(found), found)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_steps_are_what_the_docstring_says(options):
    shape = SHAPES["wide"]
    made, x = layer(shape, **options), images(shape)
    steps = made.inspect(x)
    a = steps.scores
    mean, var = a.mean((0, 3, 4), keepdim=True), a.var((0, 3, 4), keepdim=True, correction=0)
    close(steps.normalised, (a - mean) / (var + made.norm.eps).sqrt())
    close(steps.heads, steps.normalised * x.unsqueeze(1))
    one_after_the_other = torch.cat(list(steps.heads.unbind(1)), 1)
    close(steps.merged, torch.nn.functional.conv2d(one_after_the_other, made.conv.weight, made.conv.bias, padding=1))
    close(steps.added, steps.merged + x if options.get("skip", True) else steps.merged)
    if options.get("batch_norm"):
        assert steps.normed.mean((0, 2, 3)).abs().max() < 1e-10
    else:
        assert steps.normed is steps.added
    close(steps.output, steps.normed.clamp(min=0))
    close(made(x), steps.output)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_device_computes_the_definition(options, device):
    made, x = layer(SHAPES["wide"], **options), images(SHAPES["wide"])
    with ops.use(backend="reference"):
        out, grads = answer(made, x)
    found, of = answer(made.to(device), x.detach().to(device).requires_grad_())
    for a, b in zip([found, *of], [out, *grads], strict=True):
        close(a.cpu(), b)


@pytest.mark.parametrize("options", [{"score_affine": True}, {"score_bias": True}], ids=str)
def test_scales_and_biases_that_do_nothing_at_first_are_parameters(options):
    shape = SHAPES["square"]
    made = AttentionWise(1, 6, 3, **options)
    torch.manual_seed(0)
    plain = AttentionWise(1, 6, 3)
    plain.load_state_dict({k: v for k, v in made.state_dict().items() if k in plain.state_dict()})
    x = images(shape, torch.float32)
    close(made(x), plain(x))
    more = set(dict(made.named_parameters())) - set(dict(plain.named_parameters()))
    assert more == ({"norm.weight", "norm.bias"} if "score_affine" in options else {"x_bias", "y_bias"})
    _, grads = answer(made, x)
    assert all(grad.isfinite().all() for grad in grads)


def test_weights_are_drawn_narrowly_and_biases_begin_at_zero():
    made = AttentionWise(3, 32, 8, score_bias=True)
    for weight in (made.x_weight, made.y_weight, made.conv.weight):
        assert weight.mean().abs() < 0.003 and 0.018 < weight.std() < 0.022
    for bias in (made.x_bias, made.y_bias, made.conv.bias):
        assert not bias.any()


def test_mirrored_images_and_weights_give_mirrored_outputs():
    shape = SHAPES["wide"]
    made, x = layer(shape, score_bias=True, batch_norm=True), images(shape)
    out = made(x)
    with torch.no_grad():
        for mirrored in (made.x_weight, made.y_weight, made.x_bias, made.y_bias, made.conv.weight):
            mirrored.copy_(mirrored.flip(-1))
    close(made(x.flip(-1)), out.flip(-1))


def test_a_turned_image_swaps_the_two_weights():
    shape = SHAPES["wide"]
    made, x = layer(shape), images(shape)
    turned = layer((3, 2, 2, 7, 4))
    with torch.no_grad():
        turned.x_weight.copy_(made.y_weight.mT)
        turned.y_weight.copy_(made.x_weight.mT)
        turned.conv.weight.copy_(made.conv.weight.mT)
        turned.conv.bias.copy_(made.conv.bias)
    close(turned(x.mT), made(x).mT)


def test_images_may_come_in_any_order_and_heads_too():
    shape = SHAPES["square"]
    made, x = layer(shape), images(shape)
    out = made(x)
    order = torch.randperm(len(x))
    close(made(x[order]), out[order])
    with torch.no_grad():
        for of_heads in (made.x_weight, made.y_weight):
            of_heads.copy_(of_heads.flip(0))
        made.conv.weight.copy_(made.conv.weight.flip(1))
    close(made(x), out)


_WRONG = {
    "another height": torch.zeros(2, 3, 5, 7),
    "another width": torch.zeros(2, 3, 4, 4),
    "another number of channels": torch.zeros(2, 1, 4, 7),
    "no batch": torch.zeros(3, 4, 7),
}


@pytest.mark.parametrize("x", _WRONG.values(), ids=_WRONG)
def test_images_of_another_size_are_refused(x):
    expected = f"x has shape {list(x.shape)}: needed [B, 3, 4, 7]"
    made = AttentionWise(3, (4, 7))
    for call in (made, made.inspect):
        with pytest.raises(ValueError, match=re.escape(expected) + ".*resize"):
            call(x)


@pytest.mark.parametrize(("arguments", "name"), [((0, 4), "channels"), ((1, 0), "height"), ((1, 4, 0), "heads")])
def test_sizes_are_positive(arguments, name):
    with pytest.raises(ValueError, match=f"{name} is 0, needed at least 1"):
        AttentionWise(*arguments)


@pytest.mark.parametrize("eps", [-1e-5, float("nan")])
def test_an_epsilon_is_not_negative(eps):
    with pytest.raises(ValueError, match=f"score_eps is {eps}, needed a number that is not negative"):
        AttentionWise(1, 4, score_eps=eps)


def test_no_images_give_no_images():
    made = AttentionWise(1, 4).eval()
    assert made(torch.zeros(0, 1, 4, 4)).shape == (0, 1, 4, 4)


def test_one_value_has_no_statistics():
    with pytest.raises(ValueError, match="more than 1 value"):
        AttentionWise(1, 1)(torch.ones(1, 1, 1, 1))
