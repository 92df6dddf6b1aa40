"""An epoch of several seeds: as one model against one by one, in the same process."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphattn import data, experiment
from graphattn.bench.case import Entry
from graphattn.bench.epochs import EpochCase, EpochEntry
from graphattn.data import NodeData
from graphattn.experiment import Experiment
from graphattn.models import MODELS
from graphattn.training import NodeClassification, stacked
from graphattn.training.optimizers import optimizer_of


@dataclass(frozen=True)
class SeedsCase(EpochCase):
    """`seeds` models of the experiment `data_set`/gat, each step and evaluation done for all of them: "side by side"
    as `run --batch-seeds` does them, or "one by one".
    """

    baseline: ClassVar[str] = "one by one"

    seeds: int = 10

    def contestants(self, device: str) -> tuple[str, ...]:
        return ("side by side", "one by one")

    def build(self, contestant: str, device: str) -> Entry:
        loaded = data.load(self.data_set, folder=self.data_folder).to(device)
        assert isinstance(loaded, NodeData)
        return _Seeds(loaded, experiment.load(f"{self.data_set}/gat"), self.seeds, contestant == "side by side")


class _Seeds(EpochEntry):
    """What it takes for a graph are the tasks, one for all models or one for each, on an edge_index of their own."""

    def __init__(self, loaded: NodeData, definition: Experiment, seeds: int, together: bool) -> None:
        torch.manual_seed(0)
        build, options = MODELS[definition.model.name], definition.model.options
        models = [build(loaded.num_features, loaded.num_classes, **options) for _ in range(seeds)]
        self._models: list[nn.Module] = models
        if together:
            self._models = [stacked(models, [loaded] * seeds, definition)[0]]
        for model in self._models:
            model.to(loaded.y.device)
        self._optimizers: list[Any] = [
            optimizer_of(getattr(model, "net", model), definition.train) for model in self._models
        ]

        def make_graph() -> list[Any]:
            own = replace(loaded, edge_index=loaded.edge_index.clone())
            if together:
                return [stacked(models, [own] * seeds, definition)[1]]
            return [NodeClassification(own)] * seeds

        def compute(tasks: list[Any]) -> Tensor:
            (own,) = tasks[0].batches()
            logits = [model(own.x, own.edge_index).view(-1, own.num_nodes, own.num_classes) for model in self._models]
            return torch.cat(logits)

        weights = {f"{k}.{name}": p for k, model in enumerate(self._models) for name, p in model.named_parameters()}
        super().__init__(compute, make_graph, weights, list(weights.values()))
        self._x = loaded.x

    def output(self) -> Tensor:
        """The logits in training."""
        for model in self._models:
            model.train()
        return super().output()

    def forward(self) -> list[Any]:
        """Evaluation: validation loss, validation and test scores."""
        return [task.measures(model.eval()) for task, model in zip(self.graph, self._models, strict=True)]

    def step(self) -> Tensor:
        losses = []
        for task, model, optimizer in zip(self.graph, self._models, self._optimizers, strict=True):
            model.train()
            optimizer.zero_grad()
            loss = task.loss(model, *task.batches())
            loss.sum().backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    def epoch(self) -> list[Any]:
        self.step()
        return self.forward()

    def answer(self) -> dict[str, Tensor]:
        """The logits and the gradients of the training losses, without dropout: its masks differ."""
        found: dict[str, list[Tensor]] = {}
        for task, model, optimizer in zip(self.graph, self._models, self._optimizers, strict=True):
            optimizer.zero_grad()
            task.loss(model.eval(), *task.batches()).sum().backward()
            for name, parameter in getattr(model, "net", model).named_parameters():
                assert parameter.grad is not None
                found.setdefault(f"gradient of {name}", []).append(parameter.grad)
        joined = {name: torch.cat([grad.flatten() for grad in grads]) for name, grads in found.items()}
        return {"output": super().output().detach()} | joined
