"""Layers of element-wise attention on batches of images: the kernels against torch, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphattn import ops
from graphattn.bench import memory
from graphattn.bench.case import Case, Entry
from graphattn.grid import AttentionWise

_UNFUSED = 9  # arrays of all heads at the peak of torch's training step, about


@dataclass(frozen=True)
class GridCase(Case):
    """`AttentionWise` in training, on images that want their gradient, as those that enter a second layer do.

    As a graph, E counts the edges of the row and column cliques of an image.
    """

    baseline: ClassVar[str] = "eager"

    name: str
    images: int
    channels: int
    size: int
    heads: int

    def contestants(self, device: str) -> tuple[str, ...]:
        ours = ("graphattn",) if device == "cpu" else ()  # elsewhere the layer is torch's
        return (*ours, "compiled", "eager")

    def obstacle(self, contestant: str, device: str) -> str | None:
        if contestant == "graphattn":
            return None
        return memory.lack(4.0 * _UNFUSED * self.images * self.heads * self.channels * self.size**2, device)

    def about(self) -> dict[str, Any]:
        pixels = self.size**2
        sizes = {"N": pixels, "E": 2 * pixels * self.size, "H": self.heads, "D": self.channels}
        return {"op": "attention-wise", "graph": f"{self.images} images", "dtype": "float32"} | sizes

    def build(self, contestant: str, device: str) -> Entry:
        torch.manual_seed(0)
        layer = AttentionWise(self.channels, self.size, self.heads).to(device)
        x = torch.rand(self.images, self.channels, self.size, self.size).to(device).requires_grad_()
        call: Callable[[Tensor], Tensor] = layer
        if contestant != "graphattn":
            call = ops.use(backend="reference")(
                torch.compile(layer, fullgraph=True) if contestant == "compiled" else layer
            )
        weights = dict(layer.named_parameters())
        return Entry(lambda _: call(x), lambda: None, {"x": x} | weights, list(weights.values()))
