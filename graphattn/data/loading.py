"""One door to all data sets."""

from __future__ import annotations

from pathlib import Path

from graphattn.data import graph_sets
from graphattn.data import manifest as manifests
from graphattn.data.graph_sets import GraphSet, load_graphs
from graphattn.data.graphs import NodeData, load_nodes


def load(
    name: str | Path,
    *,
    split: str | None = None,
    seed: int = 0,
    row_normalise: bool | None = None,
    dense: bool = False,
    reorder: bool = False,
    folder: Path | None = None,
) -> NodeData | GraphSet:
    """Load any data set: `load_nodes` if it is one graph, `load_graphs` if it is a set of graphs.

    Raises:
        ValueError: also `row_normalise`, `dense` or `reorder` for a set of graphs, which are handed out as they are.
    """
    if manifests.read(name).format not in graph_sets.READERS:
        return load_nodes(
            name, split=split, seed=seed, row_normalise=row_normalise, dense=dense, reorder=reorder, folder=folder
        )
    for option, given in (("row_normalise", row_normalise), ("dense", dense), ("reorder", reorder)):
        if given:
            raise ValueError(f"{name} is a set of graphs, which are handed out as they are: leave out {option}")
    return load_graphs(name, split=split, seed=seed, folder=folder)
