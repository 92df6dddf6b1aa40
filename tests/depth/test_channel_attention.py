"""Squeeze-excitation and efficient channel attention: their sizes and formulas, written another way."""

from __future__ import annotations

import pytest
import torch
from cases import close

from graphattn.depth.channel_attention import ECA, SqueezeExcitation, eca_kernel


def test_the_kernel_grows_with_the_channels() -> None:
    assert {eca_kernel(channels) for channels in (16, 32, 64, 112)} == {3}
    assert {eca_kernel(channels) for channels in (128, 256, 512, 1024)} == {5}
    assert eca_kernel(2048) == 7
    assert {eca_kernel(channels) % 2 for channels in range(1, 300)} == {1}
    assert eca_kernel(256, gamma=1, b=2) == 11


def test_squeeze_excitation() -> None:
    gate = SqueezeExcitation(32, 4).double()
    assert sum(p.numel() for p in gate.parameters()) == 2 * 32**2 // 4
    x = torch.randn(2, 32, 3, 5, dtype=torch.float64, requires_grad=True)
    mean = x.flatten(2).sum(2) / 15
    weights = 1 / (1 + (-(mean @ gate.squeeze.weight.T).clamp(min=0) @ gate.excite.weight.T).exp())
    close(gate(x), torch.einsum("bchw,bc->bchw", x, weights))
    assert torch.autograd.gradcheck(gate, x[:1, :, :2, :2].detach().requires_grad_())


def test_efficient_channel_attention() -> None:
    """The weight of a channel is seen by it and its neighbours alone; beyond the ends there is nothing."""
    gate = ECA(16).double()
    assert sum(p.numel() for p in gate.parameters()) == 3
    x = torch.randn(2, 16, 3, 5, dtype=torch.float64)
    left, own, right = gate.conv.weight.flatten()
    mean = x.mean((2, 3))
    zero = torch.zeros(2, 1, dtype=torch.float64)
    before, after = torch.cat([zero, mean[:, :-1]], 1), torch.cat([mean[:, 1:], zero], 1)
    close(gate(x), x * (left * before + own * mean + right * after).sigmoid()[:, :, None, None])
    assert torch.autograd.gradcheck(gate, x[:1, :, :2, :2].clone().requires_grad_())


@pytest.mark.parametrize("reduction", [0, 17])
def test_reductions_that_leave_nothing_are_refused(reduction: int) -> None:
    with pytest.raises(ValueError, match=f"reduction is {reduction}, needed between 1 and the 16 channels"):
        SqueezeExcitation(16, reduction)
