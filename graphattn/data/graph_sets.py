"""Inductive data: sets of whole graphs, some to train on, some to choose by, some that are seen in the test alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphattn.data import manifest as manifests
from graphattn.data import ogb, ppi, ppi_like, tu
from graphattn.data.digest import digest_of
from graphattn.data.edges import both_directions, both_directions_with
from graphattn.data.manifest import Manifest, Score
from graphattn.data.raw import Array, RawGraphs
from graphattn.data.splits import choose
from graphattn.data.tasks import check_tasks
from graphattn.record import one_of


@dataclass(frozen=True, eq=False)
class GraphSet:
    """Graphs as PyG's `Data`: `x` [N, F] float32, `edge_index` [2, E] as in NodeData, and labels `y`.

    Where labels are those of nodes, each node has several of C: `y` [N, C] float32, of 0 and 1. Where they are those of
    graphs, each graph has one of C: `y` [1] int64; or C yes-or-no tasks: `y` [1, C] float32 of 0 and 1, NaN where
    nothing is known. `edge_attr` [E, num_edge_features] float32, if there are any.

    score: what labels of graphs are judged by.
    molecules: x and edge_attr are the categories of atoms and bonds that OGB has, for a model to embed.
    """

    name: str
    train: Sequence[Data]
    val: Sequence[Data]
    test: Sequence[Data]
    num_features: int
    num_classes: int
    labels_of: Literal["nodes", "graphs"] = "nodes"
    score: Score = "accuracy"
    num_edge_features: int = 0
    molecules: bool = False

    def to(self, device: torch.device | str) -> GraphSet:
        """The same data on another device."""
        train, val, test = ([graph.to(device) for graph in part] for part in (self.train, self.val, self.test))
        return replace(self, train=train, val=val, test=test)

    def digest(self) -> str:
        """Sixteen hex digits that change with anything in it."""
        graphs = [*self.train, *self.val, *self.test]
        kept = ["x", "edge_index", "y", *(["edge_attr"] if self.num_edge_features else [])]
        return digest_of(graph[key] for graph in graphs for key in kept)

    def summary(self) -> str:
        """Its sizes in a line."""
        graphs = [*self.train, *self.val, *self.test]
        nodes, edges = sum(graph.num_nodes for graph in graphs), sum(graph.num_edges for graph in graphs)
        labels = "labels" if self.labels_of == "nodes" else "tasks" if self.score == "roc_auc" else "classes"
        return (
            f"{len(graphs)} graphs, {nodes} nodes, {edges} edges, {self.num_features} features, "
            f"{self.num_classes} {labels}; "
            f"{len(self.train)} graphs train, {len(self.val)} validate, {len(self.test)} are tested"
        )


READERS: dict[str, Callable[[Manifest, Mapping[str, Path]], RawGraphs]] = {
    "ppi": ppi.read,
    "ppi-like": ppi_like.read,
    "tu": tu.read,
    "ogbg": ogb.read_graphs,
}


def load_graphs(name: str | Path, *, split: str | None = None, seed: int = 0, folder: Path | None = None) -> GraphSet:
    """Load the set of graphs called `name` (see `names()`), or the one that a manifest of your own (a .toml path)
    describes. Arguments and errors as those of `load_nodes`.
    """
    manifest = manifests.read(name)
    split = manifest.default_split if split is None else split
    one_of(split, manifest.splits, f"split of {manifest.name}")
    raw = READERS[one_of(manifest.format, READERS, f"format of sets of graphs in {manifest.name}:")](
        manifest, manifests.locate(manifest, folder)
    )
    _check(manifest, raw)
    graphs = _graphs(manifest, raw)
    by_class = raw.labels_of == "graphs" and not manifest.tasks
    labels = torch.from_numpy(raw.labels) if by_class else torch.zeros(len(graphs), dtype=torch.int64)
    chosen = choose(split, raw.given, labels, manifest.splits[split], seed, manifest.name, "graph")
    train, val, test = ([graphs[i] for i in part.tolist()] for part in chosen)
    if manifest.standardise:
        _standardise(graphs, torch.cat([graph.x for graph in train]))
    if manifest.tasks:
        parts = {"train": train, "val": val, "test": test}
        check_tasks(manifest, {part: torch.cat([graph.y for graph in own]) for part, own in parts.items()}, "graph")
    return GraphSet(
        manifest.name,
        train,
        val,
        test,
        num_features=manifest.sizes.features,
        num_classes=manifest.sizes.classes,
        labels_of=raw.labels_of,
        score=manifest.score,
        num_edge_features=manifest.sizes.edge_features,
        molecules=manifest.molecules,
    )


def _check(manifest: Manifest, raw: RawGraphs) -> None:
    manifest.check_size("nodes", len(raw.features))
    manifest.check_size("features", raw.features.shape[1])
    manifest.check_size("edge_features", 0 if raw.edge_features is None else raw.edge_features.shape[-1])
    steps = np.diff(raw.graph, prepend=-1 if len(raw.graph) else 0)
    if ((steps != 0) & (steps != 1)).any():
        raise ValueError(f"{manifest.name}: the nodes of a graph must follow each other, and the graphs each other")
    manifest.check_size("graphs", int(raw.graph.max(initial=-1)) + 1)
    if raw.labels_of == "graphs":
        _check_classes(manifest, raw.labels)
    else:
        _check_node_labels(manifest, raw.labels)
    wrong = ~np.isfinite(raw.features)
    if wrong.any():
        raise ValueError(
            f"{manifest.name}: {int(wrong.sum())} feature values are NaN or infinite, the first at node "
            f"{int(wrong.any(1).argmax())}; needed finite numbers. Repair the file and pin it again"
        )


def _check_node_labels(manifest: Manifest, labels: Array) -> None:
    manifest.check_size("classes", labels.shape[1])
    wrong = (labels != 0) & (labels != 1)
    if wrong.any():
        node, label = (int(index) for index in np.argwhere(wrong)[0])
        raise ValueError(f"{manifest.name}: label {label} of node {node} is {labels[node, label]}, needed 0 or 1")


def _check_classes(manifest: Manifest, labels: Array) -> None:
    if labels.shape[: 1 if manifest.tasks else None] != (manifest.sizes.graphs,):
        raise ValueError(f"{manifest.name}: {len(labels)} labels, needed one a graph, {manifest.sizes.graphs}")
    if manifest.tasks:
        return
    manifest.check_size("classes", int(labels.max(initial=-1)) + 1)
    if labels.min(initial=0) < 0:
        raise ValueError(
            f"{manifest.name}: a graph's label is {labels.min()}, needed 0 to {manifest.sizes.classes - 1}"
        )


def _standardise(graphs: Sequence[Data], sample: Tensor) -> None:
    """In place; a feature that never changes only loses its mean."""
    std, mean = torch.std_mean(sample.double(), 0, correction=0)
    std = torch.where(std > 0, std, 1)
    for graph in graphs:
        graph.x = ((graph.x - mean) / std).float()


def _graphs(manifest: Manifest, raw: RawGraphs) -> list[Data]:
    num_nodes, edge_attr = len(raw.graph), None
    if raw.edge_features is None:
        edge_index = both_directions(raw.senders, raw.receivers, num_nodes, manifest.name)
    else:
        ends = (raw.senders, raw.receivers)
        edge_index, edge_attr = both_directions_with(*ends, raw.edge_features, num_nodes, manifest.name)
    of = torch.from_numpy(raw.graph)
    between = of[edge_index[0]] != of[edge_index[1]]
    if between.any():
        sender, receiver = edge_index[:, between][:, 0].tolist()
        raise ValueError(
            f"{manifest.name}: {int(between.sum())} edges run between two graphs, the first from node {sender} to "
            f"{receiver}; needed edges within a graph"
        )
    manifest.check_size("edges", edge_index.shape[1])
    x = torch.from_numpy(raw.features.astype(np.float32))
    nodes = torch.bincount(of, minlength=manifest.sizes.graphs).tolist()
    edges = torch.bincount(of[edge_index[0]], minlength=manifest.sizes.graphs).tolist()
    first = np.cumsum([0, *nodes]).tolist()
    if raw.labels_of == "graphs":
        y = torch.from_numpy(raw.labels)
        labels = (y.float() if manifest.tasks else y).split(1)
    else:
        labels = torch.from_numpy(raw.labels.astype(np.float32)).split(nodes)
    parts = zip(x.split(nodes), edge_index.split(edges, dim=1), labels, first, strict=False)
    graphs = [
        Data(x=features.clone(), edge_index=own - start, y=own_labels.clone())
        for features, own, own_labels, start in parts
    ]
    if edge_attr is not None:
        for graph, own in zip(graphs, edge_attr.split(edges), strict=True):
            graph.edge_attr = own.clone()
    return graphs
