"""Classification of whole graphs: batches of them, measured on graphs that were not seen in training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from graphattn.data import GraphSet
from graphattn.training.judging import answers, loss_of, measures_of
from graphattn.training.ranks import Shares, weighted


class GraphClassification:
    """Each graph has one class, or an answer to each of several yes-or-no tasks. The score, in percent, is the data's.

    `batch` graphs are put together for a step, in an order that torch's generator draws anew each epoch.
    """

    whole: ClassVar[bool] = False

    def __init__(self, data: GraphSet, batch: int) -> None:
        self.data = data
        self.score = data.score
        self._train = DataLoader(data.train, batch_sampler=Shares(len(data.train), batch))
        self._held_out = {part: list(DataLoader(getattr(data, part), batch_size=batch)) for part in ("val", "test")}

    @property
    def steps(self) -> int:
        return len(self._train)

    def batches(self) -> Iterator[Batch]:
        """The training graphs, `batch` at a time."""
        return iter(self._train)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy, averaged over the batch's graphs, or over those of their tasks that have a label."""
        return weighted(loss_of(_logits(model, batch), batch.y), answers(batch.y))

    @torch.no_grad()
    def measures(self, model: nn.Module) -> dict[str, float]:
        """val_loss, val_<score> and test_<score> of the model as it is (call eval() first)."""
        found = {}
        for part, batches in self._held_out.items():
            logits = torch.cat([_logits(model, batch) for batch in batches])
            found[part] = (logits, torch.cat([batch.y for batch in batches]))
        return measures_of(self.score, found)


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    return model(batch.x, batch.edge_index, batch.batch, batch.num_graphs, batch.edge_attr)
