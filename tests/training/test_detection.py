"""The detection task: its batches, its loss and measures, and a model that learns to find and to draw."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from graphattn.data import Scenes, SceneSet, shapes
from graphattn.models.detection_loss import detection_loss
from graphattn.models.detector import BASIS, FILTERS, CenterNet, Maps
from graphattn.models.pyramid import Pyramid
from graphattn.models.resnet import CifarResNet
from graphattn.training.detection import Detection

DATA = shapes(train=10, val=4, test=6)


def detector() -> CenterNet:
    backbone = nn.Sequential(nn.PixelUnshuffle(2), CifarResNet(12, 3, depth=8, width=8))
    stages = ["1.layer1", "1.layer2", "1.layer3"]
    return CenterNet(Pyramid(backbone, stages, torch.zeros(1, 3, 64, 64), channels=16, levels=1), 3)


class Knows(nn.Module):
    """Says what is true of the scenes whose pixels it sees; its masks are all of the image."""

    def __init__(self, scenes: Scenes) -> None:
        super().__init__()
        self.scenes = scenes

    def forward(self, x: Tensor) -> Maps:
        heat, size, offset = (
            torch.full((len(x), 3, 32, 32), -20.0),
            torch.zeros(len(x), 2, 32, 32),
            torch.zeros(len(x), 2, 32, 32),
        )
        filters = torch.zeros(len(x), FILTERS, 32, 32)
        filters[:, -1] = 1.0
        for i, pixels in enumerate(x):
            (image,) = torch.where((self.scenes.pixels == pixels).flatten(1).all(1))
            for m in torch.where(torch.isin(self.scenes.image_of, image))[0]:
                box = self.scenes.boxes[m] / 2
                centre = (box[:2] + box[2:]) / 2
                column, row = centre.long().tolist()
                heat[i, self.scenes.labels[m], row, column] = 5.0
                size[i, :, row, column], offset[i, :, row, column] = box[2:] - box[:2], centre - centre.floor()
        return Maps(heat, size, offset, filters, torch.zeros(len(x), BASIS, 32, 32))


def test_an_epoch_sees_every_training_image_once() -> None:
    task = Detection(DATA, 4)
    batches = list(task.batches())
    assert [len(batch) for batch in batches] == [4, 4, 2]
    seen = torch.cat([batch.images for batch in batches])
    assert {tuple(i.flatten().tolist()) for i in seen} == {tuple(i.flatten().tolist()) for i in DATA.train.images}
    assert sum(len(batch.labels) for batch in batches) == len(DATA.train.labels)
    assert not torch.equal(seen, torch.cat([batch.images for batch in task.batches()]))


def test_the_loss_is_that_of_the_maps() -> None:
    model, batch = detector().eval(), DATA.train.of(torch.arange(3))
    expected = detection_loss(model(batch.pixels), batch.image_of, batch.labels, batch.boxes, batch.masks)
    assert torch.equal(Detection(DATA, 3).loss(model, batch), expected)


def test_who_knows_the_boxes_has_them_right_and_masks_by_chance() -> None:
    both = SceneSet("known", DATA.train, DATA.val, DATA.val, 3)
    found = Detection(both, 3).measures(Knows(DATA.val))
    assert found["val_ap"] == found["test_ap"] == 100.0
    assert found["val_mask_ap"] < 1.0
    assert 0.5 < found["val_loss"] < 2.0  # of masks that are everywhere
    assert set(found) == {"val_loss", "val_ap", "val_mask_ap", "test_ap", "test_mask_ap"}


def test_the_parts_have_their_own_measures() -> None:
    found = Detection(DATA, 4).measures(Knows(DATA.test))
    assert (found["val_ap"], found["test_ap"]) == (0.0, 100.0)
    assert found["val_loss"] > 10  # it says for certain that nothing is there


def test_the_batch_changes_no_measure() -> None:
    model = detector().eval()
    one, many = (Detection(DATA, batch).measures(model) for batch in (1, 6))
    assert one == pytest.approx(many, rel=1e-4)


def test_it_learns_to_find_and_to_draw() -> None:
    """Ten images by heart, in a few seconds: boxes and masks."""
    few = SceneSet("few", DATA.train, DATA.train, DATA.train, 3)
    task, model = Detection(few, 10), detector()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(80):
        for batch in task.batches():
            optimizer.zero_grad()
            task.loss(model, batch).backward()
            optimizer.step()
    found = task.measures(model.eval())
    assert found["val_ap"] > 40 and found["val_mask_ap"] > 40
