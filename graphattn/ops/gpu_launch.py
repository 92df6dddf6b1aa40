"""How the Triton kernels are launched: what a program holds, and how the edges of heavy nodes are shared out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from graphattn.graph import Order

LONGEST, SHORTEST = 1024, 64  # edges of a piece: a node with more is cut into several
RUNNING = 2048  # programs that a GPU runs at once, about
WHOLE = 2048  # edges: in a graph with no more, no node is cut; that saves the launches that add pieces
SHARES = 8192  # programs: with more receivers than these a program takes several, so that the shares of da are few
_EDGES = 4  # that come at once even where a node has fewer on average: some have more


class Tile(NamedTuple):
    """The edges, heads and values that a program holds at once, powers of two, and its warps."""

    edges: int
    heads: int
    values: int
    warps: int

    def programs(self, heads: int) -> int:
        """How many programs share the heads of a node."""
        return triton.cdiv(heads, self.heads)


def tile(heads: int, width: int, mean_degree: float, rows: int, dtype: torch.dtype) -> Tile:
    """A program takes all heads of a node, or as many as 2,048 values hold.

    A thread gets 4 values of a row, which is what it loads at once, until 8 warps are full. As many edges come at once
    as leave it 32 registers for them, `rows` rows each, but not many more than a node has on average.
    """
    values = triton.next_power_of_2(max(width, 1))
    heads = min(triton.next_power_of_2(heads), max(1, 2048 // values))
    warps = min(8, max(1, heads * values // 128))
    registers = 32 * 32 * warps // (rows * (2 if dtype == torch.float64 else 1))
    edges = min(32, max(1, registers // (heads * values)), triton.next_power_of_2(max(_EDGES, int(mean_degree))))
    return Tile(edges, heads, values, warps)


def computed_in(dtype: torch.dtype) -> Any:
    """What numbers of this dtype are computed in."""
    return tl.float64 if dtype == torch.float64 else tl.float32


def on_device(tensor: Tensor) -> AbstractContextManager:
    """Kernels launched within run where the tensor is."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def split(num_edges: int) -> int:
    """The edges of a piece: about as many as each of the programs that run at once would get, had all alike.

    Whoever has more is what the others wait for; whoever has less costs a launch's program and a row to be added.
    """
    return max(SHORTEST, min(LONGEST, num_edges // RUNNING))


def pieces(order: Order) -> Tensor:
    """[P, 2]: the node, or -1, and the first edge of each piece; made once for an order.

    P is what the number of edges allows at most, so nothing has to be asked of the device.
    """
    if "_pieces" not in order.__dict__:
        order.__dict__["_pieces"] = _pieces(order.ptr, order.edges.shape[0])
    return order.__dict__["_pieces"]


def _pieces(ptr: Tensor, num_edges: int) -> Tensor:
    if num_edges <= WHOLE:
        return ptr.new_empty((0, 2))
    degree, most = ptr.diff(), split(num_edges)
    count = torch.where(degree > most, (degree + most - 1) // most, 0)
    until = count.cumsum(0)
    piece = torch.arange(2 * num_edges // most, device=ptr.device)
    node = torch.searchsorted(until, piece, right=True)
    there = node < degree.numel()
    node = node.clamp(max=degree.numel() - 1)
    begin = ptr[node] + (piece - (until - count)[node]) * most
    return torch.stack([torch.where(there, node, -1), torch.where(there, begin, 0)], 1)
