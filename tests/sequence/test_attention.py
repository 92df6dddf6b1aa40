"""Attention over whole sequences against torch's own module, the definition on a graph, and itself step by step."""

import pytest
import torch
from bands import PADDINGS, paddings
from cases import close
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.attention import SDPBackend, sdpa_kernel

from graphattn import Graph, ops, topology
from graphattn.sequence import CrossAttention, SelfAttention, multihead_attention
from graphattn.sequence.attention import KeyValues


def torchs(layer):
    """torch's module with the same weights."""
    judge = nn.MultiheadAttention(layer.channels, layer.heads, batch_first=True).to(layer.query.weight).eval()
    parts = (layer.query, layer.key, layer.value)
    judge.in_proj_weight.data = torch.cat([part.weight.data for part in parts])
    judge.in_proj_bias.data = torch.cat([part.bias.data for part in parts])
    judge.out_proj.load_state_dict(layer.output.state_dict())
    return judge


def build(kind=SelfAttention, **options):
    layer = kind(6, 2, **options).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padding", ["none", "on the right"])
def test_self_attention_is_that_of_torch(padding, causal):
    layer, x = build(causal=causal), torch.randn(3, 7, 6, dtype=torch.float64, requires_grad=True)
    missing = paddings(3, 7)[padding]
    later = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    expected, _ = torchs(layer)(x, x, x, key_padding_mask=missing, attn_mask=later, need_weights=False)
    out = layer(x, missing)
    close(out, expected)
    close(torch.autograd.grad(out.sum(), x)[0], torch.autograd.grad(expected.sum(), x)[0])


def test_attention_to_another_sequence_is_that_of_torch():
    layer, x, memory = build(CrossAttention), torch.randn(3, 4, 6).double(), torch.randn(3, 7, 6).double()
    missing = paddings(3, 7)["on the right"]
    close(layer(x, memory, missing), torchs(layer)(x, memory, memory, key_padding_mask=missing)[0])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padding", PADDINGS)
def test_it_is_attention_on_a_complete_graph_or_a_causal_band_less_its_padding(padding, causal):
    q, k, v = (torch.randn(2, 5, 6, dtype=torch.float64) for _ in range(3))
    missing = paddings(2, 5)[padding]
    out = multihead_attention(q, k, v, 2, padding=missing, causal=causal)
    whole = topology.band(5, 4, 0 if causal else 4)
    for b in range(2):
        here = slice(None) if missing is None else ~missing[b][whole.senders]
        graph = Graph(whole.senders[here], whole.receivers[here], 5, 5)
        rows = (tensor[b].view(5, 2, 3) for tensor in (q, k, v))
        close(out[b], ops.dot_product(*rows, graph, backend="reference").flatten(1))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("first", [0, 1, 4])
@torch.no_grad()
def test_steps_give_what_the_full_pass_gives(padding, first):
    layer, x = build(causal=True), torch.randn(3, 9, 6, dtype=torch.float64)
    missing, state = paddings(3, 9)[padding], layer.state(3, torch.float64)
    ranges = [(0, first), *((t, t + 1) for t in range(first, 7)), (7, 9)]
    outs = [layer(x[:, a:b], None if missing is None else missing[:, a:b], state) for a, b in ranges]
    close(torch.cat(outs, 1), layer(x, missing))


@torch.no_grad()
def test_after_reordering_steps_go_on_with_the_past_of_the_sequences_that_were_named():
    layer, order = build(causal=True), torch.tensor([2, 0, 0, 1])
    x, later = torch.randn(3, 5, 6, dtype=torch.float64), torch.randn(4, 3, 6, dtype=torch.float64)
    missing = torch.zeros(3, 5, dtype=torch.bool)
    missing[2, :3] = True
    state = layer.state(3, torch.float64)
    layer(x, missing, state)
    state.reorder(order)
    outs = [layer(later[:, t : t + 1], None, state) for t in range(3)]
    there = torch.zeros(4, 3, dtype=torch.bool)
    whole = layer(torch.cat([x[order], later], 1), torch.cat([missing[order], there], 1))
    close(torch.cat(outs, 1), whole[:, 5:])


@torch.no_grad()
def test_after_reordering_there_is_room_for_more_steps_as_before():
    state = KeyValues(2, 4)
    for _ in range(3):  # so that there is room for a fourth
        state.push(torch.randn(2, 1, 4), torch.randn(2, 1, 4), None)
    state.reorder(torch.tensor([1, 0, 0]))
    place = state.keys.data_ptr()
    state.push(torch.randn(3, 1, 4), torch.randn(3, 1, 4), None)
    assert state.keys.data_ptr() == place and state.seen == 4


@torch.no_grad()
def test_a_memory_stays_where_it_is_while_rows_that_hear_the_same_change_places():
    layer, memory, x = build(CrossAttention), torch.randn(3, 5, 6).double(), torch.randn(3, 1, 6).double()
    missing = paddings(3, 5)["on the right"]
    state = layer.state(memory, missing)
    state.reorder(torch.tensor([1, 2, 1]))
    place = state.keys.data_ptr()
    state.reorder(torch.tensor([2, 1, 0]))
    assert state.keys.data_ptr() == place
    state.reorder(torch.tensor([1, 0, 0]))
    there = torch.tensor([2, 1, 1])
    close(layer.recall(x, state), layer(x, memory[there], missing[there]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@torch.no_grad()
def test_a_state_is_of_the_dtype_of_the_weights(dtype):
    layer, x = SelfAttention(6, 2, causal=True).to(dtype), torch.randn(2, 3, 6).to(dtype)
    state = layer.state(2)
    close(torch.cat([layer(step, state=state) for step in x.split(1, 1)], 1), layer(x))


def test_what_stands_at_padding_does_not_matter():
    x, memory = torch.randn(3, 7, 6).double(), torch.randn(3, 7, 6).double()
    missing = paddings(3, 7)["on the right"]
    spoilt = [torch.where(missing.unsqueeze(-1), torch.nan, rows).requires_grad_() for rows in (x, memory)]
    to_itself, to_another = build(), build(CrossAttention)
    out = to_itself(spoilt[0], missing)[~missing]
    close(out, to_itself(x, missing)[~missing])
    heard = to_another(x, spoilt[1], missing)
    close(heard, to_another(x, memory, missing))
    heard.sum().backward()
    assert (spoilt[1].grad[missing] == 0).all() and (spoilt[1].grad[~missing] != 0).all()
    with torch.no_grad():
        close(to_another.recall(x, to_another.state(spoilt[1], missing)), heard)


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_agree_with_finite_differences_also_where_all_is_padding(causal):
    q, k, v = (torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    missing = torch.tensor([[True, False, False, True], [True] * 4])

    def attention(q, k, v):
        return multihead_attention(q, k, v, 2, padding=missing, causal=causal)

    assert gradcheck(attention, (q, k, v))
    with sdpa_kernel(SDPBackend.MATH):
        assert gradgradcheck(attention, (q, k, v))


@torch.no_grad()
def test_a_memory_is_mapped_once_and_reordered_with_the_rest():
    layer, x = build(CrossAttention), torch.randn(3, 2, 6, dtype=torch.float64)
    memory, missing = torch.randn(3, 5, 6, dtype=torch.float64), paddings(3, 5)["on the right"]
    state, order = layer.state(memory, missing), torch.tensor([1, 2, 1])
    close(layer.recall(x[:, :1], state), layer(x[:, :1], memory, missing))
    state.reorder(order)
    close(layer.recall(x[:, 1:], state), layer(x[:, 1:], memory[order], missing[order]))


def test_four_maps_of_1024_channels_are_4_194_304_weights():
    assert sum(p.numel() for p in SelfAttention(1024, 16).parameters() if p.dim() == 2) == 4_194_304


def test_initial_weights_are_those_of_torchs_module_and_biases_zero():
    layer, bound = SelfAttention(128, 4), (6 / 256) ** 0.5
    for part, gain in ((layer.query, 0.5**0.5), (layer.key, 0.5**0.5), (layer.value, 0.5**0.5), (layer.output, 1.0)):
        assert 0.98 * gain * bound < part.weight.abs().max() <= gain * bound
        assert (part.bias == 0).all()


def test_weights_are_dropped_in_training_only():
    layer, x = SelfAttention(6, 2, weight_dropout=1.0), torch.randn(2, 3, 6)
    close(layer(x), layer.output.bias.expand(2, 3, 6))
    assert not torch.equal(layer.eval()(x), layer.output.bias.expand(2, 3, 6))


def test_what_does_not_fit_is_refused():
    for arguments, options, message in (
        ((6, 4), {}, "6 channels and 4 heads"),
        ((6, 0), {}, "6 channels and 0 heads"),
        ((6, 2), {"weight_dropout": -0.1}, "weight_dropout is -0.1"),
    ):
        with pytest.raises(ValueError, match=message):
            SelfAttention(*arguments, **options)
    with pytest.raises(ValueError, match=r"only causal attention.*causal=True"):
        SelfAttention(6, 2).state(1)
    with pytest.raises(ValueError, match="batch first"):
        SelfAttention(6, 2)(torch.zeros(3, 6))
    x = torch.zeros(2, 3, 6)
    for q, k, v, heads, padding, message in (
        (x, x, x, 4, None, "multiple of 4 heads"),
        (x, x, x, 0, None, "multiple of 0 heads"),
        (x[:1], x, x, 2, None, r"q has shape \[1, 3, 6\], k \[2, 3, 6\]"),
        (x, x, x[:, 1:], 2, None, r"v \[2, 2, 6\]: needed"),
        (x, x, x, 2, torch.zeros(2, 3), "padding is torch.float32"),
        (x, x, x, 2, torch.zeros(1, 3).bool(), r"needed torch.bool of shape \[2, 3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            multihead_attention(q, k, v, heads, padding=padding)
    for call in (
        lambda: SelfAttention(12, 2)(x),
        lambda: CrossAttention(12, 2)(torch.zeros(2, 3, 12), x),
        lambda: CrossAttention(12, 2)(x, torch.zeros(2, 3, 12)),
        lambda: CrossAttention(12, 2).state(x),
    ):
        with pytest.raises(ValueError, match=r"x has shape \[2, 3, 6\]: needed \[B, T, 12\]"):
            call()
    state = KeyValues(2, 6)
    with pytest.raises(ValueError, match=r"shape \[1, 3, 6\]: needed \[2, T, 6\]"):
        state.push(torch.zeros(1, 3, 6), torch.zeros(1, 3, 6), None)
    with pytest.raises(RuntimeError, match=r"no gradients.*no_grad"):
        state.push(torch.zeros(2, 3, 6, requires_grad=True), torch.zeros(2, 3, 6), None)
