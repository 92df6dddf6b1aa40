"""What a model is asked to do: batches, a training loss and measures, on one data set. `fit` knows no more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_accuracy

from graphattn.data import NodeData


class Task(Protocol):
    """An epoch takes a step on each of `batches`. `measures` are floats; those named val_loss and, with `score` put in,
    val_<score> steer the stopping rule. `whole`: each epoch has one batch, always the same.
    """

    score: ClassVar[str]
    whole: ClassVar[bool]

    def batches(self) -> Iterable[Any]: ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor: ...

    def measures(self, model: nn.Module) -> dict[str, float]: ...


class NodeClassification:
    """Transductive: every node is seen, the training nodes' labels too. Accuracies are in percent."""

    score: ClassVar[str] = "accuracy"
    whole: ClassVar[bool] = True

    def __init__(self, data: NodeData) -> None:
        self.data = data

    def batches(self) -> tuple[NodeData]:
        """The whole graph."""
        return (self.data,)

    def loss(self, model: nn.Module, batch: NodeData) -> Tensor:
        """Cross-entropy on the training nodes."""
        return F.cross_entropy(self._logits(model)[batch.train], batch.y[batch.train])

    @torch.no_grad()
    def measures(self, model: nn.Module) -> dict[str, float]:
        """val_loss, val_accuracy and test_accuracy of the model as it is (call eval() first)."""
        return node_measures(self._logits(model), self.data)

    def _logits(self, model: nn.Module) -> Tensor:
        if not getattr(model, "uses_labels", False):
            return model(self.data.x, self.data.edge_index)
        known = torch.zeros(self.data.num_nodes, self.data.num_classes, device=self.data.y.device)
        known[self.data.train, self.data.y[self.data.train]] = 1
        return model(self.data.x, self.data.edge_index, known)


def node_measures(logits: Tensor, data: NodeData) -> dict[str, float]:
    """val_loss, and val_accuracy and test_accuracy in percent, of these logits [N, C]."""
    val, y = data.val, data.y
    found = {
        "val_loss": F.cross_entropy(logits[val], y[val]),
        "val_accuracy": 100 * _share(logits, val, data),
        "test_accuracy": 100 * _share(logits, data.test, data),
    }
    numbers = torch.stack(list(found.values())).tolist()  # together: each would wait for the GPU
    return {name: x if name == "val_loss" else round(x, 4) for name, x in zip(found, numbers, strict=True)}


def _share(logits: Tensor, nodes: Tensor, data: NodeData) -> Tensor:
    """Of the nodes those that are put into their own class."""
    return multiclass_accuracy(logits[nodes], data.y[nodes], data.num_classes, average="micro", validate_args=False)
