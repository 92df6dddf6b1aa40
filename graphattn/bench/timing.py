"""Wall time, taken in turns."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from graphattn.bench.case import Entry

_WARM_UP = 2  # rounds; the first of all calls, which compile and order the graph, were made by the agreement check
TURN = 0.1  # seconds


def in_turns(entries: Mapping[str, Entry], repeats: int, device: str) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of each (contestant, direction); a round goes once through all of them.

    A turn is one call, or for short calls as many as take a tenth of a second, as they follow each other in a training
    loop; of these the mean counts. A single short call would be timed with the caches that the one before it left.
    """
    runs = {(name, d): run for name, entry in entries.items() for d, run in entry.directions.items()}
    calls = dict.fromkeys(runs, 1)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for round_ in range(_WARM_UP + repeats):
        for key, run in runs.items():
            taken = seconds(run, device, calls[key])
            if round_ < _WARM_UP:
                calls[key] = max(1, math.ceil(TURN / taken))
            else:
                times[key].append(1e3 * taken)
    return times


def seconds(run: Callable[[], Any], device: str, calls: int = 1) -> float:
    """Mean wall time of calls in a row, on a GPU until their work is done; as in timeit, garbage waits meanwhile."""
    collects = gc.isenabled()
    gc.disable()
    try:
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            run()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / calls
    finally:
        if collects:
            gc.enable()


def quantile(values: list[float], q: float) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(q))
