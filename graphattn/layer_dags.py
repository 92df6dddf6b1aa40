"""Graphs whose nodes are the layers of a network, numbered in the order they run; an edge j -> i: layer i reads layer
j.

Edges run forward or stay (a layer that reads what it just computed); they are sorted by receiver, then by sender. Each
is square; draw or export one through `topology.to_networkx`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from graphattn.graph import Graph


def chain(num_layers: int) -> Graph:
    """i - 1 -> i: a plain network."""
    return _dag(num_layers, lambda i: (i - 1,) if i else ())


def residual(num_layers: int) -> Graph:
    """i - 1 -> i and i -> i: a layer's own branch is added to the state before it."""
    return _dag(num_layers, lambda i: range(max(i - 1, 0), i + 1))


def history(num_layers: int, own: bool = True) -> Graph:
    """j -> i for all j < i, and i -> i with `own`."""
    return _dag(num_layers, lambda i: range(i + own))


def window(num_layers: int, width: int) -> Graph:
    """The last `width` layers up to and with i itself: i - width < j <= i.

    Raises:
        ValueError: a width below 1.
    """
    _at_least_one("width", width)
    return _dag(num_layers, lambda i: range(max(0, i - width + 1), i + 1))


def dilated(num_layers: int, dilation: int) -> Graph:
    """j -> i for all j <= i with j = i modulo `dilation`.

    Raises:
        ValueError: a dilation below 1.
    """
    _at_least_one("dilation", dilation)
    return _dag(num_layers, lambda i: range(i % dilation, i + 1, dilation))


def readout(num_layers: int) -> Graph:
    """All layers -> the last."""
    return _dag(num_layers, lambda i: range(num_layers) if i == num_layers - 1 else ())


def tree(num_layers: int) -> Graph:
    """The hierarchy of deep layer aggregation: layer i, counted from 1, closes as many subtrees of 2, 4, 8, ... layers
    as 2 divides i, and reads itself, the layer before it, and the layer that closed the left half of each.
    """
    return _dag(num_layers, lambda i: sorted({i} | {i - 2**level for level in range(_twos(i + 1))}))


def staged(sizes: Sequence[int], maker: Callable[[int], Graph] = history) -> Graph:
    """`maker` on each stage by itself, for stages of so many layers: no edge crosses from one to the next."""
    senders, receivers, offset = [], [], 0
    for size in sizes:
        part = maker(size)
        senders.append(part.senders + offset)
        receivers.append(part.receivers + offset)
        offset += size
    none = [torch.zeros(0, dtype=torch.int64, device="cpu")]
    return Graph(torch.cat(senders or none), torch.cat(receivers or none), offset, offset)


def _dag(num_layers: int, sources: Callable[[int], Iterable[int]]) -> Graph:
    if num_layers < 0:
        raise ValueError(f"num_layers is {num_layers}, needed a number that is not negative")
    edges = [(j, i) for i in range(num_layers) for j in sources(i)]
    senders, receivers = torch.tensor(edges, dtype=torch.int64, device="cpu").reshape(-1, 2).T
    return Graph(senders, receivers, num_layers, num_layers)


def _twos(number: int) -> int:
    """How often 2 divides a number."""
    return (number & -number).bit_length() - 1


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} is {value}, needed at least 1")
