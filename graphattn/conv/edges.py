"""The edges a layer works on: PyG's edge_index with its self-loops, and the Graph of it, made once and kept.

A training loop passes the same `edge_index` at every step, so the result is remembered for as long as that tensor
lives and is not modified in place. Changes made behind torch's back, through NumPy or `edge_index.data`, are not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary
from torch_geometric import EdgeIndex
from torch_geometric.utils import add_self_loops, remove_self_loops

from graphattn.graph import Graph


@dataclass(frozen=True, eq=False)
class Edges:
    """`graph` in the edge order of `looped`: the edge_index with self-loops last, or None where none were added."""

    graph: Graph
    looped: Tensor | None

    def listed(self, edge_index: Tensor) -> Tensor:
        """The edges in the order of `graph` as a layer returns them; the caller may change what it gets."""
        return edge_index if self.looped is None else self.looped.clone()


_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def edges_of(edge_index: Tensor, num_senders: int, num_receivers: int, loops: int | None) -> Edges:
    """The edges of `edge_index` [2, E] between so many nodes, with one self-loop for each of the first `loops` nodes.

    Loops follow PyG: those already there are removed, the new ones come last; None leaves the edges as they are.

    Raises:
        ValueError, TypeError, IndexError: no [2, E] integer tensor, or an index outside its range.
    """
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"edge_index has shape {list(edge_index.shape)}: needed [2, E], senders above receivers")
    key = (num_senders, num_receivers, loops, edge_index.data_ptr())
    if edge_index.is_inference():  # such tensors count no versions, so a change could not be noticed
        return _made(edge_index, *key[:3])
    version, made = _known.get(edge_index, (None, {}))
    if version != edge_index._version:
        made = {}
        _known[edge_index] = (edge_index._version, made)
    if key not in made:
        with torch.inference_mode(False):  # kept for later, when training may need it
            made[key] = _made(edge_index, *key[:3])
    return made[key]


def looped_attr(edge_attr: Tensor, edge_index: Tensor, fill_value: float | Tensor | str, loops: int | None) -> Tensor:
    """Edge features [E, F] in the order of `Edges.looped`: without removed loops, those of new ones filled in."""
    if loops is None:
        return edge_attr
    edge_index, kept = remove_self_loops(edge_index, edge_attr)
    return add_self_loops(edge_index, kept, fill_value=fill_value, num_nodes=loops)[1]


def _made(edge_index: Tensor, num_senders: int, num_receivers: int, loops: int | None) -> Edges:
    looped = None
    if loops is not None:
        looped, _ = add_self_loops(remove_self_loops(edge_index)[0], num_nodes=loops)
    plain = edge_index if looped is None else looped
    plain = plain.as_tensor() if isinstance(plain, EdgeIndex) else plain
    # Cloned rows: a view would keep `edge_index` alive, and with it its own entry in `_known`.
    return Edges(Graph(plain[0].clone(), plain[1].clone(), num_senders, num_receivers), looped)
