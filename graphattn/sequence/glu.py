"""The gated linear unit."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from graphattn.sequence.linear import linear


def glu(x: Float[Tensor, "*B 2d"]) -> Float[Tensor, "*B d"]:
    """a * sigmoid(b), of the first half a and the second half b of the channels.

    Dauphin et al., 'Language Modeling with Gated Convolutional Networks', ICML 2017, where a and b are convolutions.
    """
    return nn.functional.glu(x, -1)


class GLU(nn.Module):
    """`glu` of a linear map: (x W + b) * sigmoid(x V + c), in_channels to out_channels; one weight holds both maps."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = linear(in_channels, 2 * out_channels)

    def forward(self, x: Float[Tensor, "*B in"]) -> Float[Tensor, "*B out"]:
        return glu(self.linear(x))
