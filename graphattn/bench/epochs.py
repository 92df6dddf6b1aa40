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
from torch import Tensor, nn
from torch_geometric.nn import GATConv as PyGGATConv

from graphattn import data, ops
from graphattn.bench.case import Case, Entry
from graphattn.conv import GATConv
from graphattn.data import NodeData
from graphattn.models import MODELS
from graphattn.training import NodeClassification, captured


@dataclass(frozen=True)
class EpochCase(Case):
    """GAT with the paper's arguments. `forward` is the evaluation, `epoch` a training step and the evaluation.

    `bag_of_words`: the data set's features are sparse, and graphattn keeps them so; "graphattn dense" does not.
    "graphattn captured", on a GPU, replays the training step as a CUDA graph.
    """

    baseline: ClassVar[str] = "pyg"
    directions: ClassVar[tuple[str, ...]] = ("forward", "training step", "epoch")

    name: str
    data_set: str
    bag_of_words: bool
    data_folder: Path | None = None

    def contestants(self, device: str) -> tuple[str, ...]:
        captured = ("graphattn captured",) if device == "cuda" else ()
        dense = ("graphattn dense",) if self.bag_of_words else ()
        return ("graphattn", *captured, *dense, "pyg", "pyg compiled")

    def obstacle(self, contestant: str, device: str) -> str | None:
        try:
            data.load_nodes(self.data_set, folder=self.data_folder)
        except (OSError, ValueError) as error:
            return str(error)
        return None

    def about(self) -> dict[str, Any]:
        return {"op": "GAT", "graph": self.data_set, "dtype": "float32"}

    def build(self, contestant: str, device: str) -> Entry:
        sparse = self.bag_of_words and contestant in ("graphattn", "graphattn captured")
        return _Epoch(data.load_nodes(self.data_set, dense=not sparse, folder=self.data_folder).to(device), contestant)


class _Epoch(Entry):
    """What it takes for a graph is the whole task, with an edge_index of its own."""

    def __init__(self, loaded: NodeData, contestant: str) -> None:
        torch.manual_seed(0)
        self._model: nn.Module = MODELS["gat"](loaded.num_features, loaded.num_classes, feature_dropout=0.0)
        self._model.to(loaded.y.device)
        if contestant.startswith("pyg"):  # feature_dropout is 0 because PyG's layer has no such dropout
            for layer in [module for module in self._model.modules() if isinstance(module, GATConv)]:
                layer.__class__ = PyGGATConv
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=0.005, weight_decay=5e-4, fused=True)
        self._x = loaded.x

        if contestant.startswith("pyg"):  # and torch's own dropout between the layers
            self._model.forward = ops.use(backend="reference")(self._model.forward)
        if contestant == "pyg compiled":
            self._model.compile()

        def compute(task: NodeClassification) -> Tensor:
            return self._model(task.data.x, task.data.edge_index)

        def make_task() -> NodeClassification:
            return NodeClassification(replace(loaded, edge_index=loaded.edge_index.clone()))

        weights = dict(self._model.named_parameters())
        super().__init__(compute, make_task, weights, list(weights.values()))
        self._run_step = self._step
        if contestant == "graphattn captured":
            self._run_step = captured(self._step, self._model, self._optimizer)
            self.has_peak = False

    @property
    def directions(self) -> dict[str, Callable[[], Any]]:
        return super().directions | {"epoch": lambda: (self.step(), self.forward())}

    @property
    def inputs(self) -> list[Tensor]:
        return [self._x if isinstance(self._x, Tensor) else self._x.values]

    def output(self) -> Tensor:
        """The logits in training."""
        self._model.train()
        return super().output()

    def forward(self) -> dict[str, float]:
        """Evaluation: validation loss, validation and test accuracy."""
        return self.graph.measures(self._model.eval())

    def step(self) -> Tensor:
        return self._run_step()

    def renew(self) -> None:
        super().renew()
        if self._run_step != self._step:  # what was recorded reads the old graph
            self._run_step = captured(self._step, self._model, self._optimizer)

    def _step(self) -> Tensor:
        self._model.train()
        self._optimizer.zero_grad()
        loss = self.graph.loss(self._model, self.graph.data)
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def answer(self) -> dict[str, Tensor]:
        """The logits and the gradients of the training loss, without dropout: its masks differ between contestants."""
        self._model.eval()
        self._optimizer.zero_grad()
        self.graph.loss(self._model, self.graph.data).backward()
        return {"output": super().output().detach()} | self.gradients()
