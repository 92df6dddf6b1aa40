"""Handwritten digits as a graph, with no download: scikit-learn carries the 1,797 images of 8 x 8 pixels.

Node = image, features = its pixels / 16, edges = the union of both directions of the 8-nearest-neighbour graph
(Euclidean). The public split imitates Planetoid's: 20 nodes a class train, 500 validate, the rest are tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from graphattn.data.manifest import Manifest
from graphattn.data.raw import Array, RawGraph
from graphattn.data.splits import split_in_order
from graphattn.topology import knn

_NEIGHBOURS = 8
_STRIDE = 997


def read(manifest: Manifest, paths: Mapping[str, Path]) -> RawGraph:
    """The images, their graph and the public split; there are no files to read."""
    images, labels = pixels(manifest)
    features = (images / 16).astype(np.float32)
    graph = knn(torch.from_numpy(features), _NEIGHBOURS)
    order = torch.from_numpy(mixed(len(labels)))
    public = split_in_order(order, torch.from_numpy(labels), manifest.splits["public"], f"{manifest.name}, public")
    return RawGraph(features, graph.senders.numpy(), graph.receivers.numpy(), labels, {"public": (public,)})


def pixels(manifest: Manifest) -> tuple[Array, Array]:
    """The images [1797, 64], of numbers from 0 to 16, and the digits [1797] int64 that they show."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            f"{manifest.name}: the images come with scikit-learn, which is not installed: `pip install scikit-learn`"
        ) from error
    images, target = load_digits(return_X_y=True)
    return images, target.astype(np.int64)


def mixed(count: int) -> Array:
    """0 to count - 1 in an order that visits the writers evenly and, of a fixed stride, never changes."""
    return np.arange(count) * _STRIDE % count
