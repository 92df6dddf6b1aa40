"""A model by name as the trunk of several tasks: its outputs are features, and its stages can be run one by one."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.models.layered import Layered
from graphattn.models.resnet import CifarResNet


class Trunk(nn.Module):
    """ELU(model(*inputs)), for a model of so many outputs as there are to be features."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> Tensor:
        return F.elu(self.model(*inputs))

    def stages(self) -> list[Any]:
        """What `forward` does, in steps: a layer each of models that are run layer by layer, a stage each of residual
        networks for small images, and other models whole. The first is called with the inputs, the others with what
        the one before gave and the inputs after the first.
        """
        model = self.model
        if isinstance(model, Layered):
            steps: list[Any] = [partial(model.step, i) for i in range(len(model.layers))]
        elif isinstance(model, CifarResNet):
            steps = [_sequence(part) for part in _parts(model)]
        else:
            steps = [model]
        return [*steps[:-1], lambda *inputs: F.elu(steps[-1](*inputs))]


def _parts(model: CifarResNet) -> list[list[nn.Module]]:
    """Its children, which come in the order in which they act, with each of `layer1` to `layer3` ending a part."""
    parts: list[list[nn.Module]] = [[]]
    for name, child in model.named_children():
        if name == "fc":
            parts[-1].append(nn.Flatten())
        parts[-1].append(child)
        if name.startswith("layer"):
            parts.append([])
    return parts


def _sequence(modules: list[nn.Module]) -> Any:
    def run(x: Tensor) -> Tensor:
        for module in modules:
            x = module(x)
        return x

    return run
