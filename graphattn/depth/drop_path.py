"""Stochastic depth: a residual branch is left out for some of the samples.

Huang, Sun, Liu, Sedra and Weinberger, "Deep Networks with Stochastic Depth", ECCV 2016.
"""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """In training, each sample's branch is zero with `probability`, else divided by 1 - `probability`.

    Raises:
        ValueError: a probability outside [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"drop_path is {probability}, needed a probability below 1")
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        kept = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(1 - self.probability)
        return x * (kept / (1 - self.probability))

    def extra_repr(self) -> str:
        return f"{self.probability}"


def growing(last: float, count: int) -> list[float]:
    """The probabilities of `count` blocks, from 0 to `last` in equal steps: late blocks are left out more often.

    In the paper the first of L blocks has `last` / L; here it has 0, and is always kept, as in the vision transformers'
    code.
    """
    return [last * i / max(1, count - 1) for i in range(count)]
