"""Coloured shapes: generated images with boxes, instance masks and classes, for detectors; no download.

64 x 64 pixels: a background that runs from one dim colour to another, noise, and one to four shapes of any colour that
stands out against it, each a circle, a square or a triangle, turned by any angle, its outermost point 6 to 15 pixels
from its centre. So colour and size say nothing about the class. A later shape hides what it covers of earlier ones, of
which at least half must stay visible; masks and boxes are of what is visible.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from graphattn.data.raw import Array
from graphattn.data.scenes import Scenes, SceneSet

CLASSES = ("circle", "square", "triangle")
SIZE = 64
_MOST, _SMALLEST, _LARGEST, _VISIBLE = 4, 6.0, 15.0, 0.5
_NOISE, _CONTRAST = 12.0, 100.0  # standard deviation of the one, least distance of colours of the other, of 255
_TRIES = 20


def shapes(train: int = 1000, val: int = 200, test: int = 300, seed: int = 0) -> SceneSet:
    """So many images each, the same ones for the same `seed` whatever the other counts: an image has its own stream.

    Raises:
        ValueError: a count below 1.
    """
    for name, count in (("train", train), ("val", val), ("test", test)):
        if count < 1:
            raise ValueError(f"{name} is {count}, needed at least 1 image")
    first, second, third = (_scenes(count, seed, part) for part, count in enumerate((train, val, test)))
    return SceneSet("shapes", first, second, third, len(CLASSES))


def _scenes(count: int, seed: int, part: int) -> Scenes:
    drawn = [_scene(np.random.RandomState([seed, part, number])) for number in range(count)]
    masks = torch.from_numpy(np.concatenate([masks for _, _, masks in drawn]))
    return Scenes(
        images=torch.from_numpy(np.stack([image for image, _, _ in drawn])),
        image_of=torch.repeat_interleave(torch.arange(count), torch.tensor([len(labels) for _, labels, _ in drawn])),
        labels=torch.tensor([label for _, labels, _ in drawn for label in labels]),
        boxes=_boxes(masks),
        masks=masks,
    )


def _scene(random: np.random.RandomState) -> tuple[Array, list[int], Array]:
    """An image [3, SIZE, SIZE] of bytes, the classes of its objects, and what is visible of each, [M, SIZE, SIZE]."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    here, there = random.uniform(20, 120, (2, 3, 1, 1))
    turn = random.uniform(0, 2 * math.pi)
    along = 0.5 + (math.cos(turn) * (columns - SIZE / 2) + math.sin(turn) * (rows - SIZE / 2)) / (math.sqrt(2) * SIZE)
    image = here + (there - here) * along
    labels: list[int] = []
    visible: list[Array] = []
    whole: list[int] = []  # pixels of each before any was hidden
    wanted = random.randint(1, _MOST + 1)
    for _ in range(_TRIES):
        label, colour = int(random.randint(len(CLASSES))), random.uniform(0, 255, 3)
        radius, angle = random.uniform(_SMALLEST, _LARGEST), random.uniform(0, 2 * math.pi)
        row, column = random.uniform(radius, SIZE - radius, 2)
        mask = inside(label, rows - row, columns - column, radius, angle)
        left = [other & ~mask for other in visible]
        hides = any(a.sum() < _VISIBLE * b for a, b in zip(left, whole, strict=True))
        blends = min(np.linalg.norm(colour - end.ravel()) for end in (here, there)) < _CONTRAST
        if hides or blends:
            continue
        image = np.where(mask, colour[:, None, None], image)
        labels, visible, whole = [*labels, label], [*left, mask], [*whole, mask.sum()]
        if len(labels) == wanted:
            break
    if not labels:
        return _scene(random)
    noisy = image + random.normal(0, _NOISE, image.shape)
    return noisy.clip(0, 255).astype(np.uint8), labels, np.stack(visible)


def inside(label: int, down: Array, right: Array, radius: float, angle: float) -> Array:
    """Which of the points at these distances from the centre are in the shape: a regular polygon or a circle whose
    outermost points are at `radius`.
    """
    if CLASSES[label] == "circle":
        return down**2 + right**2 <= radius**2
    sides = {"square": 4, "triangle": 3}[CLASSES[label]]
    normals = angle + 2 * math.pi / sides * np.arange(sides)
    reach = radius * math.cos(math.pi / sides)
    return np.all([math.cos(n) * right + math.sin(n) * down <= reach for n in normals], axis=0)


def _boxes(masks: torch.Tensor) -> torch.Tensor:
    """[M, 4]: left, top, right, bottom of masks [M, H, W], the last two one past the last pixel."""
    ends = []
    for along in (masks.any(1), masks.any(2)):  # columns, rows
        size = along.shape[1]
        ends.append((along.int().argmax(1), size - along.flip(1).int().argmax(1)))
    (left, right), (top, bottom) = ends
    return torch.stack([left, top, right, bottom], dim=1).float()
