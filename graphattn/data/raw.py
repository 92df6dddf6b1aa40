"""What the readers of file formats return: arrays as the files hold them, edges not yet cleaned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from graphattn.data.splits import Split

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Csr:
    """A sparse matrix by rows: row n holds `values[ptr[n]:ptr[n + 1]]` in `columns[ptr[n]:ptr[n + 1]]`.

    Raises:
        ValueError: arrays that contradict each other or the shape.
    """

    ptr: Array  # [N + 1] int64
    columns: Array  # [nnz] int64
    values: Array  # [nnz]
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        num_rows, num_columns = self.shape
        if self.ptr.shape != (num_rows + 1,) or self.columns.ndim != 1 or self.columns.shape != self.values.shape:
            raise ValueError(
                f"a sparse matrix of shape {self.shape} has {self.ptr.size} row pointers, {self.columns.size} columns "
                f"and {self.values.size} values: needed {num_rows + 1} pointers and as many columns as values"
            )
        if self.ptr[0] != 0 or self.ptr[-1] != len(self.columns) or (np.diff(self.ptr) < 0).any():
            raise ValueError(f"row pointers of a sparse matrix must rise from 0 to its {len(self.columns)} entries")
        if len(self.columns) and (self.columns.min() < 0 or self.columns.max() >= num_columns):
            raise ValueError(
                f"columns of a sparse matrix run from {self.columns.min()} to {self.columns.max()}, "
                f"needed 0 to {num_columns - 1}"
            )

    @property
    def rows(self) -> Array:
        """[nnz]: the row of each entry."""
        return np.repeat(np.arange(self.shape[0], dtype=np.int64), np.diff(self.ptr))

    @staticmethod
    def from_entries(rows: Array, columns: Array, values: Array, shape: tuple[int, int]) -> Csr:
        """Entries in any order; within a row their order is kept."""
        order = np.argsort(rows, kind="stable")
        ptr = np.zeros(shape[0] + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=shape[0]), out=ptr[1:])
        return Csr(ptr, columns[order].astype(np.int64), values[order], shape)

    @staticmethod
    def from_dense(matrix: Array) -> Csr:
        """The non-zeros of a dense matrix."""
        rows, columns = matrix.nonzero()
        return Csr.from_entries(rows, columns, matrix[rows, columns], (matrix.shape[0], matrix.shape[1]))


@dataclass(frozen=True, eq=False)
class RawGraph:
    """N nodes, F features; edges in any order, one or both directions, with whatever loops and duplicates there are.

    Labels are [N] int64, -1 where the files give none, or [N, T] floats, 0 or 1 for each of T tasks and NaN where the
    files give none. Edge features, if any, are [edges, D]: those of both directions, and of the first of duplicates.
    """

    features: Csr | Array  # [N, F]
    senders: Array  # [edges] int64
    receivers: Array  # [edges] int64
    labels: Array
    given: Mapping[str, Sequence[Split]] = field(default_factory=dict)  # splits that come with the files
    edge_features: Array | None = None


@dataclass(frozen=True, eq=False)
class RawGraphs:
    """G graphs of N nodes in all, one after the other; edges as in RawGraph, none between two graphs.

    Labels of nodes are [N, C] of 0 and 1, several a node. Labels of graphs are [G] int64, one class a graph, or [G, T]
    floats as in RawGraph; edge features too are as there.
    """

    features: Array  # [N, F]
    labels: Array
    graph: Array  # [N] int64: the graph of each node, ascending from 0
    senders: Array  # [edges] int64
    receivers: Array  # [edges] int64
    given: Mapping[str, Sequence[Split]] = field(default_factory=dict)  # splits of the graphs that come with the files
    labels_of: Literal["nodes", "graphs"] = "nodes"
    edge_features: Array | None = None


@dataclass(frozen=True, eq=False)
class RawImages:
    """Images [N, C, H, W] of bytes and the class of each, [N] int64: those to learn from, and those of the test."""

    train: Array
    train_labels: Array
    test: Array
    test_labels: Array
