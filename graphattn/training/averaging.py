"""The mean of several checkpoints, a little better than the last of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def average_states(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of the floating tensors of so many state dicts, summed in float64; other tensors are the last's.

    Vaswani et al., 'Attention Is All You Need', NeurIPS 2017, average the last checkpoints of a run.

    Raises:
        ValueError: no states, or states of different models: other names or shapes.
    """
    if not states:
        raise ValueError("no states to average: needed at least one")
    last = states[-1]
    for k, state in enumerate(states):
        if state.keys() != last.keys() or any(state[name].shape != value.shape for name, value in last.items()):
            raise ValueError(f"state {k} of {len(states)} has other names or shapes than the last: one model is needed")
    found = {}
    for name, value in last.items():
        if not value.is_floating_point():
            found[name] = value.clone()
            continue
        total = torch.zeros_like(value, dtype=torch.float64)
        for state in states:
            total += state[name]
        found[name] = (total / len(states)).to(value.dtype)
    return found
