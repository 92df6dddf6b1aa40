"""Auxiliary tasks on images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from graphattn.multitask.image_tasks import Coarse, edge_map, image_task, turned


def test_coarse_labels() -> None:
    task = Coarse([[0, 2], [1], [3]], 4)
    assert task.channels == 3 and task.of_class.tolist() == [0, 1, 0, 2]
    out, labels = torch.randn(5, 3), torch.tensor([3, 0, 2, 1, 1])
    expected = F.cross_entropy(out, torch.tensor([2, 0, 0, 1, 1]))
    torch.testing.assert_close(task.loss(out, torch.zeros(5, 1, 2, 2), labels), expected)


@pytest.mark.parametrize("groups", [[[0, 1], [3]], [[0, 1], [1, 2], [3]], [[0, 1, 2, 3, 4]], []])
def test_groups_must_hold_each_class_once(groups: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="needed each from 0 to 3 once"):
        Coarse(groups, 4)


def test_reconstruction_and_edges_are_squared_errors() -> None:
    images = torch.rand(2, 3, 4, 4)
    same = image_task("reconstruction", (3, 4, 4), 10)
    assert same.channels == 48 and not same.posed
    assert same.loss(images.flatten(1), images, torch.zeros(2)) == 0
    torch.testing.assert_close(same.loss(images.flatten(1) + 2, images, torch.zeros(2)), torch.tensor(4.0))
    edges = image_task("edges", (3, 4, 4), 10)
    assert edges.channels == 16
    assert edges.loss(edge_map(images).flatten(1), images, torch.zeros(2)) == 0


def test_edge_map_is_sobels() -> None:
    images = torch.rand(2, 3, 6, 7)
    for image, found in zip(images, edge_map(images), strict=True):
        grey = image.mean(0).numpy()
        expected = np.hypot(ndimage.sobel(grey, 0, mode="nearest"), ndimage.sobel(grey, 1, mode="nearest"))
        torch.testing.assert_close(found, torch.from_numpy(expected))
    step = torch.zeros(1, 1, 3, 4)
    step[..., 2:] = 1
    assert edge_map(step)[0].tolist() == [[0.0, 4.0, 4.0, 0.0]] * 3


def test_images_are_turned_each_by_its_own() -> None:
    images = torch.rand(5, 2, 3, 3)
    turns = torch.tensor([0, 1, 2, 3, 1])
    for image, k, found in zip(images, turns.tolist(), turned(images, turns), strict=True):
        assert torch.equal(found, torch.from_numpy(np.rot90(image.numpy(), k, (1, 2)).copy()))
    rotation = image_task("rotation", (2, 3, 3), 10)
    assert rotation.posed and rotation.channels == 4
    out = torch.randn(5, 4)
    torch.testing.assert_close(rotation.loss(out, images, turns), F.cross_entropy(out, turns))


def test_unknown_tasks() -> None:
    with pytest.raises(ValueError, match="unknown auxiliary task on images 'jigsaw'"):
        image_task("jigsaw", (1, 2, 2), 2)
