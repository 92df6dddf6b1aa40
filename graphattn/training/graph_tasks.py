"""Tasks on sets of graphs: batches of whole graphs, measures on graphs that were not seen in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torchmetrics.functional.classification import multilabel_f1_score

from graphattn.data import GraphSet, NeighborLoader
from graphattn.training.ranks import Shares, weighted
from graphattn.training.sampled import seeds_output


class MultiLabelNodes:
    """Inductive: each node has several labels, each a yes or no. F1 is micro-averaged over all of them, in percent.

    `batch` graphs are put together for a step, in an order that torch's generator draws anew each epoch. With
    `neighbors`, a step takes `batch` nodes of all training graphs instead, and of their neighbours hop by hop so many
    as `neighbors` says, drawn anew each time; measures are of whole graphs all the same.
    """

    score: ClassVar[str] = "f1"
    whole: ClassVar[bool] = False

    def __init__(self, data: GraphSet, batch: int, neighbors: Sequence[int] | None = None) -> None:
        self.data = data
        if neighbors is None:
            self._train = DataLoader(data.train, batch_sampler=Shares(len(data.train), batch))
        else:
            union = Batch.from_data_list(list(data.train))
            whole = Data(x=union.x, edge_index=union.edge_index, y=union.y)
            self._train = NeighborLoader(whole, list(neighbors), batch_sampler=Shares(whole.num_nodes, batch))
        self._held_out = {part: list(DataLoader(getattr(data, part), batch_size=1)) for part in ("val", "test")}

    @property
    def steps(self) -> int:
        return len(self._train)

    def batches(self) -> Iterator[Data]:
        """The training graphs, or nodes with their neighbours, `batch` at a time."""
        return iter(self._train)

    def loss(self, model: nn.Module, batch: Data) -> Tensor:
        """Cross-entropy of each label's sigmoid, averaged over labels and the nodes that the batch is about."""
        if not isinstance(self._train, NeighborLoader):
            loss = F.binary_cross_entropy_with_logits(model(batch.x, batch.edge_index), batch.y)
            return weighted(loss, batch.num_nodes)
        loss = F.binary_cross_entropy_with_logits(seeds_output(model, batch), batch.y[: batch.batch_size])
        return weighted(loss, batch.batch_size)

    @torch.no_grad()
    def measures(self, model: nn.Module) -> dict[str, float]:
        """val_loss, val_f1 and test_f1 of the model as it is (call eval() first). A label is given if its logit is
        above 0.
        """
        found = {}
        for part, batches in self._held_out.items():
            logits = torch.cat([model(batch.x, batch.edge_index) for batch in batches])
            y = torch.cat([batch.y for batch in batches])
            if part == "val":
                found["val_loss"] = F.binary_cross_entropy_with_logits(logits, y)
            given, labels = (logits > 0).int(), y.int()
            found[f"{part}_f1"] = 100 * multilabel_f1_score(
                given, labels, self.data.num_classes, average="micro", validate_args=False
            )
        numbers = torch.stack(list(found.values())).tolist()  # together: each would wait for the GPU
        return {name: x if name == "val_loss" else round(x, 4) for name, x in zip(found, numbers, strict=True)}
