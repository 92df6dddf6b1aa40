"""The weighted sum over a band, as torch knows it: traceable, and differentiable twice over given kernels.

`torch.ops.graphattn.<name>` is the operation and `<name>_backward` its derivative, an operation of its own. Both have
fake kernels. Kept for backward are the inputs alone. A second derivative goes through `reference`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from graphattn.ops import reference

Forward = Callable[[Tensor, Tensor, int, Tensor], None]
"""(weights, values, left, out): writes the last."""

Backward = Callable[[Tensor, Tensor, int, Tensor, Tensor | None, Tensor | None], None]
"""(weights, values, left, grad_out, grad_weights, grad_values): writes those of the last two that are not None."""


def fused_band_sum(
    name: str, run_forward: Forward, run_backward: Backward, devices: str | None = None
) -> Callable[[Tensor, Tensor, int], Tensor]:
    """`band_sum` over kernels that write into contiguous tensors on `devices` (any if None)."""

    @torch.library.custom_op(f"graphattn::{name}", mutates_args=(), device_types=devices)
    def forward(weights: Tensor, values: Tensor, left: int) -> Tensor:
        out = values.new_empty(values.shape)
        run_forward(weights, values, left, out)
        return out

    @forward.register_fake
    def _(weights: Tensor, values: Tensor, left: int) -> Tensor:
        return values.new_empty(values.shape)

    @torch.library.custom_op(f"graphattn::{name}_backward", mutates_args=(), device_types=devices)
    def backward(
        grad_out: Tensor, weights: Tensor, values: Tensor, left: int, of_weights: bool, of_values: bool
    ) -> tuple[Tensor, Tensor]:
        """The gradients, empty where they are not wanted."""
        grads = _like_the_gradients(weights, values, of_weights, of_values)
        wanted = (grad if want else None for grad, want in zip(grads, (of_weights, of_values), strict=True))
        run_backward(weights, values, left, grad_out, *wanted)
        return grads

    @backward.register_fake
    def _(
        grad_out: Tensor, weights: Tensor, values: Tensor, left: int, of_weights: bool, of_values: bool
    ) -> tuple[Tensor, Tensor]:
        return _like_the_gradients(weights, values, of_weights, of_values)

    def gradients(ctx: Any, grad: Tensor) -> tuple:
        wanted = ctx.needs_input_grad[:2]
        grads = getattr(torch.ops.graphattn, f"{name}_backward")(grad, *ctx.saved_tensors, ctx.left, *wanted)
        return *(found if want else None for found, want in zip(grads, wanted, strict=True)), None

    forward.register_autograd(gradients, setup_context=_save)
    backward.register_autograd(_second_gradients, setup_context=_save_backward)

    def band_sum(weights: Tensor, values: Tensor, left: int) -> Tensor:
        return getattr(torch.ops.graphattn, name)(weights, values, left)

    return band_sum


def _like_the_gradients(weights: Tensor, values: Tensor, of_weights: bool, of_values: bool) -> tuple[Tensor, Tensor]:
    return weights.new_empty(weights.shape if of_weights else 0), values.new_empty(values.shape if of_values else 0)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    weights, values, ctx.left = inputs
    ctx.save_for_backward(weights, values)


def _save_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.left, of_weights, of_values = inputs
    ctx.wanted = of_weights, of_values
    ctx.save_for_backward(*tensors)


def _second_gradients(ctx: Any, *grads: Tensor | None) -> tuple:
    """Of the first gradients as the reference computes them."""
    if torch.is_grad_enabled():
        raise RuntimeError("the fused band_sum has no third derivatives: use backend='reference'")
    with torch.enable_grad():
        grad_out, weights, values = leaves = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors]
        pairs = [pair for pair in zip((weights, values), grads, ctx.wanted, strict=True) if pair[2]]
        firsts = torch.autograd.grad(
            reference.band_sum(weights, values, ctx.left), [leaf for leaf, *_ in pairs], grad_out, create_graph=True
        )
        incoming = [
            torch.zeros_like(first) if pair[1] is None else pair[1] for first, pair in zip(firsts, pairs, strict=True)
        ]
        return *torch.autograd.grad(firsts, leaves, incoming, allow_unused=True), None, None, None
