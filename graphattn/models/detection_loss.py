"""What a `CenterNet` is to say of images whose objects are known, and how far it is from that.

Zhou, Wang and Krähenbühl, "Objects as Points", 2019: with p the heatmaps and t what they should be,

    focal = -1/M sum over cells of   (1 - p)^2 log p                  where t = 1, the cells of centres
                                     (1 - t)^4 p^2 log(1 - p)         elsewhere
    loss  = focal + 0.1 |size - size'| + |offset - offset'| + dice

the last three as means over the M objects. Milletari, Navab and Ahmadi, "V-Net", 3DV 2016: with m the mask that is
drawn, before rounding, and m' the part of each cell that is the object's,

    dice = 1 - 2 sum m m' / (sum m^2 + sum m'^2)

We differ: t falls off from a centre as a Gaussian with a sixth of the object's width and height as its standard
deviations; in the paper it is round, its size from an overlap that a box shifted so far should keep.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from graphattn.models.detector import Maps, at, mask_logits

_SIZE_WEIGHT = 0.1


def detection_loss(maps: Maps, image_of: Tensor, labels: Tensor, boxes: Tensor, masks: Tensor) -> Tensor:
    """[], of M objects: their image and label [M] int64, boxes [M, 4] in pixels, masks [M, H, W] bool; images of H x W.

    Without any object, the focal loss alone.
    """
    height, width = maps.heat.shape[-2:]
    stride = boxes.new_tensor([masks.shape[2] / width, masks.shape[1] / height])
    low, high = boxes[:, :2] / stride, boxes[:, 2:] / stride
    centres, size = (low + high) / 2, high - low
    whole = centres.floor()
    cell = (whole[:, 1] * width + whole[:, 0]).long()
    count = max(len(labels), 1)
    target = heatmap(image_of, labels, whole, size, maps.heat.shape)
    loss = focal_loss(maps.heat, target) / count
    loss = loss + _SIZE_WEIGHT * (at(maps.size, image_of, cell) - size).abs().sum() / count
    loss = loss + (at(maps.offset, image_of, cell) - (centres - whole)).abs().sum() / count
    drawn = mask_logits(maps.basis, image_of, at(maps.filters, image_of, cell), centres)
    return loss + dice_loss(drawn, F.adaptive_avg_pool2d(masks.float(), (height, width))).sum() / count


def heatmap(image_of: Tensor, labels: Tensor, whole: Tensor, size: Tensor, shape: torch.Size) -> Tensor:
    """t of the formula, of `shape` [B, C, h, w]: 1 at the cells `whole` [M, 2] (right, down), and round them the
    largest of what the objects of an image and class, `size` [M, 2], would have there.
    """
    batch, classes, height, width = shape
    right = (torch.arange(width, device=size.device) - whole[:, :1]) / (size[:, :1] / 6)
    down = (torch.arange(height, device=size.device) - whole[:, 1:]) / (size[:, 1:] / 6)
    bumps = torch.exp(-(right[:, None, :] ** 2 + down[:, :, None] ** 2) / 2).flatten(1)
    target = torch.zeros(batch * classes, height * width, device=size.device, dtype=size.dtype)
    rows = (image_of * classes + labels)[:, None].expand_as(bumps)
    return target.scatter_reduce_(0, rows, bumps, "amax").view(shape)


def focal_loss(logits: Tensor, target: Tensor) -> Tensor:
    """[]: the sum over all cells."""
    p = logits.sigmoid()
    hit = (1 - p) ** 2 * F.logsigmoid(logits)
    missed = (1 - target) ** 4 * p**2 * F.logsigmoid(-logits)
    return -torch.where(target == 1, hit, missed).sum()


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """[M], of masks [M, h, w]."""
    drawn, target = logits.sigmoid().flatten(1), target.flatten(1)
    both = (drawn * target).sum(1)
    return 1 - 2 * both / ((drawn**2).sum(1) + (target**2).sum(1))
