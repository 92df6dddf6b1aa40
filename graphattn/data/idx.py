"""Images and labels in IDX files, compressed by gzip: MNIST's format, which Fashion-MNIST has too.

A file is two zero bytes, the type of its numbers (8: bytes), how many dimensions it has, the size of each (32 bits, the
high byte first), then the numbers. `train-images-idx3-ubyte.gz`, `train-labels-idx1-ubyte.gz` and, of the test, the
same with `t10k`.

LeCun, Cortes and Burges, The MNIST database of handwritten digits.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from graphattn.data.manifest import Manifest
from graphattn.data.raw import Array, RawImages

_BYTES = 8  # the type of the numbers


def read(manifest: Manifest, paths: Mapping[str, Path]) -> RawImages:
    """The four files.

    Raises:
        ValueError: other files than these four, or one that is no IDX file of bytes, or not whole.
    """
    needed = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    files = {file.name: file for file in manifest.files}
    if sorted(files) != sorted(needed):
        raise ValueError(f"{manifest.name}: the manifest lists {', '.join(files)}, needed {', '.join(needed)}")
    train, train_labels, test, test_labels = (
        _array(files[name].read_bytes(paths[name]), 3 if "images" in name else 1, f"{manifest.name}, {name}")
        for name in needed
    )
    return RawImages(train[:, None], train_labels.astype(np.int64), test[:, None], test_labels.astype(np.int64))


def _array(packed: bytes, dimensions: int, where: str) -> Array:
    try:
        content = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{where} is truncated or no gzip file: {error}. Take it again") from error
    head = 4 + 4 * dimensions
    if len(content) < head or content[:4] != bytes((0, 0, _BYTES, dimensions)):
        raise ValueError(
            f"{where} begins with {content[:4].hex(' ') or 'nothing'}, needed 00 00 {_BYTES:02x} {dimensions:02x} and "
            f"{dimensions} sizes: an IDX file of bytes in {dimensions} dimensions"
        )
    sizes = struct.unpack(f">{dimensions}I", content[4:head])
    if len(content) - head != math.prod(sizes):
        raise ValueError(
            f"{where} has {len(content) - head} numbers, needed {' x '.join(map(str, sizes))} as it says itself: it is "
            f"truncated; take it again"
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(sizes)
