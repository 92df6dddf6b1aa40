"""Residual networks by the name of their rule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from graphattn.depth.mrla import BaseLayer
from graphattn.depth.wrap import Placed
from graphattn.models.resnet import CifarResNet
from graphattn.models.resnet_dag import RULES, resnet_dag

PLAIN = {20: 269_722, 56: 853_018}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_trains(rule: str) -> None:
    model = resnet_dag(3, 5, 16, depth=14, rule=rule)
    x = torch.randn(4, 3, 16, 16)
    nn.functional.cross_entropy(model(x), torch.arange(4)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert sum(isinstance(module, Placed) for module in model.modules()) == 6


@pytest.mark.parametrize("rule", RULES)
def test_gradients_do_not_explode_on_their_way_down(rule: str) -> None:
    """A batch norm of channels that are 0 throughout would multiply theirs by 300."""
    model = resnet_dag(3, 5, 16, depth=20, rule=rule)
    nn.functional.cross_entropy(model(torch.rand(8, 3, 16, 16)), torch.arange(8) % 5).backward()
    largest = {name: float(p.grad.abs().max()) for name, p in model.named_parameters() if p.grad is not None}
    assert max(largest.values()) < 10, max(largest, key=largest.__getitem__)


@pytest.mark.parametrize("depth", PLAIN)
@pytest.mark.parametrize(
    ("rule", "more"),
    [
        ("self-attentive", {20: 15_680, 56: 15_680}),
        ("mrla-base", {20: 3_750, 56: 11_250}),
        ("mrla-light", {20: 4_086, 56: 12_258}),
        ("scalar-mix", {20: 9 + 1, 56: 27 + 1}),
        ("depth-weighted", {20: 9 * 12 // 2, 56: 27 * 30 // 2}),
        ("eca", {20: 9 * 3, 56: 27 * 3}),
        ("squeeze-excitation", {20: 3 * 2 * (16 + 32 * 2 + 64 * 4), 56: 9 * 2 * (16 + 32 * 2 + 64 * 4)}),
    ],
)
def test_what_a_rule_adds(rule: str, more: dict[int, int], depth: int) -> None:
    assert count(resnet_dag(3, 10, 32, depth=depth, rule=rule)) == PLAIN[depth] + more[depth]


def test_identities_at_initialisation_are_the_network_without() -> None:
    """Depth-weighted averages are; hyper-connections are pre-activation residuals, with four times their sum."""
    torch.manual_seed(1)
    plain = CifarResNet(3, 5, depth=14).eval()
    weighted = resnet_dag(3, 5, 16, depth=14, rule="depth-weighted").eval()
    weighted.load_state_dict(plain.state_dict())
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(weighted(x), plain(x))

    before = CifarResNet(3, 5, depth=14, preactivation=True).eval()
    hyper = resnet_dag(3, 5, 16, depth=14, rule="hyper-connections").eval()
    hyper.load_state_dict(before.state_dict())
    before.norm.running_var.mul_(1 / 16)  # what the last norm would see of four streams
    before.norm.eps /= 16
    torch.testing.assert_close(hyper(x), before(x), rtol=1e-4, atol=1e-4)


def test_drop_path_reaches_the_branch() -> None:
    model = resnet_dag(3, 5, 16, depth=8, rule="mrla-base", drop_path=0.2)
    branches = [m for m in model.modules() if isinstance(m, BaseLayer)]
    assert [m.drop_path.probability for m in branches] == [0.2] * 3


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="mrla-base"):
        resnet_dag(3, 5, 16, rule="mrla")
    with pytest.raises(ValueError, match=r"drop_path is 0\.1, but the rule eca has none"):
        resnet_dag(3, 5, 16, rule="eca", drop_path=0.1)
