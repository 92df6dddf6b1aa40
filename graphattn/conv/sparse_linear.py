"""The first linear map of a bag of words: only the words that are there are multiplied.

A node-feature matrix with few non-zeros is a bipartite graph from features to nodes, one edge a non-zero, and its
product with a weight matrix is what the toolkit always does: sum the senders' values (rows of W^T) with the edges'
weights. Citation features are about 1 % dense, so this, and dropout on the non-zeros alone, costs a small part of the
dense map; on Cora the dense map costs more than all the rest of a GAT.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphattn import ops
from graphattn.graph import Graph
from graphattn.ops.dropout import Dropout, draw, scale


def sparse_linear(x: SparseFeatures, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b for sparse x [N, F], weight [D, F], bias [D]: [N, D], differentiable in weight and bias.

    With weight [H, D, F] and bias [H, D] it is H maps: [N, H, D]. If x has dropout, each has a mask of its own.

    Forward sums rows of W^T, the gradient of W is a sum over the graph turned round, both sorted once a graph. The
    features themselves get no gradient.

    Raises:
        ValueError: a weight that does not have one column a feature.
    """
    if weight.dim() not in (2, 3) or weight.shape[-1] != x.shape[1]:
        raise ValueError(f"weight has shape {list(weight.shape)}: needed [D, {x.shape[1]}], one column a feature")
    out = _matmul(x, weight.movedim(-1, 0))
    return out if bias is None else out + bias


class SparseFeatures:
    """A sparse [N, F] feature matrix: `graph` goes from F features to N nodes, `values[e]` is the entry of edge e.

    It stands in for a dense `x` where a model only maps, drops out and measures it: `F.linear`, `torch.matmul`,
    `F.dropout` and `torch.isnan(...).any()`-style checks through `values` work on it, so layers that begin with a
    linear map (ours, and PyG's GCNConv among others) take it as it is.
    """

    def __init__(self, graph: Graph, values: Tensor, mask: Dropout | None = None) -> None:
        """With a `mask`, the entries are `values` with that dropout, which a product applies as it goes."""
        if values.shape != (graph.num_edges,):
            raise ValueError(f"values has shape {list(values.shape)}: needed one entry an edge, [{graph.num_edges}]")
        self.graph, self.stored, self.mask = graph, values, mask

    @property
    def values(self) -> Tensor:
        if self.mask is None:
            return self.stored
        edges = torch.arange(self.graph.num_edges, device=self.device)
        return self.stored * scale(self.mask, edges, 1, self.dtype).squeeze(1)

    @classmethod
    def from_csr(cls, ptr: Tensor, columns: Tensor, values: Tensor, num_columns: int) -> SparseFeatures:
        """From CSR arrays: row n holds `values[ptr[n]:ptr[n + 1]]` in the columns `columns[ptr[n]:ptr[n + 1]]`."""
        rows = torch.arange(ptr.numel() - 1, device=ptr.device).repeat_interleave(ptr.diff())
        return cls(Graph(columns, rows, num_columns, ptr.numel() - 1), values)

    @classmethod
    def from_dense(cls, x: Tensor) -> SparseFeatures:
        """The non-zeros of a dense [N, F] matrix."""
        rows, columns = x.nonzero(as_tuple=True)
        return cls(Graph(columns, rows, x.shape[1], x.shape[0]), x[rows, columns])

    @property
    def shape(self) -> torch.Size:
        return torch.Size([self.graph.num_receivers, self.graph.num_senders])

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        return 2

    @property
    def dtype(self) -> torch.dtype:
        return self.stored.dtype

    @property
    def device(self) -> torch.device:
        return self.stored.device

    def with_rows(self, place: Tensor) -> SparseFeatures:
        """The same rows elsewhere: row n becomes row `place[n]`, of [N], each taken once."""
        graph = Graph(self.graph.senders, place[self.graph.receivers], self.shape[1], self.shape[0])
        return SparseFeatures(graph, self.values)

    def to(self, device: torch.device | str) -> SparseFeatures:
        return SparseFeatures(self.graph.to(device), self.values.to(device))

    def to_dense(self) -> Tensor:
        dense = self.stored.new_zeros(self.shape)
        return dense.index_put((self.graph.receivers, self.graph.senders), self.values, accumulate=True)

    def dropout(self, p: float, training: bool = True) -> SparseFeatures:
        """Dropout on the non-zeros: the same distribution as on the dense matrix, whose zeros stay zero anyway."""
        if not training or p == 0:
            return self
        return SparseFeatures(self.graph, self.values, draw(p, self.device))

    @classmethod
    def __torch_function__(
        cls, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.linear:
            return sparse_linear(*args, **kwargs)
        if function in (F.dropout, ops.feature_dropout):
            return _dropout(*args, **kwargs)
        if function is torch.matmul and isinstance(args[0], cls):
            return _matmul(*args)
        name = getattr(function, "__name__", str(function))
        raise TypeError(f"{name} does not take SparseFeatures: use linear, matmul or dropout, or x.to_dense() first")


def _dropout(x: SparseFeatures, p: float = 0.5, training: bool = True, inplace: bool = False) -> SparseFeatures:
    return x.dropout(p, training)


def _matmul(x: SparseFeatures, matrix: Tensor) -> Tensor:
    """[N, F] times [F, D], or times each head of [F, H, D]."""
    if x.stored.requires_grad:
        raise ValueError("the values of SparseFeatures need a gradient, which they get none of: use x.to_dense()")
    return ops.weighted_sum(x.stored.to(matrix.dtype), matrix, x.graph, x.mask)
