"""Chains of convolutions without shortcuts.

Papers: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015;
`ControlNetwork` is what Bacochina and de Souza's Attention-Wise is compared with.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.models.initialisation import he_initialise
from graphattn.models.resnet_blocks import convolution
from graphattn.record import one_of

_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(nn.Module):
    """3x3 convolutions with batch norm and ReLU, in five stages `layer1` to `layer5` with 2x2 max-pooling after each.

    `x` [B, in_channels, H, W] -> logits [B, num_classes], H and W at least 32. The stages have 1, 2, 4, 8 and 8 times
    `width` channels.

    As usual for images of 32 x 32 there is batch norm, where the paper has none (and biases), and the mean over pixels
    with one linear map, where the paper has three on 7 x 7 pixels.

    Raises:
        ValueError: an unknown depth, images that five poolings leave nothing of.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, depth: Literal[11, 13, 16, 19] = 16, width: int = 64
    ) -> None:
        super().__init__()
        counts = _STAGES[one_of(depth, _STAGES, "depth")]
        widths = [in_channels, *(factor * width for factor in (1, 2, 4, 8, 8))]
        self.layer1, self.layer2, self.layer3, self.layer4, self.layer5 = (
            nn.Sequential(ConvolutionBlock(before, after), *(ConvolutionBlock(after, after) for _ in range(1, count)))
            for before, after, count in zip(widths, widths[1:], counts, strict=False)
        )
        self.maxpool = nn.MaxPool2d(2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)
        he_initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < 32:
            raise ValueError(f"images are {list(x.shape[2:])}, needed at least 32 x 32: they are halved five times")
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4, self.layer5):
            x = self.maxpool(stage(x))
        return self.fc(self.avgpool(x).flatten(1))


class ConvolutionBlock(nn.Module):
    """relu(bn(conv(x))): `x` [B, in_channels, H, W] -> [B, channels, H, W]."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = convolution(in_channels, channels, 3)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class ControlNetwork(nn.Module):
    """Twice two 3x3 convolutions and a 2x2 one of stride 2, of 100 and then 200 channels; a linear map of all pixels.

    `x` [B, in_channels, image_size, image_size] -> logits [B, num_classes]. ReLU after each convolution; biases
    everywhere but in the 2x2 ones; no norm. Weights begin as N(0, 0.02), biases at 0.

    The paper's network ends in a log-softmax, which the loss applies here: cross-entropy of either is the same.

    Raises:
        ValueError: images that two halvings leave nothing of, images of another size.
    """

    def __init__(self, in_channels: int, num_classes: int, image_size: int) -> None:
        super().__init__()
        if image_size < 4:
            raise ValueError(f"image_size is {image_size}, needed at least 4: it is halved twice")
        self.image_size = image_size
        self.conv1 = nn.Conv2d(in_channels, 100, 3, padding=1)
        self.conv2 = nn.Conv2d(100, 100, 3, padding=1)
        self.down1 = nn.Conv2d(100, 100, 2, 2, bias=False)
        self.conv3 = nn.Conv2d(100, 200, 3, padding=1)
        self.conv4 = nn.Conv2d(200, 200, 3, padding=1)
        self.down2 = nn.Conv2d(200, 200, 2, 2, bias=False)
        self.fc = nn.Linear(200 * (image_size // 4) ** 2, num_classes)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != (self.image_size, self.image_size):
            raise ValueError(f"images are {list(x.shape[2:])}, needed {self.image_size} x {self.image_size}")
        for conv in (self.conv1, self.conv2, self.down1, self.conv3, self.conv4, self.down2):
            x = F.relu(conv(x))
        return self.fc(x.flatten(1))
