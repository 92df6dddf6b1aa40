"""What mixes the steps of a sequence in a block: one of two convolutions, or self-attention, by one name.

All take (x, padding, state) and know `state(batch)`, so a block does not ask which it holds. They are a ladder: the
scores are static ("light"), depend on the receiver alone ("dynamic"), or on both ends ("self-attention").
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from graphattn.sequence.attention import SelfAttention
from graphattn.sequence.band_convolution import BandConvolution
from graphattn.sequence.dynamicconv import DynamicConv
from graphattn.sequence.glu import GLU
from graphattn.sequence.lightconv import LightweightConv
from graphattn.sequence.linear import linear
from graphattn.sequence.ring import Ring
from graphattn.sequence.taps import Norm

Mixer = Literal["light", "dynamic", "self-attention"]
MIXERS: tuple[Mixer, ...] = ("light", "dynamic", "self-attention")


def make_mixer(
    name: Mixer,
    channels: int,
    heads: int,
    kernel_size: int,
    *,
    causal: bool = False,
    glu: bool = True,
    norm: Norm = "taps",
    weight_dropout: float = 0.0,
    input_dropout: float = 0.0,
) -> ConvolutionMixer | SelfAttention:
    """The mixer of that name. Self-attention has heads, `causal` and `weight_dropout`; the rest is for convolutions.

    Raises:
        ValueError: no such name, or sizes that do not fit.
    """
    if name == "self-attention":
        return SelfAttention(channels, heads, causal=causal, weight_dropout=weight_dropout)
    if name not in MIXERS:
        raise ValueError(f"mixer is {name!r}: there are {', '.join(MIXERS)}")
    kind = LightweightConv if name == "light" else DynamicConv
    convolution = kind(channels, kernel_size, heads, causal=causal, norm=norm, weight_dropout=weight_dropout)
    return ConvolutionMixer(convolution, glu=glu, input_dropout=input_dropout)


class ConvolutionMixer(nn.Module):
    """Linear d -> 2 d and GLU (or without `glu` linear d -> d), the convolution, linear d -> d: [B, T, d] -> [B, T, d].

    `input_dropout` drops channels of what comes in.

    Wu et al., 'Pay Less Attention with Lightweight and Dynamic Convolutions', ICLR 2019.
    """

    def __init__(self, convolution: BandConvolution, *, glu: bool = True, input_dropout: float = 0.0) -> None:
        super().__init__()
        channels = convolution.channels
        self.dropout = nn.Dropout(input_dropout)
        self.inward = GLU(channels, channels) if glu else linear(channels, channels)
        self.convolution = convolution
        self.outward = linear(channels, channels)

    def state(self, batch: int, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Ring:
        """An empty memory for decoding `batch` sequences.

        Raises:
            ValueError: the convolution is not causal.
        """
        return self.convolution.ring(batch, dtype, device)

    def forward(
        self,
        x: Float[Tensor, "B T d"],
        padding: Bool[Tensor, "B T"] | None = None,
        state: Ring | None = None,
    ) -> Float[Tensor, "B T d"]:
        return self.outward(self.convolution(self.inward(self.dropout(x)), padding, state))
