"""The blocks of residual networks: a branch F of convolutions, and a shortcut round it.

    x_{l+1} = relu(S(x_l) + F(x_l))     BasicBlock, Bottleneck: convolution, batch norm, ReLU
    x_{l+1} = S(x_l) + F(x_l)           PreactivationBlock: batch norm, ReLU, convolution; nothing after the addition

S, the module `downsample`, is the identity where input and output have the same shape. Elsewhere, at the first block of
a stage, `shortcut` says what it is:

    "A"        every second pixel, new channels zero: no parameters
    "B"        a 1x1 convolution and a batch norm
    "none"     no block has a shortcut, those of equal shapes neither: the plain network x_{l+1} = relu(F(x_l))
    "outside"  the block is the bare branch F(x_l), without the ReLU that follows the addition: whatever stands behind
               the block makes the shortcut, adds, and applies that ReLU. `depth.Residual(align="subsample")` there is
               the network with "A"; rules that take the shortcut's place take its ReLU's too, or leave it out

A pre-activation block without a shortcut is the bare branch under either name.

Names are torchvision's: conv1, bn1, conv2, bn2, (conv3, bn3,) downsample.

Papers: He et al., Deep Residual Learning for Image Recognition, CVPR 2016; He et al., Identity Mappings in Deep
Residual Networks, ECCV 2016. As in torchvision the 3x3 convolution of a bottleneck has the stride; in the paper its
first 1x1 has. A pre-activation block's shortcut reads x_l itself, never the branch's first activation, so that the
additive path has nothing on it but changes of shape.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.depth.align import Project, Subsample
from graphattn.record import one_of

Shortcut = Literal["A", "B", "none", "outside"]


class _Block(nn.Module):
    """`x` [B, in_channels, H, W] -> [B, expansion * channels, H / stride, W / stride], sizes rounded up."""

    expansion = 1
    downsample: nn.Module | None
    activated: bool  # whether a ReLU follows the addition

    def branch(self, x: Tensor) -> Tensor:
        """F(x): what is added to the shortcut, before any ReLU that follows the addition."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        out = self.branch(x)
        if self.downsample is not None:
            out = self.downsample(x) + out
        return F.relu(out) if self.activated else out


class BasicBlock(_Block):
    """F = two 3x3 convolutions with batch norm, a ReLU between."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1, shortcut: Shortcut = "B") -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, channels, 3, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _shortcut(shortcut, in_channels, channels, stride)
        self.activated = shortcut != "outside"

    def branch(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))


class PreactivationBlock(_Block):
    """F = two 3x3 convolutions, batch norm and ReLU before each."""

    activated = False

    def __init__(self, in_channels: int, channels: int, stride: int = 1, shortcut: Shortcut = "B") -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = convolution(in_channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3)
        self.downsample = _shortcut(shortcut, in_channels, channels, stride)

    def branch(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


class Bottleneck(_Block):
    """F = 1x1 to `channels`, 3x3, 1x1 to four times as many, each with batch norm, ReLUs between."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1, shortcut: Shortcut = "B") -> None:
        super().__init__()
        out_channels = self.expansion * channels
        self.conv1 = convolution(in_channels, channels, 1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, 3, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = convolution(channels, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(shortcut, in_channels, out_channels, stride)
        self.activated = shortcut != "outside"

    def branch(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return self.bn3(self.conv3(out))


def convolution(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias whose output has the input's height and width, divided by `stride`."""
    return nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)


def _shortcut(kind: Shortcut, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if one_of(kind, get_args(Shortcut), "shortcut") in ("none", "outside"):
        return None
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if kind == "A":
        return Subsample(out_channels, stride)
    return Project(in_channels, out_channels, stride, norm=True)
