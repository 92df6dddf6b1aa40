"""What a model is asked to do: batches, a training loss and measures, on one data set. `fit` knows no more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc, multiclass_accuracy

from graphattn.data import NodeData


class Task(Protocol):
    """An epoch takes a step on each of `batches`. `measures` are floats; those named val_loss and, with `score` put in,
    val_<score> steer the stopping rule. `whole`: each epoch has one batch, always the same.
    """

    whole: ClassVar[bool]

    @property
    def score(self) -> str: ...

    def batches(self) -> Iterable[Any]: ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor: ...

    def measures(self, model: nn.Module) -> dict[str, float]: ...


class NodeClassification:
    """Transductive: every node is seen, the training nodes' labels too. The score, in percent, is the data's own."""

    whole: ClassVar[bool] = True

    def __init__(self, data: NodeData) -> None:
        self.data = data
        self.score = data.score

    def batches(self) -> tuple[NodeData]:
        """The whole graph."""
        return (self.data,)

    def loss(self, model: nn.Module, batch: NodeData) -> Tensor:
        """Cross-entropy on the training nodes."""
        return F.cross_entropy(self._logits(model)[batch.train], batch.y[batch.train])

    @torch.no_grad()
    def measures(self, model: nn.Module) -> dict[str, float]:
        """val_loss, val_<score> and test_<score> of the model as it is (call eval() first)."""
        return node_measures(self._logits(model), self.data)

    def _logits(self, model: nn.Module) -> Tensor:
        if not getattr(model, "uses_labels", False):
            return model(self.data.x, self.data.edge_index)
        known = torch.zeros(self.data.num_nodes, self.data.num_classes, device=self.data.y.device)
        known[self.data.train, self.data.y[self.data.train]] = 1
        return model(self.data.x, self.data.edge_index, known)


def node_measures(logits: Tensor, data: NodeData) -> dict[str, float]:
    """val_loss, and val_<score> and test_<score> in percent, of these logits [N, C]."""
    val, y = data.val, data.y
    score = {"accuracy": _accuracy, "roc_auc": _roc_auc}[data.score]
    found = {
        "val_loss": F.cross_entropy(logits[val], y[val]),
        f"val_{data.score}": 100 * score(logits[val], y[val]),
        f"test_{data.score}": 100 * score(logits[data.test], y[data.test]),
    }
    numbers = torch.stack(list(found.values())).tolist()  # together: each would wait for the GPU
    return {name: x if name == "val_loss" else round(x, 4) for name, x in zip(found, numbers, strict=True)}


def _accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Of the nodes those that are put into their own class."""
    return multiclass_accuracy(logits, y, logits.shape[1], average="micro", validate_args=False)


def _roc_auc(logits: Tensor, y: Tensor) -> Tensor:
    """Of the pairs of a node of class 1 and one of class 0 those in the right order; a tie counts half."""
    rank = (logits[:, 1] - logits[:, 0]).unique(return_inverse=True)[1]
    # From 0 to 1: of anything else torchmetrics takes the sigmoid, which makes ties of large numbers.
    return binary_auroc(rank.double() / rank.numel(), y, validate_args=False)
