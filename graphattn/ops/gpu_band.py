"""The weighted sum over a band in Triton: nothing unfolded, the same bits every time.

The gradient of the values is a sum over the mirrored band (see README.md), so two kernels do. A program has BT steps of
one head of one sequence.
"""

# Triton reads types from the arguments: annotations here mark what is fixed when a kernel is compiled.

from functools import partial

import triton
import triton.language as tl

from graphattn.ops.fused_band import fused_band_sum
from graphattn.ops.gpu_launch import computed_in, on_device
from graphattn.ops.reference import accumulation_dtype

_compiled_once = partial(triton.jit, do_not_specialize=["steps", "shift"])


@_compiled_once
def sum_over_band(
    weights, rows, out, steps, shift,
    H: tl.constexpr, D: tl.constexpr, K: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
    SHARED: tl.constexpr, MIRRORED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """out[t] = sum over i of w[t, i] rows[t + i - shift]; mirrored, with w[t + i - shift, K - 1 - i]."""
    t = tl.program_id(1) * BT + tl.arange(0, BT)
    head = tl.program_id(0) % H
    first = (tl.program_id(0) // H).to(tl.int64) * steps
    c = tl.program_id(2) * BD + tl.arange(0, BD)
    acc = tl.zeros([BT, BD], WIDE)
    for i in range(K):
        s = t + i - shift
        inside = (s >= 0) & (s < steps)
        x = tl.load(
            rows + ((first + s) * H + head)[:, None] * D + c[None, :],
            mask=inside[:, None] & (c < D)[None, :],
            other=0,
        )
        if SHARED:
            at = head * K + tl.zeros([BT], tl.int64)
        elif MIRRORED:
            at = ((first + s) * H + head) * K
        else:
            at = ((first + t) * H + head) * K
        w = tl.load(weights + at + (K - 1 - i if MIRRORED else i), mask=inside & (t < steps), other=0)
        acc += w.to(WIDE)[:, None] * x.to(WIDE)
    to = out + ((first + t) * H + head)[:, None] * D + c[None, :]
    tl.store(to, acc.to(out.dtype.element_ty), mask=(t < steps)[:, None] & (c < D)[None, :])


@_compiled_once
def dot_over_band(
    near, rows, out, steps, shift,
    H: tl.constexpr, D: tl.constexpr, K: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
    SHARED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """out[t, i] = near[t] . rows[t + i - shift]; shared, summed over the program's steps: a row of parts each."""
    block = tl.program_id(1)
    t = block * BT + tl.arange(0, BT)
    head = tl.program_id(0) % H
    sequence = (tl.program_id(0) // H).to(tl.int64)
    first = sequence * steps
    for i in range(K):
        s = t + i - shift
        inside = (t < steps) & (s >= 0) & (s < steps)
        dots = tl.zeros([BT], WIDE)
        for start in range(0, D, BD):
            c = start + tl.arange(0, BD)
            mask = inside[:, None] & (c < D)[None, :]
            g = tl.load(near + ((first + t) * H + head)[:, None] * D + c[None, :], mask=mask, other=0).to(WIDE)
            x = tl.load(rows + ((first + s) * H + head)[:, None] * D + c[None, :], mask=mask, other=0).to(WIDE)
            dots += tl.sum(g * x, axis=1)
        if SHARED:
            part = sequence * tl.num_programs(1) + block
            tl.store(out + (part * H + head) * K + i, tl.sum(dots, axis=0))
        else:
            tl.store(out + ((first + t) * H + head) * K + i, dots.to(out.dtype.element_ty), mask=t < steps)


def _forward(weights, values, left, out):
    _sum(weights, values, out, left, mirrored=False)


def _backward(weights, values, left, grad_out, grad_weights, grad_values):
    if grad_values is not None:
        _sum(weights, grad_out, grad_values, weights.shape[-1] - 1 - left, mirrored=True)
    if grad_weights is None:
        return
    batch, steps, heads, width = values.shape
    shared, taps = weights.dim() == 2, weights.shape[-1]
    grid = batch * heads, triton.cdiv(steps, _STEPS)
    into = grad_weights
    if shared:
        into = values.new_zeros((batch * grid[1], heads, taps), dtype=accumulation_dtype(values.dtype))
    if values.numel():
        with on_device(values):
            dot_over_band[grid](
                *(grad_out.contiguous(), values.contiguous(), into, steps, left),
                **_sizes(heads, width, taps),
                SHARED=shared,
                WIDE=computed_in(values.dtype),
            )
    elif not shared:
        grad_weights.zero_()
    if shared:
        grad_weights.copy_(into.sum(0))


def _sum(weights, rows, out, shift, mirrored):
    batch, steps, heads, width = rows.shape
    if not rows.numel():
        return
    sizes = _sizes(heads, width, weights.shape[-1])
    grid = batch * heads, triton.cdiv(steps, _STEPS), triton.cdiv(width, sizes["BD"])
    with on_device(rows):
        sum_over_band[grid](
            *(weights.contiguous(), rows.contiguous(), out, steps, shift),
            **sizes,
            SHARED=weights.dim() == 2,
            MIRRORED=mirrored,
            WIDE=computed_in(rows.dtype),
        )


_STEPS = 32


def _sizes(heads, width, taps):
    return {"H": heads, "D": width, "K": taps, "BT": _STEPS, "BD": min(64, triton.next_power_of_2(width))}


band_sum = fused_band_sum("gpu_band_sum", _forward, _backward)
