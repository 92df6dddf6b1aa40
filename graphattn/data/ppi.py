"""The inductive PPI set as GraphSAGE's authors give it out: three parts, `train`, `valid` and `test`, of four files.

`PART_graph.json` (networkx's node-link form: `nodes`, and `links` with `source` and `target`, which count the part's
nodes), `PART_feats.npy` [N, F], `PART_labels.npy` [N, C] of 0 and 1, and `PART_graph_id.npy` [N].

Hamilton, Ying and Leskovec, Inductive Representation Learning on Large Graphs, NeurIPS 2017.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from graphattn.data.manifest import Manifest
from graphattn.data.raw import Array, RawGraphs
from graphattn.data.splits import Split

_PARTS = ("train", "valid", "test")
_FILES = ("graph.json", "feats.npy", "labels.npy", "graph_id.npy")


def read(manifest: Manifest, paths: Mapping[str, Path]) -> RawGraphs:
    """The files give the split called `fixed`: the graphs of the three parts."""
    files = {file.name: file for file in manifest.files}
    needed = {f"{part}_{kind}" for part in _PARTS for kind in _FILES}
    if set(files) != needed:
        raise ValueError(f"{manifest.name}: the manifest lists the files {sorted(files)}, needed {sorted(needed)}")

    def content(part: str, kind: str) -> bytes:
        name = f"{part}_{kind}"
        return files[name].read_bytes(paths[name])

    features, labels, graph, ends = [], [], [], []
    graphs: list[Tensor] = []
    nodes = first = 0  # of the parts before
    for part in _PARTS:
        where = f"{manifest.name}, {part}"
        x, y, ids = (_array(content(part, kind), f"{where}_{kind}") for kind in _FILES[1:])
        if x.ndim != 2 or y.ndim != 2 or not len(x) == len(y) == ids.size or ids.ndim != 1:
            raise ValueError(
                f"{where}: features have shape {x.shape}, labels {y.shape} and graph ids {ids.shape}; needed [N, F], "
                f"[N, C] and [N] with one N"
            )
        edges = _links(content(part, "graph.json"), f"{where}_graph.json")
        if edges.size and (edges.min() < 0 or edges.max() >= len(x)):
            raise ValueError(f"{where}: links run from {edges.min()} to {edges.max()}, needed 0 to {len(x) - 1}")
        distinct, positions = np.unique(ids, return_inverse=True)
        features.append(x)
        labels.append(y)
        graph.append(first + positions)
        ends.append(edges + nodes)
        graphs.append(torch.arange(first, first + len(distinct)))
        nodes, first = nodes + len(x), first + len(distinct)

    widths = {(x.shape[1], y.shape[1]) for x, y in zip(features, labels, strict=True)}
    if len(widths) > 1:
        raise ValueError(
            f"{manifest.name}: the parts have {sorted(widths)} features and labels, needed the same in each"
        )
    senders, receivers = np.concatenate(ends, axis=1)
    return RawGraphs(
        np.concatenate(features),
        np.concatenate(labels),
        np.concatenate(graph),
        senders,
        receivers,
        {"fixed": (Split(*graphs),)},
    )


def _array(content: bytes, where: str) -> Array:
    try:
        found: Any = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        raise ValueError(f"{where} is no readable array: {error}") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iufb":
        raise ValueError(f"{where} holds no array of numbers")
    return found


def _links(content: bytes, where: str) -> Array:
    """[2, links] int64."""
    try:
        links = json.loads(content)["links"]
        found = np.array([[link["source"] for link in links], [link["target"] for link in links]])
        if found.size and found.dtype != np.int64:  # else halves would be cut off
            raise TypeError(f"the ends of links are of type {found.dtype}, needed whole numbers")
        return found.astype(np.int64)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{where} is no graph in node-link form, {{'links': [{{'source': 0, 'target': 1}}, ...]}}: "
            f"{type(error).__name__}: {error}"
        ) from error
