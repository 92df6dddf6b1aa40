"""Fused kernels in C++: no edge-by-head-by-width tensor, forward or backward; the same bits for any number of threads.

The four operations are one, with four scores: `torch.ops.graphattn.attention`, whose backward is an operation of its
own. Both have fake kernels, so `torch.compile(fullgraph=True)` takes them whole. Kept for backward are the inputs, the
output and the log-sum-exp [N_r, H]; the weights are computed again. A second derivative goes through `reference`.

Sums are float32 for half precision, else of the inputs' dtype. The derivations are in README.md beside this file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from graphattn import native
from graphattn.graph import Graph, Order
from graphattn.ops import reference
from graphattn.ops.dropout import Dropout
from graphattn.ops.reference import Result, accumulation_dtype

if native.kernels is None:
    raise ImportError(native.missing)

_GIVEN, _ADDITIVE, _ADDITIVE_V2, _DOT_PRODUCT = range(4)  # as in cpu_kernels.h


def attend(
    logits: Float[Tensor, "E H"],
    values: Float[Tensor, "N_s #H D"],
    graph: Graph,
    dropout: Dropout | None,
    return_weights: bool,
) -> Result:
    return _attention(_GIVEN, values, None, None, None, logits, logits.shape[1], 0.0, graph, dropout, return_weights)


def additive(
    values: Float[Tensor, "N_s #H D"],
    score_s: Float[Tensor, "N_s H"],
    score_r: Float[Tensor, "N_r H"],
    graph: Graph,
    edge_logits: Float[Tensor, "E H"] | None,
    negative_slope: float,
    dropout: Dropout | None,
    return_weights: bool,
) -> Result:
    tensors = (values, score_s, score_r, None, edge_logits)
    return _attention(_ADDITIVE, *tensors, score_s.shape[1], negative_slope, graph, dropout, return_weights)


def additive_v2(
    left: Float[Tensor, "N_s H D"],
    right: Float[Tensor, "N_r H D"],
    att: Float[Tensor, "H D"],
    graph: Graph,
    edge: Float[Tensor, "E H D"] | None,
    negative_slope: float,
    dropout: Dropout | None,
    return_weights: bool,
) -> Result:
    tensors = (left, None, right, att, edge)
    return _attention(_ADDITIVE_V2, *tensors, att.shape[0], negative_slope, graph, dropout, return_weights)


def dot_product(
    q: Float[Tensor, "N_r H D"],
    k: Float[Tensor, "N_s #H D"],
    v: Float[Tensor, "N_s #H D"],
    graph: Graph,
    edge: Float[Tensor, "E H D"] | None,
    scale: float,
    dropout: Dropout | None,
    return_weights: bool,
) -> Result:
    if k.shape[1] != v.shape[1]:
        k, v = k.expand(-1, q.shape[1], -1), v.expand(-1, q.shape[1], -1)
    return _attention(_DOT_PRODUCT, v, k, q, None, edge, q.shape[1], scale, graph, dropout, return_weights)


def weighted_sum(
    weights: Float[Tensor, "E"], rows: Float[Tensor, "N D"], order: Order, dropout: Dropout | None
) -> Float[Tensor, "nodes D"]:
    """out[n] = sum over the edges e of n in `order` of weights[e] * rows[other end of e]; not differentiable."""
    p, seed = (0.0, None) if dropout is None else dropout
    orders = [order.ptr, order.edges, order.others]
    return torch.ops.graphattn.weighted_sum(weights, rows, orders, p, seed)


def feature_dropout(x: Float[Tensor, "*shape"], dropout: Dropout) -> Float[Tensor, "*shape"]:
    """x times the factor of (edge k, head 0) at its k-th position."""
    return torch.ops.graphattn.dropout(x, dropout.p, dropout.seed)


def _attention(
    score: int,
    values: Tensor,
    left: Tensor | None,
    right: Tensor | None,
    att: Tensor | None,
    edge: Tensor | None,
    heads: int,
    constant: float,
    graph: Graph,
    dropout: Dropout | None,
    return_weights: bool,
) -> Result:
    tensors = (values, left, right, att, edge)
    differentiable = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    receivers, senders = graph.by_receiver, graph.by_sender if differentiable else None
    p, seed = (0.0, None) if dropout is None else dropout
    out, _, weights = torch.ops.graphattn.attention(
        score,
        *tensors,
        heads,
        *(receivers.ptr, receivers.edges, receivers.others),
        *((None, None, None) if senders is None else (senders.ptr, senders.edges, senders.others)),
        constant,
        p,
        seed,
        return_weights,
    )
    return out, weights.to(out.dtype) if return_weights else None


@torch.library.custom_op("graphattn::attention", mutates_args=(), device_types="cpu")
def _forward(
    score: int,
    values: Tensor,
    left: Tensor | None,
    right: Tensor | None,
    att: Tensor | None,
    edge: Tensor | None,
    heads: int,
    ptr: Tensor,
    edges: Tensor,
    others: Tensor,
    sender_ptr: Tensor | None,
    sender_edges: Tensor | None,
    sender_others: Tensor | None,
    constant: float,
    p: float,
    seed: Tensor | None,
    return_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """out [N_r, H, D], log-sum-exp [N_r, H], weights [E, H] or an empty tensor.

    The edges come by receiver and, if there is to be a backward, by sender.
    """
    out, lse, weights = _outputs(values, heads, ptr, edges, return_weights)
    native.kernels.forward(
        score,
        *native.inputs(values, left, right, att, edge),
        heads,
        *native.inputs(ptr, edges, others),
        constant,
        *_numbers(p, seed),
        native.threads(),
        *native.arrays(out, lse, weights if return_weights else None),
    )
    return out, lse, weights


@_forward.register_fake
def _(score, values, left, right, att, edge, heads, ptr, edges, others, *rest):  # type: ignore[no-untyped-def]
    return _outputs(values, heads, ptr, edges, rest[-1])


def _outputs(
    values: Tensor, heads: int, ptr: Tensor, edges: Tensor, return_weights: bool
) -> tuple[Tensor, Tensor, Tensor]:
    wide = accumulation_dtype(values.dtype)
    out = values.new_empty((ptr.shape[0] - 1, heads, values.shape[2]))
    lse = values.new_empty(out.shape[:2], dtype=torch.float64)
    return out, lse, values.new_empty((edges.shape[0] if return_weights else 0, heads), dtype=wide)


@torch.library.custom_op("graphattn::attention_backward", mutates_args=(), device_types="cpu")
def _backward(
    grad_out: Tensor,
    grad_weights: Tensor | None,
    out: Tensor,
    lse: Tensor,
    weights: Tensor | None,
    score: int,
    values: Tensor,
    left: Tensor | None,
    right: Tensor | None,
    att: Tensor | None,
    edge: Tensor | None,
    heads: int,
    ptr: Tensor,
    edges: Tensor,
    others: Tensor,
    sender_ptr: Tensor,
    sender_edges: Tensor,
    sender_others: Tensor,
    constant: float,
    p: float,
    seed: Tensor | None,
    wanted: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of values, left, right, att and edge; empty tensors for those not `wanted`."""
    tensors = (values, left, right, att, edge)
    grads = _gradients_like(values, tensors, wanted)
    wide = accumulation_dtype(values.dtype)
    native.kernels.backward(
        score,
        *native.inputs(*tensors),
        heads,
        *native.inputs(ptr, edges, others, sender_ptr, sender_edges, sender_others),
        constant,
        *_numbers(p, seed),
        native.threads(),
        *native.inputs(out, lse, grad_out, weights, grad_weights),
        *native.arrays(*(grad if want else None for grad, want in zip(grads, wanted, strict=True))),
        *native.arrays(
            lse.new_empty(lse.shape, dtype=wide),
            lse.new_empty((edges.shape[0], heads), dtype=wide) if wanted[2] else None,
        ),
    )
    return grads


@_backward.register_fake
def _(grad_out, grad_weights, out, lse, weights, score, values, left, right, att, edge, *rest):  # type: ignore[no-untyped-def]
    return _gradients_like(values, (values, left, right, att, edge), rest[-1])


def _gradients_like(
    values: Tensor, tensors: Sequence[Tensor | None], wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return tuple(  # type: ignore[return-value]
        values.new_empty(tensor.shape if tensor is not None and want else 0)
        for tensor, want in zip(tensors, wanted, strict=True)
    )


def _numbers(p: float, seed: Tensor | None) -> tuple[float, int]:
    return p, 0 if seed is None else int(seed)


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    score, *tensors, heads = inputs[:7]
    orders, (constant, p, seed, return_weights) = inputs[7:13], inputs[13:]
    out, lse, weights = output
    ctx.mark_non_differentiable(lse)
    ctx.set_materialize_grads(False)
    ctx.numbers = score, heads, constant, p
    ctx.save_for_backward(out, lse, weights if return_weights else None, *tensors, seed, *orders)


def _gradients(ctx: Any, grad_out: Tensor | None, _: None, grad_weights: Tensor | None) -> tuple:
    score, heads, constant, p = ctx.numbers
    saved = ctx.saved_tensors
    out, lse, weights, *tensors, seed = saved[:9]
    if grad_weights is None or weights is None:
        grad_weights = weights = None
    wanted = [bool(need) for need in ctx.needs_input_grad[1:6]]
    grads = torch.ops.graphattn.attention_backward(
        torch.zeros_like(out) if grad_out is None else grad_out,
        grad_weights,
        out,
        lse,
        weights,
        score,
        *tensors,
        heads,
        *saved[9:],
        constant,
        p,
        seed,
        wanted,
    )
    return None, *(grad if want else None for grad, want in zip(grads, wanted, strict=True)), *[None] * 11


_forward.register_autograd(_gradients, setup_context=_save)


def _save_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    grad_out, grad_weights, _, _, _, score, *tensors, _heads = inputs[:12]
    orders, (constant, p, seed, wanted) = inputs[12:18], inputs[18:]
    ctx.numbers = score, constant, p, wanted
    ctx.save_for_backward(grad_out, grad_weights, *tensors, seed, *orders[:3])


def _second_gradients(ctx: Any, *grads: Tensor | None) -> tuple:
    """Of the first gradients as the reference computes them, by its inputs and by the gradients that came in."""
    if torch.is_grad_enabled():
        raise RuntimeError("back end 'cpu' has no third derivatives: use backend='reference'")
    score, constant, p, wanted = ctx.numbers
    *tensors, seed, ptr, edges, others = ctx.saved_tensors  # grad_out, grad_weights, values, left, right, att, edge
    receivers = torch.empty_like(others)
    receivers[edges] = torch.arange(ptr.numel() - 1).repeat_interleave(ptr.diff())
    graph = Graph(torch.empty_like(others).index_copy(0, edges, others), receivers, len(tensors[2]), ptr.numel() - 1)
    with torch.enable_grad():
        leaves = [None if tensor is None else tensor.detach().requires_grad_() for tensor in tensors]
        results = _REFERENCES[score](
            *leaves[2:], graph, constant, None if seed is None else Dropout(p, seed), leaves[1] is not None
        )
        firsts = torch.autograd.grad(
            [result for result in results if result is not None],
            [leaf for leaf, want in zip(leaves[2:], wanted, strict=True) if leaf is not None and want],
            [leaf for leaf in leaves[:2] if leaf is not None],
            create_graph=True,
            materialize_grads=True,
        )
        by = [leaf for leaf in leaves if leaf is not None]
        incoming = [grad for grad, want in zip(grads, wanted, strict=True) if want]
        found = iter(torch.autograd.grad(firsts, by, incoming, allow_unused=True))
    seconds = [None if leaf is None else next(found) for leaf in leaves]
    return *seconds[:2], *[None] * 4, *seconds[2:], *[None] * 11


_backward.register_autograd(_second_gradients, setup_context=_save_backward)

# Of (values, left, right, att, edge, graph, constant, dropout, return_weights)
_REFERENCES: tuple[Callable[..., Result], ...] = (
    lambda v, _left, _right, _att, e, graph, _constant, *rest: reference.attend(e, v, graph, *rest),
    lambda v, s, r, _att, e, *rest: reference.additive(v, s, r, rest[0], e, *rest[1:]),
    lambda v, _left, r, a, e, *rest: reference.additive_v2(v, r, a, rest[0], e, *rest[1:]),
    lambda v, k, q, _att, e, *rest: reference.dot_product(q, k, v, rest[0], e, *rest[1:]),
)


@torch.library.custom_op("graphattn::weighted_sum", mutates_args=(), device_types="cpu")
def _weighted_sum(weights: Tensor, rows: Tensor, order: Sequence[Tensor], p: float, seed: Tensor | None) -> Tensor:
    out = rows.new_empty((order[0].numel() - 1, rows.shape[1]))
    given = native.inputs(weights, rows, *order)
    native.kernels.weighted_sum(*given, *_numbers(p, seed), native.threads(), *native.arrays(out))
    return out


@_weighted_sum.register_fake
def _(weights, rows, order, p, seed):  # type: ignore[no-untyped-def]
    return rows.new_empty((order[0].shape[0] - 1, rows.shape[1]))


@torch.library.custom_op("graphattn::dropout", mutates_args=(), device_types="cpu")
def _dropout(x: Tensor, p: float, seed: Tensor) -> Tensor:
    out = x.new_empty(x.shape)
    native.kernels.drop(*native.inputs(x), *_numbers(p, seed), native.threads(), *native.arrays(out))
    return out


@_dropout.register_fake
def _(x, p, seed):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape)


def _save_dropout(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _, ctx.p, seed = inputs
    ctx.save_for_backward(seed)


def _dropout_gradient(ctx: Any, grad: Tensor) -> tuple:
    return torch.ops.graphattn.dropout(grad, ctx.p, *ctx.saved_tensors), None, None


_dropout.register_autograd(_dropout_gradient, setup_context=_save_dropout)
