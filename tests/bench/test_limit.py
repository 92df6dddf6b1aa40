"""The machine's limit, on numbers worked out by hand."""

from __future__ import annotations

import pytest

from graphattn.bench import limit

# N=2, E=3, H=2, D=5: a row is 10 floats; 6 indices.
BY_HAND = {
    "attend": 4 * (30 + 6 + 20) + 48,  # 3 rows gathered, 3 x 2 logits, 2 rows written
    "additive": 4 * (30 + 6 + 4 + 20) + 48,  # 3 x 2 scores of senders gathered, 2 x 2 of receivers
    "additive_v2": 4 * (30 + 20 + 10 + 20) + 48,  # 2 rows of receivers, the attention vectors
    "dot_product": 4 * (60 + 20 + 20) + 48,  # 3 keys and 3 values, 2 queries
}


@pytest.mark.parametrize(("op", "expected"), BY_HAND.items())
def test_forward_bytes(op: str, expected: int) -> None:
    assert limit.forward_bytes(op, N=2, E=3, H=2, D=5) == expected


def test_share() -> None:
    assert limit.share(2 * 10**9, milliseconds=1000.0, bandwidth=10e9) == pytest.approx(0.2)


def test_copy_bandwidth_counts_reading_and_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([99.0, *[0.5] * 3, 0.25, *[1.0] * 4, 0.125])  # the first does not count
    monkeypatch.setattr(limit, "seconds", lambda run, device: next(times))
    assert limit.copy_bandwidth("cpu", mebibytes=1) == 2 * 2**20 / 0.5


def test_copy_bandwidth_of_this_machine() -> None:
    assert 1e7 < limit.copy_bandwidth("cpu", mebibytes=1) < 1e14
