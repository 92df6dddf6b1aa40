"""Stochastic depth: whole samples are left out, and the mean stays."""

from __future__ import annotations

import pytest
import torch
from cases import close

from graphattn.depth.drop_path import DropPath, growing


@pytest.mark.parametrize("shape", [(4000, 3), (4000, 3, 2), (4000, 2, 2, 2)])
def test_a_sample_is_left_out_as_a_whole_or_made_larger(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    out = DropPath(0.2)(x)
    rows = out.detach().flatten(1)
    assert torch.equal(rows.amin(1), rows.amax(1))
    left = rows[:, 0] == 0
    close(rows[~left], torch.full_like(rows[~left], 1 / 0.8))
    assert abs(left.double().mean() - 0.2) < 0.03
    out.sum().backward()
    close(x.grad, out.detach(), "the gradient of a branch left out is zero")


def test_nothing_is_left_out_in_evaluation_nor_without_probability() -> None:
    x = torch.randn(8, 3)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0)(x) is x


def test_probabilities_grow_to_the_last() -> None:
    assert growing(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert growing(0.3, 1) == [0.0] and growing(0.3, 0) == []


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_other_probabilities_are_refused(probability: float) -> None:
    with pytest.raises(ValueError, match=rf"drop_path is {probability}, needed a probability below 1"):
        DropPath(probability)
