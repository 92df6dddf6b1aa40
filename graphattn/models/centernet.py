"""The detector by name: points on the pyramid of a small residual network, plain or with attention over its layers."""

from __future__ import annotations

import torch
from torch import nn

from graphattn.models.detector import CenterNet
from graphattn.models.pyramid import Pyramid
from graphattn.models.resnet import CifarResNet
from graphattn.models.resnet_dag import resnet_dag

_PATCH = 2


def centernet(
    in_channels: int, num_classes: int, image_size: int, *, depth: int = 20, rule: str = "none", channels: int = 32
) -> nn.Module:
    """`x` [B, in_channels, H, W], H = W = `image_size` -> `detector.Maps` of cells of 2 x 2 pixels.

    Patches of 2 x 2 pixels become channels, so that the network is at its own size on images of 64 x 64; then
    `CifarResNet` of this depth, or `resnet_dag` with a `rule`, its three stages in a pyramid of so many channels.

    Raises:
        ValueError: an image size that 2 does not divide, an unknown rule or depth.
    """
    if image_size % _PATCH:
        raise ValueError(
            f"images are {image_size} pixels wide, needed a multiple of {_PATCH}: take another set or size"
        )
    seen = in_channels * _PATCH**2
    network = (
        CifarResNet(seen, num_classes, depth=depth)
        if rule == "none"
        else resnet_dag(seen, num_classes, image_size // _PATCH, depth=depth, rule=rule)
    )
    backbone = nn.Sequential(nn.PixelUnshuffle(_PATCH), network)
    stages = ["1.layer1", "1.layer2", "1.layer3"]
    example = torch.zeros(1, in_channels, image_size, image_size)
    return CenterNet(Pyramid(backbone, stages, example, channels=channels, levels=1), num_classes)
