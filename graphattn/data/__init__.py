"""Data sets: manifests that pin files, readers of formats, graphs, images and texts to train on, and mini-batches."""

from graphattn.data.graph_sets import GraphSet, load_graphs
from graphattn.data.graphs import NodeData, load_nodes
from graphattn.data.images import Images, load_images
from graphattn.data.loading import load
from graphattn.data.locality import locality_order
from graphattn.data.manifest import Manifest, names
from graphattn.data.neighbor_loader import NeighborLoader
from graphattn.data.neighbor_sampler import NeighborSampler
from graphattn.data.scene_sets import load_scenes
from graphattn.data.scenes import Scenes, SceneSet
from graphattn.data.shapes import shapes
from graphattn.data.text import Pairs, PairSet, TextSet
from graphattn.data.texts import load_texts

__all__ = [
    "GraphSet",
    "Images",
    "Manifest",
    "NeighborLoader",
    "NeighborSampler",
    "NodeData",
    "PairSet",
    "Pairs",
    "SceneSet",
    "Scenes",
    "TextSet",
    "load",
    "load_graphs",
    "load_images",
    "load_nodes",
    "load_scenes",
    "load_texts",
    "locality_order",
    "names",
    "shapes",
]
