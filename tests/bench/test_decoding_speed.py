"""Decoding step by step: the mixers' models are of one size and all make as many steps."""

from __future__ import annotations

import pytest
import torch

from graphattn.bench import SUITES, run
from graphattn.bench.decoding import DecodingCase
from graphattn.bench.rows import COLUMNS
from graphattn.sequence import MIXERS
from graphattn.sequence.mixer import Mixer

SIZES = {"sentences": 3, "steps": 6, "channels": 16, "hidden": 40, "heads": 2, "kernels": (3, 5)}


def small(beams: int) -> DecodingCase:
    return DecodingCase("small", beams, **SIZES)  # type: ignore[arg-type]


def test_each_mixer_is_timed() -> None:
    (rows,) = run("sequence", [small(2)], 5)
    assert [(row["contestant"], row["direction"], row["status"]) for row in rows] == [
        (mixer, "decoding", "ok") for mixer in MIXERS
    ]
    for row in rows:
        assert set(row) <= set(COLUMNS)
        assert 0 < row["p20_ms"] <= row["p50_ms"] <= row["p80_ms"]
        assert (row["op"], row["N"], row["H"], row["D"]) == ("beam 2", 6, 2, 8)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("mixer", MIXERS)
def test_all_sentences_go_on_to_the_last_step_and_greedily_each_token_is_the_likeliest(
    mixer: Mixer, beams: int
) -> None:
    case, source = small(beams), torch.randint(4, 6000, (3, 6))
    torch.manual_seed(0)
    model = case.model(mixer)
    found = torch.tensor(case.decoded(model, source))
    assert found.shape == (3, 6)
    if beams == 1:
        with torch.no_grad():
            logits = model(source, torch.cat([torch.ones(3, 1, dtype=torch.int64), found[:, :-1]], 1))
        logits[..., 2] = -torch.inf
        assert torch.equal(logits.argmax(-1), found)


@pytest.mark.parametrize("case", [case for case in SUITES["sequence"] if isinstance(case, DecodingCase)])
def test_the_models_of_a_case_have_equally_many_parameters(case: DecodingCase) -> None:
    with torch.device("meta"):
        counts = [sum(p.numel() for p in case.model(mixer).parameters()) for mixer in MIXERS]
    assert max(counts) < 1.001 * min(counts)


def test_more_memory_than_there_is() -> None:
    reason = DecodingCase("vast", 4, sentences=10**8).obstacle("light", "cpu")
    assert reason is not None and "GiB are free" in reason


def test_the_suite_has_greedy_and_beam_search_and_short_and_long_sentences() -> None:
    cases = [case for case in SUITES["sequence"] if isinstance(case, DecodingCase)]
    assert {(case.beams, case.steps) for case in cases} == {(1, 32), (4, 32), (1, 256), (4, 256)}
