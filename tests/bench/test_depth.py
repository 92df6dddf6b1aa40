"""Attention over layers: contestants agree, and what they keep grows as it should."""

from __future__ import annotations

import pytest

from graphattn.bench import memory, run
from graphattn.bench.depth import DepthCase


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # torch's compiler uses torch.jit
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # and reads .grad
@pytest.mark.usefixtures("quick")
def test_contestants_agree() -> None:
    case = DepthCase("depth-3", 3, batch=2, channels=8, size=4, dim=4)
    (rows,) = run("depth", [case], 5)
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["contestant"] for row in rows} == set(case.contestants("cpu"))
    assert {(row["N"], row["E"], row["H"]) for row in rows} == {(3, 6, 2)}


def kept(contestant: str, layers: int) -> float:
    case = DepthCase("depth", layers, batch=1, channels=16, size=64)
    return memory.kept(case.build(contestant, "cpu"))[0]


def test_a_list_keeps_as_many_maps_as_there_are_layers() -> None:
    one = 16 * 64 * 64 * 4 / 2**20
    for layers in (4, 8):
        assert kept("graphattn", layers) == pytest.approx(one * (layers + 1), rel=0.02)  # and the image itself


def test_a_concatenated_cache_keeps_as_many_as_there_are_edges() -> None:
    one = 16 * 64 * 64 * 4 / 2**20
    assert kept("concatenated", 8) > one * 8 * 9 / 2


def test_36_layers_of_the_published_size_keep_80_mib_at_most() -> None:
    case = DepthCase("depth-36", 36)
    assert memory.kept(case.build("graphattn", "cpu"))[0] <= 80


def test_more_memory_than_there_is() -> None:
    reason = DepthCase("depth", 100_000).obstacle("concatenated", "cpu")
    assert reason is not None and "GiB are free" in reason
    assert DepthCase("depth", 100_000).obstacle("graphattn", "cpu") is None
