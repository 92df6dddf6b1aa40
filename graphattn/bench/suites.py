"""The cases by name, listed by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from graphattn.bench.case import AnyCase
from graphattn.bench.decoding import DecodingCase
from graphattn.bench.depth import DepthCase
from graphattn.bench.epochs import EpochCase
from graphattn.bench.graphs import MadeGraph
from graphattn.bench.grid import GridCase
from graphattn.bench.layers import LayerCase
from graphattn.bench.operations import OpCase
from graphattn.bench.orders import OrderCase
from graphattn.bench.scale import FullBatchCase, SampledCase
from graphattn.bench.seeds import SeedsCase
from graphattn.bench.sequence import SequenceCase
from graphattn.record import one_of
from graphattn.sequence import MIXERS

# Of the size of the data sets that they are named after, with loops, and as skewed as those are.
PPI = MadeGraph("ppi", "power-law", 4_700, 135_000)
PRODUCTS = MadeGraph("products", "power-law", 2_400_000, 62_000_000)
MESH = MadeGraph("mesh", "uniform", 41_000, 328_000)  # eight edges a node, as weather models have
ARXIV = MadeGraph("arxiv", "power-law", 169_000, 1_300_000)
PUBMED = MadeGraph("pubmed", "power-law", 19_700, 108_000)
CORA = MadeGraph("cora", "power-law", 2_700, 13_000)
HUB = MadeGraph("hub", "hub", 200_000, 1_200_000)  # a million edges into one node

LAYERS = (
    LayerCase("gat-ppi-50", "gat", PPI, in_features=50, heads=4, width=256),
    LayerCase("gat-ppi-256", "gat", PPI, in_features=256, heads=4, width=256),
    LayerCase("gat-ppi-1024", "gat", PPI, in_features=1024, heads=4, width=256),
    LayerCase("gat-arxiv", "gat", ARXIV, in_features=128, heads=4, width=64),
    LayerCase("gat-pubmed", "gat", PUBMED, in_features=500, heads=8, width=8),
    LayerCase("gat-cora", "gat", CORA, in_features=1433, heads=8, width=8),
    LayerCase("gat-edges-ppi", "gat", PPI, in_features=256, heads=4, width=256, edge_features=16),
    LayerCase("gatv2-ppi-50", "gatv2", PPI, in_features=50, heads=4, width=256),
    LayerCase("gatv2-ppi-256", "gatv2", PPI, in_features=256, heads=4, width=256),
    LayerCase("gatv2-ppi-1024", "gatv2", PPI, in_features=1024, heads=4, width=256),
    LayerCase("gatv2-arxiv", "gatv2", ARXIV, in_features=128, heads=4, width=64),
    LayerCase("gatv2-pubmed", "gatv2", PUBMED, in_features=500, heads=8, width=8),
    LayerCase("gatv2-cora", "gatv2", CORA, in_features=1433, heads=8, width=8),
    LayerCase("transformer-ppi-50", "transformer", PPI, in_features=50, heads=4, width=256),
    LayerCase("transformer-ppi-256", "transformer", PPI, in_features=256, heads=4, width=256),
    LayerCase("transformer-ppi-1024", "transformer", PPI, in_features=1024, heads=4, width=256),
    LayerCase("transformer-arxiv", "transformer", ARXIV, in_features=128, heads=4, width=64),
    LayerCase("transformer-pubmed", "transformer", PUBMED, in_features=500, heads=8, width=8),
    LayerCase("transformer-cora", "transformer", CORA, in_features=1433, heads=8, width=8),
    EpochCase("epoch-cora", "cora", bag_of_words=True),
    EpochCase("epoch-citeseer", "citeseer", bag_of_words=True),
    EpochCase("epoch-ppi", "ppi-rebuilt", one_graph=False),
)

OPS = (
    OpCase("attend-ppi", "attend", PPI, heads=4, width=256),
    OpCase("attend-ppi-one-head", "attend", PPI, heads=1, width=256),
    OpCase("attend-arxiv", "attend", ARXIV, heads=4, width=64),
    OpCase("attend-arxiv-one-head", "attend", ARXIV, heads=1, width=64),
    OpCase("attend-pubmed", "attend", PUBMED, heads=8, width=8),
    OpCase("additive-ppi", "additive", PPI, heads=4, width=256),
    OpCase("additive-arxiv", "additive", ARXIV, heads=4, width=64),
    OpCase("additive-pubmed", "additive", PUBMED, heads=8, width=8),
    OpCase("additive_v2-ppi", "additive_v2", PPI, heads=4, width=256),
    OpCase("additive_v2-arxiv", "additive_v2", ARXIV, heads=4, width=64),
    OpCase("additive_v2-pubmed", "additive_v2", PUBMED, heads=8, width=8),
    OpCase("dot_product-ppi", "dot_product", PPI, heads=4, width=256),
    OpCase("dot_product-arxiv", "dot_product", ARXIV, heads=4, width=64),
    OpCase("dot_product-pubmed", "dot_product", PUBMED, heads=8, width=8),
)

_GROWING = [
    MadeGraph(f"{kind}-{edges}", kind, size // 10, size)  # ten edges a node
    for kind in ("uniform", "power-law")
    for edges, size in (("1e4", 10_000), ("1e5", 100_000), ("1e6", 1_000_000), ("1e7", 10_000_000))
]
SCALING = (
    *(LayerCase(f"gat-{g.name}", "gat", g, 64, heads=1, width=64, peers=("pyg",)) for g in (*_GROWING, HUB)),
    *(OpCase(f"additive-{g.name}", "additive", g, heads=1, width=64, peers=()) for g in (*_GROWING, HUB)),
)

# For a GPU, beside these: graphs as large as it takes, and half precision.
GPU = (
    LayerCase("gat-products", "gat", PRODUCTS, in_features=100, heads=1, width=32),
    LayerCase("gatv2-products", "gatv2", PRODUCTS, in_features=100, heads=1, width=32),
    LayerCase(
        "transformer-mesh-bf16", "transformer", MESH, 512, heads=16, width=64, edge_features=16, dtype="bfloat16"
    ),
    LayerCase("gat-hub", "gat", HUB, in_features=64, heads=1, width=64),
)

# What fills 24 GiB, and a sampled epoch of a graph that would not train whole.
SCALE = (
    *(
        FullBatchCase(f"full-batch-{nodes}m", MadeGraph(f"{nodes}m", "power-law", nodes * 10**6, 15 * nodes * 10**6))
        for nodes in (1, 2, 3, 4)
    ),
    SampledCase("sampled-2m", MadeGraph("2m", "power-law", 2_000_000, 30_000_000), trained=20_000),
)

ORDERS = tuple(
    OrderCase(f"order-{data_set}", data_set)
    for data_set in ("amazon-computers", "coauthor-physics", "tolokers", "minesweeper", "cora")
)

SEEDS = tuple(
    SeedsCase(f"seeds-{data_set}-{seeds}", data_set, bag_of_words=True, seeds=seeds)
    for data_set in ("cora", "citeseer")
    for seeds in (1, 5, 10, 20)
)

DEPTH = tuple(DepthCase(f"depth-{layers}", layers) for layers in (6, 18, 36))

GRID = (
    GridCase("attention-wise-fashion", images=4096, channels=1, size=28, heads=8),
    GridCase("attention-wise-fashion-16", images=4096, channels=1, size=28, heads=16),
    GridCase("attention-wise-cifar", images=1024, channels=3, size=32, heads=8),
    GridCase("attention-wise-wide", images=64, channels=16, size=32, heads=4),
    GridCase("attention-wise-few", images=16, channels=1, size=28, heads=8),
)

SEQUENCE = (
    *(SequenceCase(f"{m}-{steps}", m, steps) for steps in (128, 512, 2048, 8192, 16384) for m in MIXERS),
    *(SequenceCase(f"{m}-maps-{steps}", m, steps, maps=True) for steps in (512, 8192) for m in MIXERS),
    *(
        DecodingCase(f"decode-{'greedy' if beams == 1 else f'beam-{beams}'}-{steps}", beams, steps=steps)
        for steps in (32, 256)
        for beams in (1, 4)
    ),
)

SUITES: dict[str, tuple[AnyCase, ...]] = {
    "layers": LAYERS,
    "ops": OPS,
    "scaling": SCALING,
    "scale": SCALE,
    "seeds": SEEDS,
    "orders": ORDERS,
    "depth": DEPTH,
    "grid": GRID,
    "sequence": SEQUENCE,
    "gpu": GPU,
}


def chosen(suite: str, case: str = "", data_folder: Path | None = None) -> list[AnyCase]:
    """The cases of a suite whose name contains `case`; data sets are looked for in `data_folder` first.

    Raises:
        ValueError: no such suite, or no such case in it.
    """
    there = SUITES[one_of(suite, SUITES, "suite")]
    found = [c for c in there if case in c.name]
    if not found:
        one_of(case, [c.name for c in there], f"case of the suite {suite}:")
    return [replace(c, data_folder=data_folder) if isinstance(c, EpochCase | OrderCase) else c for c in found]
