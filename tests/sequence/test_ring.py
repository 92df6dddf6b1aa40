"""Decoding step by step gives what a full pass gives."""

import pytest
import torch
from bands import PADDINGS, paddings
from cases import close

from graphattn.sequence import DynamicConv, LightweightConv, Ring

MODULES = {"light": LightweightConv, "dynamic": DynamicConv}


def build(kind, taps, norm):
    return MODULES[kind](6, taps, 2, causal=True, norm=norm, weight_dropout=0.5).double().eval()


def step_by_step(layer, x, padding, first):
    """The first so many steps at once, then one at a time."""
    ring = layer.ring(len(x), x.dtype)
    outs = []
    for begin, end in [(0, first), *((t, t + 1) for t in range(first, x.shape[1]))]:
        outs.append(layer(x[:, begin:end], None if padding is None else padding[:, begin:end], ring))
    return torch.cat(outs, 1)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("norm", ["taps", "edges"])
@pytest.mark.parametrize(
    ("steps", "taps", "first"), [(12, 4, 1), (12, 4, 7), (12, 4, 2), (3, 9, 1), (5, 1, 1), (7, 2, 0)]
)
@pytest.mark.parametrize("kind", MODULES)
@torch.no_grad()
def test_steps_give_what_the_full_pass_gives(kind, steps, taps, first, norm, padding):
    layer, x, missing = (
        build(kind, taps, norm),
        torch.randn(3, steps, 6, dtype=torch.float64),
        paddings(3, steps)[padding],
    )
    close(step_by_step(layer, x, missing, first), layer(x, missing))


@pytest.mark.parametrize("norm", ["taps", "edges"])
@pytest.mark.parametrize("kind", MODULES)
@torch.no_grad()
def test_after_reordering_steps_go_on_with_the_past_of_the_sequences_that_were_named(kind, norm):
    layer, x = build(kind, 4, norm), torch.randn(3, 9, 6, dtype=torch.float64)
    padding = torch.zeros(3, 9, dtype=torch.bool)
    padding[1, :4] = True
    order = torch.tensor([1, 1, 0, 2])
    ring = layer.ring(3, torch.float64)
    layer(x[:, :5], padding[:, :5], ring)
    ring.reorder(order)
    later = torch.randn(4, 4, 6, dtype=torch.float64)
    whole, missing = torch.cat([x[order, :5], later], 1), torch.cat([padding[order, :5], padding[order, 5:]], 1)
    close(layer(later, missing[:, 5:], ring), layer(whole, missing)[:, 5:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", MODULES)
@torch.no_grad()
def test_a_ring_is_of_the_dtype_of_the_weights(kind, dtype):
    layer, x = build(kind, 3, "edges").to(dtype), torch.randn(2, 5, 6).to(dtype)
    ring = layer.ring(2)
    close(torch.cat([layer(step, ring=ring) for step in x.split(1, 1)], 1), layer(x))


@torch.no_grad()
def test_a_ring_holds_as_many_steps_as_taps_less_one_however_many_came():
    layer = build("dynamic", 31, "taps")
    ring = layer.ring(2, torch.float64)
    x = torch.randn(2, 100, 6, dtype=torch.float64)
    for t in range(100):
        layer(x[:, t : t + 1], None, ring)
    assert ring.values.shape == (2, 30, 6)
    at = torch.arange(70, 100)
    assert torch.equal(ring.values[:, at % 30], x[:, at])
    assert ring.seen == 100


@torch.no_grad()
def test_no_steps_change_nothing():
    layer = build("light", 3, "edges")
    ring = layer.ring(1, torch.float64)
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    outs = [layer(part, None, ring) for part in (x[:, :0], x[:, :2], x[:, :0], x[:, 2:], x[:, :0])]
    close(torch.cat(outs, 1), layer(x))


def test_a_ring_refuses_what_it_cannot_go_on_with():
    with pytest.raises(ValueError, match=r"only a causal convolution.*causal=True"):
        LightweightConv(6, 3, 2).ring(1)
    ring = Ring(2, 3, 6)
    with pytest.raises(ValueError, match=r"x has shape \[1, 1, 6\]: this ring needs \[2, T, 6\]"):
        ring.push(torch.zeros(1, 1, 6))
    with pytest.raises(RuntimeError, match=r"no gradients.*no_grad"):
        ring.push(torch.zeros(2, 1, 6, requires_grad=True))
