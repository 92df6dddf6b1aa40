"""The heads of an Attention-Wise layer and the convolution that merges them as one operation of the compiled kernels.

`torch.ops.graphattn.attention_wise` makes no array of every head, forward or backward: it keeps its inputs and the
statistics of the norm, and computes the scores again where it needs them. The derivation is in `attention_wise.cpp`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphattn import native
from graphattn.grid import reference

Result = tuple[Tensor, Tensor, Tensor]  # merged [B, C, h, w], mean [K], var [K] (float64)


@torch.library.custom_op("graphattn::attention_wise", mutates_args=(), device_types="cpu")
def merged(
    x: Tensor,
    x_weight: Tensor,
    y_weight: Tensor,
    x_bias: Tensor | None,
    y_bias: Tensor | None,
    conv: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
) -> Result:
    """`reference.merged` with its mean and biased variance; without given ones, over the batch."""
    out, training = torch.empty_like(x, memory_format=torch.contiguous_format), mean is None
    statistics = [_statistic(conv) if given is None else given.to(torch.float64, copy=True) for given in (mean, var)]
    tensors = native.inputs(x, x_weight, y_weight, x_bias, y_bias, conv)
    arrays = native.arrays(*statistics)
    native.kernels.attention_wise_forward(*tensors, *arrays, eps, training, native.threads(), *native.arrays(out))
    return out, statistics[0], statistics[1]


@merged.register_fake
def _(x, x_weight, y_weight, x_bias, y_bias, conv, mean, var, eps):  # type: ignore[no-untyped-def]
    return torch.empty_like(x, memory_format=torch.contiguous_format), _statistic(conv), _statistic(conv)


@torch.library.custom_op("graphattn::attention_wise_backward", mutates_args=(), device_types="cpu")
def _backward(
    grad: Tensor,
    x: Tensor,
    x_weight: Tensor,
    y_weight: Tensor,
    x_bias: Tensor | None,
    y_bias: Tensor | None,
    conv: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
    training: bool,
) -> list[Tensor]:
    """The gradients of x, x_weight, y_weight, conv and, if there are any, of x_bias and y_bias."""
    inputs = [x, x_weight, y_weight, conv] + [bias for bias in (x_bias, y_bias) if bias is not None]
    grads = [torch.empty_like(given, memory_format=torch.contiguous_format) for given in inputs]
    of_biases: list[Any] = grads[4:] or [None, None]
    native.kernels.attention_wise_backward(
        *native.inputs(x, x_weight, y_weight, x_bias, y_bias, conv),
        *native.inputs(mean, var),
        eps,
        training,
        native.threads(),
        *native.inputs(grad),
        *native.arrays(*grads[:3], *of_biases, grads[3]),
    )
    return grads


@_backward.register_fake
def _(grad, x, x_weight, y_weight, x_bias, y_bias, conv, mean, var, eps, training):  # type: ignore[no-untyped-def]
    inputs = [x, x_weight, y_weight, conv] + [bias for bias in (x_bias, y_bias) if bias is not None]
    return [torch.empty_like(given, memory_format=torch.contiguous_format) for given in inputs]


def _save(ctx: Any, inputs: tuple, output: Result) -> None:
    *tensors, mean, _, eps = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.rest = eps, mean is None


def _gradient(ctx: Any, grad: Tensor, *_: Tensor) -> tuple:
    saved = ctx.saved_tensors
    eps, training = ctx.rest
    if torch.is_grad_enabled():  # a second derivative is wanted
        # Views, lest a way from one input to another, or to itself as another, be gone back twice.
        saved = [tensor if tensor is None else tensor.view_as(tensor) for tensor in saved]
        given: Any = (*saved[:6], None, None, eps) if training else (*saved, eps)
        wanted = [tensor for tensor in saved[:6] if tensor is not None and tensor.requires_grad]
        found = iter(torch.autograd.grad(reference.merged(*given), wanted, grad, create_graph=True))
        return *(next(found) if t is not None and t.requires_grad else None for t in saved[:6]), None, None, None
    grads = torch.ops.graphattn.attention_wise_backward(grad, *saved, eps, training)
    of_biases = grads[4:] or [None, None]
    return *grads[:3], *of_biases, grads[3], None, None, None


merged.register_autograd(_gradient, setup_context=_save)


def _statistic(conv: Tensor) -> Tensor:
    return conv.new_empty(conv.shape[1], dtype=torch.float64)
