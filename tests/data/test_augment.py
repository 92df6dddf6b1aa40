"""Pad, crop and flip against one image at a time in NumPy; every move is drawn, and drawn again from the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from graphattn.data.augment import PAD, Moves, crop_and_flip, random_moves


def one_by_one(images: Tensor, moves: Moves) -> Tensor:
    made = []
    for image, down, right, mirrored in zip(images.numpy(), *(part.tolist() for part in moves), strict=True):
        padded = np.pad(image, ((0, 0), (PAD, PAD), (PAD, PAD)))
        cut = padded[:, down : down + image.shape[1], right : right + image.shape[2]]
        made.append(cut[:, :, ::-1] if mirrored else cut)
    return torch.from_numpy(np.stack(made))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(40, 3, 6, 9), (1, 1, 1, 1), (3, 2, 8, 8)])
def test_as_one_image_at_a_time(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    images = torch.randint(1, 256, shape).to(dtype)
    moves = random_moves(shape[0])
    made = crop_and_flip(images.to(device), Moves(*(part.to(device) for part in moves)))
    assert made.dtype == dtype
    assert torch.equal(made.cpu(), one_by_one(images, moves))


def test_the_middle_is_where_it_was() -> None:
    images = torch.randint(256, (2, 3, 5, 5), dtype=torch.uint8)
    middle = torch.full((2,), PAD)
    still = Moves(middle, middle, torch.tensor([False, True]))
    made = crop_and_flip(images, still)
    assert torch.equal(made[0], images[0])
    assert torch.equal(made[1], images[1].flip(-1))


def test_every_move_is_drawn_about_as_often() -> None:
    down, right, mirrored = random_moves(9000)
    places = torch.bincount(down * (2 * PAD + 1) + right, minlength=81)
    assert places.numel() == 81 and int(places.min()) > 60 and int(places.max()) < 170
    assert 0.47 < float(mirrored.float().mean()) < 0.53


def test_moves_come_from_torchs_generator(device: torch.device) -> None:
    torch.manual_seed(3)
    first, second = random_moves(50, device), random_moves(50, device)
    torch.manual_seed(3)
    again = random_moves(50)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(first, again, strict=True)), "the same on every device"
    assert not torch.equal(first.down, second.down)


def test_moves_of_some() -> None:
    moves, ids = random_moves(20), torch.tensor([7, 0, 7])
    assert all(torch.equal(some, every[ids]) for some, every in zip(moves.of(ids), moves, strict=True))
