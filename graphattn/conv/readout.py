"""Read-out of a graph: attention of one node, the graph, over its nodes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.nn import aggr

from graphattn import ops
from graphattn.graph import Graph


class AttentionalAggregation(aggr.AttentionalAggregation):
    """The attentional read-out, a drop-in for `torch_geometric.nn.aggr.AttentionalAggregation`.

        out_g = sum over the nodes n of g of softmax_g(gate_nn(x))_n nn(x)_n

    It is `ops.attend` on the graph whose edges run from each node to the graph that holds it: senders are the nodes,
    receivers the graphs. A graph without nodes gets zeros.

    Shapes: x [N, F], index [N] (the graph of each node; absent: all of one); gate_nn gives [N, H], nn (if any) [N, D];
    out [G, D]. Arguments, parameters and state dict are PyG's, which takes H = 1, a weight a node, or H = D, a weight a
    channel; here H may be any divisor of D, a weight a head.

    Raises:
        ValueError: x of another shape; a gate whose heads do not divide D.

    Papers: Li et al., Gated Graph Sequence Neural Networks, ICLR 2016; Li et al., Graph Matching Networks for Learning
    the Similarity of Graph Structured Objects, ICML 2019.
    """

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        if x.dim() != 2 or dim not in (0, -2):
            raise ValueError(f"x has shape {list(x.shape)} and dim is {dim}: needed [N, F], read out over its rows")
        if index is None:
            assert ptr is not None  # PyG's __call__ puts in zeros where both are missing, and dim_size
            index = torch.arange(ptr.numel() - 1, device=ptr.device).repeat_interleave(ptr.diff())
        assert dim_size is not None
        gate = self._given(self.gate_mlp, self.gate_nn, x, index, dim_size)
        values = self._given(self.mlp, self.nn, x, index, dim_size)
        heads = gate.shape[1]
        if values.shape[1] % heads:
            raise ValueError(f"gate_nn gives {heads} weights a node, which do not divide {values.shape[1]} channels")
        values = values.view(len(values), heads, values.shape[1] // heads)
        return attentional_readout(gate, values, index, dim_size).flatten(1)

    @staticmethod
    def _given(mlp: torch.nn.Module | None, nn: torch.nn.Module | None, x: Tensor, index: Tensor, size: int) -> Tensor:
        """PyG hands the graphs to an MLP of its own, for its normalisation, and only x to any other module."""
        if mlp is not None:
            return mlp(x, batch=index, batch_size=size)
        return x if nn is None else nn(x)


def attentional_readout(logits: Tensor, values: Tensor, index: Tensor, num_graphs: int) -> Tensor:
    """Softmax of `logits` [N, H] over each graph's nodes, then the weighted sum of `values` [N, H, D]: [G, H, D]."""
    nodes = torch.arange(index.numel(), device=index.device)
    return ops.attend(logits, values, Graph(nodes, index, index.numel(), num_graphs))
