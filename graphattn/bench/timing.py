"""Wall time, taken in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from graphattn.bench.case import Entry

_WARM_UP = 2  # rounds; the first of all calls, which compile and order the graph, were made by the agreement check


def in_turns(entries: Mapping[str, Entry], repeats: int, device: str) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of each (contestant, direction); a round goes once through all of them."""
    runs = {(name, d): run for name, entry in entries.items() for d, run in entry.directions.items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for round_ in range(_WARM_UP + repeats):
        for key, run in runs.items():
            taken = seconds(run, device)
            if round_ >= _WARM_UP:
                times[key].append(1e3 * taken)
    return times


def seconds(run: Callable[[], Any], device: str) -> float:
    """Wall time of one call, on a GPU until its work is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def quantile(values: list[float], q: float) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(q))
