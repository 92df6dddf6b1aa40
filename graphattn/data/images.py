"""Sets of images of one size, each of one class: some to train on, some to choose by if wanted, some for the test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphattn.data import cifar, digits_images, idx
from graphattn.data import manifest as manifests
from graphattn.data.digest import digest_of
from graphattn.data.manifest import Manifest, Score
from graphattn.data.raw import Array, RawImages
from graphattn.record import one_of


@dataclass(frozen=True, eq=False)
class Images:
    """Images [N, C, H, W] of bytes and their classes [N] int64, of three parts; `val` may be empty.

    Models see numbers: (byte - offset) / scale, both [C, 1, 1] float32. See `pixels`.
    """

    name: str
    train: Tensor
    train_labels: Tensor
    val: Tensor
    val_labels: Tensor
    test: Tensor
    test_labels: Tensor
    num_classes: int
    offset: Tensor
    scale: Tensor
    score: Score = "accuracy"

    @property
    def in_channels(self) -> int:
        return self.train.shape[1]

    @property
    def image_size(self) -> int:
        """Rows, and as many columns.

        Raises:
            ValueError: they are not as many.
        """
        rows, columns = self.train.shape[2:]
        if rows != columns:
            raise ValueError(f"{self.name} has images of {rows} x {columns}, needed square ones: take another model")
        return rows

    def pixels(self, images: Tensor) -> Tensor:
        """What a model sees of images [N, C, H, W] of bytes: [N, C, H, W] float32."""
        return images.float().sub_(self.offset).div_(self.scale)

    def held_out(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Images and labels of those that validate, if any do, and of those that are tested."""
        parts = {"val": (self.val, self.val_labels), "test": (self.test, self.test_labels)}
        return {name: part for name, part in parts.items() if len(part[0])}

    def to(self, device: torch.device | str) -> Images:
        """The same data on another device."""
        moved: dict[str, Any] = {name: tensor.to(device) for name, tensor in self._tensors().items()}
        return replace(self, **moved)

    def digest(self) -> str:
        """Sixteen hex digits that change with anything in it."""
        return digest_of(self._tensors().values())

    def summary(self) -> str:
        """Its sizes in a line."""
        size = " x ".join(map(str, self.train.shape[1:]))
        parts = (self.train, self.val, self.test)
        return (
            f"{sum(map(len, parts))} images of {size}, {self.num_classes} classes; {len(self.train)} train, "
            f"{len(self.val)} validate, {len(self.test)} are tested"
        )

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


READERS: dict[str, Callable[[Manifest, Mapping[str, Path]], RawImages]] = {
    "cifar10": cifar.read_cifar10,
    "cifar100": cifar.read_cifar100,
    "idx": idx.read,
    "digits-images": digits_images.read,
}


def load_images(
    name: str | Path,
    *,
    split: str | None = None,
    seed: int = 0,
    standardise: bool = False,
    centre: bool = False,
    folder: Path | None = None,
) -> Images:
    """Load the set of images called `name` (see `names()`), or the one that a manifest of your own (a .toml path)
    describes.

    Args:
        split: `all`, every image that is not tested trains and none validates, or `held-out`, so many of them as the
            manifest says validate; default: the manifest's.
        seed: says which ones are held out.
        standardise: each channel has mean 0 and variance 1 over the training images; else bytes become 0 to 1.
        centre: bytes become -1 to 1.
        folder: where to look for the files first, laid out as FOLDER/NAME/<official file names>.

    Raises:
        ValueError: an unknown set or split; both `standardise` and `centre`; a truncated or altered file; sizes or
            labels that are wrong.
        FileNotFoundError: a file that is neither at hand nor downloadable.
    """
    if standardise and centre:
        raise ValueError("standardise and centre are both true, needed one of them at most: each scales the pixels")
    manifest = manifests.read(name)
    split = manifest.default_split if split is None else split
    one_of(split, manifest.splits, f"split of {manifest.name}")
    raw = READERS[one_of(manifest.format, READERS, f"format of sets of images in {manifest.name}:")](
        manifest, manifests.locate(manifest, folder)
    )
    _check(manifest, raw)
    train, val = _held_out(manifest, split, len(raw.train), seed)
    half = torch.full((manifest.sizes.shape[0],), 127.5)
    offset, scale = (half, half) if centre else (torch.zeros_like(half), 2 * half)
    if standardise:
        offset, scale = _moments(raw.train[train])
    return Images(
        manifest.name,
        *_part(raw.train, raw.train_labels, train),
        *_part(raw.train, raw.train_labels, val),
        *_part(raw.test, raw.test_labels, np.arange(len(raw.test))),
        num_classes=manifest.sizes.classes,
        offset=offset[:, None, None],
        scale=scale[:, None, None],
        score=manifest.score,
    )


def _check(manifest: Manifest, raw: RawImages) -> None:
    sizes = manifest.sizes
    found = {"train": (raw.train, raw.train_labels), "test": (raw.test, raw.test_labels)}
    for part, (images, labels) in found.items():
        needed = (sizes.tested if part == "test" else sizes.images - sizes.tested, *sizes.shape)
        if images.shape != needed or images.dtype != np.uint8:
            raise ValueError(
                f"{manifest.name}: the {part} images have shape {list(images.shape)}, needed {list(needed)} (the "
                f"manifest's [sizes])"
            )
        if labels.shape != needed[:1]:
            raise ValueError(f"{manifest.name}: {len(labels)} {part} labels for {len(images)} images, needed one each")
        wrong = (labels < 0) | (labels >= sizes.classes)
        if wrong.any():
            first = int(wrong.argmax())
            raise ValueError(
                f"{manifest.name}: the label of {part} image {first} is {labels[first]}, needed 0 to "
                f"{sizes.classes - 1}"
            )


def _held_out(manifest: Manifest, split: str, count: int, seed: int) -> tuple[Array, Array]:
    """Which of `count` images train, and which validate, both in the order of the files."""
    recipe = manifest.splits[split]
    if recipe.val is None or recipe.val >= count:
        raise ValueError(
            f"{manifest.name}, split {split!r}: val is {recipe.val}, needed how many of the {count} training images "
            f"validate; 0 for none"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()
    return np.sort(order[recipe.val :]), np.sort(order[: recipe.val])


def _moments(images: Array) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [C] of each channel; of one that never changes the latter is 1."""
    total, squares, count = 0.0, 0.0, images[:, 0].size
    for some in np.array_split(images, max(1, len(images) // 5000)):  # as float64 all of them would be too many
        values = some.astype(np.float64)
        total, squares = total + values.sum((0, 2, 3)), squares + (values**2).sum((0, 2, 3))
    mean = total / count
    variance = squares / count - mean**2
    std = np.sqrt(np.where(variance > 0, variance, 1))
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()


def _part(images: Array, labels: Array, chosen: Array) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images[chosen]), torch.from_numpy(labels[chosen])
