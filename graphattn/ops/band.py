"""The weighted sum over a band: what a convolution with a kernel of its own at each step computes.

    out[b, t, h] = sum over j of weights[b, t, h, j] * values[b, t + j - left, h]

Steps outside the sequence count as zeros. It is the sum of `attend` on `topology.band(T, left, K - 1 - left)` with the
weights given, one for each step, head and tap; nothing with an entry a tap and channel is ever built. Letters: B
sequences, T steps, H heads, D values a head, K taps.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from graphattn.ops import reference
from graphattn.ops.backends import chosen, current


def band_sum(
    weights: Float[Tensor, "B T H K"] | Float[Tensor, "H K"],
    values: Float[Tensor, "B T H D"],
    left: int,
    *,
    backend: str | None = None,
) -> Float[Tensor, "B T H D"]:
    """The sum above; weights [H, K] are the same for all sequences and steps. Differentiable in weights and values.

    Runs on the fused kernels where the device has them, else as one pass a tap in plain PyTorch; `backend` is 'cpu',
    'gpu' or 'reference'.

    Raises:
        TypeError: arguments that are no floating tensors.
        ValueError: shapes that do not fit, tensors on two devices, `left` outside 0 to K - 1.
    """
    _check(weights, values, left)
    common = torch.promote_types(weights.dtype, values.dtype)
    name = backend or current().backend
    module = chosen(name if name in (None, "cpu", "gpu") else "reference", values.device.type)
    run = getattr(module, "band_sum", reference.band_sum)
    return run(weights.to(common), values.to(common), left)


def _check(weights: Tensor, values: Tensor, left: int) -> None:
    for name, tensor, dims in (("weights", weights, (2, 4)), ("values", values, (4,))):
        letters = "[B, T, H, K] or [H, K]" if name == "weights" else "[B, T, H, D]"
        if not isinstance(tensor, Tensor):
            raise TypeError(f"band_sum: {name} is a {type(tensor).__name__}: needed a tensor of shape {letters}")
        if not tensor.dtype.is_floating_point:
            raise TypeError(
                f"band_sum: {name} has dtype {tensor.dtype}: needed a floating dtype; convert with .float()"
            )
        if tensor.dim() not in dims:
            raise ValueError(f"band_sum: {name} has shape {list(tensor.shape)}: needed {letters}")
    needed = values.shape[: weights.dim() - 1] if weights.dim() == 4 else values.shape[2:3]
    if weights.shape[:-1] != needed:
        raise ValueError(
            f"band_sum: weights have shape {list(weights.shape)}, values {list(values.shape)}: "
            f"needed weights [{', '.join(map(str, needed))}, K]"
        )
    if weights.device != values.device:
        raise ValueError(f"band_sum: weights are on {weights.device}, values on {values.device}: move one with .to()")
    if not 0 <= left < weights.shape[-1]:
        raise ValueError(f"band_sum: left is {left} for {weights.shape[-1]} taps: needed 0 to {weights.shape[-1] - 1}")
