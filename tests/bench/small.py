"""Cases small enough to run for real in a test."""

from __future__ import annotations

from graphattn.bench.graphs import MadeGraph
from graphattn.bench.layers import LayerCase
from graphattn.bench.operations import OpCase

GRAPH = MadeGraph("tiny", "power-law", 40, 240)
SIZES = {"in_features": 6, "heads": 2, "width": 3}
UNCOMPILED = ("pyg", "torch-scatter")

GAT = LayerCase("gat-tiny", "gat", GRAPH, **SIZES, peers=UNCOMPILED)  # type: ignore[arg-type]
LAYERS = [
    GAT,
    LayerCase("gat-edges-tiny", "gat", GRAPH, **SIZES, edge_features=5, peers=UNCOMPILED),  # type: ignore[arg-type]
    LayerCase("gatv2-tiny", "gatv2", GRAPH, **SIZES, peers=UNCOMPILED),  # type: ignore[arg-type]
    LayerCase("transformer-tiny", "transformer", GRAPH, **SIZES, peers=UNCOMPILED),  # type: ignore[arg-type]
]
OPS = [
    OpCase("attend-one-head", "attend", GRAPH, heads=1, width=3),
    OpCase("attend-tiny", "attend", GRAPH, heads=2, width=3),
    OpCase("additive-tiny", "additive", GRAPH, heads=2, width=3),
    OpCase("additive_v2-tiny", "additive_v2", GRAPH, heads=2, width=3),
    OpCase("dot_product-tiny", "dot_product", GRAPH, heads=2, width=3),
]
