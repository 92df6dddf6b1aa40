"""Images and the objects in them: what a detector is trained and measured on."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from graphattn.data.digest import digest_of


@dataclass(frozen=True, eq=False)
class Scenes:
    """N images, and the M objects in them, those of an image next to each other.

    images    [N, C, H, W] of bytes; `pixels` is what a model sees
    image_of  [M] int64, ascending: the image an object is in
    labels    [M] int64, from 0
    boxes     [M, 4] float32: left, top, right, bottom, in pixels
    masks     [M, H, W] bool
    """

    images: Tensor
    image_of: Tensor
    labels: Tensor
    boxes: Tensor
    masks: Tensor

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    @property
    def image_size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.images.shape[2], self.images.shape[3]

    @property
    def pixels(self) -> Tensor:
        """[N, C, H, W] float32, from -1 to 1."""
        return self.images.float().div_(127.5).sub_(1)

    def of(self, images: Tensor) -> Scenes:
        """These images [n] int64, in this order, each at most once, and their objects."""
        place = torch.full((len(self),), -1, device=self.image_of.device)
        place[images] = torch.arange(len(images), device=place.device)
        (kept,) = torch.where(place[self.image_of] >= 0)
        kept = kept[place[self.image_of[kept]].argsort(stable=True)]
        objects = (self.labels[kept], self.boxes[kept], self.masks[kept])
        return Scenes(self.images[images], place[self.image_of[kept]], *objects)

    def to(self, device: torch.device | str) -> Scenes:
        """The same on another device."""
        return Scenes(*(tensor.to(device) for tensor in self.tensors()))

    def tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]


@dataclass(frozen=True, eq=False)
class SceneSet:
    """Scenes to learn from, to choose by and to be tested on. The score is the average precision of boxes."""

    name: str
    train: Scenes
    val: Scenes
    test: Scenes
    num_classes: int

    @property
    def in_channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Rows, and as many columns."""
        return self.train.images.shape[3]

    def to(self, device: torch.device | str) -> SceneSet:
        """The same data on another device."""
        moved = {part: getattr(self, part).to(device) for part in ("train", "val", "test")}
        return replace(self, **moved)

    def digest(self) -> str:
        """Sixteen hex digits that change with anything in it."""
        return digest_of(tensor for part in (self.train, self.val, self.test) for tensor in part.tensors())

    def summary(self) -> str:
        """Its sizes in a line."""
        parts = (self.train, self.val, self.test)
        size = " x ".join(map(str, self.train.images.shape[1:]))
        return (
            f"{sum(map(len, parts))} images of {size} with {sum(len(part.labels) for part in parts)} objects, "
            f"{self.num_classes} classes; {len(self.train)} train, {len(self.val)} validate, {len(self.test)} are "
            f"tested"
        )
