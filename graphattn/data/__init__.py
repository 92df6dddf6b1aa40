"""Data sets: manifests that pin files, readers for their formats, and graphs ready to train on."""

from graphattn.data.graphs import NodeData, load
from graphattn.data.manifest import Manifest, names

__all__ = ["Manifest", "NodeData", "load", "names"]
