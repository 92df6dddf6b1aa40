"""Graphs that fill the memory: each contestant in a process of its own, on sizes that a test can take."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import pytest
import torch

from graphattn.bench import SUITES, memory, run
from graphattn.bench.case import Alone
from graphattn.bench.graphs import MadeGraph
from graphattn.bench.rows import COLUMNS
from graphattn.bench.scale import FullBatchCase, SampledCase

GRAPH = MadeGraph("tiny", "power-law", 400, 4000)
SIZES: dict[str, Any] = {"in_features": 6, "num_classes": 3, "heads": 2, "width": 4, "trained": 100}
FULL = FullBatchCase("full-tiny", GRAPH, **SIZES)
SAMPLED = SampledCase("sampled-tiny", GRAPH, **SIZES, batch=40, neighbors=(3, 2, 2))


def test_the_whole_graph_in_every_step() -> None:
    (rows,) = run("scale", [FULL])
    assert all(set(row) <= set(COLUMNS) for row in rows)
    assert [(row["contestant"], row["direction"], row["status"]) for row in rows] == [
        (name, "training step", "ok") for name in FULL.contestants("cpu")
    ]
    for row in rows:
        assert 0 < row["p20_ms"] <= row["p50_ms"] <= row["p80_ms"] and row["peak_mib"] > 10 and row["repeats"] == 3
        assert (row["N"], row["E"], row["H"], row["D"]) == (400, 4000, 2, 4)


def test_contestants_train_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = []
    x, edges = torch.randn(400, 6), GRAPH.edge_index()
    for ours in (True, False):
        outputs.append(FULL._network(ours).eval()(x, edges))
    assert torch.allclose(*outputs, atol=1e-5)


def test_sampled_batches() -> None:
    (rows,) = run("scale", [replace(SAMPLED, graph=GRAPH)])
    assert {row["status"] for row in rows} == {"ok"}
    found = {(row["contestant"], row["direction"]): row for row in rows}
    assert list(found) == [(name, d) for name in ("graphattn", "pyg") for d in SAMPLED.directions]
    for name in ("graphattn", "pyg"):
        assert found[name, "sampling"]["repeats"] == found[name, "training step"]["repeats"] == 3  # of 100 nodes
        assert found[name, "epoch"]["p50_ms"] > found[name, "training step"]["p50_ms"]
        assert found[name, "training step"]["peak_mib"] > 10


@dataclass(frozen=True)
class Greedy(Alone):
    name: str = "greedy"
    directions = ("training step",)

    def contestants(self, device: str) -> tuple[str, ...]:
        return ("modest", "greedy", "hopeless")

    def obstacle(self, contestant: str, device: str) -> str | None:
        return "needs more" if contestant == "hopeless" else None

    def about(self) -> dict[str, Any]:
        return {"op": "none"}

    def measure(self, contestant: str, device: str) -> Iterator[dict[str, Any]]:
        torch.empty(8 if contestant == "modest" else 2**45)
        yield {"direction": "training step", "p50_ms": 1.0}


def test_one_that_needs_more_memory_than_there_is_fails_alone() -> None:
    (rows,) = run("scale", [Greedy()])
    found = {row["contestant"]: row["status"] for row in rows}
    assert found["modest"] == "ok" and found["hopeless"] == "skipped: needs more"
    assert found["greedy"].startswith("failed: RuntimeError: ") and "allocate" in found["greedy"]


def _limited() -> tuple[int, float]:
    memory.limit_to_free()
    return resource.getrlimit(resource.RLIMIT_DATA)[0], memory.resident_peak()


def test_a_process_is_held_to_the_memory_that_is_free() -> None:
    free = memory._kibibytes("meminfo", "MemAvailable")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        limit, peak = pool.submit(_limited).result()
    assert 0.5 * free < limit / 2**10 < 2 * free
    assert 10 < peak < 10_000


def test_the_suite_reaches_two_million_nodes_and_thirty_million_edges() -> None:
    sizes = {(case.graph.num_nodes, case.graph.num_edges) for case in SUITES["scale"]}  # type: ignore[attr-defined]
    assert (2_000_000, 30_000_000) in sizes and max(sizes) > (2_000_000, 30_000_000)
