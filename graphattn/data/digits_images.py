"""Handwritten digits as images, with no download: scikit-learn carries 1,797 of 8 x 8 pixels.

They have no test set of their own (they are one themselves: of UCI's optical digits). A fifth of them, the last in an
order of fixed stride, which mixes the writers, is tested. A pixel, 0 to 16, becomes a byte, 0 to 255.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from graphattn.data.digits import mixed, pixels
from graphattn.data.manifest import Manifest
from graphattn.data.raw import RawImages


def read(manifest: Manifest, paths: Mapping[str, Path]) -> RawImages:
    """The images in two parts; there are no files to read."""
    images, labels = pixels(manifest)
    images = np.round(images.reshape(-1, 1, 8, 8) * 255 / 16).astype(np.uint8)
    order = mixed(len(labels))
    train, test = np.split(order, [len(order) - len(order) // 5])
    return RawImages(images[train], labels[train], images[test], labels[test])
