"""The gated linear unit."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


def glu(x: Float[Tensor, "*B 2d"]) -> Float[Tensor, "*B d"]:
    """a * sigmoid(b), of the first half a and the second half b of the channels.

    Dauphin et al., 'Language Modeling with Gated Convolutional Networks', ICML 2017, where a and b are convolutions.
    """
    return nn.functional.glu(x, -1)


class GLU(nn.Module):
    """`glu` of a linear map: (x W + b) * sigmoid(x V + c), from in_channels to out_channels; the maps are one weight.

    Xavier-uniform weights and zero biases, as the blocks of lightweight convolution have them.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, 2 * out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Float[Tensor, "*B in"]) -> Float[Tensor, "*B out"]:
        return glu(self.linear(x))
