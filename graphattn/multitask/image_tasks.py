"""Auxiliary tasks on images: what each predicts, and its loss.

Each has the `channels` of its head's output [B, channels], and `loss(output, images, labels)` for images [B, C, H, W]
as the model sees them and their classes [B]. A task that is `posed` changes the images first, and what was done to them
takes the place of their classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from graphattn.record import one_of


class ImageTask(Protocol):
    @property
    def channels(self) -> int: ...

    @property
    def posed(self) -> bool: ...

    def loss(self, output: Tensor, images: Tensor, labels: Tensor) -> Tensor: ...


class Coarse:
    """Which group of classes: a related task, whose labels are often there where fine ones are not.

    Raises:
        ValueError: groups that do not hold each of `num_classes` classes once.
    """

    posed: ClassVar[bool] = False

    def __init__(self, groups: Sequence[Sequence[int]], num_classes: int) -> None:
        found = sorted(label for group in groups for label in group)
        if found != list(range(num_classes)):
            raise ValueError(f"groups hold the classes {found}, needed each from 0 to {num_classes - 1} once")
        self.channels = len(groups)
        self.of_class = torch.zeros(num_classes, dtype=torch.int64)
        for number, group in enumerate(groups):
            self.of_class[list(group)] = number

    def loss(self, output: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(output, self.of_class.to(labels.device)[labels])


class Reconstruction:
    """The image itself: mean squared error. Representation learning."""

    posed: ClassVar[bool] = False

    def __init__(self, shape: Sequence[int]) -> None:
        channels, rows, columns = shape
        self.channels = channels * rows * columns

    def loss(self, output: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(output, images.flatten(1))


class Edges:
    """Where the outlines are, see `edge_map`: mean squared error. Focuses attention on shape."""

    posed: ClassVar[bool] = False

    def __init__(self, shape: Sequence[int]) -> None:
        self.channels = shape[1] * shape[2]

    def loss(self, output: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(output, edge_map(images).flatten(1))


class Rotation:
    """By how many quarter turns the image was turned, 0 to 3. Representation learning: Gidaris, Singh and Komodakis,
    Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018, which shows each image at all four;
    here each is turned once, as drawn.
    """

    channels: ClassVar[int] = 4
    posed: ClassVar[bool] = True

    def loss(self, output: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(output, labels)


IMAGE_TASKS = ("coarse", "reconstruction", "rotation", "edges")


def image_task(
    name: str, shape: Sequence[int], num_classes: int, groups: Sequence[Sequence[int]] | None = None
) -> ImageTask:
    """By name, for images of shape (C, H, W)."""
    one_of(name, IMAGE_TASKS, "auxiliary task on images")
    if name == "coarse":
        return Coarse(groups or (), num_classes)
    if name == "rotation":
        return Rotation()
    return Reconstruction(shape) if name == "reconstruction" else Edges(shape)


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Square images [B, C, H, H], each turned to the left by its number of quarter turns [B] of 0 to 3."""
    found = images.clone()
    for number in (1, 2, 3):
        found = torch.where((turns == number)[:, None, None, None], torch.rot90(images, number, (2, 3)), found)
    return found


def edge_map(images: Tensor) -> Tensor:
    """[B, H, W]: the length of the gradient of the mean over the channels of images [B, C, H, W], by Sobel's filters.

    Borders are continued outwards, so that they are no edges. A step of height 1 between two columns is 4 on both.
    """
    grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    along = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=images.device).to(images.dtype)
    slopes = F.conv2d(grey, torch.stack([along, along.T])[:, None])
    return slopes.norm(dim=1)
