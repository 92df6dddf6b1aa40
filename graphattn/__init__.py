"""Attention over graphs and layers: score each edge, softmax over the edges entering a node, sum the values."""

from graphattn.graph import Graph
from graphattn.ops import additive, additive_v2, attend, dot_product

__all__ = ["Graph", "additive", "additive_v2", "attend", "dot_product"]
__version__ = "0.1.0"
