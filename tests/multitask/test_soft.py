"""The penalties of soft sharing: identities, gradients, and what is left out."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from graphattn.multitask import SoftSharing
from graphattn.multitask.soft import distance, trace_norm


def pairwise(towers: Tensor) -> Tensor:
    """The definition: one term a pair."""
    return torch.stack([(a - b).square().sum() for a, b in combinations(towers, 2)]).sum()


@pytest.mark.parametrize("number", [2, 3, 6])
def test_distance_is_that_of_all_pairs(number: int) -> None:
    towers = torch.randn(number, 3, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(distance(towers), pairwise(towers))
    (found,) = torch.autograd.grad(distance(towers), towers)
    (needed,) = torch.autograd.grad(pairwise(towers), towers)
    torch.testing.assert_close(found, needed)
    torch.testing.assert_close(found, 2 * (number * towers - towers.sum(0)).detach())
    assert torch.autograd.gradcheck(distance, (towers,))


def test_distance_leaves_the_mean_free() -> None:
    towers = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(distance(towers + torch.randn(5)), distance(towers))
    torch.testing.assert_close(distance(towers[torch.tensor([2, 0, 3, 1])]), distance(towers))
    assert distance(towers[:1].expand(3, 5)) == 0


def test_trace_norm_is_the_sum_of_singular_values() -> None:
    towers = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    expected = torch.linalg.matrix_norm(towers.flatten(1), "nuc")
    torch.testing.assert_close(trace_norm(towers), expected)
    (found,) = torch.autograd.grad(trace_norm(towers), towers)
    (needed,) = torch.autograd.grad(expected, towers)
    torch.testing.assert_close(found, needed)
    assert torch.autograd.gradcheck(trace_norm, (towers,))


def test_trace_norm_of_dependent_towers_has_the_shortest_gradient() -> None:
    row = torch.randn(6)
    towers = torch.stack([row, 2 * row, -row]).requires_grad_()
    torch.testing.assert_close(trace_norm(towers), 6**0.5 * row.norm())
    (found,) = torch.autograd.grad(trace_norm(towers), towers)
    torch.testing.assert_close(found, torch.tensor([1.0, 2, -1])[:, None] / 6**0.5 * row / row.norm())
    zeros = torch.zeros(3, 4, requires_grad=True)
    assert trace_norm(zeros) == 0
    assert torch.autograd.grad(trace_norm(zeros), zeros)[0].abs().max() == 0


def test_trace_norm_is_least_where_towers_are_alike() -> None:
    same = torch.ones(2, 8)
    apart = torch.cat([torch.ones(1, 8), torch.cat([torch.ones(1, 4), -torch.ones(1, 4)], 1)])
    assert trace_norm(same) < trace_norm(apart), "of the same length"


def tower() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def model(**options: object) -> SoftSharing:
    return SoftSharing({t: tower() for t in "ab"}, {t: nn.Linear(2, 1) for t in "ab"}, **options)  # type: ignore[arg-type]


def test_penalties_are_of_the_layers_of_the_same_name() -> None:
    found = model(strength=0.5)
    by_layer = found.penalties()
    assert list(by_layer) == [name for name, _ in tower().named_parameters()]
    a, b = (dict(found.towers[t].named_parameters()) for t in "ab")
    for name, value in by_layer.items():
        torch.testing.assert_close(value, (a[name] - b[name]).square().sum())
    torch.testing.assert_close(found.penalty(), 0.5 * sum(by_layer.values()))


@pytest.mark.parametrize("kind", ["distance", "trace-norm"])
def test_statistics_of_norms_and_heads_are_not_shared(kind: str) -> None:
    found = model(penalty=kind)
    before = found.penalty()
    with torch.no_grad():
        for p in found.heads.parameters():
            p += 1
        for buffer in found.towers["a"].buffers():
            buffer += 3
    torch.testing.assert_close(found.penalty(), before, rtol=0, atol=0)
    assert not any("running" in name or "batches" in name for name in found.aligned)
    before.backward()
    assert all(p.grad is None for p in found.heads.parameters())


def test_names_that_are_left_out() -> None:
    found = model(leave_out=("0.", "bias"))
    assert list(found.penalties()) == ["1.weight", "3.weight"]


def test_one_tower_has_no_penalty() -> None:
    assert SoftSharing({"a": tower()}, {"a": nn.Linear(2, 1)}).penalty() is None


def test_towers_that_do_not_align() -> None:
    heads = {t: nn.Linear(2, 1) for t in "ab"}
    other = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"0.weight is \[4, 3\] in the tower of a and \[4, 5\] in that of b"):
        SoftSharing({"a": tower(), "b": other}, heads)
    assert "0.weight" not in SoftSharing({"a": tower(), "b": other}, heads, leave_out=("0.weight",)).penalties()
    with pytest.raises(ValueError, match=r"0.bias is \[4\] in the tower of a and not there in that of b"):
        SoftSharing({"a": nn.Sequential(nn.Linear(3, 4)), "b": nn.Sequential(nn.Linear(3, 4, bias=False))}, heads)
    with pytest.raises(ValueError, match="no parameters in common"):
        SoftSharing({"a": nn.ReLU(), "b": nn.ReLU()}, heads)
    with pytest.raises(ValueError, match="unknown penalty 'l1'"):
        model(penalty="l1")
