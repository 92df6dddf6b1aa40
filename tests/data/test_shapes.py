"""The generated shapes: what a mask shows is what is drawn, boxes fit it, and the same seed draws the same set."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from graphattn.data import Scenes, SceneSet, shapes
from graphattn.data.shapes import CLASSES, SIZE, inside


@pytest.fixture(scope="module")
def data() -> SceneSet:
    return shapes(train=60, val=20, test=20)


def test_the_set_never_changes(data: SceneSet) -> None:
    """Its numbers are recorded with results, and would no longer be those of the set."""
    assert torch.bincount(data.train.labels).tolist() == [50, 48, 44]
    assert float(data.train.images.float().mean()) == pytest.approx(79.749, abs=0.01)
    assert data.digest() == shapes(60, 20, 20, seed=0).digest()
    assert data.digest() != shapes(60, 20, 20, seed=1).digest()
    assert data.summary() == (
        f"100 images of 3 x 64 x 64 with {sum(len(p.labels) for p in (data.train, data.val, data.test))} objects, "
        f"3 classes; 60 train, 20 validate, 20 are tested"
    )


def test_images_do_not_depend_on_how_many_there_are(data: SceneSet) -> None:
    few = shapes(train=5, val=1, test=3)
    assert torch.equal(few.train.images, data.train.images[:5])
    assert torch.equal(few.test.images, data.test.images[:3])
    assert not torch.equal(few.val.images[0], few.test.images[0])


def test_every_object_is_there(data: SceneSet) -> None:
    part = data.train
    counts = torch.bincount(part.image_of, minlength=len(part))
    assert counts.min() == 1 and counts.max() == 4
    assert (part.image_of.diff() >= 0).all()
    assert set(part.labels.tolist()) == {0, 1, 2}
    assert part.masks.shape == (len(part.labels), SIZE, SIZE)
    assert part.masks.flatten(1).sum(1).min() >= 25


def test_masks_of_an_image_do_not_overlap(data: SceneSet) -> None:
    for image in range(len(data.train)):
        assert data.train.masks[data.train.image_of == image].sum(0).max() == 1


def test_boxes_fit_the_masks(data: SceneSet) -> None:
    for box, mask in zip(data.train.boxes, data.train.masks, strict=True):
        rows, columns = torch.where(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_what_a_mask_shows_has_one_colour(data: SceneSet) -> None:
    """Up to the noise, whose standard deviation is 12; and it is another than that of the background beside it."""
    part = data.train
    for image, mask in zip(part.image_of, part.masks, strict=True):
        pixels = part.images[image].float()
        assert (pixels[:, mask].std(1) < 18).all()
        background = ~part.masks[part.image_of == image].any(0)
        assert (pixels[:, mask].mean(1) - pixels[:, background].mean(1)).norm() > 50


@pytest.mark.parametrize(("label", "corners"), [(1, 4), (2, 3)])
def test_polygons_have_their_corners_at_the_radius(label: int, corners: int) -> None:
    down, right = np.mgrid[-40:40, -40:40] + 0.5
    mask = inside(label, down, right, 30.0, 0.3)
    area = corners / 2 * 30.0**2 * math.sin(2 * math.pi / corners)
    assert mask.sum() == pytest.approx(area, rel=0.01)
    assert np.hypot(down, right)[mask].max() == pytest.approx(30.0, abs=1.5)
    turned = inside(label, down, right, 30.0, 0.3 + 2 * math.pi / corners)
    assert (mask == turned).all() and (mask != inside(label, down, right, 30.0, 0.6)).any()


def test_circles() -> None:
    down, right = np.mgrid[-40:40, -40:40] + 0.5
    assert CLASSES[0] == "circle"
    assert inside(0, down, right, 30.0, 0.0).sum() == pytest.approx(math.pi * 900, rel=0.01)


def test_pixels_are_from_minus_one_to_one() -> None:
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2)
    none = torch.zeros(0, dtype=torch.int64)
    scenes = Scenes(ends, none, none, torch.zeros(0, 4), torch.zeros(0, 1, 2, dtype=torch.bool))
    assert scenes.pixels.flatten().tolist() == [-1.0, 1.0]
    assert scenes.images.flatten().tolist() == [0, 255]


def test_some_of_the_scenes(data: SceneSet) -> None:
    part = data.train
    chosen = torch.tensor([7, 2, 30])
    some = part.of(chosen)
    assert torch.equal(some.images, part.images[chosen])
    for place, image in enumerate(chosen):
        for name in ("labels", "boxes", "masks"):
            theirs, ours = getattr(part, name)[part.image_of == image], getattr(some, name)[some.image_of == place]
            assert torch.equal(theirs, ours)
    assert (some.image_of.diff() >= 0).all()
    assert len(some) == 3 and len(part.of(chosen[:0]).labels) == 0


def test_moving_keeps_everything(data: SceneSet, device: torch.device) -> None:
    moved = data.to(device)
    assert moved.train.boxes.device.type == device.type and moved.digest() == data.digest()
    assert (moved.image_size, moved.in_channels) == (64, 3)


def test_a_part_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="val is 0, needed at least 1 image"):
        shapes(val=0)
