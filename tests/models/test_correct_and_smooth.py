"""Correct and smooth against PyG's, on a graph with isolated nodes."""

from __future__ import annotations

import pytest
import torch
from cases import GRAPHS, close, edge_index
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.nn.models import CorrectAndSmooth

from graphattn.models.correct_and_smooth import correct, smooth

PAIRS = edge_index(GRAPHS["random"].without_self_loops())
EDGES = torch.cat([PAIRS, PAIRS.flip(0)], 1).unique(dim=1)
N = GRAPHS["random"].num_senders + 2  # the last two are isolated; one of them is known
NORMALISED = gcn_norm(EDGES, num_nodes=N, add_self_loops=False, dtype=torch.float64)
NODES = torch.tensor([0, 3, 4, 7, N - 1])
Y = torch.tensor([0, 2, 1, 2, 1])
KNOWN = torch.nn.functional.one_hot(Y, 3).double()


def predicted() -> Tensor:
    return torch.randn(N, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(1)


@pytest.mark.parametrize("scale", [None, 0.7, 20.0])
@pytest.mark.parametrize("alpha", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("steps", [0, 1, 7])
def test_it_is_pygs(steps: int, alpha: float, scale: float | None) -> None:
    judge = CorrectAndSmooth(steps, alpha, steps, alpha, scale is None, 1.0 if scale is None else scale)
    corrected = correct(predicted(), KNOWN, NODES, EDGES, steps=steps, alpha=alpha, scale=scale)
    close(corrected, judge.correct(predicted(), KNOWN, NODES, *NORMALISED))
    smoothed = smooth(corrected, KNOWN, NODES, EDGES, steps=steps, alpha=alpha)
    close(smoothed, judge.smooth(corrected, KNOWN, NODES, *NORMALISED))


def test_what_is_given_is_left_alone() -> None:
    z, known = predicted(), KNOWN.clone()
    correct(z, known, NODES, EDGES)
    smooth(z, known, NODES, EDGES)
    assert torch.equal(z, predicted()) and torch.equal(known, KNOWN)


def test_predictions_without_error_stay() -> None:
    z = predicted()
    z[NODES] = KNOWN
    close(correct(z, KNOWN, NODES, EDGES), z)


def test_a_fixed_scale_makes_known_nodes_right() -> None:
    close(correct(predicted(), KNOWN, NODES, EDGES, scale=1.0)[NODES], KNOWN)


def test_errors_and_labels_are_held_within_their_ranges_as_pygs() -> None:
    """At a hub whose leaves are all wrong in the same way they would add up to more."""
    leaves = torch.arange(1, 17)
    star = torch.stack([torch.cat([leaves, 0 * leaves]), torch.cat([0 * leaves, leaves])])
    weights = gcn_norm(star, num_nodes=17, add_self_loops=False, dtype=torch.float64)
    z = torch.tensor([[0.05, 0.7, 0.25]], dtype=torch.float64).repeat(17, 1)
    known = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64).repeat(16, 1)
    judge = CorrectAndSmooth(1, 1.0, 2, 0.9, autoscale=True)
    corrected = correct(z, known, leaves, star, steps=1, alpha=1.0)
    close(corrected, judge.correct(z, known, leaves, *weights))
    close(smooth(corrected, known, leaves, star, steps=2, alpha=0.9), judge.smooth(corrected, known, leaves, *weights))
