"""Attention of one layer over a list of earlier ones: few nodes with large values, so a Python list and no kernel.

    s_t = scale <q, k_t>,  w = softmax over t of s,  out = sum over t of w_t v_t

for each sample and head. Each value is read where it lies: T of them are kept for the backward pass after T layers, not
the T (T + 1) / 2 of a concatenated cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def layer_scores(query: Tensor, keys: Sequence[Tensor], scale: float) -> Tensor:
    """Scaled dot products of `query` [B, H, d] with T `keys` [B, H, d]: [B, H, T]."""
    return torch.stack([(query * key).sum(-1) for key in keys], dim=-1) * scale


def weighted_sum(weights: Tensor, values: Sequence[Tensor]) -> Tensor:
    """sum_t w_t v_t of T `values` [B, C, ...], with `weights` [B, H, T] for H groups of C / H consecutive channels."""
    batch, channels, *space = values[0].shape
    heads = weights.shape[1]
    spread = weights.to(values[0].dtype).reshape(batch, heads, 1, *[1] * len(space), len(values)).unbind(-1)
    grouped = [value.reshape(batch, heads, channels // heads, *space) for value in values]
    out = spread[0] * grouped[0]
    for weight, value in zip(spread[1:], grouped[1:], strict=True):
        out = torch.addcmul(out, weight, value)
    return out.reshape(batch, channels, *space)


def attend_layers(
    query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], scale: float
) -> tuple[Tensor, Tensor]:
    """The attention above: (out [B, C, ...], weights [B, H, T])."""
    weights = layer_scores(query, keys, scale).softmax(-1)
    return weighted_sum(weights, values), weights
