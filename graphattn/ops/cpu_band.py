"""The weighted sum over a band by the compiled kernels."""

from __future__ import annotations

from torch import Tensor

from graphattn import native
from graphattn.ops.fused_band import fused_band_sum


def _forward(weights: Tensor, values: Tensor, left: int, out: Tensor) -> None:
    native.kernels.band_sum(*native.inputs(weights, values), left, native.threads(), *native.arrays(out))


def _backward(
    weights: Tensor,
    values: Tensor,
    left: int,
    grad_out: Tensor,
    grad_weights: Tensor | None,
    grad_values: Tensor | None,
) -> None:
    given, grad = native.inputs(weights, values), native.inputs(grad_out)
    native.kernels.band_sum_backward(*given, left, *grad, native.threads(), *native.arrays(grad_weights, grad_values))


band_sum = fused_band_sum("band_sum", _forward, _backward, "cpu")
