"""The weighted sum and dropout of the compiled kernels, as torch knows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from graphattn import native
from graphattn.graph import Order
from graphattn.ops.dropout import Dropout, numbers


def weighted_sum(
    weights: Float[Tensor, "E"], rows: Float[Tensor, "N *H D"], order: Order, dropout: Dropout | None
) -> Float[Tensor, "nodes *H D"]:
    """out[n] = sum over the edges e of n in `order` of weights[e] * rows[other end of e]; not differentiable."""
    p, seed = (0.0, None) if dropout is None else dropout
    orders = [order.ptr, order.edges, order.others]
    return torch.ops.graphattn.weighted_sum(weights, rows, orders, p, seed)


def feature_dropout(x: Float[Tensor, "*shape"], dropout: Dropout) -> Float[Tensor, "*shape"]:
    """x times the factor of (edge k, head 0) at its k-th position."""
    return torch.ops.graphattn.dropout(x, dropout.p, dropout.seed)


@torch.library.custom_op("graphattn::weighted_sum", mutates_args=(), device_types="cpu")
def _weighted_sum(weights: Tensor, rows: Tensor, order: Sequence[Tensor], p: float, seed: Tensor | None) -> Tensor:
    out = rows.new_empty((order[0].numel() - 1, *rows.shape[1:]))
    given = native.inputs(weights, rows, *order)
    native.kernels.weighted_sum(*given, *numbers(p, seed), native.threads(), *native.arrays(out))
    return out


@_weighted_sum.register_fake
def _(weights, rows, order, p, seed):  # type: ignore[no-untyped-def]
    return rows.new_empty((order[0].shape[0] - 1, *rows.shape[1:]))


@torch.library.custom_op("graphattn::dropout", mutates_args=(), device_types="cpu")
def _dropout(x: Tensor, p: float, seed: Tensor) -> Tensor:
    out = x.new_empty(x.shape)
    native.kernels.drop(*native.inputs(x), *numbers(p, seed), native.threads(), *native.arrays(out))
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
