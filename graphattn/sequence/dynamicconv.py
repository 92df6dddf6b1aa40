"""Dynamic convolution: attention over a band whose scores each step predicts from itself."""

from __future__ import annotations

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


def dynamic_conv(
    x: Float[Tensor, "B T d"],
    logits: Float[Tensor, "B T H K"],
    left: int,
    *,
    norm: Norm = "taps",
    padding: Bool[Tensor, "B T"] | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "B T d"]:
    """out[b, t, c] = sum over j of softmax(logits)[b, t, h(c), j] * x[b, t + j - left, c], with the rules of `taps`.

    Time and memory grow with T (d + H K), never with T d K.

    Raises:
        ValueError: sizes, `left`, `norm` or `padding` that do not fit.
    """
    if logits.dim() != 4 or logits.shape[:2] != x.shape[:2]:
        raise ValueError(
            f"logits have shape {list(logits.shape)}: needed [B, T, H, K] with B, T of x, {list(x.shape[:2])}"
        )
    heads, taps = logits.shape[2:]
    check_sequence(x, heads, padding)
    check_kernel(left, taps, norm)
    exist = None if norm == "taps" else existing(x.shape[1], taps, left, padding, x.device).unsqueeze(2)
    weights = drop_connect(tap_weights(logits, exist, norm), dropout)
    return ops.band_sum(weights, by_head(without_padding(x, padding), heads), left).flatten(2)


class DynamicConv(BandConvolution):
    """As `LightweightConv`, with the logits of step t predicted from x[t] alone by one linear map, d -> H K.

    x [B, T, d], batch first, -> [B, T, d]. Arguments, `padding` and `ring` are those of `LightweightConv`; DropConnect
    draws a mask for each step. The map has no bias and is initialised Xavier-uniform, as published: d H K weights.

    Wu et al., 'Pay Less Attention with Lightweight and Dynamic Convolutions', ICLR 2019.

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
        self.predictor = nn.Linear(channels, heads * kernel_size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.predictor.weight)

    def logits(self, x: Float[Tensor, "B T d"]) -> Float[Tensor, "B T H K"]:
        return self.predictor(x).unflatten(-1, (self.heads, self.kernel_size))

    def convolve(
        self, x: Float[Tensor, "B T d"], padding: Bool[Tensor, "B T"] | None, dropout: float
    ) -> Float[Tensor, "B T d"]:
        return dynamic_conv(x, self.logits(x), self.left, norm=self.norm, padding=padding, dropout=dropout)
