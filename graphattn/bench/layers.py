"""Whole layers, linear maps included: ours, PyG's eager and compiled, ours on torch-scatter, DGL's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn import conv as pyg

from graphattn import conv, ops
from graphattn.bench import dgl_layers, memory
from graphattn.bench.case import Case, Entry
from graphattn.bench.graphs import MadeGraph
from graphattn.graph import Order
from graphattn.topology import from_edge_index

_OURS = {"gat": conv.GATConv, "gatv2": conv.GATv2Conv, "transformer": conv.TransformerConv}
_PYGS = {"gat": pyg.GATConv, "gatv2": pyg.GATv2Conv, "transformer": pyg.TransformerConv}
_OPS = {"gat": "additive", "gatv2": "additive_v2", "transformer": "dot_product"}
PEERS = ("pyg", "pyg compiled", "torch-scatter", "dgl")


@dataclass(frozen=True)
class LayerCase(Case):
    """A layer of `heads` x `width` outputs on `in_features` inputs that want their gradient, as a hidden layer's do.

    The graph has its self-loops beforehand and the layers add none, so that no contestant pays for them. `forward` is
    without gradients; `training step` is forward and backward; `graph` is what ordering the edges costs, once.
    """

    baseline: ClassVar[str] = "pyg"

    name: str
    layer: Literal["gat", "gatv2", "transformer"]
    graph: MadeGraph
    in_features: int
    heads: int
    width: int
    edge_features: int = 0
    dtype: Literal["float32", "bfloat16"] = "float32"
    peers: tuple[str, ...] = PEERS

    @property
    def tolerance(self) -> float:
        """In half precision PyG sums in it, and loses a few percent."""
        return super().tolerance if self.dtype == "float32" else 5e-2

    def contestants(self, device: str) -> tuple[str, ...]:
        there = {"torch-scatter": find_spec("torch_scatter") is not None}
        there["dgl"] = find_spec("dgl") is not None and self.layer in dgl_layers.LAYERS and not self.edge_features
        return ("graphattn", *(peer for peer in self.peers if there.get(peer, True)))

    def obstacle(self, contestant: str, device: str) -> str | None:
        if contestant in ("graphattn", "dgl"):  # no tensor of E x H x D
            return None
        size = getattr(torch, self.dtype).itemsize
        needed = memory.unfused_step(_OPS[self.layer], self.graph.num_edges, self.heads, self.width, size)
        return memory.lack(needed, device)

    def about(self) -> dict[str, Any]:
        sizes = {"N": self.graph.num_nodes, "E": self.graph.num_edges, "H": self.heads, "D": self.width}
        features = {"in_features": self.in_features, "edge_features": self.edge_features, "dtype": self.dtype}
        return {"op": self.layer, "graph": self.graph.kind, **sizes, **features}

    def build(self, contestant: str, device: str) -> Entry:
        edge_index = self.graph.edge_index().to(device)
        num_nodes = self.graph.num_nodes
        generator = torch.Generator().manual_seed(self.graph.seed)
        dtype = getattr(torch, self.dtype)
        x = torch.randn(num_nodes, self.in_features, generator=generator).to(device, dtype).requires_grad_()
        inputs = {"x": x}
        if self.edge_features:
            edge_attr = torch.randn(self.graph.num_edges, self.edge_features, generator=generator)
            inputs["edge_attr"] = edge_attr.to(device, dtype)
        layer = self._layer(ours=contestant in ("graphattn", "torch-scatter")).to(device, dtype)
        call: Callable[..., Tensor] = layer
        if contestant == "pyg compiled":
            call = torch.compile(layer, fullgraph=True)

        def compute(edges: Tensor) -> Tensor:
            return call(edge_index=edges, **inputs)

        weights = dict(layer.named_parameters())
        common: dict[str, Any] = {"leaves": inputs | weights, "parameters": list(weights.values())}
        if contestant == "dgl":
            theirs = dgl_layers.layer_like(self.layer, layer)
            make_graph = partial(dgl_layers.made_graph, edge_index, num_nodes)
            order = partial(dgl_layers.ordered, edge_index, num_nodes)
            return Entry(lambda graph: theirs(graph, x), make_graph, order=order, **common)
        if contestant == "torch-scatter":
            return Entry(ops.use(backend="scatter")(compute), edge_index.clone, **common)
        if contestant == "graphattn":
            return Entry(compute, edge_index.clone, order=partial(_ordered, edge_index, num_nodes), **common)
        return Entry(compute, edge_index.clone, **common)

    def _layer(self, ours: bool) -> nn.Module:
        """With PyG's defaults, less the loops; both kinds draw the same weights."""
        options: dict[str, Any] = {} if self.layer == "transformer" else {"add_self_loops": False}
        if self.edge_features:
            options["edge_dim"] = self.edge_features
        torch.manual_seed(self.graph.seed)
        return (_OURS if ours else _PYGS)[self.layer](self.in_features, self.width, heads=self.heads, **options)


def _ordered(edge_index: Tensor, num_nodes: int) -> list[Order]:
    """What our layers do for an edge_index they have not met."""
    graph = from_edge_index(edge_index, num_nodes)
    return [graph.by_receiver, graph.by_sender]
