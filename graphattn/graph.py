"""A graph as four facts: who sends, who receives, and how many there are of each.

Everything in the toolkit runs over this record: the nodes may be the nodes of a graph, the layers of a network or the
tokens of a sequence. Letters, here and everywhere: N_s senders, N_r receivers, E edges, H heads, D values a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from graphattn import native


@dataclass(frozen=True, eq=False)
class Order:
    """The edges grouped by one of their ends (CSR by receiver, CSC by sender).

    The edges of node n are `edges[ptr[n]:ptr[n + 1]]`, as positions in the caller's edge list, and
    `others[ptr[n]:ptr[n + 1]]` are the nodes at their other ends. Within a group the caller's order is kept.
    """

    ptr: Tensor  # [N + 1]
    edges: Tensor  # [E]
    others: Tensor  # [E]


@dataclass(frozen=True, eq=False)
class Graph:
    """Edge e goes from node `senders[e]` to node `receivers[e]`.

    A square graph has as many senders as receivers, and node n is the same node in both roles; a bipartite one need
    not. Duplicate edges count as often as they are listed. The two orders are each sorted once, when first asked for.

    Raises:
        TypeError: indices that are no integers.
        ValueError: index tensors that are not 1-D, not equally long or not on one device; a negative size.
        IndexError: an index outside its range.
    """

    senders: Tensor  # [E], int64
    receivers: Tensor  # [E], int64
    num_senders: int
    num_receivers: int

    def __post_init__(self) -> None:
        for role in ("senders", "receivers"):
            index, size = getattr(self, role), getattr(self, f"num_{role}")
            object.__setattr__(self, role, _checked_index(role, index, size))
        if self.senders.shape != self.receivers.shape:
            raise ValueError(
                f"{self.senders.numel()} senders but {self.receivers.numel()} receivers: an edge needs one of each"
            )
        if self.senders.device != self.receivers.device:
            raise ValueError(
                f"senders are on {self.senders.device}, receivers on {self.receivers.device}: move both to one device"
            )

    @property
    def num_edges(self) -> int:
        return self.senders.numel()

    @property
    def device(self) -> torch.device:
        return self.senders.device

    @property
    def is_square(self) -> bool:
        return self.num_senders == self.num_receivers

    # Kept by hand: torch.compile cannot trace the lock in the cached_property of Python before 3.12.
    @property
    def by_receiver(self) -> Order:
        """Edges grouped by the node they enter; `others` are their senders."""
        if "_by_receiver" not in self.__dict__:
            order = _grouped(self.receivers, self.senders, self.num_receivers, self.num_senders)
            self.__dict__["_by_receiver"] = order
        return self.__dict__["_by_receiver"]

    @property
    def by_sender(self) -> Order:
        """Edges grouped by the node they leave; `others` are their receivers."""
        if "_by_sender" not in self.__dict__:
            order = _grouped(self.senders, self.receivers, self.num_senders, self.num_receivers)
            self.__dict__["_by_sender"] = order
        return self.__dict__["_by_sender"]

    @cached_property
    def in_degree(self) -> Tensor:
        """[N_r]: how many edges enter each receiver."""
        return torch.bincount(self.receivers, minlength=self.num_receivers)

    @cached_property
    def edge_index(self) -> Tensor:
        """[2, E], senders above receivers, as PyG's layers and ours take it: the same tensor each time."""
        return torch.stack([self.senders, self.receivers])

    @cached_property
    def pair(self) -> Tensor:
        """[E]: the position of each edge in a row-major N_r x N_s matrix, receiver first."""
        return self.receivers * self.num_senders + self.senders

    @cached_property
    def is_complete(self) -> bool:
        """Whether every receiver hears every sender exactly once."""
        if self.num_edges != self.num_senders * self.num_receivers:
            return False
        return bool((torch.bincount(self.pair, minlength=self.num_edges) == 1).all())

    def without_self_loops(self) -> Graph:
        """The same nodes, less the edges from a node to itself."""
        keep = self.senders != self.receivers
        return Graph(self.senders[keep], self.receivers[keep], self.num_senders, self.num_receivers)

    def with_self_loops(self) -> Graph:
        """One self-loop for each node that is both sender and receiver, after all other edges.

        Loops already there are dropped first, so that no node has two. In a bipartite graph the first
        min(N_s, N_r) nodes get one, as in PyG.
        """
        bare = self.without_self_loops()
        loops = torch.arange(min(self.num_senders, self.num_receivers), device=self.device)
        return Graph(
            torch.cat([bare.senders, loops]), torch.cat([bare.receivers, loops]), self.num_senders, self.num_receivers
        )

    def reverse(self) -> Graph:
        """Every edge turned round; the edges keep their positions."""
        return Graph(self.receivers, self.senders, self.num_receivers, self.num_senders)

    def to(self, device: torch.device | str) -> Graph:
        """The same graph on another device (itself if it is there already)."""
        if torch.empty(0, device=device).device == self.device:
            return self
        return Graph(self.senders.to(device), self.receivers.to(device), self.num_senders, self.num_receivers)

    def __repr__(self) -> str:
        return f"Graph(E={self.num_edges}, N_s={self.num_senders}, N_r={self.num_receivers}, device={self.device})"


def _checked_index(role: str, index: Tensor, size: int) -> Tensor:
    if not isinstance(index, Tensor):
        raise TypeError(f"{role} is a {type(index).__name__}: needed a 1-D integer tensor, e.g. torch.tensor([0, 1])")
    if index.dtype.is_floating_point or index.dtype.is_complex or index.dtype == torch.bool:
        raise TypeError(f"{role} has dtype {index.dtype}: node indices must be integers; convert with .long()")
    if index.dim() != 1:
        raise ValueError(f"{role} has shape {tuple(index.shape)}: needed one index an edge, shape [E]")
    if size < 0:
        raise ValueError(f"num_{role} is {size}: a number of nodes cannot be negative")
    index = index.to(torch.int64)
    if index.numel() and not torch.compiler.is_compiling():  # compiled code checks where it groups the edges
        low, high = (int(bound) for bound in torch.aminmax(index))
        if low < 0 or high >= size:
            wrong = low if low < 0 else high
            raise IndexError(
                f"{role} holds node {wrong}, but there are {size} nodes (0 to {size - 1}): "
                f"remove that edge or raise the number of nodes"
            )
    return index


def _grouped(ends: Tensor, others: Tensor, size: int, size_of_others: int) -> Order:
    with torch.inference_mode(False):  # kept for later, when training may need them
        return Order(*torch.ops.graphattn.group(ends, others, size, size_of_others))


@torch.library.custom_op("graphattn::group", mutates_args=())
def _group(ends: Tensor, others: Tensor, size: int, size_of_others: int) -> tuple[Tensor, Tensor, Tensor]:
    """ptr, edges and others of an Order: a stable counting sort where there are kernels, else torch's sort."""
    if native.kernels is not None and ends.device.type == "cpu":
        ptr, edges, grouped = _like_an_order(ends, size)
        given, made = native.inputs(ends, others), native.arrays(ptr, edges, grouped)
        native.kernels.group(*given, size_of_others, native.threads(), *made)
        return ptr, edges, grouped
    grouped, edges = torch.sort(ends, stable=True)
    ptr = torch.searchsorted(grouped, torch.arange(size + 1, device=ends.device))  # bincount would wait for a GPU
    return ptr, edges, others[edges]


@_group.register_fake
def _(ends: Tensor, others: Tensor, size: int, size_of_others: int) -> tuple[Tensor, Tensor, Tensor]:
    return _like_an_order(ends, size)


def _like_an_order(ends: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    return ends.new_empty(size + 1), ends.new_empty(ends.shape[0]), ends.new_empty(ends.shape[0])
