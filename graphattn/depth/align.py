"""Explicit alignment of shapes between layers: option A and option B of residual networks.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 3.3.
"""

from __future__ import annotations

from torch import Tensor, nn


def subsample(x: Tensor, channels: int, stride: int) -> Tensor:
    """[B, C, H, W] -> [B, channels, ceil(H / stride), ceil(W / stride)]: every stride-th pixel, and channels of zeros
    on both sides of the C (one more behind, if their number is odd). No parameters.
    """
    missing = channels - x.shape[1]
    x = x[:, :, ::stride, ::stride]
    return nn.functional.pad(x, (0, 0, 0, 0, missing // 2, missing - missing // 2))


class Subsample(nn.Module):
    """`subsample` to a given width."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        return subsample(x, self.channels, self.stride)


class Project(nn.Sequential):
    """A strided 1x1 convolution without bias, then batch norm, if asked."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, norm: bool) -> None:
        conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
        super().__init__(conv, *[nn.BatchNorm2d(channels)] * norm)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")


def aligner(
    how: str, before: tuple[int, ...], after: tuple[int, ...], names: tuple[str, str], *, norm: bool
) -> nn.Module | None:
    """What turns a tensor of shape [B, *before] into [B, *after]; None if they are alike. `norm`: a projection ends in
    a batch norm, whose running statistics can be those of one tensor only.

    Raises:
        ValueError: they differ and `how` is "error", or cannot be aligned so; names the two blocks.
    """
    if before == after:
        return None
    found = f"{names[0]} gives {list(before)} and {names[1]} gives {list(after)}"
    if how == "error":
        raise ValueError(
            f"{found}: layers that attend to each other need one shape. Take scope='stage', name blocks of one "
            f"shape, or say how to align them: align='subsample' or align='project'"
        )
    if len(before) != 3 or len(after) != 3:
        raise ValueError(f"{found}: align={how!r} is for maps [C, H, W]; take scope='stage'")
    stride = -(-before[1] // after[1])
    if after[0] < before[0] or any(-(-b // stride) != a for b, a in zip(before[1:], after[1:], strict=True)):
        raise ValueError(f"{found}: align={how!r} adds channels and takes every n-th pixel; take scope='stage'")
    return Subsample(after[0], stride) if how == "subsample" else Project(before[0], after[0], stride, norm=norm)
