"""The compiled kernels' weighted sum over a band, as torch knows it.

`torch.ops.graphattn.band_sum` has fake kernels and a backward that is an operation of its own. Kept for backward are
the inputs alone. A second derivative goes through `reference`.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from graphattn import native
from graphattn.ops import reference


def band_sum(
    weights: Float[Tensor, "B T H K"] | Float[Tensor, "H K"], values: Float[Tensor, "B T H D"], left: int
) -> Float[Tensor, "B T H D"]:
    return torch.ops.graphattn.band_sum(weights, values, left)


@torch.library.custom_op("graphattn::band_sum", mutates_args=(), device_types="cpu")
def _forward(weights: Tensor, values: Tensor, left: int) -> Tensor:
    out = values.new_empty(values.shape)
    native.kernels.band_sum(*native.inputs(weights, values), left, native.threads(), *native.arrays(out))
    return out


@_forward.register_fake
def _(weights: Tensor, values: Tensor, left: int) -> Tensor:
    return values.new_empty(values.shape)


@torch.library.custom_op("graphattn::band_sum_backward", mutates_args=(), device_types="cpu")
def _backward(
    grad_out: Tensor, weights: Tensor, values: Tensor, left: int, of_weights: bool, of_values: bool
) -> tuple[Tensor, Tensor]:
    """The gradients, empty where they are not wanted."""
    grads = _like_the_gradients(weights, values, of_weights, of_values)
    wanted = (grad if want else None for grad, want in zip(grads, (of_weights, of_values), strict=True))
    given = native.inputs(weights, values), native.inputs(grad_out)
    native.kernels.band_sum_backward(*given[0], left, *given[1], native.threads(), *native.arrays(*wanted))
    return grads


@_backward.register_fake
def _(
    grad_out: Tensor, weights: Tensor, values: Tensor, left: int, of_weights: bool, of_values: bool
) -> tuple[Tensor, Tensor]:
    return _like_the_gradients(weights, values, of_weights, of_values)


def _like_the_gradients(weights: Tensor, values: Tensor, of_weights: bool, of_values: bool) -> tuple[Tensor, Tensor]:
    return weights.new_empty(weights.shape if of_weights else 0), values.new_empty(values.shape if of_values else 0)


def _save(ctx: Any, inputs: tuple, output: Tensor) -> None:
    weights, values, ctx.left = inputs
    ctx.save_for_backward(weights, values)


def _gradients(ctx: Any, grad: Tensor) -> tuple:
    wanted = ctx.needs_input_grad[:2]
    grads = torch.ops.graphattn.band_sum_backward(grad, *ctx.saved_tensors, ctx.left, *wanted)
    return *(found if want else None for found, want in zip(grads, wanted, strict=True)), None


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


_forward.register_autograd(_gradients, setup_context=_save)
_backward.register_autograd(_second_gradients, setup_context=_save_backward)
