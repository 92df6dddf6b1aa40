"""A wrapped block in the hands of network and user: modes, devices, attributes, tuples, unfinished passes."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import pytest
import torch
from nets import BLOCKS, SmallNet, images
from torch import Tensor, nn

from graphattn.depth import DepthWeighted, MRLABase, Plain, Residual, recorded, wrap
from graphattn.depth.wrap import Placed


def test_what_is_added_is_in_the_mode_of_its_block() -> None:
    model, x = SmallNet().eval(), images()
    model.layer2.train()
    wrap(model, BLOCKS, MRLABase(), x)
    assert {m.training for m in model.layer1.modules()} == {False}
    assert {m.training for m in model.layer2.modules()} == {True}
    out = wrap(SmallNet(bare=True).eval(), BLOCKS, Residual(align="project"), x)
    assert torch.equal(out(x), out.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_added_is_where_its_block_is(device: str, dtype: torch.dtype) -> None:
    model, x = SmallNet(bare=True).to(device, dtype), images().to(device, dtype)
    wrap(model, BLOCKS, Residual(align="project"), x)
    assert wrap(SmallNet().to(device, dtype), BLOCKS, MRLABase(), x)(x).dtype == dtype
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {(torch.device(device).type, dtype)}


class Switched(nn.Module):
    """A block with an attribute that its user sets, and names of its own that a wrapped block has too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.factor, self.name, self.rule = nn.Conv2d(3, 3, 1), 1, "mine", "mine"

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * self.factor


def test_what_only_the_block_has_is_set_there() -> None:
    x, block = images(), Switched()
    model: Any = wrap(nn.Sequential(block, nn.ReLU()), ["0", "1"], Plain(relu=False), x)
    expected = model(x)
    assert (block.name, block.rule, model[0].name) == ("mine", "mine", "0")
    block.conv = copy.deepcopy(block.conv)
    model[0].factor = 2
    torch.testing.assert_close(model(x), 2 * expected)
    model[0].conv = nn.Identity()
    torch.testing.assert_close(model(x), 2 * x.relu())
    model[0].new = 1
    assert isinstance(block.conv, nn.Identity) and not hasattr(block, "new") and model[0].new == 1


class Out(NamedTuple):
    hidden: Tensor
    rest: int


class Naming(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList([Named(), Named()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.layer:
            x = block(x).hidden
        return x


class Named(nn.Module):
    def forward(self, x: Tensor) -> Out:
        return Out(x + 1, 1)


def test_a_named_tuple_stays_one() -> None:
    x = torch.randn(2, 3, 4)
    model = wrap(Naming(), "layer.*", DepthWeighted(), x)
    torch.testing.assert_close(model(x), x + 2)
    assert model.layer[1](model.layer[0](x).hidden).rest == 1


class Merging(nn.Module):
    """A block whose way for the shortcut gets more than the map."""

    def __init__(self) -> None:
        super().__init__()
        self.downsample = Scale()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(x, 2, plus=1)


class Scale(nn.Module):
    def forward(self, x: Tensor, factor: int, plus: int) -> Tensor:
        return factor * x + plus


def test_a_shortcut_gets_all_it_is_given() -> None:
    x = images()
    model = wrap(nn.Sequential(Merging()), "0", DepthWeighted(), x)
    torch.testing.assert_close(model(x), 2 * x + 1)


def test_copies_hold_nothing_of_an_unfinished_pass() -> None:
    model, x = wrap(SmallNet(), BLOCKS, MRLABase(), images()), images()
    with recorded(model):
        model.layer1[1](model.layer1[0](model.stem(x)))
        twin = copy.deepcopy(model)
    (memory,) = {m.memory for m in twin.modules() if isinstance(m, Placed)}
    assert (memory.keys, memory.values, memory.shortcut, memory.weights) == ([], [], None, None)
    assert torch.equal(model.eval()(x), twin.eval()(x))
