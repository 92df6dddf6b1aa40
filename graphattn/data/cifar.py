"""CIFAR in its binary version: an image is its label, a byte, and its pixels, a byte each, by channel, row and column.

CIFAR-100 has two labels an image, the coarse one, of 20, and the fine one, of 100, which counts. Files whose names
begin with "test" are tested, the others are trained on, in the order of the manifest.

Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from graphattn.data.manifest import Manifest
from graphattn.data.raw import Array, RawImages


def read(manifest: Manifest, paths: Mapping[str, Path], label_bytes: int) -> RawImages:
    """The files' images, each behind `label_bytes` labels, of which the last counts.

    Raises:
        ValueError: a file that is not made of whole images; no file to train on, or none to test.
    """
    shape = manifest.sizes.shape
    parts: dict[bool, list[Array]] = {True: [], False: []}
    for file in manifest.files:
        rows = _rows(file.read_bytes(paths[file.name]), label_bytes + math.prod(shape), f"{manifest.name}, {file.name}")
        parts[file.name.startswith("test")].append(rows)
    for tested, rows_of in parts.items():
        if not rows_of:
            raise ValueError(
                f"{manifest.name}: the manifest lists {', '.join(paths) or 'no file'}, needed at least one "
                f"{'whose name begins with test' if tested else 'to train on'}"
            )
    train, test = (np.concatenate(parts[tested]) for tested in (False, True))
    found = [
        part
        for rows in (train, test)
        for part in (rows[:, label_bytes:].reshape(-1, *shape), rows[:, label_bytes - 1].astype(np.int64))
    ]
    return RawImages(*found)


read_cifar10 = partial(read, label_bytes=1)
read_cifar100 = partial(read, label_bytes=2)


def _rows(content: bytes, length: int, where: str) -> Array:
    """[images, length]"""
    if not content or len(content) % length:
        raise ValueError(f"{where} has {len(content)} bytes, needed a multiple of {length}, the bytes of an image")
    return np.frombuffer(content, np.uint8).reshape(-1, length)
