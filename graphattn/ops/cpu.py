"""Fused kernels in C++: no edge-by-head-by-width tensor, forward or backward; the same bits for any number of threads.

Sums are float32 for half precision, else of the inputs' dtype. The derivations are in README.md beside this file.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from graphattn import native
from graphattn.ops.cpu_band import band_sum
from graphattn.ops.cpu_sums import feature_dropout, weighted_sum
from graphattn.ops.dropout import numbers
from graphattn.ops.fused import Edges, Fused, Inputs
from graphattn.ops.reference import accumulation_dtype

if native.kernels is None:
    raise ImportError(native.missing)

__all__ = ["additive", "additive_v2", "attend", "band_sum", "dot_product", "feature_dropout", "weighted_sum"]


def _forward(given: Inputs, receivers: Edges, out: Tensor, lse: Tensor, weights: Tensor | None) -> None:
    native.kernels.forward(
        given.score,
        *native.inputs(*given.tensors),
        given.heads,
        *native.inputs(*receivers[:3]),
        given.constant,
        *numbers(given.p, given.seed),
        native.threads(),
        *native.arrays(out, lse, weights),
    )


def _backward(
    given: Inputs,
    receivers: Edges,
    senders: Edges,
    out: Tensor,
    lse: Tensor,
    grad_out: Tensor,
    weights: Tensor | None,
    grad_weights: Tensor | None,
    grads: Sequence[Tensor | None],
) -> None:
    wide = accumulation_dtype(out.dtype)
    row_sums = lse.new_empty(lse.shape, dtype=wide)
    logit_grads = None if grads[2] is None else lse.new_empty((receivers.edges.shape[0], given.heads), dtype=wide)
    native.kernels.backward(
        given.score,
        *native.inputs(*given.tensors),
        given.heads,
        *native.inputs(*receivers[:3], *senders[:3]),
        given.constant,
        *numbers(given.p, given.seed),
        native.threads(),
        *native.inputs(out, lse, grad_out, weights, grad_weights),
        *native.arrays(*grads),
        *native.arrays(row_sums, logit_grads),
    )


_fused = Fused("attention", _forward, _backward, "cpu")
attend, additive, additive_v2, dot_product = _fused.attend, _fused.additive, _fused.additive_v2, _fused.dot_product
