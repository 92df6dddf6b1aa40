"""Attention-Wise layers: contestants agree, and the kernels keep no array of every head."""

from __future__ import annotations

import pytest
import torch

from graphattn.bench import memory, run
from graphattn.bench.grid import GridCase

CASE = GridCase("small", images=6, channels=2, size=5, heads=3)


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # torch's compiler uses torch.jit
@pytest.mark.usefixtures("quick")
def test_contestants_agree() -> None:
    (rows,) = run("grid", [CASE], 5)
    assert {row["contestant"]: row["status"] for row in rows} == dict.fromkeys(("graphattn", "compiled", "eager"), "ok")
    assert {(row["N"], row["E"], row["H"], row["D"]) for row in rows} == {(25, 250, 3, 2)}


def test_contestants_are_what_they_are_called() -> None:
    for name, ours in (("graphattn", True), ("eager", False)):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            CASE.build(name, "cpu").step()
        assert any(event.key == "graphattn::attention_wise" for event in seen.key_averages()) == ours


def test_what_is_kept_does_not_grow_with_the_heads() -> None:
    def kept(contestant: str, heads: int) -> float:
        case = GridCase("small", images=64, channels=1, size=12, heads=heads)
        return memory.kept(case.build(contestant, "cpu"))[0]

    one = 64 * 12 * 12 * 4 / 2**20
    assert kept("graphattn", 8) == pytest.approx(kept("graphattn", 1), rel=0.01)
    assert kept("graphattn", 8) < 3 * one < 40 * one < kept("eager", 8)


def test_more_memory_than_there_is() -> None:
    case = GridCase("vast", images=10**7, channels=8, size=64, heads=8)
    reason = case.obstacle("eager", "cpu")
    assert reason is not None and "GiB are free" in reason
    assert case.obstacle("graphattn", "cpu") is None
