"""What a model is asked to do: batches, a training loss and measures, on one data set. `fit` knows no more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from graphattn.data import NodeData
from graphattn.training.judging import loss_of, measures_of


class Task(Protocol):
    """An epoch takes a step on each of `batches`, `steps` in all. `measures` are floats; those named val_loss and, with
    `score` put in, val_<score> steer the stopping rule. `whole`: each epoch has one batch, always the same.
    """

    whole: ClassVar[bool]

    @property
    def score(self) -> str: ...

    @property
    def steps(self) -> int: ...

    def batches(self) -> Iterable[Any]: ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor: ...

    def measures(self, model: nn.Module) -> dict[str, float]: ...


class NodeClassification:
    """Transductive: every node is seen, the training nodes' labels too. The score, in percent, is the data's own."""

    whole: ClassVar[bool] = True
    steps = 1

    def __init__(self, data: NodeData) -> None:
        self.data = data
        self.score = data.score

    def batches(self) -> tuple[NodeData]:
        """The whole graph."""
        return (self.data,)

    def loss(self, model: nn.Module, batch: NodeData) -> Tensor:
        """Cross-entropy on the training nodes."""
        return loss_of(self.logits(model)[batch.train], batch.y[batch.train])

    @torch.no_grad()
    def measures(self, model: nn.Module) -> dict[str, float]:
        """val_loss, val_<score> and test_<score> of the model as it is (call eval() first)."""
        return node_measures(self.logits(model), self.data)

    def logits(self, model: nn.Module) -> Tensor:
        """[N, C], of the whole graph."""
        if not getattr(model, "uses_labels", False):
            return model(self.data.x, self.data.edge_index, **edges_for(model, self.data.edge_attr))
        known = torch.zeros(self.data.num_nodes, self.data.num_classes, device=self.data.y.device)
        known[self.data.train, self.data.y[self.data.train]] = 1
        return model(self.data.x, self.data.edge_index, known)


def node_measures(logits: Tensor, data: NodeData) -> dict[str, float]:
    """val_loss, and val_<score> and test_<score> in percent, of these logits [N, C]."""
    return measures_of(data.score, {part: (logits[ids], data.y[ids]) for part, ids in data.held_out().items()})


def edges_for(model: nn.Module, edge_attr: Tensor | None) -> dict[str, Tensor | None]:
    """The features of the edges as an argument, for a model that looks at them."""
    return {} if getattr(model, "edge_dim", None) is None else {"edge_attr": edge_attr}
