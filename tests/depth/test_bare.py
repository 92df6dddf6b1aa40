"""State dicts of the unwrapped model, whatever its blocks are called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nets import images
from torch import Tensor, nn

from graphattn.depth import DepthWeighted, wrap


class Named(nn.Module):
    """Its child is called as the one that a wrapped block has."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Nested(nn.Module):
    """Blocks in blocks, each with a scale."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.scale, self.block = nn.Parameter(torch.randn(1)), Nested(depth - 1) if depth else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) * self.scale


@pytest.mark.parametrize(
    "bare",
    [
        lambda: nn.Sequential(Named(), Named()),
        lambda: nn.Sequential(Nested(2), Nested(2)),
        lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.ReLU()),
    ],
    ids=["a child called block", "a name that another one becomes", "no parameters"],
)
def test_bare_state_dicts_load_whatever_the_block_is(bare: Any) -> None:
    model, names = bare(), ["0", "1"] if len(bare()) == 2 else ["1", "3"]
    state = {key: value.clone() for key, value in bare().state_dict().items()}
    found = wrap(model, names, DepthWeighted(), images())
    own = {key: value.clone() for key, value in found.state_dict().items() if ".rule." in key}
    found.load_state_dict(state)
    for key, value in state.items():
        first, rest = key.split(".", 1)
        assert torch.equal(found.state_dict()[f"{first}.block.{rest}" if first in names else key], value)
    assert own and all(torch.equal(found.state_dict()[key], value) for key, value in own.items())
    whole = {key: value + 1 for key, value in found.state_dict().items()}
    found.load_state_dict(whole)
    assert all(torch.equal(found.state_dict()[key], value) for key, value in whole.items())
