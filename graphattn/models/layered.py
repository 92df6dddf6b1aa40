"""Networks of layers that each hear one hop further: what is needed to run them hop by hop and layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.utils import trim_to_layer

PerHop = tuple[Sequence[int], Sequence[int]]  # num_sampled_nodes and num_sampled_edges of a sampled batch


class Layered(nn.Module):
    """`step(i, x, edge_index)` is layer i with all that goes before or after it; the network is its steps in order.

    A network with an `edge_dim` looks at the edges' features `edge_attr` [E, edge_dim], others refuse them.

    What a step gives a node depends on that node and its senders alone, so a step may be computed for some nodes from
    all edges that enter them.
    """

    layers: nn.ModuleList
    by_hop = True  # what asks whether `forward` takes `per_hop`
    recompute = False  # in training, keep each step's input alone and compute the rest again in the backward pass
    edge_dim: int | None = None

    def step(self, i: int, x: Any, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def forward(
        self,
        x: Any,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        *,
        per_hop: PerHop | None = None,
        only: int | None = None,
    ) -> Tensor:
        """`x` [N, F], `edge_index` [2, E] -> logits [N, C]; with `only`, that step alone, on what the one before gave.

        With `per_hop`, of a batch whose edges were sampled hop by hop: each layer leaves out the nodes and edges that
        its seeds no longer need, and the seeds' logits, the first rows, are as without. Layer i of L needs L - i hops.

        Raises:
            ValueError: features of edges for a network that would not look at them.
        """
        if edge_attr is not None and self.edge_dim is None:
            width = edge_attr.shape[-1] if edge_attr.dim() > 1 else 1
            raise ValueError(
                f"edge_attr was passed to a {type(self).__name__} without edge_dim, which would ignore it: build one "
                f"with edge_dim={width} if it has that option, or pass no edge_attr"
            )
        if only is not None:
            return self._step(only, x, edge_index, edge_attr)
        left_out = 0  # hops, the furthest first
        for i in range(len(self.layers)):
            if per_hop is not None:
                nodes, edges = map(list, per_hop)
                while len(edges) - left_out > len(self.layers) - i:
                    left_out += 1
                    x, edge_index, edge_attr = trim_to_layer(left_out, nodes, edges, x, edge_index, edge_attr)
            x = self._step(i, x, edge_index, edge_attr)
        return x

    def _step(self, i: int, x: Any, edge_index: Tensor, edge_attr: Tensor | None) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self.step, i, x, edge_index, edge_attr, use_reentrant=False)
        return self.step(i, x, edge_index, edge_attr)
