"""An LSTM over each node's neighbours, of any number, without padding."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from graphattn.graph import Graph

aten = torch.ops.aten


@torch.compiler.disable  # the compiler would unroll the steps, as many as a hub has neighbours
def last_state(lstm: nn.LSTM, x: Tensor, graph: Graph) -> Tensor:
    """[N_s, F] -> [N_r, width]: the state after each receiver's senders, in the edges' order; 0 where there are none.

    The sequences are packed: a hub costs its own edges, not those of all other nodes. On a GPU the steps are torch's,
    on a CPU those of LastHidden.
    """
    sequences, senders, sizes = packed(graph)
    if not graph.num_edges:
        return x.new_zeros(graph.num_receivers, lstm.hidden_size)
    if x.device.type == "cpu":
        of_input, of_state, bias, other_bias = lstm.all_weights[0]
        entering = F.linear(x, of_input, bias + other_bias)  # once a sender, not once an edge
        kept = torch.promote_types(of_state.dtype, torch.float32)  # over hundreds of steps
        last = LastHidden.apply(entering.to(kept), senders, of_state.to(kept), sizes).to(of_state.dtype)
    else:
        last = lstm(PackedSequence(x[senders], sizes))[1][0][0]
    return last.new_zeros(graph.num_receivers, lstm.hidden_size).index_copy(0, sequences, last)


class LastHidden(torch.autograd.Function):
    """entering [N_s, 4 H], what each sender adds to the gates, and weight [4 H, H] -> [sizes[0], H], the state in which
    each sequence of senders ends:

        i, f, g, o = entering_(sender t) + weight h_(t-1)
        c_t = sigmoid(f) c_(t-1) + sigmoid(i) tanh(g)
        h_t = sigmoid(o) tanh(c_t)

    Step t holds the first sizes[t] sequences; the others have ended. Torch's own backward pass fills, at each step, as
    much as all edges hold; this one touches the edges of its step alone. It is derived again by `last_hidden`.
    """

    @staticmethod
    def forward(ctx: Any, entering: Tensor, senders: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
        gates = entering.index_select(0, senders)
        cells, hiddens = (gates.new_empty(len(gates), weight.shape[1]) for _ in "ch")
        cell = hidden = gates.new_zeros(int(sizes[0]), weight.shape[1])
        for size, gate, c, h in _steps(sizes, gates, cells, hiddens):
            i, f, g, o = gate.addmm_(hidden[:size], weight.t()).chunk(4, 1)
            for each in (i, f, o):
                each.sigmoid_()
            cell = torch.mul(f, cell[:size], out=c).addcmul_(i, g.tanh_())
            hidden = torch.mul(o, cell.tanh(), out=h)
        ctx.save_for_backward(entering, senders, weight, sizes, gates, cells, hiddens)
        return hiddens[_ends(sizes)]

    @staticmethod
    def backward(ctx: Any, to_last: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        entering, senders, weight, sizes, gates, cells, hiddens = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            wanted = [each for each in (entering, weight) if each.requires_grad]
            last = last_hidden(entering, senders, weight, sizes)
            slopes = iter(torch.autograd.grad(last, wanted, to_last, create_graph=True))
            to_both = [next(slopes) if each.requires_grad else None for each in (entering, weight)]
            return to_both[0], None, to_both[1], None
        to_entering, to_weight = torch.zeros_like(entering), torch.zeros_like(weight)
        to_hidden, to_cell = to_last.clone(), torch.zeros_like(to_last)  # a sequence's rows wait for its last step
        vanishing = torch.finfo(gates.dtype).tiny ** 0.8  # over hundreds of steps, to numbers that a CPU is slow with
        steps = _steps(sizes, senders, gates, cells, hiddens)
        nothing = torch.zeros_like(to_last)
        befores = [(nothing, nothing), *(step[-2:] for step in steps[:-1])]
        for (size, heard, gate, c, _), (c_before, h_before) in zip(reversed(steps), reversed(befores), strict=True):
            i, f, g, o = gate.chunk(4, 1)
            to_gate = torch.empty_like(gate)
            to_i, to_f, to_g, to_o = to_gate.chunk(4, 1)
            dh, dc, tanh_c = to_hidden[:size], to_cell[:size], c.tanh()
            dc += aten.tanh_backward(dh * o, tanh_c)
            aten.sigmoid_backward(dc * g, i, grad_input=to_i)
            aten.sigmoid_backward(dc * c_before[:size], f, grad_input=to_f)
            aten.tanh_backward(dc * i, g, grad_input=to_g)
            aten.sigmoid_backward(dh * tanh_c, o, grad_input=to_o)
            to_entering.index_add_(0, heard, to_gate)
            to_weight.addmm_(to_gate.t(), h_before[:size])
            dc.copy_(F.hardshrink(dc * f, vanishing))
            dh.copy_(F.hardshrink(to_gate @ weight, vanishing))
        return to_entering, None, to_weight, None


def last_hidden(entering: Tensor, senders: Tensor, weight: Tensor, sizes: Tensor) -> Tensor:
    """What LastHidden gives, in operations that torch derives as often as asked."""
    hidden = cell = weight.new_zeros(int(sizes[0]), weight.shape[1])
    ended = []
    for size, gate in _steps(sizes, entering[senders]):
        ended.append(hidden[size:])
        i, f, g, o = torch.addmm(gate, hidden[:size], weight.t()).chunk(4, 1)
        cell = f.sigmoid() * cell[:size] + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
    return torch.cat([hidden, *reversed(ended)])


def _steps(sizes: Tensor, *rows: Tensor) -> list[tuple[Any, ...]]:
    """Each step's size and its part of the rows of all edges."""
    counts = sizes.tolist()
    return list(zip(counts, *(each.split(counts) for each in rows), strict=True))


def _ends(sizes: Tensor) -> Tensor:
    """The row of all edges in which each sequence ends."""
    ended = sizes - torch.cat([sizes[1:], sizes.new_zeros(1)])
    last_step = torch.arange(len(sizes)).repeat_interleave(ended).flip(0)  # of the longest sequence first
    return (sizes.cumsum(0) - sizes)[last_step] + torch.arange(int(sizes[0]))


def packed(graph: Graph) -> tuple[Tensor, Tensor, Tensor]:
    """The receivers that hear anyone, by falling degree; the senders step by step, those of one step in the order of
    the receivers; and how many receivers have as many steps (on the CPU, as PackedSequence wants it).
    """
    order = graph.by_receiver
    degree = order.ptr.diff()
    by_degree = degree.argsort(descending=True, stable=True)
    sequences = by_degree[: int((degree > 0).sum())]
    place = torch.empty_like(by_degree)
    place[by_degree] = torch.arange(by_degree.numel(), device=degree.device)

    step = torch.arange(graph.num_edges, device=degree.device) - order.ptr[:-1].repeat_interleave(degree)
    sizes = torch.bincount(step)
    first = sizes.cumsum(0) - sizes
    senders = torch.empty_like(order.others)
    senders[first[step] + place.repeat_interleave(degree)] = order.others
    return sequences, senders, sizes.cpu()
