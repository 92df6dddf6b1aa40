"""Makers of Graphs: from PyG's edge_index in any layout, from points, of a sequence or the pixels of a grid, and to and
from networkx.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from graphattn.graph import Graph

if TYPE_CHECKING:
    import networkx

_BLOCK = 2**24  # distances held at once


def from_edge_index(edge_index: Any, num_nodes: int | tuple[int, int] | None = None) -> Graph:
    """The Graph of PyG's `edge_index`: row 0 sends, row 1 receives.

    Takes a [2, E] integer tensor, a `torch_geometric.EdgeIndex`, or an adjacency in PyG's transposed convention (rows
    receive, columns send) as a `torch_sparse.SparseTensor` or a torch sparse tensor (COO, CSR or CSC; edges in the
    order of its indices).

    `num_nodes` is one number for a square graph or (senders, receivers). Where it is not given, a sparse matrix and
    an EdgeIndex know it; for a plain tensor it is the largest index plus one.

    Raises:
        TypeError, ValueError: no such layout. IndexError: an index outside num_nodes.
    """
    senders, receivers, size = _ends(edge_index)
    if num_nodes is None:
        largest = max((int(end.max()) for end in (senders, receivers) if end.numel()), default=-1)
        num_nodes = size or (largest + 1, largest + 1)
    num_senders, num_receivers = (num_nodes, num_nodes) if isinstance(num_nodes, int) else num_nodes
    return Graph(senders, receivers, num_senders, num_receivers)


def knn(points: Tensor, k: int) -> Graph:
    """Each point hears the k points nearest to it (Euclidean, itself excluded), nearest first; of equals, the first.

    `points` is [N, F]. Distances are computed in blocks of rows, so memory is a block times N, not N x N.

    Raises:
        ValueError: points that are not a finite [N, F] matrix, or k outside 1 .. N - 1.
    """
    if points.dim() != 2 or not points.isfinite().all():
        raise ValueError(f"points has shape {list(points.shape)}: needed a [N, F] matrix of finite numbers")
    n = points.shape[0]
    if not 1 <= k < n:
        raise ValueError(f"k is {k} for {n} points: needed between 1 and {n - 1}")
    points = points.double()  # in float32, points far from the origin lose the small differences between them
    rows = max(1, _BLOCK // n)
    nearest = []
    for start in range(0, n, rows):
        distance = torch.cdist(points[start : start + rows], points, compute_mode="donot_use_mm_for_euclid_dist")
        distance[torch.arange(distance.shape[0]), torch.arange(start, start + distance.shape[0])] = torch.inf
        nearest.append(distance.argsort(stable=True)[:, :k])
    receivers = torch.arange(n, device=points.device).repeat_interleave(k)
    return Graph(torch.cat(nearest).flatten(), receivers, n, n)


def band(length: int, left: int, right: int) -> Graph:
    """A sequence: each step hears itself, the `left` steps before it and the `right` after it, as far as they exist.

    Edges are listed receiver by receiver, the earliest sender first. With right = 0 the band is causal; with left and
    right of length - 1 or more it is a clique with self-loops.

    Raises:
        ValueError: a negative number.
    """
    for name, value in (("length", length), ("left", left), ("right", right)):
        if value < 0:
            raise ValueError(f"{name} is {value}: needed 0 or more")
    steps = torch.arange(length)
    offsets = torch.arange(-min(left, length), min(right, length) + 1)
    senders = steps.unsqueeze(1) + offsets
    exist = (senders >= 0) & (senders < length)
    return Graph(senders[exist], steps.unsqueeze(1).expand_as(senders)[exist], length, length)


def clique(n: int) -> Graph:
    """Each of n nodes hears all of them, itself too; receiver by receiver, senders in order.

    Raises:
        ValueError: a negative number of nodes.
    """
    return rows(1, n)


def rows(height: int, width: int) -> Graph:
    """Each pixel of a grid hears its whole row, itself too. Pixel (y, x) is node y * width + x.

    Raises:
        ValueError: a negative size.
    """
    return _cliques(_grid(height, width))


def columns(height: int, width: int) -> Graph:
    """Each pixel of a grid hears its whole column, itself too: `rows`, turned; edges go column by column.

    Raises:
        ValueError: a negative size.
    """
    return _cliques(_grid(height, width).t())


def from_networkx(graph: networkx.Graph) -> Graph:
    """Nodes are numbered in networkx's order; an undirected edge becomes one edge each way (a loop stays one).

    Parallel edges of a multigraph stay parallel.
    """
    number = {node: i for i, node in enumerate(graph.nodes)}
    edges = [(number[a], number[b]) for a, b in graph.edges()]
    if not graph.is_directed():
        edges += [(b, a) for a, b in edges if a != b]
    ends = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2)
    return Graph(ends[:, 0], ends[:, 1], len(number), len(number))


def to_networkx(graph: Graph) -> networkx.MultiDiGraph:
    """A directed multigraph whose edge keys are the edges' positions, so no duplicate is lost.

    In a bipartite graph the nodes are ("sender", i) and ("receiver", i); in a square one they are numbers.
    """
    import networkx

    drawn: networkx.MultiDiGraph = networkx.MultiDiGraph()
    senders: list[Any] = [i if graph.is_square else ("sender", i) for i in range(graph.num_senders)]
    receivers: list[Any] = [i if graph.is_square else ("receiver", i) for i in range(graph.num_receivers)]
    drawn.add_nodes_from(senders)
    drawn.add_nodes_from(receivers)
    ends = zip(graph.senders.tolist(), graph.receivers.tolist(), strict=True)
    for e, (s, r) in enumerate(ends):
        drawn.add_edge(senders[s], receivers[r], key=e)
    return drawn


def _grid(height: int, width: int) -> Tensor:
    """[height, width]: the numbers of the pixels."""
    if height < 0 or width < 0:
        raise ValueError(f"the grid is {height} x {width}: needed sizes that are not negative")
    return torch.arange(height * width).view(height, width)


def _cliques(groups: Tensor) -> Graph:
    """Each row [n] of `groups` is a clique; together they hold every node once."""
    count, n = groups.shape
    senders = groups.unsqueeze(1).expand(count, n, n).flatten()
    receivers = groups.unsqueeze(2).expand(count, n, n).flatten()
    return Graph(senders, receivers, groups.numel(), groups.numel())


def _ends(edge_index: Any) -> tuple[Tensor, Tensor, tuple[int, int] | None]:
    """(senders, receivers, (num_senders, num_receivers) where the layout knows it)"""
    if hasattr(edge_index, "coo") and hasattr(edge_index, "sparse_sizes"):  # torch_sparse.SparseTensor
        receivers, senders, _ = edge_index.coo()
        num_receivers, num_senders = edge_index.sparse_sizes()
        return senders, receivers, (num_senders, num_receivers)
    if not isinstance(edge_index, Tensor):
        raise TypeError(f"edge_index is a {type(edge_index).__name__}: needed a [2, E] integer or a sparse tensor")
    if edge_index.layout != torch.strided:
        return *_sparse_ends(edge_index), (edge_index.shape[1], edge_index.shape[0])
    size = None
    if hasattr(edge_index, "sparse_size"):  # torch_geometric.EdgeIndex
        known = edge_index.sparse_size()
        size = known if None not in known else None
        edge_index = edge_index.as_subclass(Tensor)
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"edge_index has shape {list(edge_index.shape)}: needed [2, E]; transpose a list of pairs")
    return edge_index[0], edge_index[1], size


def _sparse_ends(matrix: Tensor) -> tuple[Tensor, Tensor]:
    if matrix.layout == torch.sparse_coo:
        receivers, senders = matrix._indices()
        return senders, receivers
    if matrix.layout == torch.sparse_csr:
        counts = matrix.crow_indices().diff()
        return matrix.col_indices(), torch.arange(counts.numel(), device=matrix.device).repeat_interleave(counts)
    if matrix.layout == torch.sparse_csc:
        counts = matrix.ccol_indices().diff()
        return torch.arange(counts.numel(), device=matrix.device).repeat_interleave(counts), matrix.row_indices()
    raise ValueError(f"edge_index has layout {matrix.layout}: needed strided, sparse_coo, sparse_csr or sparse_csc")
