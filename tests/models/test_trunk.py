"""Models as trunks: run stage by stage they give what they give at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from graphattn.models import MODELS
from graphattn.models.trunk import Trunk

EDGE_INDEX = torch.tensor([[0, 1, 2, 3, 3], [1, 0, 3, 2, 0]])
GRAPH: tuple[Tensor, ...] = (torch.randn(5, 6, generator=torch.Generator().manual_seed(0)), EDGE_INDEX)
IMAGES: tuple[Tensor, ...] = (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)
CASES: dict[str, tuple[str, dict[str, Any], tuple[Tensor, ...], int]] = {
    "gat": ("gat", {"num_layers": 3, "hidden": 4, "heads": 2, "batch_norm": True}, GRAPH, 3),
    "supergat": ("supergat", {"hidden": 4, "heads": 2}, GRAPH, 2),
    "mlp": ("mlp", {}, GRAPH, 2),
    "gcn": ("gcn", {}, GRAPH, 1),
    "resnet": ("resnet", {"depth": 8}, IMAGES, 4),
    "preactivation": ("resnet", {"depth": 14, "preactivation": True}, IMAGES, 4),
    "attention over layers": ("resnet-dag", {"depth": 8, "rule": "mrla-base"}, IMAGES, 4),
}


@pytest.mark.parametrize("case", CASES)
def test_stages_are_the_whole(case: str) -> None:
    name, options, inputs, number = CASES[case]
    sized = (8,) if name == "resnet-dag" else ()
    trunk = Trunk(MODELS[name](inputs[0].shape[1], 7, *sized, **options))
    stages = trunk.stages()
    assert len(stages) == number
    torch.manual_seed(1)
    expected = trunk(*inputs)
    torch.manual_seed(1)
    out, rest = inputs[0], inputs[1:]
    for stage in stages:
        out = stage(out, *rest)
    assert torch.equal(out, expected) and out.shape[1] == 7
    assert float(out.detach().min()) < 0, "ELU, not ReLU"
    torch.manual_seed(1)
    torch.testing.assert_close(expected, F.elu(trunk.model(*inputs)))
