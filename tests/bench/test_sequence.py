"""Mixers of a sequence: contestants agree, and what they keep grows as it should."""

from __future__ import annotations

import pytest

from graphattn.bench import SUITES, memory, run
from graphattn.bench.sequence import SequenceCase
from graphattn.sequence import MIXERS


def small(mixer: str, steps: int = 20) -> SequenceCase:
    return SequenceCase(f"{mixer}-{steps}", mixer, steps, channels=16, heads=2, kernel_size=5)  # type: ignore[arg-type]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("mixer", MIXERS)
def test_contestants_agree(mixer: str) -> None:
    case = small(mixer)
    (rows,) = run("sequence", [case], 5)
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["contestant"] for row in rows} == set(case.contestants("cpu"))
    edges = 20 * 21 // 2 if mixer == "self-attention" else 16 * 5 + 4 + 3 + 2 + 1
    assert {(row["N"], row["E"], row["H"], row["D"]) for row in rows} == {(20, edges, 2, 8)}


def kept(mixer: str, contestant: str, steps: int) -> float:
    return memory.kept(small(mixer, steps).build(contestant, "cpu"))[0]


@pytest.mark.parametrize(("mixer", "contestant"), [(m, "graphattn") for m in MIXERS] + [("dynamic", "unfolded")])
def test_what_is_kept_grows_with_the_steps(mixer: str, contestant: str) -> None:
    assert kept(mixer, contestant, 800) == pytest.approx(2 * kept(mixer, contestant, 400), rel=0.05)


def test_matrices_are_kept_one_number_a_pair() -> None:
    assert kept("self-attention", "matrices", 800) > 2 * 800 * 800 * 4 / 2**20


def test_more_memory_than_there_is() -> None:
    for mixer, contestant in (("dynamic", "unfolded"), ("self-attention", "matrices")):
        reason = small(mixer, 10**9).obstacle(contestant, "cpu")
        assert reason is not None and "GiB are free" in reason
        assert small(mixer, 10**9).obstacle("graphattn", "cpu") is None


def test_the_suite_grows_from_128_to_16384_steps_for_each_mixer() -> None:
    steps = {mixer: [c.steps for c in SUITES["sequence"] if c.mixer == mixer] for mixer in MIXERS}  # type: ignore[attr-defined]
    assert set(map(tuple, steps.values())) == {(128, 512, 2048, 8192, 16384)}
