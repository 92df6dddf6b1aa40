"""DGL's GATConv and GATv2Conv, given the weights of PyG's layer, for machines where `import dgl` works."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import Tensor

# DGL's name of a weight -> PyG's. DGL's GATv2Conv adds no bias to its output; PyG's is zero at the start.
LAYERS: dict[str, tuple[str, dict[str, str]]] = {
    "gat": ("GATConv", {"fc.weight": "lin.weight", "attn_l": "att_src", "attn_r": "att_dst", "bias": "bias"}),
    "gatv2": (
        "GATv2Conv",
        {
            "fc_src.weight": "lin_l.weight",
            "fc_src.bias": "lin_l.bias",
            "fc_dst.weight": "lin_r.weight",
            "fc_dst.bias": "lin_r.bias",
            "attn": "att",
        },
    ),
}


def layer_like(kind: str, pyg_layer: Any) -> Callable[[Any, Tensor], Tensor]:
    """DGL's layer on the parameters of PyG's: (DGL graph, x [N, F]) -> [N, H * D].

    Raises:
        ImportError, OSError: DGL is installed and cannot be imported, as its wheels cannot beside newer torch.
    """
    name, weights = LAYERS[kind]
    layer = getattr(import_module("dgl.nn"), name)(pyg_layer.in_channels, pyg_layer.out_channels, pyg_layer.heads)
    for theirs, pygs in weights.items():
        owner, _, attribute = theirs.rpartition(".")
        setattr(layer.get_submodule(owner), attribute, pyg_layer.get_parameter(pygs))
    return lambda graph, x: layer(graph, x).flatten(1)


def made_graph(edge_index: Tensor, num_nodes: int) -> Any:
    """DGL's graph, which orders its edges when first asked."""
    return import_module("dgl").graph((edge_index[0], edge_index[1]), num_nodes=num_nodes)


def ordered(edge_index: Tensor, num_nodes: int) -> None:
    """Make the graph and all the orders of its edges that DGL's kernels choose from."""
    made_graph(edge_index, num_nodes).create_formats_()
