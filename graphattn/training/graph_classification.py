"""Classification of whole graphs: batches of them, accuracy on graphs that were not seen in training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader
from torchmetrics.functional.classification import multiclass_accuracy

from graphattn.data import GraphSet
from graphattn.training.ranks import Shares, weighted


class GraphClassification:
    """Each graph has one class. Accuracies are in percent.

    `batch` graphs are put together for a step, in an order that torch's generator draws anew each epoch.
    """

    score: ClassVar[str] = "accuracy"
    whole: ClassVar[bool] = False

    def __init__(self, data: GraphSet, batch: int) -> None:
        self.data = data
        self._train = DataLoader(data.train, batch_sampler=Shares(len(data.train), batch))
        self._held_out = {part: list(DataLoader(getattr(data, part), batch_size=batch)) for part in ("val", "test")}

    def batches(self) -> Iterator[Batch]:
        """The training graphs, `batch` at a time."""
        return iter(self._train)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy, averaged over the batch's graphs."""
        return weighted(F.cross_entropy(_logits(model, batch), batch.y), batch.num_graphs)

    @torch.no_grad()
    def measures(self, model: nn.Module) -> dict[str, float]:
        """val_loss, val_accuracy and test_accuracy of the model as it is (call eval() first)."""
        found = {}
        for part, batches in self._held_out.items():
            logits = torch.cat([_logits(model, batch) for batch in batches])
            y = torch.cat([batch.y for batch in batches])
            if part == "val":
                found["val_loss"] = F.cross_entropy(logits, y)
            found[f"{part}_accuracy"] = 100 * multiclass_accuracy(
                logits, y, self.data.num_classes, average="micro", validate_args=False
            )
        numbers = torch.stack(list(found.values())).tolist()  # together: each would wait for the GPU
        return {name: x if name == "val_loss" else round(x, 4) for name, x in zip(found, numbers, strict=True)}


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch.x, batch.edge_index, batch.batch, batch.num_graphs)
