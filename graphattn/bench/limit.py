"""The machine's own limit: how fast it copies memory, and what an operation's forward pass has to move at least."""

from __future__ import annotations

import statistics

import torch

from graphattn.bench.timing import seconds

_FLOAT, _INDEX = 4, 8  # bytes: float32 values, int64 node indices


def forward_bytes(op: str, N: int, E: int, H: int, D: int) -> int:
    """What a fused forward pass over a graph of N nodes must move, in bytes; nothing E x H x D is ever written.

        gathered rows      E H D     (dot_product: 2 E H D, keys and values)
        scores             attend: E H, the logits;   additive: E H gathered from senders + N H of receivers;
                           additive_v2: N H D, the receivers' rows, + H D;   dot_product: N H D, the queries
        output, written    N H D
        indices            E + N + 1, of 8 bytes

    Everything but the indices is float32. A row is counted once for every edge that gathers it: an operation whose
    rows fit into the cache can therefore beat this limit, which stands for memory alone.
    """
    row = H * D
    scores = {"attend": E * H, "additive": E * H + N * H, "additive_v2": N * row + row, "dot_product": N * row}[op]
    gathered = E * row * (2 if op == "dot_product" else 1)
    return _FLOAT * (gathered + scores + N * row) + _INDEX * (E + N + 1)


def copy_bandwidth(device: str, mebibytes: int = 256) -> float:
    """Bytes a second that a large `copy_` reads and writes together, on the threads torch now has: median of 9."""
    source = torch.ones(mebibytes * 2**20 // _FLOAT, device=device)
    target = torch.zeros_like(source)
    times = [seconds(lambda: target.copy_(source), device) for _ in range(10)][1:]
    return 2 * source.nbytes / statistics.median(times)


def share(least_bytes: int, milliseconds: float, bandwidth: float) -> float:
    """The least time at that bandwidth over the measured time: 1 is the machine's limit, 0.1 is ten times slower."""
    return 1e3 * least_bytes / bandwidth / milliseconds
