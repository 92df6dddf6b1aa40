"""Stopping rules on sequences written by hand: what is kept, and when it ends."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from graphattn.training.stopping import BestScore, Gat, GatScore, Last, Never, Patience, Rule, Window, rule

NAN, INF = float("nan"), float("inf")


def seen(stopping: Rule, epochs: list[tuple[float, float]]) -> tuple[list[int], int | None]:
    """The epochs that are kept, and the one that ends the run."""
    kept = []
    for epoch, (loss, accuracy) in enumerate(epochs):
        verdict = stopping.update(loss, accuracy)
        if verdict.keep:
            kept.append(epoch)
        if verdict.stop:
            return kept, epoch
    return kept, None


def losses(*values: float) -> list[tuple[float, float]]:
    return [(value, 50.0) for value in values]


@pytest.mark.parametrize(
    ("epochs", "kept", "end"),
    [
        pytest.param([(3, 10), (2, 20), (1, 30)], [0, 1, 2], None, id="both improve"),
        pytest.param([(3, 10), (3, 10), (3, 10)], [0, 1, 2], None, id="as good is good enough"),
        pytest.param([(3, 10), (2, 5), (1, 5), (0.5, 5)], [0], None, id="the loss alone goes on, but keeps nothing"),
        pytest.param([(3, 10), (4, 20), (5, 30), (6, 40)], [0], None, id="the accuracy alone too"),
        pytest.param([(3, 10), (2, 5), (2.5, 10)], [0], None, id="each compared with its own best, of any epoch"),
        pytest.param([(3, 10), (2, 5), (2, 10)], [0, 2], None, id="both bests again"),
        pytest.param([(3, 10), (4, 9), (5, 8), (6, 7)], [0], 2, id="two in a row without either"),
        pytest.param([(3, 10), (4, 9), (2, 9), (4, 9), (2, 1), (4, 9), (5, 9)], [0], 6, id="only in a row"),
        pytest.param([(3, 0), (2, 0)], [0, 1], None, id="an accuracy of zero counts"),
    ],
)
def test_gat(epochs: list[tuple[float, float]], kept: list[int], end: int | None) -> None:
    assert seen(Gat(patience=2), epochs) == (kept, end)


@pytest.mark.parametrize(
    ("epochs", "kept", "end"),
    [
        pytest.param([(3, 10), (4, 20), (5, 30), (6, 40)], [0, 1, 2, 3], None, id="whatever the loss does"),
        pytest.param([(3, 10), (2, 10), (1, 5), (0.5, 5)], [0], None, id="the first of equals, and the loss goes on"),
        pytest.param([(3, 10), (4, 9), (5, 8), (6, 7)], [0], 2, id="two in a row without either"),
        pytest.param([(3, 0), (3, 0)], [0], None, id="a score of zero is one"),
        pytest.param([(NAN, 20), (3, 15), (INF, 30), (3, 18), (3, 17)], [1, 3], None, id="not without a finite loss"),
    ],
)
def test_gat_score(epochs: list[tuple[float, float]], kept: list[int], end: int | None) -> None:
    assert seen(GatScore(patience=2), epochs) == (kept, end)


@pytest.mark.parametrize("patience", [1, 3])
def test_gat_waits_for_its_patience(patience: int) -> None:
    assert seen(Gat(patience), [(1, 10)] + [(2, 5)] * 10) == ([0], patience)


@pytest.mark.parametrize(
    ("patience", "first", "values", "kept", "end"),
    [
        pytest.param(2, 0, [3, 2, 1, 0], [0, 1, 2, 3], None, id="falling"),
        pytest.param(2, 0, [3, 1, 2.5, 2.0], [0, 1], 2, id="above the mean of the two before"),
        pytest.param(2, 0, [3, 1, 2, 2], [0, 1], 3, id="the mean itself does not end it"),
        pytest.param(2, 0, [1, 9, 4], [0], None, id="no end before the window is full"),
        pytest.param(2, 0, [9, 1, 1, 2], [0, 1], 3, id="only the last two count"),
        pytest.param(2, 0, [1, 1, 1], [0], None, id="an equal loss is not kept"),
        pytest.param(1, 0, [1, 2], [0], 1, id="a window of one"),
        pytest.param(1, 4, [1, 2, 3, 4, 5], [0], 4, id="not before its start"),
        pytest.param(1, 4, [1, 2, 3, 4, 3, 2, 3], [0], 6, id="what was before the start does not end it later"),
        pytest.param(3, 1, [1, 9, 9, 9], [0], 3, id="a start before the window is full"),
    ],
)
def test_window(patience: int, first: int, values: list[float], kept: list[int], end: int | None) -> None:
    assert seen(Window(patience, first), losses(*values)) == (kept, end)


def test_never() -> None:
    assert seen(Never(), losses(3, 4, 2, 2, 9, 1)) == ([0, 2, 5], None)


@pytest.mark.parametrize(
    ("values", "kept", "end"),
    [
        pytest.param([3, 2, 1], [0, 1, 2], None, id="falling"),
        pytest.param([3, 3, 3, 3], [0, 1, 2, 3], None, id="an equal loss is kept, and patience starts again"),
        pytest.param([3, 4, 5], [0], 2, id="two in a row above it"),
        pytest.param([3, 4, 2, 4, 2, 4, 4], [0, 2, 4], 6, id="only in a row"),
        pytest.param([3, 9, 5], [0], 2, id="above the lowest, though it falls"),
    ],
)
def test_patience(values: list[float], kept: list[int], end: int | None) -> None:
    assert seen(Patience(2), losses(*values)) == (kept, end)


def test_patience_looks_at_the_loss_alone() -> None:
    assert seen(Patience(2), [(1, 10), (2, 20), (2, 30)]) == ([0], 2)


@pytest.mark.parametrize(
    ("epochs", "kept"),
    [
        pytest.param([(3, 10), (4, 20), (5, 30)], [0, 1, 2], id="a rising loss does not matter"),
        pytest.param([(3, 10), (2, 10), (1, 10)], [0], id="of equals the first"),
        pytest.param([(3, 10), (3, 30), (3, 20), (3, 31)], [0, 1, 3], id="better than all before"),
        pytest.param([(3, 0), (3, 0)], [0], id="a score of zero is one"),
        pytest.param([(3, 10), (NAN, 20), (INF, 20), (3, 15)], [0, 3], id="not without a finite loss"),
        pytest.param([(3, 10), (3, NAN), (3, 5), (3, 11)], [0, 3], id="no score is not a best one"),
    ],
)
def test_best_score(epochs: list[tuple[float, float]], kept: list[int]) -> None:
    assert seen(BestScore(), epochs) == (kept, None)


def test_the_last_epoch_is_kept_whatever_is_seen() -> None:
    assert seen(Last(), [(1.0, 50.0), (NAN, NAN), (9.0, 10.0)]) == ([0, 1, 2], None)


@pytest.mark.parametrize("stopping", [Gat(9), Window(9), Never(), Patience(9)], ids=lambda r: type(r).__name__)
def test_nan_is_not_kept_and_forgets_nothing(stopping: Rule) -> None:
    """An epoch that is better than the one after a NaN is kept only if it is better than all before the NaN too."""
    assert seen(stopping, losses(2, NAN, 9, INF, 3, 1)) == ([0, 5], None)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("gat", Gat(7)),
        ("gat-score", GatScore(7)),
        ("window", Window(7, first=0)),
        ("second-half", Window(7, first=10)),
        ("none", Never()),
        ("patience", Patience(7)),
        ("best-score", BestScore()),
        ("last", Last()),
    ],
)
def test_rules_by_name(name: str, made: Rule) -> None:
    assert rule(name, patience=7, epochs=21) == made


@pytest.mark.parametrize(
    "name", ["gat", "gat-score", "window", "second-half", "none", "patience", "best-score", "last"]
)
@pytest.mark.parametrize("cut", range(7))
def test_its_fields_are_its_whole_state(name: str, cut: int) -> None:
    """As a checkpoint stores and restores it."""
    epochs = [(3, 10), (2, 20), (2.5, 15), (2.4, 12), (2.3, 11), (9, 1), (9, 2), (9, 0)]
    whole, first, second = (rule(name, patience=2, epochs=8) for _ in range(3))
    expected = [whole.update(*epoch) for epoch in epochs]
    verdicts = [first.update(*epoch) for epoch in epochs[:cut]]
    for key, value in asdict(first).items():
        setattr(second, key, value)
    verdicts += [second.update(*epoch) for epoch in epochs[cut:]]
    assert verdicts == expected
    assert second == whole
