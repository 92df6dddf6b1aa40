"""Known labels as features: what a node's neighbours are known to be is shown to the model."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from graphattn.data import NodeData
from graphattn.training.judging import loss_of
from graphattn.training.tasks import NodeClassification, edges_for


class LabelInputs(NodeClassification):
    """As NodeClassification, of a model whose inputs are [x, k] [N, F + C].

    k is one-hot where a label is shown, else 0. In each step every training node's label is shown with probability
    `rate`, and the loss is that of the others; in measuring all training labels are shown. With `reuse` the model is
    run so many times again, k of the nodes whose label is not shown being what it predicted last (softmax, without
    gradient); the last run counts.

    Raises:
        ValueError: sparse features, several tasks a node.

    Papers: Shi et al., Masked Label Prediction, IJCAI 2021 (labels as inputs); Wang et al., Bag of Tricks for Node
    Classification with Graph Neural Networks, arXiv:2103.13355 (reuse).
    """

    whole: ClassVar[bool] = False  # each step shows other labels

    def __init__(self, data: NodeData, rate: float = 0.5, reuse: int = 0) -> None:
        if not isinstance(data.x, Tensor) or data.y.dim() > 1:
            raise ValueError(f"{data.name}: labels as inputs need dense features and a class a node")
        super().__init__(data)
        self.rate, self.reuse = rate, reuse

    def loss(self, model: nn.Module, batch: NodeData) -> Tensor:
        """Cross-entropy on the training nodes whose labels are not shown; 0 if all are."""
        drawn = torch.rand(batch.train.numel(), device=batch.train.device) < self.rate
        asked = batch.train[~drawn]
        logits = self._with(model, batch.train[drawn])[asked]
        return loss_of(logits, batch.y[asked]) if asked.numel() else logits.sum()

    def logits(self, model: nn.Module) -> Tensor:
        """[N, C], all training labels shown."""
        return self._with(model, self.data.train)

    def _with(self, model: nn.Module, shown: Tensor) -> Tensor:
        data = self.data
        known = torch.zeros(data.num_nodes, data.num_classes, device=data.y.device)
        known[shown, data.y[shown]] = 1
        hidden = ~known.any(1, keepdim=True)
        for _ in range(self.reuse):
            with torch.no_grad():  # only the last pass learns
                predicted = self._given(model, known).softmax(1).float()
            known = torch.where(hidden, predicted, known)
        return self._given(model, known)

    def _given(self, model: nn.Module, known: Tensor) -> Tensor:
        assert isinstance(self.data.x, Tensor)
        x = torch.cat([self.data.x, known], 1)
        return model(x, self.data.edge_index, **edges_for(model, self.data.edge_attr))
