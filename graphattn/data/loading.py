"""One door to all data sets."""

from __future__ import annotations

from pathlib import Path

from graphattn.data import graph_sets
from graphattn.data import manifest as manifests
from graphattn.data.graph_sets import GraphSet, load_graphs
from graphattn.data.graphs import NodeData, load_nodes
from graphattn.data.images import Images, load_images
from graphattn.data.scene_sets import load_scenes
from graphattn.data.scenes import SceneSet
from graphattn.data.text import PairSet, TextSet
from graphattn.data.texts import load_texts


def load(
    name: str | Path,
    *,
    split: str | None = None,
    seed: int = 0,
    row_normalise: bool | None = None,
    dense: bool = False,
    reorder: bool = False,
    standardise: bool = False,
    centre: bool = False,
    folder: Path | None = None,
) -> NodeData | GraphSet | Images | SceneSet | PairSet | TextSet:
    """Load any data set: `load_nodes` if it is one graph, `load_graphs` if it is a set of graphs, `load_images` if it
    is one of images, `load_scenes` if there are objects in them, `load_texts` if it is one of texts.

    Raises:
        ValueError: also `row_normalise`, `dense` or `reorder` for a set of graphs, images or texts, and `standardise`
            or `centre` for what is no set of images of one class each.
    """
    manifest = manifests.read(name)
    if not manifest.of_images and (standardise or centre):
        raise ValueError(f"{name} is no set of images, whose pixels are scaled: leave out standardise and centre")
    other = manifest.of_images or manifest.of_scenes or manifest.of_texts
    if not other and manifest.format not in graph_sets.READERS:
        return load_nodes(
            name, split=split, seed=seed, row_normalise=row_normalise, dense=dense, reorder=reorder, folder=folder
        )
    kind = "texts" if manifest.of_texts else "images" if other else "graphs"
    for option, given in (("row_normalise", row_normalise), ("dense", dense), ("reorder", reorder)):
        if given:
            raise ValueError(f"{name} is a set of {kind}, which are handed out as they are: leave out {option}")
    if manifest.of_images:
        return load_images(name, split=split, seed=seed, standardise=standardise, centre=centre, folder=folder)
    if manifest.of_scenes:
        return load_scenes(name, split=split)
    if manifest.of_texts:
        return load_texts(name, split=split, folder=folder)
    return load_graphs(name, split=split, seed=seed, folder=folder)
