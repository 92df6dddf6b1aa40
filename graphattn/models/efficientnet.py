"""EfficientNet-B0: inverted residual blocks with squeeze-excitation.

Paper: Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019. The block is
that of Sandler et al., MobileNetV2, CVPR 2018.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.depth.drop_path import DropPath, growing
from graphattn.models.initialisation import he_initialise
from graphattn.record import one_of

# Of each stage: expansion, kernel, stride, channels, blocks (the paper's table 1).
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class EfficientNet(nn.Module):
    """`x` [B, in_channels, H, W] -> logits [B, num_classes].

    A 3x3 convolution to 32 channels, seven stages `layer1` to `layer7` of `InvertedResidual` blocks, a 1x1 convolution
    to 1280 channels, the mean over pixels, a linear map. The first convolution has stride `stem_stride`: 2, or for
    small images 1; four stages halve the resolution again. `drop_path` is the last block's probability, which grows
    from 0 in equal steps; it acts on blocks with a shortcut. `dropout` is that of what is classified.

    The paper trains with 0.2 of either. Batch norms have PyTorch's epsilon and momentum, as in torchvision; in the
    authors' code they are 1e-3 and 0.01.

    Raises:
        ValueError: another stem stride, a probability outside [0, 1).
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        stem_stride: Literal[1, 2] = 2,
        drop_path: float = 0.0,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 32, 3, one_of(stem_stride, (1, 2), "stem_stride"), 1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        rates = iter(growing(drop_path, sum(stage[-1] for stage in _STAGES)))
        channels = 32
        for number, (expansion, kernel, stride, width, count) in enumerate(_STAGES, 1):
            blocks = nn.Sequential()
            for i in range(count):
                blocks.append(InvertedResidual(channels, width, kernel, 1 if i else stride, expansion, next(rates)))
                channels = width
            self.add_module(f"layer{number}", blocks)
        self.conv2 = nn.Conv2d(channels, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1280, num_classes)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.bn1(self.conv1(x)))
        for number in range(1, len(_STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        x = F.silu(self.bn2(self.conv2(x)))
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))


class InvertedResidual(nn.Module):
    """MBConv: 1x1 to `expansion` times as many channels, a `kernel` x `kernel` convolution of each channel, the gate of
    `Excitation`, 1x1 to `channels`; each convolution with batch norm, SiLU after the first two, nothing after the last.

    `x` [B, in_channels, H, W] -> [B, channels, H / stride, W / stride], sizes rounded up. Without expansion (1) the
    first convolution is left out. `shortcut` says whether x is added: where the shape stays, which is where layer
    attention is put, too. The added branch has `drop_path`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
        expansion: int = 6,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        width = expansion * in_channels
        self.shortcut = stride == 1 and in_channels == channels
        self.expand = expansion > 1
        if self.expand:
            self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel, stride, kernel // 2, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.excitation = Excitation(width, max(1, in_channels // 4))
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.drop_path = DropPath(drop_path)

    def branch(self, x: Tensor) -> Tensor:
        """What is added to x where there is a shortcut, and what the block gives elsewhere."""
        if self.expand:
            x = F.silu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(self.excitation(F.silu(self.bn2(self.conv2(x))))))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.branch(x)) if self.shortcut else self.branch(x)


class Excitation(nn.Module):
    """x sigmoid(W_2 silu(W_1 mean(x) + b_1) + b_2), the mean over pixels: a gate a channel. `x` [B, C, H, W].

    Squeeze-excitation as EfficientNet has it, with biases and SiLU, and `hidden` a quarter of what enters the block;
    as first published it is `depth.channel_attention.SqueezeExcitation`.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(F.silu(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()
