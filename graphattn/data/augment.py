"""Random changes of images that leave their class: each image its own, all of a batch at once, on its device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

PAD = 4  # pixels on each side


class Moves(NamedTuple):
    """Of each of N images how far down and to the right it is cut out of the padded one, and whether it is mirrored."""

    down: Tensor  # [N] int64, 0 to 2 PAD; PAD is where it was
    right: Tensor  # [N] int64
    mirrored: Tensor  # [N] bool

    def of(self, ids: Tensor) -> Moves:
        """Those of some of the images."""
        return Moves(*(part[ids] for part in self))


def random_moves(count: int, device: torch.device | str = "cpu") -> Moves:
    """Drawn from torch's generator for the CPU, so that they are the same on every device."""
    down, right = torch.randint(2 * PAD + 1, (2, count)).to(device)
    return Moves(down, right, (torch.rand(count) < 0.5).to(device))


def crop_and_flip(images: Tensor, moves: Moves) -> Tensor:
    """Images [N, C, H, W] with PAD zeros on each side, each cut out at its own place in its old size; some mirrored.

    A mirrored one is mirrored after it is cut out. He et al., Deep Residual Learning for Image Recognition, CVPR 2016,
    section 4.2; they pad after the mean is subtracted, here it is done before, as in torchvision's transforms.
    """
    count, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, (PAD, PAD, PAD, PAD))
    rows = moves.down[:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = moves.right[:, None] + torch.where(moves.mirrored[:, None], columns.flip(0), columns)
    places = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).view(count, 1, -1)
    return padded.flatten(2).gather(2, places.expand(-1, channels, -1)).view_as(images)
