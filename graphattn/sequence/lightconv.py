"""Lightweight convolution: attention over a band whose scores are parameters, one a head and tap."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from graphattn import ops
from graphattn.sequence.band_convolution import BandConvolution
from graphattn.sequence.taps import (
    Norm,
    by_head,
    check_kernel,
    check_sequence,
    drop_connect,
    existing,
    tap_weights,
    without_padding,
)


def lightweight_conv(
    x: Float[Tensor, "B T d"],
    logits: Float[Tensor, "H K"],
    left: int,
    *,
    norm: Norm = "taps",
    padding: Bool[Tensor, "B T"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "B T d"]:
    """out[b, t, c] = sum over j of softmax(logits)[h(c), j] * x[b, t + j - left, c], with the rules of `taps`.

    `dropout` drops entries of the [H, K] kernel, so one mask holds for the whole batch, as published.

    Raises:
        ValueError: sizes, `left`, `norm` or `padding` that do not fit.
    """
    if logits.dim() != 2:
        raise ValueError(f"logits have shape {list(logits.shape)}: needed [H, K], the same at each step")
    heads, taps = logits.shape
    check_sequence(x, heads, padding)
    check_kernel(left, taps, norm)
    values = by_head(without_padding(x, padding), heads)
    kept = drop_connect(torch.ones_like(logits), dropout)
    right, length = taps - 1 - left, x.shape[1]
    if norm == "edges" and (padding is not None or length <= left + right):
        return _over_edges(values, logits, kept, left, padding).flatten(2)
    out = ops.band_sum(tap_weights(logits, None, norm) * kept, values, left)
    if norm == "edges":  # the steps at the ends, where edges are missing, have kernels of their own
        first = _over_edges(values[:, : left + right], logits, kept, left, None)[:, :left]
        last = _over_edges(values[:, length - left - right :], logits, kept, left, None)[:, left:]
        out = torch.cat([first, out[:, left : length - right], last], 1)
    return out.flatten(2)


def _over_edges(
    values: Float[Tensor, "B T H D"],
    logits: Float[Tensor, "H K"],
    kept: Float[Tensor, "H K"],
    left: int,
    padding: Bool[Tensor, "B T"] | None,
) -> Float[Tensor, "B T H D"]:
    exist = existing(values.shape[1], logits.shape[1], left, padding, values.device)
    weights = tap_weights(logits, exist.unsqueeze(2), "edges") * kept
    return ops.band_sum(weights.expand(*values.shape[:3], -1), values, left)


class LightweightConv(BandConvolution):
    """Depthwise convolution whose kernel is softmaxed and shared by the channels of a head: H K weights in all.

    x [B, T, d], batch first, -> [B, T, d]. With `causal` a step hears itself and the K - 1 before it; otherwise the
    band is centred, an even K hearing one step more to the left. `padding` is bool [B, T], true at padding. To decode a
    step at a time hand in `ring(batch)`, see `Ring`.

    `norm` is the rule at the borders ("taps" as published, "edges" as attention; see `taps`). Initialised as published,
    Xavier-uniform in the shape [H, 1, K]. No bias.

    Wu et al., 'Pay Less Attention with Lightweight and Dynamic Convolutions', ICLR 2019. Where T < K, the paths of the
    released code differ in whether the kernel is cut before or after the softmax; here every path computes the same.

    Raises:
        ValueError: channels that are no multiple of the heads, no taps, an unknown `norm`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        heads: int,
        *,
        causal: bool = False,
        norm: Norm = "taps",
        weight_dropout: float = 0.0,
    ) -> None:
        super().__init__(channels, kernel_size, heads, causal, norm, weight_dropout)
        self.weight = nn.Parameter(torch.empty(heads, kernel_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight.unsqueeze(1))

    def logits(self, x: Float[Tensor, "B T d"]) -> Float[Tensor, "H K"]:
        return self.weight

    def convolve(
        self, x: Float[Tensor, "B T d"], padding: Bool[Tensor, "B T"] | None, dropout: float
    ) -> Float[Tensor, "B T d"]:
        return lightweight_conv(x, self.weight, self.left, norm=self.norm, padding=padding, dropout=dropout)
