"""Mixers of a sequence: contestants agree, and what they keep grows as it should."""

from __future__ import annotations

import pytest
import torch

from graphattn.bench import SUITES, memory, run
from graphattn.bench.sequence import SequenceCase
from graphattn.sequence import MIXERS, make_mixer
from graphattn.sequence.mixer import Mixer


def small(mixer: str, steps: int = 20, maps: bool = False) -> SequenceCase:
    return SequenceCase("small", mixer, steps, maps, channels=16, heads=2, kernel_size=5)  # type: ignore[arg-type]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("mixer", MIXERS)
def test_contestants_agree(mixer: str, maps: bool) -> None:
    case = small(mixer, maps=maps)
    (rows,) = run("sequence", [case], 5)
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["contestant"] for row in rows} == set(case.contestants("cpu"))
    edges = 20 * 21 // 2 if mixer == "self-attention" else 16 * 5 + 4 + 3 + 2 + 1
    assert {(row["N"], row["E"], row["H"], row["D"]) for row in rows} == {(20, edges, 2, 8)}


def kept(mixer: str, contestant: str, steps: int) -> float:
    return memory.kept(small(mixer, steps).build(contestant, "cpu"))[0]


@pytest.mark.parametrize("mixer", MIXERS)
def test_with_its_maps_it_is_the_mixer_of_a_block(mixer: Mixer) -> None:
    entry, whole = small(mixer, maps=True).build("graphattn", "cpu"), make_mixer(mixer, 16, 2, 5, causal=True)
    whole.load_state_dict({name: leaf for name, leaf in entry.leaves.items() if name != "x"})
    torch.testing.assert_close(entry.output(), whole(entry.leaves["x"]))


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
    cases = [case for case in SUITES["sequence"] if isinstance(case, SequenceCase) and not case.maps]
    for mixer in MIXERS:
        assert [case.steps for case in cases if case.mixer == mixer] == [128, 512, 2048, 8192, 16384]
