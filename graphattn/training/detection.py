"""Objects in images: their boxes, classes and masks, judged by average precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from graphattn.data import Scenes, SceneSet
from graphattn.models.detection_loss import detection_loss
from graphattn.models.detector import Found, decode
from graphattn.training.average_precision import average_precision
from graphattn.training.ranks import Shares, weighted


class Detection:
    """Boxes and masks of the objects in each image, by a model that gives `models.detector.Maps`.

    `batch` images make a step, in an order that torch's generator draws anew each epoch. The score, in percent, is the
    average precision of boxes over overlaps from 0.5 to 0.95; that of masks stands beside it.
    """

    score: ClassVar[str] = "ap"
    whole: ClassVar[bool] = False

    def __init__(self, data: SceneSet, batch: int) -> None:
        self.data, self.batch = data, batch
        self._order = Shares(len(data.train), batch)

    @property
    def steps(self) -> int:
        return len(self._order)

    def batches(self) -> Iterator[Scenes]:
        """The training images and their objects, `batch` images at a time."""
        for ids in self._order:
            yield self.data.train.of(torch.tensor(ids, device=self.data.train.images.device))

    def loss(self, model: nn.Module, batch: Scenes) -> Tensor:
        """See `models.detection_loss`."""
        return weighted(_loss(model, batch), max(len(batch.labels), 1))

    @torch.no_grad()
    def measures(self, model: nn.Module) -> dict[str, float]:
        """val_loss, and of both parts ap and mask_ap, of the model as it is (call eval() first)."""
        measures = {"val_loss": self._mean_loss(model, self.data.val)}
        for part, scenes in (("val", self.data.val), ("test", self.data.test)):
            found = average_precision(self.found(model, scenes), scenes, self.data.num_classes)
            measures |= {f"{part}_{name}": value for name, value in found.items()}
        return measures

    @torch.no_grad()
    def found(self, model: nn.Module, scenes: Scenes) -> Found:
        """What the model finds in these images."""
        parts = []
        for ids in torch.arange(len(scenes), device=scenes.images.device).split(self.batch):
            part = decode(model(scenes.of(ids).pixels), scenes.image_size)
            parts.append(part._replace(image_of=ids[part.image_of]))
        return Found(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))

    def _mean_loss(self, model: nn.Module, scenes: Scenes) -> float:
        """Over the objects."""
        total = torch.zeros((), device=scenes.images.device)
        for ids in torch.arange(len(scenes), device=scenes.images.device).split(self.batch):
            part = scenes.of(ids)
            total += _loss(model, part) * len(part.labels)
        return float(total / len(scenes.labels))


def _loss(model: nn.Module, scenes: Scenes) -> Tensor:
    maps = model(scenes.pixels)
    return detection_loss(maps, scenes.image_of, scenes.labels, scenes.boxes, scenes.masks)
