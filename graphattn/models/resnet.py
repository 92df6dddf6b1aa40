"""Residual networks, plain ones, and the form in which a rule takes the shortcuts' place.

Papers: He et al., Deep Residual Learning for Image Recognition, CVPR 2016; with `preactivation` He et al., Identity
Mappings in Deep Residual Networks, ECCV 2016; `stem="3x3"` is that of MRLA-base, Fang et al., Cross-Layer Retrospective
Retrieving via Layer Attention, ICLR 2023. The blocks, and what `shortcut` may be, are in `resnet_blocks.py`.

State dicts have torchvision's keys, so its weights load; and children come in the order in which they act, so what
goes through them one by one (torchvision's detectors) sees the features of this network.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from graphattn.models.initialisation import he_initialise
from graphattn.models.resnet_blocks import BasicBlock, Bottleneck, PreactivationBlock, Shortcut, convolution
from graphattn.record import one_of

_Kind = type[BasicBlock] | type[Bottleneck] | type[PreactivationBlock]
_DEPTHS: dict[int, tuple[_Kind, tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def _three_convolutions(in_channels: int) -> nn.Sequential:
    return nn.Sequential(
        convolution(in_channels, 32, 3, 2),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        convolution(32, 32, 3),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        convolution(32, 64, 3),
    )


_STEMS = {"7x7": lambda in_channels: convolution(in_channels, 64, 7, 2), "3x3": _three_convolutions}


class CifarResNet(nn.Module):
    """The residual network for small images: `x` [B, in_channels, H, W] -> logits [B, num_classes].

    A 3x3 convolution to `width` channels, then three stages `layer1` to `layer3` of n blocks at 1, 2 and 4 times the
    width and 1, 1/2 and 1/4 of the resolution, the mean over pixels, a linear map: depth 6n + 2. The convolution is
    followed by batch norm and ReLU; with `preactivation` the last stage is instead.

    With `zero_init_residual` the last batch norm of each branch begins at scale 0, and each block as its shortcut.

    Raises:
        ValueError: a depth that is not 6n + 2; `zero_init_residual` where branches end in a convolution
            (`preactivation`) or nothing goes round them (`shortcut="none"`).
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        depth: int = 20,
        width: int = 16,
        shortcut: Shortcut = "A",
        preactivation: bool = False,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(
                f"depth is {depth}, needed 6n + 2 for three stages of n blocks: 8, 14, 20, 32, 44, 56, 110, ..."
            )
        block, count = PreactivationBlock if preactivation else BasicBlock, (depth - 2) // 6
        self.conv1 = convolution(in_channels, width, 3)
        if not preactivation:
            self.bn1 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU()
        self.layer1 = _stage(block, count, width, width, 1, shortcut)
        self.layer2 = _stage(block, count, width, 2 * width, 2, shortcut)
        self.layer3 = _stage(block, count, 2 * width, 4 * width, 2, shortcut)
        if preactivation:
            self.norm = nn.BatchNorm2d(4 * width)
            self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, num_classes)
        self.preactivation = preactivation
        _initialise(self, shortcut, zero_init_residual)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if not self.preactivation:
            x = self.relu(self.bn1(x))
        x = self.layer3(self.layer2(self.layer1(x)))
        if self.preactivation:
            x = self.relu(self.norm(x))
        return self.fc(self.avgpool(x).flatten(1))


class ImageResNet(nn.Module):
    """The residual network of 18 to 152 layers for large images: `x` [B, in_channels, H, W] -> logits [B, num_classes].

    The stem halves the resolution, max-pooling halves it again, then four stages `layer1` to `layer4` at 64, 128, 256
    and 512 channels (four times that where blocks are bottlenecks, from depth 50 on) and 1/4 to 1/32 of the resolution,
    the mean over pixels, a linear map. The stem is a 7x7 convolution, or three 3x3 ones to 32, 32 and 64 channels with
    batch norm and ReLU between.

    With `zero_init_residual` the last batch norm of each branch begins at scale 0, and each block as its shortcut.

    Raises:
        ValueError: an unknown depth; `zero_init_residual` without shortcuts.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        depth: Literal[18, 34, 50, 101, 152] = 50,
        stem: Literal["7x7", "3x3"] = "7x7",
        shortcut: Shortcut = "B",
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        block, counts = _DEPTHS[one_of(depth, _DEPTHS, "depth")]
        widths = [block.expansion * channels for channels in (64, 128, 256, 512)]
        self.conv1 = _STEMS[one_of(stem, _STEMS, "stem")](in_channels)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _stage(block, counts[0], 64, 64, 1, shortcut)
        self.layer2 = _stage(block, counts[1], widths[0], 128, 2, shortcut)
        self.layer3 = _stage(block, counts[2], widths[1], 256, 2, shortcut)
        self.layer4 = _stage(block, counts[3], widths[2], 512, 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[3], num_classes)
        _initialise(self, shortcut, zero_init_residual)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(block: _Kind, count: int, in_channels: int, channels: int, stride: int, shortcut: Shortcut) -> nn.Sequential:
    """`count` blocks, of which the first changes the shape."""
    first = block(in_channels, channels, stride, shortcut)
    rest = [block(block.expansion * channels, channels, 1, shortcut) for _ in range(count - 1)]
    return nn.Sequential(first, *rest)


def _initialise(model: nn.Module, shortcut: Shortcut, zero_init_residual: bool) -> None:
    he_initialise(model)
    if not zero_init_residual:
        return
    if shortcut == "none":
        raise ValueError("zero_init_residual without shortcuts would make every output zero: leave one of them out")
    if any(isinstance(module, PreactivationBlock) for module in model.modules()):
        raise ValueError("zero_init_residual needs branches that end in a batch norm, and with preactivation none does")
    for module in model.modules():
        if isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)
        elif isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)
