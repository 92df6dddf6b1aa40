"""An epoch of GAT on a real data set: what the layers' speed comes to in use.

All contestants have the same model, arguments and optimizer; PyG's differ by the layer's class alone, and by dense
features, which is all that they take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch._dynamo
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import GATConv as PyGGATConv

from graphattn import data, experiment, ops
from graphattn.bench.case import Case, Entry
from graphattn.conv import GATConv
from graphattn.data import GraphSet, NodeData
from graphattn.experiment import Experiment
from graphattn.models import MODELS
from graphattn.training import MultiLabelNodes, NodeClassification, Task, captured


@dataclass(frozen=True)
class EpochCase(Case):
    """GAT as the experiment `data_set`/gat defines it. `forward` is the evaluation, `training step` one on a batch,
    `epoch` a step on each batch and the evaluation.

    `bag_of_words`: the data set's features are sparse, and graphattn keeps them so; "graphattn dense" does not.
    "graphattn captured", on a GPU, replays the training step as a CUDA graph.
    """

    baseline: ClassVar[str] = "pyg"
    directions: ClassVar[tuple[str, ...]] = ("forward", "training step", "epoch")

    name: str
    data_set: str
    bag_of_words: bool = False
    one_graph: bool = True
    data_folder: Path | None = None

    def contestants(self, device: str) -> tuple[str, ...]:
        captured = ("graphattn captured",) if device == "cuda" and self.one_graph else ()
        dense = ("graphattn dense",) if self.bag_of_words else ()
        return ("graphattn", *captured, *dense, "pyg", "pyg compiled")

    def obstacle(self, contestant: str, device: str) -> str | None:
        try:
            data.load(self.data_set, folder=self.data_folder)
        except (OSError, ValueError) as error:
            return str(error)
        return None

    def about(self) -> dict[str, Any]:
        return {"op": "GAT", "graph": self.data_set, "dtype": "float32"}

    def build(self, contestant: str, device: str) -> Entry:
        sparse = self.bag_of_words and contestant in ("graphattn", "graphattn captured")
        dense = self.one_graph and not sparse
        loaded = data.load(self.data_set, dense=dense, folder=self.data_folder)
        assert isinstance(loaded, NodeData | GraphSet)
        return _Epoch(loaded.to(device), experiment.load(f"{self.data_set}/gat"), contestant)


class EpochEntry(Entry):
    """Timed as a whole too; its input `_x` may be sparse."""

    _x: Any

    @property
    def directions(self) -> dict[str, Callable[[], Any]]:
        return super().directions | {"epoch": self.epoch}

    @property
    def inputs(self) -> list[Tensor]:
        return [self._x if isinstance(self._x, Tensor) else self._x.values]

    def epoch(self) -> Any:
        """Steps and evaluation."""
        raise NotImplementedError


class _Epoch(EpochEntry):
    """What it takes for a graph is the task and a batch to compare on, with an edge_index of its own."""

    def __init__(self, loaded: NodeData | GraphSet, definition: Experiment, contestant: str) -> None:
        torch.manual_seed(0)
        options = {**definition.model.options, "feature_dropout": 0.0}
        self._model: nn.Module = MODELS["gat"](loaded.num_features, loaded.num_classes, **options)
        self._model.to(_first(loaded).y.device)
        if contestant.startswith("pyg"):  # feature_dropout is 0 because PyG's layer has no such dropout
            for layer in [module for module in self._model.modules() if isinstance(module, GATConv)]:
                layer.__class__ = PyGGATConv
        train = definition.train
        self._optimizer = torch.optim.Adam(
            self._model.parameters(), lr=train.lr, weight_decay=train.weight_decay, fused=True
        )
        self._x = _first(loaded).x

        if contestant.startswith("pyg"):  # and torch's own dropout between the layers
            self._model.forward = ops.use(backend="reference")(self._model.forward)
        if contestant == "pyg compiled":
            torch._dynamo.config.recompile_limit = 64  # once a layer, mode and kind of shape, else it would give up
            self._model.compile()

        def compute(graph: tuple[Task, Any]) -> Tensor:
            return self._model(graph[1].x, graph[1].edge_index)

        def make_graph() -> tuple[Task, Any]:
            if isinstance(loaded, GraphSet):
                size = train.batch or 1
                return MultiLabelNodes(loaded, size), Batch.from_data_list(list(loaded.train[:size]))
            own = replace(loaded, edge_index=loaded.edge_index.clone())
            return NodeClassification(own), own

        weights = dict(self._model.named_parameters())
        super().__init__(compute, make_graph, weights, list(weights.values()))
        self._run_step: Callable[[], Tensor] = self._step
        if contestant == "graphattn captured":
            self._run_step = captured(self._step, self._model, self._optimizer)
            self.has_peak = False

    def output(self) -> Tensor:
        """The logits in training."""
        self._model.train()
        return super().output()

    def forward(self) -> dict[str, float]:
        """Evaluation: validation loss, validation and test scores."""
        return self.graph[0].measures(self._model.eval())

    def step(self) -> Tensor:
        return self._run_step()

    def renew(self) -> None:
        super().renew()
        if self._run_step != self._step:  # what was recorded reads the old graph
            self._run_step = captured(self._step, self._model, self._optimizer)

    def _step(self, batch: Any = None) -> Tensor:
        task, first = self.graph
        self._model.train()
        self._optimizer.zero_grad()
        loss = task.loss(self._model, first if batch is None else batch)
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def epoch(self) -> dict[str, float]:
        task = self.graph[0]
        if task.whole:
            self.step()
        else:
            for batch in task.batches():
                self._step(batch)
        return self.forward()

    def answer(self) -> dict[str, Tensor]:
        """The logits and the gradients of the training loss, without dropout: its masks differ between contestants."""
        self._model.eval()
        self._optimizer.zero_grad()
        task, batch = self.graph
        task.loss(self._model, batch).backward()
        return {"output": super().output().detach()} | self.gradients()


def _first(loaded: NodeData | GraphSet) -> Any:
    return loaded.train[0] if isinstance(loaded, GraphSet) else loaded
