"""Cross-stitch networks: a tower for each task, and behind each stage a learned mixture of all towers' features."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphattn.multitask.sharing import Sharing


def stitched(weights: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """x_t = sum_s weights[t, s] features[s], of weights [T, T] and T features of one shape, in their precision."""
    stacked = torch.stack(list(features))
    return torch.tensordot(weights.to(stacked.dtype), stacked, 1).unbind()


class CrossStitch(Sharing):
    """x_t = B_t(sum_s a_ts x_s), stage by stage; a of each stage [T, T] is learned.

    A tower is an nn.Sequential of its stages, or has a method `stages()` that lists them, or is one stage. Each stage
    is called with what is mixed and the inputs after the first, such as an edge_index. A mixture follows each stage,
    the last one included. a begins at `own` for the tower itself, the others sharing 1 - own.

    Raises:
        ValueError: tasks with a head and no tower, or the other way round; towers with different numbers of stages.

    Paper: Misra et al., Cross-stitch Networks for Multi-task Learning, CVPR 2016, which has an a of each channel, and
    none behind the last layer.
    """

    def __init__(self, towers: Mapping[str, nn.Module], heads: Mapping[str, nn.Module], *, own: float = 0.9) -> None:
        super().__init__(heads)
        if towers.keys() != heads.keys():
            raise ValueError(f"there are towers for {list(towers)} and heads for {list(heads)}, needed both for each")
        self.towers = nn.ModuleDict({task: towers[task] for task in heads})
        counts = {task: len(_stages(tower)) for task, tower in self.towers.items()}
        if len(set(counts.values())) > 1:
            raise ValueError(f"the towers have {counts} stages, needed as many in each")
        number = len(counts)
        first = torch.full((number, number), (1 - own) / max(number - 1, 1)).fill_diagonal_(own)
        self.mixtures = nn.ParameterList(first.clone() for _ in range(next(iter(counts.values()))))
        self.own = list(heads)  # the row of each task, also once others are dropped

    def features(self, tasks: tuple[str, ...], *inputs: Any) -> dict[str, Any]:
        first, *rest = inputs
        mixed: Sequence[Any] = [first] * len(self.towers)
        stages = zip(*(_stages(tower) for tower in self.towers.values()), strict=True)
        for weights, of_towers in zip(self.mixtures, stages, strict=True):
            mixed = stitched(weights, [stage(x, *rest) for stage, x in zip(of_towers, mixed, strict=True)])
        return {task: mixed[self.own.index(task)] for task in tasks}

    def trunk_of(self, task: str) -> nn.Module:
        return self.towers[task]

    def run_for(self, task: str) -> nn.Module:
        return self.towers


def _stages(tower: Any) -> list[Any]:
    if inspect.ismethod(getattr(tower, "stages", None)):  # else it is a part of the tower that is called so
        return tower.stages()
    return list(tower) if isinstance(tower, nn.Sequential) else [tower]
