"""Node classification in mini-batches of sampled neighbourhoods, for a graph too large to train on as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphattn.data import NeighborLoader, NodeData
from graphattn.training.judging import answers, loss_of
from graphattn.training.layerwise import layerwise
from graphattn.training.ranks import Shares, weighted
from graphattn.training.tasks import edges_for, node_measures


class SampledNodeClassification:
    """As NodeClassification, but a step takes `batch` training nodes and, hop by hop, so many of their neighbours as
    `neighbors` says, drawn anew each time. Measures are of the whole graph, a layer at a time.

    Raises:
        ValueError: sparse features, which the loader cannot gather.
    """

    whole: ClassVar[bool] = False

    def __init__(self, data: NodeData, batch: int, neighbors: Sequence[int]) -> None:
        if not isinstance(data.x, Tensor):
            raise ValueError(f"{data.name}: sampling needs dense features: set data.dense = true")
        self.data = data
        self.score = data.score
        whole = Data(x=data.x, edge_index=data.edge_index, edge_attr=data.edge_attr, y=data.y)
        shares = Shares(data.train.numel(), batch)
        self._train = NeighborLoader(whole, list(neighbors), input_nodes=data.train, batch_sampler=shares)

    @property
    def steps(self) -> int:
        return len(self._train)

    def batches(self) -> Iterator[Data]:
        """The training nodes with their neighbours, `batch` at a time."""
        return iter(self._train)

    def loss(self, model: nn.Module, batch: Data) -> Tensor:
        """Cross-entropy on the nodes that the batch is about."""
        y = batch.y[: batch.batch_size]
        return weighted(loss_of(seeds_output(model, batch), y), answers(y))

    @torch.no_grad()
    def measures(self, model: nn.Module) -> dict[str, float]:
        """val_loss, val_<score> and test_<score> of the model as it is."""
        return node_measures(self.logits(model), self.data)

    def logits(self, model: nn.Module) -> Tensor:
        """[N, C], of the whole graph."""
        assert isinstance(self.data.x, Tensor)
        logits = layerwise(model, self.data.x, self.data.edge_index, edge_attr=self.data.edge_attr)
        return logits.to(self.data.y.device)


def seeds_output(model: nn.Module, batch: Data) -> Tensor:
    """What `model` gives for the first `batch_size` nodes of a sampled batch, the later hops left out where it can."""
    options: dict[str, Any] = edges_for(model, batch.edge_attr)
    if getattr(model, "by_hop", False):
        options["per_hop"] = (batch.num_sampled_nodes, batch.num_sampled_edges)
    out = model(batch.x, batch.edge_index, **options)
    return out[: batch.batch_size]
