"""Sets of the Open Graph Benchmark, read from the raw files of OGB's own layout, where its package leaves them too:

    raw/edge, raw/num-node-list, raw/num-edge-list        a line an edge, a graph, a graph
    raw/node-feat, raw/edge-feat                          a line a node, an edge; either may be absent
    raw/node-label or raw/graph-label                     a line a node or a graph: a class, or an answer a task
    split/NAME/train, valid, test                         a line a node or a graph: its number

all gzipped CSV. An edge is listed once; where its direction means something, as in ogbn-arxiv, it is dropped, as the
models of the leaderboards do. Nodes without features get the mean of the features of the edges that enter them, as
OGB's own examples for ogbn-proteins do. What OGB's package has processed and pickled is never looked at. Reading needs
pandas, which comes with the extra `ogb`.

Hu et al., Open Graph Benchmark: Datasets for Machine Learning on Graphs, NeurIPS 2020, arXiv:2005.00687.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphattn.data.manifest import Manifest
from graphattn.data.molecules import check_categories
from graphattn.data.raw import Array, RawGraph, RawGraphs
from graphattn.data.splits import Split

_PARTS = ("train", "valid", "test")


def read_nodes(manifest: Manifest, paths: Mapping[str, Path]) -> RawGraph:
    """One graph with labels of nodes, and OGB's split."""
    tables = _Tables(manifest, paths, "node-label")
    edges, nodes_of, _ = _topology(tables)
    if len(nodes_of) != 1:
        raise ValueError(f"{manifest.name}: raw/num-node-list has {len(nodes_of)} graphs, needed one")
    edge_features, features = tables.get("edge-feat"), tables.get("node-feat")
    if features is None:
        if edge_features is None:
            raise ValueError(f"{manifest.name}: the manifest lists neither raw/node-feat nor raw/edge-feat, needed one")
        features = _mean_of_edges(edges, edge_features, int(nodes_of[0]), manifest.name)
    labels = _labels(tables["node-label"], manifest)
    return RawGraph(features, edges[0], edges[1], labels, tables.split(), edge_features)


def read_graphs(manifest: Manifest, paths: Mapping[str, Path]) -> RawGraphs:
    """Graphs with labels of each, and OGB's split."""
    tables = _Tables(manifest, paths, "graph-label", "node-feat")
    edges, nodes_of, edges_of = _topology(tables)
    features, edge_features = tables["node-feat"], tables.get("edge-feat")
    if len(features) != nodes_of.sum():
        raise ValueError(
            f"{manifest.name}: raw/node-feat has {len(features)} lines, needed {nodes_of.sum()}, the sum of "
            f"raw/num-node-list"
        )
    graph_of_edge = np.repeat(np.arange(len(edges_of)), edges_of)
    outside = ((edges < 0) | (edges >= nodes_of[graph_of_edge])).any(0)
    if outside.any():
        edge = int(outside.argmax())
        raise ValueError(
            f"{manifest.name}: edge {edge} runs from {edges[0, edge]} to {edges[1, edge]}, needed 0 to "
            f"{nodes_of[graph_of_edge[edge]] - 1}, the nodes of graph {graph_of_edge[edge]}"
        )
    if manifest.molecules:
        check_categories(features, "atom", manifest.name)
        if edge_features is not None:
            check_categories(edge_features, "bond", manifest.name)
    edges = edges + (np.cumsum(nodes_of) - nodes_of)[graph_of_edge]
    return RawGraphs(
        features,
        _labels(tables["graph-label"], manifest),
        np.repeat(np.arange(len(nodes_of)), nodes_of),
        edges[0],
        edges[1],
        tables.split(),
        labels_of="graphs",
        edge_features=edge_features,
    )


class _Tables:
    """The CSV files that a manifest lists, by what they hold; each is read when it is asked for.

    Raises:
        ValueError: files that are not those of the layout, with all those that are `needed`.
    """

    def __init__(self, manifest: Manifest, paths: Mapping[str, Path], *needed: str) -> None:
        self.manifest, self.paths = manifest, paths
        self.files = {file.name: file for file in manifest.files}
        listed = {f"raw/{kind}.csv.gz" for kind in ("edge", "num-node-list", "num-edge-list", *needed)}
        folders = {name.rpartition("/")[0] for name in self.files if name.startswith("split/")}
        self.splits = sorted(folder.removeprefix("split/") for folder in folders)
        listed |= {f"split/{name}/{part}.csv.gz" for name in self.splits or ["NAME"] for part in _PARTS}
        optional = {f"raw/{kind}.csv.gz" for kind in ("node-feat", "edge-feat")}
        if not listed <= set(self.files) <= listed | optional:
            raise ValueError(
                f"{manifest.name}: the manifest lists the files {sorted(self.files)}, needed {sorted(listed)} and at "
                f"most {sorted(optional - listed)} beside them"
            )

    def get(self, kind: str) -> Array | None:
        return self[kind] if f"raw/{kind}.csv.gz" in self.files else None

    def __getitem__(self, kind: str) -> Array:
        return self._read(f"raw/{kind}.csv.gz")

    def split(self) -> dict[str, tuple[Split, ...]]:
        """OGB's splits by name, ids ascending."""
        found: dict[str, tuple[Split, ...]] = {}
        for name in self.splits:
            parts = (_integers(self._read(f"split/{name}/{part}.csv.gz"), 1, self.manifest.name) for part in _PARTS)
            found[name] = (Split(*(torch.from_numpy(np.sort(part[:, 0])) for part in parts)),)
        return found

    def _read(self, name: str) -> Array:
        """[lines, columns]; a field that is empty is NaN."""
        try:
            import pandas
        except ImportError as error:
            raise ImportError("reading OGB's files needs pandas: pip install 'graphattn[ogb]'") from error
        content = self.files[name].read_bytes(self.paths[name])
        try:
            found: Any = pandas.read_csv(io.BytesIO(content), compression="gzip", header=None).to_numpy()
        except pandas.errors.EmptyDataError:
            return np.empty((0, 1), dtype=np.int64)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise ValueError(f"{self.manifest.name}, {name} is no gzipped CSV: {error}") from error
        if found.dtype.kind not in "iufb":
            raise ValueError(f"{self.manifest.name}, {name} holds no table of numbers")
        return found


def _topology(tables: _Tables) -> tuple[Array, Array, Array]:
    """Edges [2, E], and the numbers of nodes and of edges of each graph."""
    where = tables.manifest.name
    edges = _integers(tables["edge"], 2, where).T
    nodes_of, edges_of = (_integers(tables[kind], 1, where)[:, 0] for kind in ("num-node-list", "num-edge-list"))
    if len(nodes_of) != len(edges_of) or edges_of.sum() != edges.shape[1]:
        raise ValueError(
            f"{where}: raw/num-node-list has {len(nodes_of)} graphs, raw/num-edge-list {len(edges_of)} with "
            f"{edges_of.sum()} edges, raw/edge {edges.shape[1]} edges; needed the same. A file is truncated, or of "
            f"another release: take all of them again"
        )
    return edges, nodes_of, edges_of


def _integers(table: Array, columns: int, where: str) -> Array:
    if table.shape == (0, 1):
        table = table.reshape(0, columns)
    if table.dtype.kind not in "iu" or table.shape[1] != columns:
        raise ValueError(
            f"{where}: a file of numbers of nodes, edges or graphs has {table.shape[1]} columns of {table.dtype}, "
            f"needed {columns} of integers"
        )
    return table.astype(np.int64)


def _labels(labels: Array, manifest: Manifest) -> Array:
    """[n, T] float32 as they are, or from one column classes [n] int64, -1 where there is none."""
    if manifest.tasks:
        return np.array(labels, dtype=np.float32)
    if labels.shape[1] != 1:
        raise ValueError(f"{manifest.name}: labels have {labels.shape[1]} columns, needed 1: a class")
    column = labels[:, 0]
    column = np.where(np.isnan(column), -1, column) if column.dtype.kind == "f" else column
    if (column != np.floor(column)).any() or column.max(initial=0) >= manifest.sizes.classes:
        raise ValueError(
            f"{manifest.name}: labels run to {column.max():g}, needed whole numbers from 0 to "
            f"{manifest.sizes.classes - 1}"
        )
    return column.astype(np.int64)


def _mean_of_edges(edges: Array, features: Array, num_nodes: int, where: str) -> Array:
    """[N, D]: of the edges that end at a node, either way; zeros where there are none."""
    ends = edges.reshape(-1)
    if len(features) != edges.shape[1] or (len(ends) and (ends.min() < 0 or ends.max() >= num_nodes)):
        raise ValueError(
            f"{where}: {len(features)} edge features, {edges.shape[1]} edges between nodes up to "
            f"{ends.max(initial=-1)}; needed a line of features for each edge, and nodes from 0 to {num_nodes - 1}"
        )
    sums = np.stack([np.bincount(ends, np.tile(column, 2), num_nodes) for column in features.T], 1)
    return sums / np.maximum(np.bincount(ends, minlength=num_nodes), 1)[:, None]
