"""The linear maps of the blocks."""

from __future__ import annotations

from torch import nn


def linear(in_channels: int, out_channels: int, gain: float = 1.0) -> nn.Linear:
    """x W + b with Xavier-uniform W, times `gain`, and b = 0."""
    made = nn.Linear(in_channels, out_channels)
    nn.init.xavier_uniform_(made.weight, gain)
    nn.init.zeros_(made.bias)
    return made
