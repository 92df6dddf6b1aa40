"""How much each layer of a wrapped network reads of each earlier one, on given inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from graphattn.depth.wrap import ENTRY, Placed, arguments, recorded


@dataclass(frozen=True)
class AttentionMap:
    """`weights` [R, S]: what reader r, a block by name, gives to source s, in the mean over samples, heads and
    positions; zero where it does not read. The first source may be what enters a scope: for each reader, its own.
    """

    readers: list[str]
    sources: list[str]
    weights: Tensor


@torch.no_grad()
def attention_map(model: nn.Module, x: Any, of: Tensor | None = None) -> AttentionMap:
    """The map of a wrapped `model` on inputs `x` [B, ...], or a tuple of all its arguments, in evaluation mode; of the
    samples, or nodes, where `of` [B] holds.

    Raises:
        ValueError: the model is not wrapped, or its rule has no weights to show.
    """
    training = {module: module.training for module in model.modules()}
    try:
        with recorded(model) as shown:
            model.eval()(*arguments(x))
    finally:
        for module, mode in training.items():
            module.training = mode
    placed = [module for module in model.modules() if isinstance(module, Placed)]
    readers = [module for module in placed if module.name in shown]
    if not readers:
        raise ValueError("this rule has no weights to show: it has no number an edge, or carries one state")
    before = [ENTRY] if any(ENTRY in module.sources for module in readers) else []
    sources = before + [module.name for module in placed]
    weights = torch.zeros(len(readers), len(sources))
    for row, module in enumerate(readers):
        given = shown[module.name].float()
        if of is not None and given.dim() > 1:
            given = given[of]
        mean = given.reshape(-1, given.shape[-1]).mean(0)
        for source, weight in zip(module.sources, mean.tolist(), strict=True):
            weights[row, sources.index(source)] += weight
    return AttentionMap([module.name for module in readers], sources, weights)
