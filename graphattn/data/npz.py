"""Two `.npz` formats of node-classification graphs.

`gnn-benchmark` (Shchur et al. 2018, arXiv:1811.05868): adjacency `adj_*` and attributes `attr_*` as CSR arrays
(`data`, `indices`, `indptr`, `shape`) and `labels`. Names of classes and words may be pickled objects; they are never
read. The edges are stored as found, some in one direction only. We keep every node, as PyG does; the paper keeps the
largest component.

`heterophilous` (Platonov et al. 2023, arXiv:2302.11640): `node_features`, `node_labels`, `edges` [E, 2], each
undirected pair once, and ten fixed splits as masks `train_masks`, `val_masks`, `test_masks` [10, N].
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from graphattn.data.manifest import Manifest
from graphattn.data.raw import Array, Csr, RawGraph
from graphattn.data.splits import Split


def read_gnn_benchmark(manifest: Manifest, paths: Mapping[str, Path]) -> RawGraph:
    """Features stay sparse; the files give no split."""
    matrices = [f"{matrix}_{part}" for matrix in ("adj", "attr") for part in ("data", "indices", "indptr", "shape")]
    arrays = _arrays(manifest, paths, [*matrices, "labels"])
    adjacency, attributes = _csr(arrays, "adj"), _csr(arrays, "attr")
    return RawGraph(attributes, adjacency.rows, adjacency.columns, arrays["labels"].astype(np.int64))


def read_heterophilous(manifest: Manifest, paths: Mapping[str, Path]) -> RawGraph:
    """Features are dense; the file gives the splits called `fixed`."""
    masks = ("train_masks", "val_masks", "test_masks")
    arrays = _arrays(manifest, paths, ["node_features", "node_labels", "edges", *masks])
    edges, labels = arrays["edges"], arrays["node_labels"].astype(np.int64)
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise ValueError(f"{manifest.name}: edges have shape {edges.shape}, needed [E, 2]")
    shapes = {arrays[mask].shape for mask in masks}
    if len(shapes) > 1 or next(iter(shapes))[1:] != labels.shape:
        raise ValueError(f"{manifest.name}: split masks have shapes {shapes}, needed [splits, {len(labels)}] for each")
    ten = zip(*(arrays[mask] for mask in masks), strict=True)
    fixed = [Split(*(torch.from_numpy(row.nonzero()[0]) for row in rows)) for rows in ten]
    return RawGraph(
        arrays["node_features"], edges[:, 0].astype(np.int64), edges[:, 1].astype(np.int64), labels, {"fixed": fixed}
    )


def _arrays(manifest: Manifest, paths: Mapping[str, Path], needed: list[str]) -> dict[str, Array]:
    if len(manifest.files) != 1 or set(manifest.files[0].arrays) != set(needed):
        found = [(file.name, file.arrays) for file in manifest.files]
        raise ValueError(f"{manifest.name}: the manifest lists {found}, needed one file with the arrays {needed}")
    file = manifest.files[0]
    return file.read_arrays(paths[file.name])


def _csr(arrays: Mapping[str, Array], matrix: str) -> Csr:
    data, indices, ptr, shape = (arrays[f"{matrix}_{part}"] for part in ("data", "indices", "indptr", "shape"))
    num_rows, num_columns = (int(size) for size in shape)
    return Csr(ptr.astype(np.int64), indices.astype(np.int64), data, (num_rows, num_columns))
