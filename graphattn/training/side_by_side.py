"""What several models are asked that are run as one: node classification on the graph that they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from graphattn.data import GraphSet, Images, NodeData, PairSet, SceneSet, TextSet
from graphattn.experiment import Experiment
from graphattn.models.stacked import Stacked
from graphattn.training.asked import task
from graphattn.training.schedules import schedule
from graphattn.training.tasks import NodeClassification


def stacked(
    models: Sequence[nn.Module],
    loaded: Sequence[NodeData | GraphSet | Images | SceneSet | PairSet | TextSet],
    experiment: Experiment,
) -> tuple[Stacked, SideBySide]:
    """The models as one, and what they are asked.

    Raises:
        ValueError: models that cannot be stacked, no epochs, another optimizer than Adam, a rate that changes, or what
            is no node classification on one graph as a whole.
    """
    stack = Stacked(models)
    train, smoothing = experiment.train, experiment.correct_and_smooth
    if train.epochs == 0:
        raise ValueError("train.epochs is 0, needed at least 1: the models have parameters to train")
    if smoothing is not None:
        raise ValueError("[correct_and_smooth] is for models by themselves: leave out --batch-seeds")
    if train.optimizer != "adam" or schedule(train, 1) is not None:
        raise ValueError(
            f"--batch-seeds trains by Adam at a constant rate, train.optimizer is {train.optimizer!r} and "
            f"train.schedule {train.schedule!r} with warmup {train.warmup}: leave it out"
        )
    found = type(task(loaded[0], train, models[0], experiment.labels, plan=experiment.multitask))
    nodes = [its for its in loaded if isinstance(its, NodeData)]
    if found is not NodeClassification or len(nodes) < len(loaded):
        raise ValueError(
            f"{loaded[0].name} asks for {found.__name__}, --batch-seeds needs NodeClassification on one graph as a "
            f"whole: leave it out"
        )
    return stack, SideBySide(nodes)


class SideBySide:
    """Node classification by K models on one graph, each with its own split, if splits differ; one pass for all."""

    def __init__(self, loaded: Sequence[NodeData]) -> None:
        first = loaded[0]
        if not all(torch.equal(first.edge_index, its.edge_index) and torch.equal(first.y, its.y) for its in loaded):
            raise ValueError(f"{first.name}: the graph differs from seed to seed, needed one: leave out --batch-seeds")
        self.tasks = [NodeClassification(replace(its, x=first.x, edge_index=first.edge_index)) for its in loaded]

    @property
    def score(self) -> str:
        return self.tasks[0].score

    def batches(self) -> tuple[NodeData]:
        """The whole graph."""
        return self.tasks[0].batches()

    def loss(self, model: nn.Module, batch: NodeData) -> Tensor:
        """Each model's own, [K]."""
        return torch.stack([task.loss(_answered(own), task.data) for task, own in self._each(model)])

    @torch.no_grad()
    def measures(self, model: nn.Module) -> list[dict[str, float]]:
        """Each model's own."""
        return [task.measures(_answered(own)) for task, own in self._each(model)]

    def _each(self, model: nn.Module) -> Iterator[tuple[NodeClassification, Tensor]]:
        data = self.tasks[0].data
        return zip(self.tasks, model(data.x, data.edge_index), strict=True)


def _answered(logits: Tensor) -> Any:
    """A model that has been asked before."""
    return lambda x, edge_index: logits
