"""What it is worth to call the nodes of a real graph by other names, so that neighbours lie near each other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphattn import data
from graphattn.bench.case import Case, Entry
from graphattn.conv import GATConv
from graphattn.data import NodeData, locality_order


@dataclass(frozen=True)
class OrderCase(Case):
    """GATConv of `heads` x `width` on 64 random features, on a data set's graph as it comes and with its nodes in an
    order: "reordered" is `data.reorder`, "by degree" has the nodes of most edges first. `graph` is what ordering costs,
    once.
    """

    baseline: ClassVar[str] = "as it comes"

    name: str
    data_set: str
    heads: int = 4
    width: int = 64
    data_folder: Path | None = None

    def contestants(self, device: str) -> tuple[str, ...]:
        return ("reordered", "by degree", "as it comes")

    def obstacle(self, contestant: str, device: str) -> str | None:
        try:
            data.load(self.data_set, folder=self.data_folder)
        except (OSError, ValueError) as error:
            return str(error)
        return None

    def about(self) -> dict[str, Any]:
        return {"op": "gat", "graph": self.data_set, "H": self.heads, "D": self.width, "dtype": "float32"}

    def build(self, contestant: str, device: str) -> Entry:
        loaded = data.load(self.data_set, folder=self.data_folder)
        assert isinstance(loaded, NodeData)
        order = _order(contestant, loaded.edge_index, loaded.num_nodes)
        back = torch.empty_like(order)
        back[order] = torch.arange(order.numel())
        edge_index = back[loaded.edge_index]
        edge_index = edge_index[:, (edge_index[0] * loaded.num_nodes + edge_index[1]).argsort()].to(device)
        features = torch.randn(loaded.num_nodes, 64, generator=torch.Generator().manual_seed(0))
        x = features[order].to(device).requires_grad_()
        torch.manual_seed(0)
        layer = GATConv(64, self.width, self.heads).to(device)
        weights = dict(layer.named_parameters())
        return _Renamed(
            back,
            compute=partial(layer, x),
            make_graph=edge_index.clone,
            leaves={"x": x} | weights,
            parameters=list(weights.values()),
            order=partial(_order, contestant, loaded.edge_index, loaded.num_nodes),
        )


class _Renamed(Entry):
    """Its answers are by the nodes' own names, and so comparable."""

    def __init__(self, back: Tensor, **rest: Any) -> None:
        super().__init__(**rest)
        self._back = back

    def step(self) -> Tensor:
        if self._grad is None:
            own = torch.randn(self.output().shape, generator=torch.Generator().manual_seed(1))
            self._grad = torch.empty_like(own).index_copy(0, self._back, own).to(next(iter(self.leaves.values())))
        return super().step()

    def answer(self) -> dict[str, Tensor]:
        found = super().answer()
        return {
            name: value[self._back] if name in ("output", "gradient of x") else value for name, value in found.items()
        }


def _order(contestant: str, edge_index: Tensor, num_nodes: int) -> Tensor:
    if contestant == "reordered":
        return locality_order(edge_index, num_nodes)
    if contestant == "by degree":
        return torch.bincount(edge_index[1], minlength=num_nodes).argsort(descending=True, stable=True)
    return torch.arange(num_nodes)
