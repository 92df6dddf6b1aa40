"""Trunks of every kind in every way of sharing: networks on graphs, with attention over layers, and on sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphattn.depth import MRLALight, wrap
from graphattn.models import MODELS
from graphattn.models.resnet import CifarResNet
from graphattn.models.trunk import Trunk
from graphattn.multitask import CrossStitch, HardSharing, MMoE, PCGrad, Sharing, SoftSharing
from graphattn.sequence import EncoderBlock, make_mixer

TASKS = ("main", "other")
EDGE_INDEX = torch.tensor([[0, 1, 2, 3, 3], [1, 0, 3, 2, 0]])


class MeanGate(nn.Module):
    """Logits of two experts, from the mean over all but the first and one other axis."""

    def __init__(self, channels: int, axis: int) -> None:
        super().__init__()
        self.axis, self.linear = axis, nn.Linear(channels, 2)

    def forward(self, x: Tensor, *rest: Any) -> Tensor:
        return self.linear(x.movedim(self.axis, 1).flatten(2).mean(2))


def layered_resnet() -> nn.Module:
    return Trunk(wrap(CifarResNet(3, 6, depth=8, width=4), "layer*.*", MRLALight(), torch.randn(1, 3, 8, 8)))


def sequence() -> nn.Module:
    blocks = [EncoderBlock(make_mixer("light", 6, kernel_size=3, heads=2), 6, 8) for _ in range(2)]
    return nn.Sequential(*blocks)


TRUNKS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...], Callable[[], nn.Module]]] = {
    "gat": (
        lambda: Trunk(MODELS["gat"](5, 6, hidden=4, heads=2)),
        (torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), EDGE_INDEX),
        lambda: MODELS["mlp"](5, 2, num_layers=1),
    ),
    "resnet that attends to its layers": (
        layered_resnet,
        (torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)),),
        lambda: MeanGate(3, 1),
    ),
    "sequence": (
        sequence,
        (torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(0)),),
        lambda: MeanGate(6, 2),
    ),
}


def shared(sharing: str, trunk: Callable[[], nn.Module], gate: Callable[[], nn.Module]) -> Sharing:
    heads = {task: nn.Linear(6, 2) for task in TASKS}
    if sharing == "hard":
        return HardSharing(trunk(), heads)
    if sharing == "mmoe":
        return MMoE([trunk(), trunk()], {task: gate() for task in TASKS}, heads)
    towers = {task: trunk() for task in TASKS}
    return SoftSharing(towers, heads) if sharing == "soft" else CrossStitch(towers, heads)


@pytest.mark.parametrize("kind", TRUNKS)
@pytest.mark.parametrize("sharing", ["hard", "soft", "cross-stitch", "mmoe"])
def test_every_parameter_learns(kind: str, sharing: str) -> None:
    trunk, inputs, gate = TRUNKS[kind]
    model = shared(sharing, trunk, gate)
    for _ in range(2):  # nothing is left over from one pass to the next
        model.zero_grad()
        out = model(*inputs)
        assert all(o.shape[0] == 4 and o.shape[-1] == 2 for o in out.values())
        losses = {"main": out["main"].square().mean(), "other": (out["other"] - 1).square().mean()}
        PCGrad(dict.fromkeys(TASKS, 1.0))(losses, model).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    alone = model.only().eval()
    torch.testing.assert_close(alone(*inputs), model.eval()(*inputs)["main"], rtol=0, atol=0)
