"""Objects as points: a detector of boxes whose masks are drawn by a small network of each object's own.

Zhou, Wang and Krähenbühl, "Objects as Points", 2019: on the finest map of a pyramid, a heatmap for each class has its
peaks at the centres of objects, and beside it stand their sizes and where in its cell the centre is. Tian, Shen and
Chen, "Conditional Convolutions for Instance Segmentation", ECCV 2020: at its centre each object also has the weights of
a network of 1x1 convolutions, which finds it in a few maps that all objects share and in the distance to its centre.

We differ: one 3x3 convolution is shared by all that is said at a centre; an object's network has two layers, not three.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.models.pyramid import Pyramid

BASIS, HIDDEN = 8, 8  # maps that all objects share, and channels between the two layers of an object's own network
FILTERS = HIDDEN * (BASIS + 2) + HIDDEN + HIDDEN + 1  # its weights and biases
_REACH = 8.0  # distances are in so many cells
_PRIOR = -2.19  # of the heatmaps before the sigmoid at first, which is 0.1


class Maps(NamedTuple):
    """What is said at each of h x w cells of B images; sizes and places are in cells.

    heat  [B, C, h, w], before the sigmoid      size    [B, 2, h, w], width and height
    basis [B, BASIS, h, w]                      offset  [B, 2, h, w], of the centre in its cell, to the right and down
                                                filters [B, FILTERS, h, w]
    """

    heat: Tensor
    size: Tensor
    offset: Tensor
    filters: Tensor
    basis: Tensor


class Found(NamedTuple):
    """M objects in B images, those of an image next to each other, the surest first; boxes and masks as in `Scenes`."""

    image_of: Tensor  # [M] int64
    scores: Tensor  # [M], 0 to 1
    labels: Tensor  # [M] int64
    boxes: Tensor  # [M, 4]
    masks: Tensor  # [M, H, W] bool


class CenterNet(nn.Module):
    """`x` [B, C, H, W] -> `Maps` at the resolution of the pyramid's finest map, which is all it needs (`levels=1`).
    `decode` makes boxes and masks of them, `models.detection_loss` a loss.
    """

    def __init__(self, pyramid: Pyramid, num_classes: int) -> None:
        super().__init__()
        channels = pyramid.out_channels
        self.pyramid = pyramid
        self.tower, self.shared = _convolution(channels), _convolution(channels)
        self.heat = nn.Conv2d(channels, num_classes, 1)
        self.size = nn.Conv2d(channels, 2, 1)
        self.offset = nn.Conv2d(channels, 2, 1)
        self.filters = nn.Conv2d(channels, FILTERS, 1)
        self.basis = nn.Conv2d(channels, BASIS, 1)
        nn.init.constant_(self.heat.bias, _PRIOR)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Maps:
        finest = self.pyramid(x)["0"]
        said = self.tower(finest)
        basis = self.basis(self.shared(finest))
        return Maps(self.heat(said), self.size(said), self.offset(said), self.filters(said), basis)


def mask_logits(basis: Tensor, image_of: Tensor, filters: Tensor, centres: Tensor) -> Tensor:
    """[M, h, w]: where each object's own network sees it. `filters` [M, FILTERS], `centres` [M, 2] in cells, to the
    right and down.
    """
    count, (height, width) = len(filters), basis.shape[-2:]
    right = (torch.arange(width, device=basis.device) + 0.5 - centres[:, :1]) / _REACH
    down = (torch.arange(height, device=basis.device) + 0.5 - centres[:, 1:]) / _REACH
    places = [right[:, None, :].expand(-1, height, -1), down[:, :, None].expand(-1, -1, width)]
    seen = torch.cat([basis[image_of], torch.stack(places, dim=1).to(basis.dtype)], dim=1).flatten(2)
    first, bias, second, end = filters.split([HIDDEN * (BASIS + 2), HIDDEN, HIDDEN, 1], dim=1)
    hidden = torch.baddbmm(bias[:, :, None], first.view(count, HIDDEN, BASIS + 2), seen).relu()
    return torch.baddbmm(end[:, :, None], second.view(count, 1, HIDDEN), hidden).view(count, height, width)


@torch.no_grad()
def decode(maps: Maps, image_size: tuple[int, int], most: int = 20, least: float = 0.01) -> Found:
    """The `most` highest peaks of an image whose score is at least `least`. A peak is a cell that none of its eight
    neighbours exceeds; there is no other suppression.
    """
    heat = maps.heat.float().sigmoid()
    _, classes, height, width = heat.shape
    peaks = heat * (F.max_pool2d(heat, 3, stride=1, padding=1) == heat)
    scores, places = peaks.flatten(1).topk(min(most, classes * height * width))
    image_of, rank = torch.where(scores >= least)
    labels, cells = places.div(height * width, rounding_mode="floor"), places % (height * width)
    scores, labels, cell = scores[image_of, rank], labels[image_of, rank], cells[image_of, rank]
    size, offset, filters = (at(values, image_of, cell).float() for values in (maps.size, maps.offset, maps.filters))
    centres = torch.stack([cell % width, cell.div(width, rounding_mode="floor")], dim=1) + offset
    corners = torch.cat([centres - size / 2, centres + size / 2], dim=1)
    stride = torch.tensor([image_size[1] / width, image_size[0] / height], device=heat.device)
    ends = torch.tensor([image_size[1], image_size[0]] * 2, device=heat.device)
    boxes = torch.minimum((corners * stride.repeat(2)).clamp(min=0), ends)
    logits = mask_logits(maps.basis.float(), image_of, filters, centres)
    masks = F.interpolate(logits[:, None], size=image_size, mode="bilinear", align_corners=False)[:, 0] > 0
    return Found(image_of, scores, labels, boxes, masks)


def at(maps: Tensor, image_of: Tensor, cell: Tensor) -> Tensor:
    """[M, K]: what `maps` [B, K, h, w] say of M objects at their cells, counted row by row."""
    return maps.flatten(2)[image_of, :, cell]


def _convolution(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
