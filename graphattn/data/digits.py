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
from graphattn.data.raw import RawGraph
from graphattn.data.splits import split_in_order
from graphattn.topology import knn

_NEIGHBOURS = 8
_STRIDE = 997


def read(manifest: Manifest, paths: Mapping[str, Path]) -> RawGraph:
    """The images, their graph and the public split; there are no files to read."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            f"{manifest.name}: the images come with scikit-learn, which is not installed: `pip install scikit-learn`"
        ) from error
    images, target = load_digits(return_X_y=True)
    features = (images / 16).astype(np.float32)
    labels = target.astype(np.int64)
    graph = knn(torch.from_numpy(features), _NEIGHBOURS)
    # A fixed stride visits the writers evenly and needs no random generator, so this split never changes.
    order = torch.arange(len(labels)) * _STRIDE % len(labels)
    public = split_in_order(order, torch.from_numpy(labels), manifest.splits["public"], f"{manifest.name}, public")
    return RawGraph(features, graph.senders.numpy(), graph.receivers.numpy(), labels, {"public": (public,)})
