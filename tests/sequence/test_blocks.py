"""Blocks of any mixer: where their norms stand, what they hear, and that steps give what a full pass gives."""

import pytest
import torch
from bands import paddings
from cases import close
from torch import nn

from graphattn.sequence import MIXERS, CrossAttention, DecoderBlock, EncoderBlock, make_mixer
from graphattn.sequence.blocks import FeedForward

CHANNELS = 8


def encoder(name, causal=False, **options):
    return EncoderBlock(make_mixer(name, CHANNELS, 2, 3, causal=causal, norm="edges"), CHANNELS, 16, **options).double()


def decoder(name, **options):
    mix = make_mixer(name, CHANNELS, 2, 3, causal=True)
    return DecoderBlock(mix, CrossAttention(CHANNELS, 2), CHANNELS, 16, **options).double()


def random_norms(block):
    for module in block.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight), nn.init.normal_(module.bias)
    return block


@pytest.mark.parametrize("name", MIXERS)
def test_norms_stand_behind_the_shortcut_or_before_the_branch(name):
    x, padding = torch.randn(2, 6, CHANNELS, dtype=torch.float64), paddings(2, 6)["on the right"]
    post, pre = random_norms(encoder(name)), random_norms(encoder(name, pre_norm=True))
    y = post.mixer_norm(x + post.mixer(x, padding))
    close(post(x, padding), post.feed_forward_norm(y + post.feed_forward(y)))
    y = x + pre.mixer(pre.mixer_norm(x), padding)
    close(pre(x, padding), y + pre.feed_forward(pre.feed_forward_norm(y)))


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("name", MIXERS)
def test_a_decoder_hears_the_memory_between_its_mixer_and_its_feed_forward_network(name, pre_norm):
    block = random_norms(decoder(name, pre_norm=pre_norm))
    x, memory = torch.randn(2, 4, CHANNELS).double(), torch.randn(2, 5, CHANNELS).double()
    missing = paddings(2, 5)["on the right"]
    y = x
    for branch, norm in (
        (block.mixer, block.mixer_norm),
        (lambda z: block.cross(z, memory, missing), block.cross_norm),
        (block.feed_forward, block.feed_forward_norm),
    ):
        y = y + branch(norm(y)) if pre_norm else norm(y + branch(y))
    close(block(x, memory, missing), y)


@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_steps_give_what_the_full_pass_gives_also_after_reordering(name):
    block, order = decoder(name).eval(), torch.tensor([1, 0, 1])
    x, memory = torch.randn(2, 7, CHANNELS).double(), torch.randn(2, 5, CHANNELS).double()
    missing = paddings(2, 5)["on the right"]
    state = block.state(memory, missing)
    outs = [block.step(x[:, t : t + 1], state) for t in range(4)]
    close(torch.cat(outs, 1), block(x, memory, missing)[:, :4])
    state.reorder(order)
    outs = [block.step(x[order, t : t + 1], state) for t in range(4, 7)]
    close(torch.cat(outs, 1), block(x, memory, missing)[order, 4:])


@pytest.mark.parametrize("name", MIXERS)
@torch.no_grad()
def test_causal_encoders_go_step_by_step_too(name):
    block, x = encoder(name, causal=True).eval(), torch.randn(2, 5, CHANNELS).double()
    state = block.state(2, torch.float64)
    close(torch.cat([block(step, state=state) for step in x.split(1, 1)], 1), block(x))
    state.reorder(torch.tensor([0]))
    assert len(block(x[:1, :1], state=state)) == 1


@pytest.mark.parametrize("name", MIXERS)
def test_every_weight_gets_a_gradient_and_padding_none(name):
    block = decoder(name)
    x = torch.randn(2, 4, CHANNELS, dtype=torch.float64)
    memory = torch.randn(2, 5, CHANNELS, dtype=torch.float64, requires_grad=True)
    missing = paddings(2, 5)["on the right"]
    block(x, memory, missing).pow(2).mul(torch.randn(CHANNELS)).sum().backward()
    assert [name for name, p in block.named_parameters() if p.grad is None] == []
    assert (memory.grad[missing] == 0).all() and (memory.grad[~missing] != 0).all()


def test_a_mixer_gates_what_goes_into_the_convolution_and_maps_what_comes_out():
    mix, x = make_mixer("dynamic", CHANNELS, 2, 3), torch.randn(2, 5, CHANNELS)
    value, gate = mix.inward.linear(x).chunk(2, -1)
    close(mix(x), mix.outward(mix.convolution(value * gate.sigmoid())))
    plain = make_mixer("light", CHANNELS, 2, 3, glu=False)
    close(plain(x), plain.outward(plain.convolution(plain.inward(x))))


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_weights_of_the_mixers_at_1024_channels():
    maps = 3 * 1024 * 1024 + 3 * 1024  # d -> 2 d and d -> d
    assert count(make_mixer("light", 1024, 16, 31)) == maps + 496
    assert count(make_mixer("dynamic", 1024, 16, 31)) == maps + 507_904
    assert count(make_mixer("light", 1024, 16, 31, glu=False)) == maps - 1024 * 1024 - 1024 + 496
    assert count(make_mixer("self-attention", 1024, 16, 31)) == 4 * 1024 * 1024 + 4 * 1024


@pytest.mark.parametrize("name", MIXERS)
def test_dropout_is_where_it_was_asked_for(name):
    x = torch.randn(2, 5, CHANNELS).double()
    block = encoder(name, dropout=1.0)
    close(block(x), block.feed_forward_norm(block.mixer_norm(x)))
    block = encoder(name, hidden_dropout=1.0, pre_norm=True)
    y = x + block.mixer(block.mixer_norm(x), None)
    close(block(x), y + block.feed_forward[3].bias)
    mix = make_mixer("light", CHANNELS, 2, 3, input_dropout=1.0)
    close(mix(x.float()), mix(torch.zeros(2, 5, CHANNELS)))


def test_a_feed_forward_network_is_two_maps_with_a_relu_between():
    net, x = FeedForward(CHANNELS, 16), torch.randn(3, CHANNELS)
    close(net(x), net[3](net[0](x).clamp(min=0)))


def test_another_name_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="mixer is 'conv': there are light, dynamic, self-attention"):
        make_mixer("conv", 8, 2, 3)
