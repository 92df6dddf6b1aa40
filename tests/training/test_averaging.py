"""The mean of state dicts."""

import copy

import pytest
import torch
from torch import nn

from graphattn.training.averaging import average_states


def states(count):
    """Of one network with a batch norm, which counts its batches."""
    model, found = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), []
    for _ in range(count):
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        model(torch.randn(5, 3))
        found.append(copy.deepcopy(model.state_dict()))
    return found


def test_each_floating_tensor_is_the_mean_and_counters_are_the_last():
    given = states(3)
    before = copy.deepcopy(given)
    found = average_states(given)
    assert found.keys() == given[0].keys()
    for name, value in found.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, torch.stack([state[name] for state in given]).mean(0))
        else:
            assert value == 3
        assert all(torch.equal(state[name], old[name]) for state, old in zip(given, before, strict=True))


def test_one_state_is_its_own_mean_and_shares_no_memory():
    (given,) = states(1)
    found = average_states([given])
    assert all(torch.equal(found[name], value) for name, value in given.items())
    found["1.num_batches_tracked"] += 1
    assert given["1.num_batches_tracked"] == 1


def test_half_precision_is_summed_in_double():
    ones = {"w": torch.full((1,), 1.0, dtype=torch.bfloat16)}
    small = {"w": torch.full((1,), 1 / 256, dtype=torch.bfloat16)}
    assert average_states([ones, *[small] * 255])["w"].item() == pytest.approx((1 + 255 / 256) / 256, rel=1 / 256)


def test_states_of_different_models_are_refused():
    with pytest.raises(ValueError, match="no states"):
        average_states([])
    for other in ({"v": torch.ones(2)}, {"w": torch.ones(3)}):
        with pytest.raises(ValueError, match="state 0 of 2 has other names or shapes"):
            average_states([other, {"w": torch.ones(2)}])
