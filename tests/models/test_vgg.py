"""Chains of convolutions: their sizes, counted apart, and what enters them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from cases import close
from torch import nn

from graphattn.depth import MRLALight, Plain, wrap
from graphattn.models.vgg import VGG, ControlNetwork


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_control_network_has_the_published_sizes() -> None:
    assert parameters(ControlNetwork(1, 10, 28)) == 929_510
    assert parameters(ControlNetwork(3, 10, 32)) == 961_310


def test_the_control_network_by_hand() -> None:
    model = ControlNetwork(2, 5, 10).double()
    x = torch.randn(3, 2, 10, 10, dtype=torch.float64)
    h = x
    state = model.state_dict()
    for name, stride, padding in (("conv1", 1, 1), ("conv2", 1, 1), ("down1", 2, 0)):
        h = F.conv2d(h, state[f"{name}.weight"], state.get(f"{name}.bias"), stride, padding).clamp(min=0)
    for name, stride, padding in (("conv3", 1, 1), ("conv4", 1, 1), ("down2", 2, 0)):
        h = F.conv2d(h, state[f"{name}.weight"], state.get(f"{name}.bias"), stride, padding).clamp(min=0)
    assert h.shape == (3, 200, 2, 2)
    close(model(x), h.flatten(1) @ state["fc.weight"].T + state["fc.bias"])


def test_the_control_networks_weights_begin_as_published() -> None:
    model = ControlNetwork(3, 10, 32)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        else:
            assert abs(parameter.std().item() / 0.02 - 1) < 0.1, name


@pytest.mark.parametrize(("depth", "counts"), [(11, "11222"), (13, "22222"), (16, "22333"), (19, "22444")])
def test_as_many_convolutions_as_asked(depth: int, counts: str) -> None:
    with torch.device("meta"):
        model = VGG(3, 10, depth=depth)  # type: ignore[arg-type]
    found = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(found) == depth - 3, "the paper counts its three linear maps too"
    widths = [3] + [w for w, n in zip((64, 128, 256, 512, 512), map(int, counts), strict=True) for _ in range(n)]
    assert parameters(model) == sum(9 * a * b + 2 * b for a, b in pairwise(widths)) + 512 * 10 + 10


def test_stages_halve_the_resolution() -> None:
    model = VGG(3, 10, depth=16, width=2).eval()
    shapes = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4, model.layer5):
        stage.register_forward_hook(lambda _, args, out: shapes.append(tuple(out.shape[1:])))
    model(torch.randn(1, 3, 32, 32))
    assert shapes == [(2, 32, 32), (4, 16, 16), (8, 8, 8), (16, 4, 4), (16, 2, 2)]


def test_blocks_can_be_wrapped() -> None:
    model, x = VGG(3, 10, depth=11, width=2).double().eval(), torch.randn(1, 3, 32, 32, dtype=torch.float64)
    expected = model(x)
    close(wrap(model, "layer*.*", Plain(), x)(x), expected, "a ReLU of what is positive")
    attentive = wrap(VGG(3, 10, depth=16, width=8), "layer*.*", MRLALight(dim=8, carry="state"), x.float())
    assert attentive(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown depth 15: there are 11, 13, 16, 19"):
        VGG(3, 10, depth=15)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"images are \[28, 28\], needed at least 32 x 32"):
        VGG(1, 10, depth=11, width=2)(torch.zeros(1, 1, 28, 28))
    with pytest.raises(ValueError, match="image_size is 3, needed at least 4"):
        ControlNetwork(1, 10, 3)
    with pytest.raises(ValueError, match=r"images are \[32, 32\], needed 28 x 28"):
        ControlNetwork(1, 10, 28)(torch.zeros(1, 1, 32, 32))
