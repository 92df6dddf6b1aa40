"""A sequence as a band graph: what lightweight and dynamic convolution share.

A kernel of K taps joins step t to the steps t - left .. t + K - 1 - left, tap j to step t + j - left. The tap's logit
belongs to the edge, softmax over the taps makes it a weight, and each of H heads weights its d / H channels alike:

    out[b, t, c] = sum over j of w[b, t, h(c), j] * x[b, t + j - left, c]        h(c) = c // (d / H)

Two rules say what happens where steps are missing, at the ends of the sequence and at padding:

    norm="taps"    softmax over all K taps; what is missing counts as zeros. So the weights of such a step sum to less
                   than one. This is what was published.
    norm="edges"   softmax over the edges that exist, as everywhere else in graphattn: `attend` on `topology.band`.

The two are the same inside the sequence. A step that hears nobody gets zeros under both. DropConnect drops normalised
weights and scales the others up.

Layout: x is [B, T, d], batch first. `padding` is bool [B, T], true where a step is padding, as torch's
`key_padding_mask`. Letters: B sequences, T steps, d channels, H heads, K taps.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from graphattn import ops

Norm = Literal["taps", "edges"]
NORMS = ("taps", "edges")


def tap_weights(
    logits: Float[Tensor, "... K"], exist: Bool[Tensor, "... K"] | None, norm: Norm
) -> Float[Tensor, "... K"]:
    """Softmax over the taps: all of them, or those that exist; zeros where none does."""
    if norm == "taps" or exist is None:
        return logits.softmax(-1)
    weights = logits.masked_fill(~exist, -torch.inf).softmax(-1)
    return weights.masked_fill(~exist.any(-1, keepdim=True), 0.0)


def existing(
    length: int, kernel_size: int, left: int, padding: Bool[Tensor, "B T"] | None, device: torch.device
) -> Bool[Tensor, "#B T K"]:
    """Which taps of each step meet a step that is there: within the sequence and no padding."""
    present = torch.ones(1, length, dtype=torch.bool, device=device) if padding is None else ~padding
    reach = torch.arange(length, device=device).unsqueeze(1) + torch.arange(kernel_size, device=device)
    return torch.nn.functional.pad(present, (left, kernel_size - 1 - left))[:, reach]


def by_head(x: Float[Tensor, "B T d"], heads: int) -> Float[Tensor, "B T H D"]:
    return x.unflatten(-1, (heads, x.shape[-1] // heads))


def without_padding(x: Float[Tensor, "B T d"], padding: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B T d"]:
    """Zeros at padding, whatever stood there."""
    return x if padding is None else x.masked_fill(padding.unsqueeze(-1), 0.0)


def check_sequence(x: Tensor, heads: int, padding: Tensor | None, channels: int | None = None) -> None:
    """
    Raises:
        ValueError: x that is not [B, T, d] with d a multiple of the heads and, of a module, its number of channels;
            padding that is not bool [B, T].
    """
    if heads < 1 or x.dim() != 3 or x.shape[-1] % heads:
        raise ValueError(
            f"x has shape {list(x.shape)}: needed [B, T, d], batch first, with d a multiple of {heads} heads"
        )
    if channels is not None and x.shape[-1] != channels:
        raise ValueError(f"x has shape {list(x.shape)}: needed [B, T, {channels}], which the module was built for")
    if padding is not None and (padding.dtype != torch.bool or padding.shape != x.shape[:2]):
        raise ValueError(
            f"padding is {padding.dtype} of shape {list(padding.shape)}: "
            f"needed torch.bool of shape {list(x.shape[:2])}, true at padding"
        )


def check_kernel(left: int, kernel_size: int, norm: str) -> None:
    """
    Raises:
        ValueError: no taps, `left` outside 0 to K - 1, or a rule of another name.
    """
    if kernel_size < 1 or not 0 <= left < kernel_size:
        raise ValueError(f"left is {left} for {kernel_size} taps: needed at least one tap and left from 0 to taps - 1")
    if norm not in NORMS:
        raise ValueError(f"norm is {norm!r}: needed 'taps' (as published) or 'edges'")


def drop_connect(weights: Tensor, p: float) -> Tensor:
    return ops.feature_dropout(weights, p) if p else weights
