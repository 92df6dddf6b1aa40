"""The one operation behind the four, as torch knows it: traceable, and differentiable twice over given kernels.

`torch.ops.graphattn.<name>` is the operation and `<name>_backward` its derivative, an operation of its own. Both have
fake kernels, so `torch.compile(fullgraph=True)` takes them whole. Kept for backward are the inputs, the output and the
log-sum-exp [N_r, H]; the weights are computed again. A second derivative goes through `reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from graphattn.graph import Graph, Order
from graphattn.ops import reference
from graphattn.ops.dropout import Dropout
from graphattn.ops.reference import Result, accumulation_dtype

GIVEN, ADDITIVE, ADDITIVE_V2, DOT_PRODUCT = range(4)  # as in cpu_kernels.h


class Inputs(NamedTuple):
    """What an operation's tensors are called here, with one row a sender, receiver, head or edge.

    | score       | values | left    | right   | att | edge        | constant       |
    |-------------|--------|---------|---------|-----|-------------|----------------|
    | GIVEN       | values |         |         |     | logits      |                |
    | ADDITIVE    | values | score_s | score_r |     | edge_logits | negative_slope |
    | ADDITIVE_V2 | left   |         | right   | att | edge        | negative_slope |
    | DOT_PRODUCT | v      | k       | q       |     | edge        | scale          |
    """

    score: int
    values: Tensor
    left: Tensor | None
    right: Tensor | None
    att: Tensor | None
    edge: Tensor | None
    heads: int
    constant: float
    p: float
    seed: Tensor | None

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self[1:6]


class Edges(NamedTuple):
    """An `Order` as bare tensors, with what else a back end keeps for it."""

    ptr: Tensor
    edges: Tensor
    others: Tensor
    pieces: Tensor | None


Forward = Callable[[Inputs, Edges, Tensor, Tensor, Tensor | None], None]
"""(inputs, by receiver, out, lse, weights): writes the last three; no weights are wanted where they are None."""

Backward = Callable[
    [Inputs, Edges, Edges, Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Sequence[Tensor | None]], None
]
"""(inputs, by receiver, by sender, out, lse, grad_out, weights, grad_weights, grads): writes those grads of
`Inputs.tensors` that are not None. The weights and their gradient are both there or both None."""


class Fused:
    """The four operations over kernels, under a name of their own in `torch.ops.graphattn`."""

    def __init__(
        self,
        name: str,
        forward: Forward,
        backward: Backward,
        devices: str | None = None,
        pieces: Callable[[Order], Tensor] | None = None,
    ) -> None:
        """The kernels write into contiguous tensors on `devices` (any if None), and get an order's `pieces`."""
        self._name, self._pieces = name, pieces
        _register(name, forward, backward, devices)

    def attend(
        self,
        logits: Float[Tensor, "E H"],
        values: Float[Tensor, "N_s #H D"],
        graph: Graph,
        dropout: Dropout | None,
        return_weights: bool,
    ) -> Result:
        return self._run(GIVEN, values, None, None, None, logits, logits.shape[1], 0.0, graph, dropout, return_weights)

    def additive(
        self,
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
        return self._run(ADDITIVE, *tensors, score_s.shape[1], negative_slope, graph, dropout, return_weights)

    def additive_v2(
        self,
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
        return self._run(ADDITIVE_V2, *tensors, att.shape[0], negative_slope, graph, dropout, return_weights)

    def dot_product(
        self,
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
        return self._run(DOT_PRODUCT, v, k, q, None, edge, q.shape[1], scale, graph, dropout, return_weights)

    def _run(
        self,
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
        receivers = self._edges(graph.by_receiver)
        senders = self._edges(graph.by_sender) if differentiable else (None, None, None, None)
        p, seed = (0.0, None) if dropout is None else dropout
        out, _, weights = getattr(torch.ops.graphattn, self._name)(
            score,
            *tensors,
            heads,
            *receivers,
            *senders,
            constant,
            p,
            seed,
            return_weights,
        )
        return out, weights.to(out.dtype) if return_weights else None

    def _edges(self, order: Order) -> Edges:
        return Edges(order.ptr, order.edges, order.others, None if self._pieces is None else self._pieces(order))


def _register(name: str, run_forward: Forward, run_backward: Backward, devices: str | None) -> None:
    @torch.library.custom_op(f"graphattn::{name}", mutates_args=(), device_types=devices)
    def forward(
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
        pieces: Tensor | None,
        sender_ptr: Tensor | None,
        sender_edges: Tensor | None,
        sender_others: Tensor | None,
        sender_pieces: Tensor | None,
        constant: float,
        p: float,
        seed: Tensor | None,
        return_weights: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """out [N_r, H, D], log-sum-exp [N_r, H], weights [E, H] or an empty tensor.

        The edges come by receiver and, if there is to be a backward, by sender.
        """
        given = Inputs(score, values, left, right, att, edge, heads, constant, p, seed)
        out, lse, weights = _outputs(values, heads, ptr, edges, return_weights)
        run_forward(given, Edges(ptr, edges, others, pieces), out, lse, weights if return_weights else None)
        return out, lse, weights

    @forward.register_fake
    def _(score, values, left, right, att, edge, heads, ptr, edges, others, *rest):  # type: ignore[no-untyped-def]
        return _outputs(values, heads, ptr, edges, rest[-1])

    @torch.library.custom_op(f"graphattn::{name}_backward", mutates_args=(), device_types=devices)
    def backward(
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
        pieces: Tensor | None,
        sender_ptr: Tensor,
        sender_edges: Tensor,
        sender_others: Tensor,
        sender_pieces: Tensor | None,
        constant: float,
        p: float,
        seed: Tensor | None,
        wanted: Sequence[bool],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Gradients of values, left, right, att and edge; empty tensors for those not `wanted`."""
        given = Inputs(score, values, left, right, att, edge, heads, constant, p, seed)
        grads = _gradients_like(values, given.tensors, wanted)
        receivers = Edges(ptr, edges, others, pieces)
        senders = Edges(sender_ptr, sender_edges, sender_others, sender_pieces)
        written = [grad if want else None for grad, want in zip(grads, wanted, strict=True)]
        run_backward(given, receivers, senders, out, lse, grad_out, weights, grad_weights, written)
        return grads

    @backward.register_fake
    def _(grad_out, grad_weights, out, lse, weights, score, values, left, right, att, edge, *rest):  # type: ignore[no-untyped-def]
        return _gradients_like(values, (values, left, right, att, edge), rest[-1])

    def gradients(ctx: Any, grad_out: Tensor | None, _: None, grad_weights: Tensor | None) -> tuple:
        score, heads, constant, p = ctx.numbers
        saved = ctx.saved_tensors
        out, lse, weights, *tensors, seed = saved[:9]
        if grad_weights is None or weights is None:
            grad_weights = weights = None
        wanted = [bool(need) for need in ctx.needs_input_grad[1:6]]
        grads = getattr(torch.ops.graphattn, f"{name}_backward")(
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
        return None, *(grad if want else None for grad, want in zip(grads, wanted, strict=True)), *[None] * 13

    forward.register_autograd(gradients, setup_context=_save)
    backward.register_autograd(_second_gradients, setup_context=_save_backward)


def _outputs(
    values: Tensor, heads: int, ptr: Tensor, edges: Tensor, return_weights: bool
) -> tuple[Tensor, Tensor, Tensor]:
    wide = accumulation_dtype(values.dtype)
    out = values.new_empty((ptr.shape[0] - 1, heads, values.shape[2]))
    lse = values.new_empty(out.shape[:2], dtype=torch.float64)
    return out, lse, values.new_empty((edges.shape[0] if return_weights else 0, heads), dtype=wide)


def _gradients_like(
    values: Tensor, tensors: Sequence[Tensor | None], wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return tuple(  # type: ignore[return-value]
        values.new_empty(tensor.shape if tensor is not None and want else 0)
        for tensor, want in zip(tensors, wanted, strict=True)
    )


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    score, *tensors, heads = inputs[:7]
    orders, (constant, p, seed, return_weights) = inputs[7:15], inputs[15:]
    out, lse, weights = output
    ctx.mark_non_differentiable(lse)
    ctx.set_materialize_grads(False)
    ctx.numbers = score, heads, constant, p
    ctx.save_for_backward(out, lse, weights if return_weights else None, *tensors, seed, *orders)


def _save_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    grad_out, grad_weights, _, _, _, score, *tensors, _heads = inputs[:12]
    orders, (constant, p, seed, wanted) = inputs[12:20], inputs[20:]
    ctx.numbers = score, constant, p, wanted
    ctx.save_for_backward(grad_out, grad_weights, *tensors, seed, *orders[:3])


def _second_gradients(ctx: Any, *grads: Tensor | None) -> tuple:
    """Of the first gradients as the reference computes them, by its inputs and by the gradients that came in."""
    if torch.is_grad_enabled():
        raise RuntimeError("a fused back end has no third derivatives: use backend='reference'")
    score, constant, p, wanted = ctx.numbers
    *tensors, seed, ptr, edges, others = ctx.saved_tensors  # grad_out, grad_weights, values, left, right, att, edge
    receivers = torch.empty_like(others)
    receivers[edges] = torch.arange(ptr.numel() - 1, device=ptr.device).repeat_interleave(ptr.diff())
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
    return *seconds[:2], *[None] * 4, *seconds[2:], *[None] * 13


# Of (values, left, right, att, edge, graph, constant, dropout, return_weights)
_REFERENCES: tuple[Callable[..., Result], ...] = (
    lambda v, _left, _right, _att, e, graph, _constant, *rest: reference.attend(e, v, graph, *rest),
    lambda v, s, r, _att, e, *rest: reference.additive(v, s, r, rest[0], e, *rest[1:]),
    lambda v, _left, r, a, e, *rest: reference.additive_v2(v, r, a, rest[0], e, *rest[1:]),
    lambda v, k, q, _att, e, *rest: reference.dot_product(q, k, v, rest[0], e, *rest[1:]),
)
