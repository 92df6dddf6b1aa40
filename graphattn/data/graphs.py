"""Node-classification data: one graph, one label a node, ready to train on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphattn.conv.sparse_linear import SparseFeatures
from graphattn.data import digits, npz, ogb, planetoid
from graphattn.data import manifest as manifests
from graphattn.data.digest import digest_of
from graphattn.data.edges import both_directions, both_directions_with
from graphattn.data.locality import locality_order, places
from graphattn.data.manifest import Manifest, Score
from graphattn.data.raw import Array, Csr, RawGraph
from graphattn.data.splits import Split, choose
from graphattn.data.tasks import check_tasks
from graphattn.record import one_of


@dataclass(frozen=True, eq=False)
class NodeData:
    """N nodes with F features and one of C labels each, E directed edges, and who trains, validates and is tested.

    `edge_index` is sorted by sender, then receiver; it holds both directions of each edge, no duplicate, no self-loop.
    `score` is what its validation and test nodes are judged by.

    Where labels are yes-or-no tasks, C counts these, and `y` is [N, C] float32 of 0 and 1, NaN where nothing is known.
    The 15 nodes of Citeseer without label have y = 0, as in the authors' code and PyG, and are in none of the sets.
    """

    name: str
    x: Tensor | SparseFeatures  # [N, F] float32
    edge_index: Tensor  # [2, E] int64, senders then receivers
    y: Tensor  # [N] int64, or [N, C] float32
    train: Tensor  # node ids, int64, ascending
    val: Tensor
    test: Tensor
    num_classes: int
    score: Score = "accuracy"
    edge_attr: Tensor | None = None  # [E, D] float32

    @property
    def num_nodes(self) -> int:
        return self.y.shape[0]

    @property
    def num_edge_features(self) -> int:
        return 0 if self.edge_attr is None else self.edge_attr.shape[1]

    @property
    def num_features(self) -> int:
        return int(self.x.shape[1])

    def to(self, device: torch.device | str) -> NodeData:
        """The same data on another device."""
        moved = {key: getattr(self, key).to(device) for key in ("x", "edge_index", "y", "train", "val", "test")}
        return replace(self, **moved, edge_attr=None if self.edge_attr is None else self.edge_attr.to(device))

    def held_out(self) -> dict[str, Tensor]:
        """The ids of the nodes that validate and of those that are tested."""
        return {"val": self.val, "test": self.test}

    def in_order(self, order: Tensor) -> NodeData:
        """The same data with other names: node `order[k]`, of [N], becomes node k."""
        place = places(order)
        senders, receivers = place[self.edge_index]
        keys, edges = (senders * self.num_nodes + receivers).sort()
        train, val, test = (place[nodes].sort().values for nodes in (self.train, self.val, self.test))
        return replace(
            self,
            x=self.x[order] if isinstance(self.x, Tensor) else self.x.with_rows(place),
            edge_index=torch.stack([keys // self.num_nodes, keys % self.num_nodes]),
            y=self.y[order],
            train=train,
            val=val,
            test=test,
            edge_attr=None if self.edge_attr is None else self.edge_attr[edges],
        )

    def summary(self) -> str:
        """Its sizes in a line."""
        edges = f", {self.num_edge_features} of edges" if self.num_edge_features else ""
        labels = "tasks" if self.y.dim() == 2 else "classes"
        return (
            f"{self.num_nodes} nodes, {self.edge_index.shape[1]} edges, {self.num_features} features{edges}, "
            f"{self.num_classes} {labels}; {self.train.numel()} train, {self.val.numel()} validate, "
            f"{self.test.numel()} are tested"
        )

    def digest(self) -> str:
        """Sixteen hex digits that change with anything in it."""
        x = [self.x] if isinstance(self.x, Tensor) else [self.x.graph.senders, self.x.graph.receivers, self.x.values]
        edges = [] if self.edge_attr is None else [self.edge_attr]
        return digest_of([*x, self.edge_index, *edges, self.y, self.train, self.val, self.test])

    def to_pyg(self) -> Data:
        """As PyG's `Data`, with dense features and boolean masks."""
        masks = {}
        for part in ("train", "val", "test"):
            mask = torch.zeros(self.num_nodes, dtype=torch.bool, device=self.y.device)
            mask[getattr(self, part)] = True
            masks[f"{part}_mask"] = mask
        x = self.x if isinstance(self.x, Tensor) else self.x.to_dense()
        return Data(x=x, edge_index=self.edge_index, edge_attr=self.edge_attr, y=self.y, **masks)


READERS: dict[str, Callable[[Manifest, Mapping[str, Path]], RawGraph]] = {
    "planetoid": planetoid.read,
    "gnn-benchmark": npz.read_gnn_benchmark,
    "heterophilous": npz.read_heterophilous,
    "digits": digits.read,
    "ogbn": ogb.read_nodes,
}


def load_nodes(
    name: str | Path,
    *,
    split: str | None = None,
    seed: int = 0,
    row_normalise: bool | None = None,
    dense: bool = False,
    reorder: bool = False,
    folder: Path | None = None,
) -> NodeData:
    """Load the one-graph set called `name` (see `names()`), or the one that a manifest of your own (a .toml path)
    describes.

    Args:
        split: `public`, `random`, `full` or `fixed`, as far as the set has it; default: the manifest's.
        seed: draws the random split; chooses the fixed one (`seed` modulo their number).
        row_normalise: scale each node's features to sum 1, all-zero rows excepted; default: the manifest's.
        dense: hand out a plain tensor even where most features are zero.
        reorder: call the nodes by their place in `locality_order`, which is faster on some graphs; see there.
        folder: where to look for the files first, laid out as FOLDER/NAME/<official file names>.

    Raises:
        ValueError: an unknown set or split; a truncated or altered file; sizes, indices or features that are wrong.
        FileNotFoundError: a file that is neither at hand nor downloadable.
    """
    manifest = manifests.read(name)
    split = manifest.default_split if split is None else split
    one_of(split, manifest.splits, f"split of {manifest.name}")
    raw = READERS[one_of(manifest.format, READERS, f"format of one-graph sets in {manifest.name}:")](
        manifest, manifests.locate(manifest, folder)
    )
    _check_sizes(manifest, raw)
    num_nodes, edge_attr = len(raw.labels), None
    if raw.edge_features is None:
        edge_index = both_directions(raw.senders, raw.receivers, num_nodes, manifest.name)
    else:
        ends = (raw.senders, raw.receivers)
        edge_index, edge_attr = both_directions_with(*ends, raw.edge_features, num_nodes, manifest.name)
    manifest.check_size("edges", edge_index.shape[1])
    labels = torch.from_numpy(raw.labels)
    classes = torch.zeros(num_nodes, dtype=torch.int64) if manifest.tasks else labels
    chosen = choose(split, raw.given, classes, manifest.splits[split], seed, manifest.name)
    if manifest.tasks:
        check_tasks(manifest, {part: labels[ids] for part, ids in chosen._asdict().items()}, "node")
    elif manifest.score == "roc_auc":
        _check_both_classes(manifest, chosen, labels)
    if row_normalise is None:
        row_normalise = manifest.row_normalise
    loaded = NodeData(
        name=manifest.name,
        x=_features(raw.features, manifest, row_normalise, dense),
        edge_index=edge_index,
        y=labels.float() if manifest.tasks else labels.clamp(min=0),
        train=chosen.train,
        val=chosen.val,
        test=chosen.test,
        num_classes=manifest.sizes.classes,
        score=manifest.score,
        edge_attr=edge_attr,
    )
    return loaded.in_order(locality_order(edge_index, loaded.num_nodes)) if reorder else loaded


def _check_sizes(manifest: Manifest, raw: RawGraph) -> None:
    needed = manifest.sizes
    if len(raw.features.shape) != 2 or raw.labels.shape[: 1 if manifest.tasks else None] != raw.features.shape[:1]:
        raise ValueError(
            f"{manifest.name}: features have shape {raw.features.shape} and labels {raw.labels.shape}; needed "
            f"[{needed.nodes}, {needed.features}] and [{needed.nodes}{f', {needed.classes}' if manifest.tasks else ''}]"
        )
    if not manifest.tasks and raw.labels.min(initial=0) < -1:
        raise ValueError(f"{manifest.name}: a label is {raw.labels.min()}, needed 0 to {needed.classes - 1}")
    manifest.check_size("nodes", raw.features.shape[0])
    manifest.check_size("features", raw.features.shape[1])
    manifest.check_size("edge_features", 0 if raw.edge_features is None else raw.edge_features.shape[-1])
    if not manifest.tasks:
        manifest.check_size("classes", int(raw.labels.max(initial=-1)) + 1)
    values = raw.features.values if isinstance(raw.features, Csr) else raw.features
    wrong = ~np.isfinite(values)
    if wrong.any():
        rows = raw.features.rows if isinstance(raw.features, Csr) else np.arange(len(values))[:, None] + 0 * wrong
        raise ValueError(
            f"{manifest.name}: {int(wrong.sum())} feature values are NaN or infinite, the first at node "
            f"{int(rows[wrong][0])}; needed finite numbers. Repair the file and pin it again"
        )


def _check_both_classes(manifest: Manifest, split: Split, labels: Tensor) -> None:
    for part in ("val", "test"):
        found = labels[getattr(split, part)].unique().tolist()
        if len(found) < 2:
            raise ValueError(
                f"{manifest.name}: all {part} nodes are of class {found[0]}; ROC-AUC needs nodes of both "
                f"classes: take another split, or leave out the manifest's score for accuracy"
            )


def _features(features: Csr | Array, manifest: Manifest, row_normalise: bool, dense: bool) -> Tensor | SparseFeatures:
    sparse = manifest.sparse and not dense
    if isinstance(features, Csr):
        values = _scaled(features.values, features.rows, features.shape[0], manifest.binary, row_normalise)
        held = SparseFeatures.from_csr(
            torch.from_numpy(features.ptr),
            torch.from_numpy(features.columns),
            torch.from_numpy(values),
            features.shape[1],
        )
        return held if sparse else held.to_dense()
    if sparse:
        return _features(Csr.from_dense(features), manifest, row_normalise, dense)
    rows = np.broadcast_to(np.arange(len(features))[:, None], features.shape)
    return torch.from_numpy(_scaled(features, rows, len(features), manifest.binary, row_normalise))


def _scaled(values: Array, rows: Array, num_rows: int, binary: bool, row_normalise: bool) -> Array:
    """float32; counts become 0/1 if `binary`; each row sums to 1 if `row_normalise` (rows that sum to 0 become 0)."""
    values = np.where(values > 0, 1, values) if binary else values
    if row_normalise:
        sums = np.bincount(rows.ravel(), weights=values.ravel(), minlength=num_rows)
        values = values * np.divide(1, sums, out=np.zeros_like(sums), where=sums != 0)[rows]
    return values.astype(np.float32)
