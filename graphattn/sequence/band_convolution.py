"""The module behind lightweight and dynamic convolution, which differ in where their logits come from."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from graphattn.sequence.ring import Ring
from graphattn.sequence.taps import Norm, check_kernel, check_sequence


class BandConvolution(nn.Module):
    """A convolution over the band of `taps`, in a full pass or step by step, with the same numbers.

    A kind of it has `logits(x)`, [H, K] or [B, T, H, K], and `convolve(x, padding, dropout)`, its full pass.
    """

    def __init__(
        self, channels: int, kernel_size: int, heads: int, causal: bool, norm: Norm, weight_dropout: float
    ) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(
                f"{channels} channels and {heads} heads: needed a number of heads that divides the channels"
            )
        if not 0.0 <= weight_dropout <= 1.0:
            raise ValueError(f"weight_dropout is {weight_dropout}: needed a probability between 0 and 1")
        self.left = kernel_size - 1 if causal else kernel_size // 2
        check_kernel(self.left, kernel_size, norm)
        self.channels, self.kernel_size, self.heads = channels, kernel_size, heads
        self.causal, self.norm, self.weight_dropout = causal, norm, weight_dropout

    def logits(self, x: Float[Tensor, "B T d"]) -> Tensor:
        raise NotImplementedError

    def convolve(
        self, x: Float[Tensor, "B T d"], padding: Bool[Tensor, "B T"] | None, dropout: float
    ) -> Float[Tensor, "B T d"]:
        raise NotImplementedError

    def ring(self, batch: int, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Ring:
        """An empty memory for decoding `batch` sequences, by default of the weights' dtype and on their device.

        Raises:
            ValueError: the convolution is not causal, so a step would have to wait for later ones.
        """
        if not self.causal:
            raise ValueError("only a causal convolution can go step by step: build it with causal=True")
        weight = next(self.parameters())
        return Ring(batch, self.kernel_size, self.channels, dtype or weight.dtype, device or weight.device)

    def forward(
        self,
        x: Float[Tensor, "B T d"],
        padding: Bool[Tensor, "B T"] | None = None,
        ring: Ring | None = None,
    ) -> Float[Tensor, "B T d"]:
        """x is a whole sequence, or with a ring the steps that come next, without dropout.

        What comes first into an empty ring, such as a prompt, is one full pass; then a step follows a step.
        """
        check_sequence(x, self.heads, padding, self.channels)
        if ring is None:
            return self.convolve(x, padding, self.weight_dropout if self.training else 0.0)
        if ring.seen == 0:
            ring.push(x, padding)
            return self.convolve(x, padding, 0.0)
        outs = [x[:, :0]]
        for t in range(x.shape[1]):
            step, missing = x[:, t : t + 1], None if padding is None else padding[:, t : t + 1]
            outs.append(ring.step(step, self.logits(step), self.norm, missing))
        return torch.cat(outs, 1)

    def extra_repr(self) -> str:
        text = f"{self.channels}, kernel_size={self.kernel_size}, heads={self.heads}"
        return f"{text}, causal={self.causal}, norm={self.norm!r}, weight_dropout={self.weight_dropout}"
