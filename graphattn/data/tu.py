"""Sets of graphs as TUDataset gives them out: text files of a set DS, whose nodes and graphs count from 1.

`DS_A.txt` (a line an edge: `sender, receiver`), `DS_graph_indicator.txt` (a line a node: its graph), and
`DS_graph_labels.txt` (a line a graph: its class, any integer). `DS_node_attributes.txt` (a line a node: numbers) and
`DS_node_labels.txt` (a line a node: an integer), or one of the two, are the features: the attributes, then each label
as a one-hot row, as in PyG's TUDataset with `use_node_attr=True`. Classes and labels are numbered from 0 in ascending
order.

Morris et al., TUDataset: A collection of benchmark datasets for learning with graphs, arXiv:2007.08663.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from graphattn.data.manifest import Manifest
from graphattn.data.raw import Array, RawGraphs

_NEEDED = ("A", "graph_indicator", "graph_labels")
_FEATURES = ("node_attributes", "node_labels")


def read(manifest: Manifest, paths: Mapping[str, Path]) -> RawGraphs:
    """The files, of one DS, give labels of graphs and no split."""
    files = {file.name: file for file in manifest.files}
    named = {kind: name for name in files for kind in (*_NEEDED, *_FEATURES) if name.endswith(f"_{kind}.txt")}
    if not {*_NEEDED} <= {*named} or len(named) == len(_NEEDED) or len(named) < len(files):
        raise ValueError(
            f"{manifest.name}: the manifest lists the files {sorted(files)}, needed DS_{{{', '.join(_NEEDED)}}}.txt "
            f"and at least one of DS_{{{', '.join(_FEATURES)}}}.txt"
        )

    def table(kind: str, dtype: type, columns: int | None = 1) -> Array:
        name = named[kind]
        return _table(files[name].read_bytes(paths[name]), dtype, columns, f"{manifest.name}, {name}")

    edges = table("A", np.int64, 2) - 1
    graph = table("graph_indicator", np.int64)[:, 0] - 1
    _, classes = np.unique(table("graph_labels", np.int64)[:, 0], return_inverse=True)
    features = []
    if "node_attributes" in named:
        features.append(table("node_attributes", np.float64, None))
    if "node_labels" in named:
        distinct, labels = np.unique(table("node_labels", np.int64)[:, 0], return_inverse=True)
        features.append(np.eye(len(distinct))[labels])
    lengths = {len(graph), *map(len, features)}
    if len(lengths) > 1:
        raise ValueError(f"{manifest.name}: the files of nodes have {sorted(lengths)} lines, needed as many in each")
    return RawGraphs(np.concatenate(features, 1), classes, graph, edges[:, 0], edges[:, 1], labels_of="graphs")


def _table(content: bytes, dtype: type, columns: int | None, where: str) -> Array:
    """[lines, columns], any number of columns if None."""
    if not content.strip():
        raise ValueError(f"{where} is empty: take it again")
    try:
        found: Array = np.loadtxt(io.BytesIO(content), dtype=dtype, delimiter=",", ndmin=2, comments=None)
    except ValueError as error:
        raise ValueError(f"{where} is no table of numbers with commas between: {error}") from error
    if columns is not None and found.shape[1] != columns:
        raise ValueError(f"{where} has {found.shape[1]} numbers a line, needed {columns}")
    return found
