"""The detection task: its batches, its loss and measures, and a model that learns to find and to draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphattn import experiment
from graphattn.data import Scenes, SceneSet, load, shapes
from graphattn.experiment import Experiment
from graphattn.models import DETECTORS, MODELS
from graphattn.models.detection_loss import detection_loss
from graphattn.models.detector import BASIS, FILTERS, CenterNet, Maps
from graphattn.models.pyramid import Pyramid
from graphattn.models.resnet import CifarResNet
from graphattn.training import Job, prepared, run_seed, task
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
    assert task.steps == len(batches)
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


# As a definition has it.


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a definition finds as its data."""
    monkeypatch.setattr("graphattn.data.load", lambda *args, **options: DATA)


TRAIN = {"optimizer": "adamw", "lr": 3e-3, "schedule": "one-cycle", "epochs": 3, "batch": 4, "stop": "last"}


def defined(model: dict[str, Any] | None = None, **train: Any) -> Experiment:
    model = model or {"name": "centernet", "depth": 8, "channels": 8, "rule": "mrla-light"}
    table = {"title": "Few", "data": {"name": "shapes"}, "model": model, "train": TRAIN | train}
    return experiment.from_table("shapes/few", table, "here")


def job(folder: Path, **train: Any) -> Job:
    return Job(defined(**train), 0, folder, device="cpu", checkpoint_every=0.0)


class Killed(BaseException):
    """As if the process had ended here."""


@pytest.mark.usefixtures("_few")
def test_a_killed_run_ends_as_one_never_stopped(tmp_path: Path) -> None:
    def kill(row: dict[str, float]) -> None:
        if row["epoch"] == 1:
            raise Killed

    whole = run_seed(job(tmp_path / "whole", channels_last=True))
    assert {"val_loss", "val_ap", "val_mask_ap", "test_ap", "test_mask_ap"} < set(whole)
    with pytest.raises(Killed):
        run_seed(job(tmp_path / "killed", channels_last=True), kill)
    again = run_seed(job(tmp_path / "killed", channels_last=True))
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}


@pytest.mark.usefixtures("_few")
def test_precision_may_be_mixed(tmp_path: Path) -> None:
    assert run_seed(job(tmp_path, precision="bf16-mixed", epochs=1))["val_loss"] > 0


@pytest.mark.usefixtures("_few")
def test_the_backbone_may_attend_to_its_layers(tmp_path: Path) -> None:
    plain, light = (
        prepared(Job(defined({"name": "centernet", "depth": 20} | rule), 0, tmp_path, device="cpu"))[0]
        for rule in ({}, {"rule": "mrla-light"})
    )
    sizes = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (plain, light)]
    assert sizes[1] - sizes[0] == 4086  # what MRLA-light adds to ResNet-20
    maps = light(DATA.val.pixels)
    assert {tuple(m.shape[2:]) for m in maps} == {(32, 32)}


@pytest.mark.usefixtures("_few")
def test_models_of_classes_find_no_objects(tmp_path: Path) -> None:
    definition = defined({"name": "resnet", "depth": 8})
    with pytest.raises(
        ValueError, match="shapes needs a model of objects in images, resnet is none: there are centernet"
    ):
        prepared(Job(definition, 0, tmp_path, device="cpu"))


def test_detectors_give_no_classes(tmp_path: Path) -> None:
    table = {"title": "x", "data": {"name": "digits-images"}, "model": {"name": "centernet"}, "train": TRAIN}
    definition = experiment.from_table("digits-images/few", table, "here")
    with pytest.raises(ValueError, match="digits-images needs a model of images, centernet is none"):
        prepared(Job(definition, 0, tmp_path, device="cpu"))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"augment": "crop-flip"}, "train.augment is for images of one class each, shapes has objects: leave it out"),
        ({"label_smoothing": 0.1}, "train.label_smoothing is for images of one class each"),
        ({"batch": None}, "shapes has images: needed train.batch"),
        ({"recompute": True}, "train.recompute is for graphs, shapes has images: leave it out"),
    ],
)
def test_options_that_say_nothing_here_are_refused(train: dict[str, Any], message: str) -> None:
    asked = {key: value for key, value in (TRAIN | train).items() if value is not None}
    table = {"title": "x", "data": {"name": "shapes"}, "model": {"name": "centernet"}, "train": asked}
    with pytest.raises(ValueError, match=message):
        task(DATA, experiment.from_table("shapes/few", table, "here").train, nn.Identity())


def test_images_that_two_does_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="images are 65 pixels wide, needed a multiple of 2"):
        MODELS["centernet"](3, 3, 65)
    with pytest.raises(ValueError, match="rule"):
        DETECTORS["centernet"](3, 3, 64, rule="mrla")


def test_the_set_by_its_name() -> None:
    loaded = load("shapes")
    assert isinstance(loaded, SceneSet)
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (1000, 200, 300)
    assert torch.equal(loaded.train.images[:10], DATA.train.images)
    with pytest.raises(
        ValueError, match="shapes is a set of images, which are handed out as they are: leave out dense"
    ):
        load("shapes", dense=True)
    with pytest.raises(ValueError, match="shapes is no set of images, whose pixels are scaled"):
        load("shapes", standardise=True)


def test_a_manifest_of_other_sizes_is_refused(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "datasets" / "shapes.toml").read_text(encoding="utf-8")
    small = (
        text.replace("images = 1500", "images = 12")
        .replace("tested = 300", "tested = 4")
        .replace("val = 200", "val = 3")
    )
    (tmp_path / "few.toml").write_text(small, encoding="utf-8")
    few = load(tmp_path / "few.toml")
    assert isinstance(few, SceneSet) and [len(part) for part in (few.train, few.val, few.test)] == [5, 3, 4]
    (tmp_path / "wrong.toml").write_text(small.replace("classes = 3", "classes = 4"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"found images of \[3, 64, 64\] and 3 classes, needed \[3, 64, 64\] and 4"):
        load(tmp_path / "wrong.toml")
