"""Contestants take turns, and short calls come many to a turn."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from graphattn.bench import timing


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now.seconds)
    return now


def test_in_turns(clock: SimpleNamespace) -> None:
    calls = []

    def entry(name: str, seconds: float) -> SimpleNamespace:
        def run() -> None:
            calls.append(name)
            clock.seconds += seconds

        return SimpleNamespace(directions={"forward": run})

    times = timing.in_turns({"short": entry("short", 0.03125), "long": entry("long", 2.0)}, 5, "cpu")  # type: ignore[dict-item]
    assert times == {("short", "forward"): [31.25] * 5, ("long", "forward"): [2000.0] * 5}
    turn = ["short"] * 4 + ["long"]  # four times 31.25 ms are the first to fill a tenth of a second
    assert calls[:2] == ["short", "long"]
    assert calls[2:] == turn * 6


def test_mean_of_calls_that_differ(clock: SimpleNamespace) -> None:
    durations = iter([1.0, 3.0])

    def run() -> None:
        clock.seconds += next(durations)

    assert timing.seconds(run, "cpu", calls=2) == 2.0
