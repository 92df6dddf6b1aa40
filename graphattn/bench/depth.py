"""Attention of every layer over all layers before it: a list of values against a concatenated cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from graphattn.bench import memory
from graphattn.bench.case import Case, Entry
from graphattn.depth.attend import attend_layers


@dataclass(frozen=True)
class DepthCase(Case):
    """The attention of MRLA-base through a stage of so many layers, on maps of `batch` x `channels` x `size` x `size`:
    each layer asks those up to itself; their readings are added up with different weights.

    "graphattn" is `depth.attend_layers`; "concatenated" grows a cache by torch.cat, as the authors' code does; "sdpa"
    is scaled_dot_product_attention with layers for tokens, which needs all layers before the first reading and so
    computes another network: what the attention costs where nothing must be incremental.
    """

    baseline: ClassVar[str] = "concatenated"

    name: str
    layers: int
    batch: int = 8
    channels: int = 64
    size: int = 32
    dim: int = 16

    def contestants(self, device: str) -> tuple[str, ...]:
        return ("graphattn", "graphattn compiled", "sdpa", "concatenated")

    def obstacle(self, contestant: str, device: str) -> str | None:
        if contestant != "concatenated":
            return None
        one = 4 * self.batch * self.channels * self.size**2
        return memory.lack(1.5 * one * self.layers * (self.layers + 1) / 2, device)

    def about(self) -> dict[str, Any]:
        edges = self.layers * (self.layers + 1) // 2
        sizes = {"N": self.layers, "E": edges, "H": self.channels // self.dim, "D": self.dim * self.size**2}
        return {"op": "mrla-base", "graph": "layers", "dtype": "float32"} | sizes

    def build(self, contestant: str, device: str) -> Entry:
        generator = torch.Generator().manual_seed(0)
        heads = self.channels // self.dim
        shapes = {
            "query": (self.layers, self.batch, heads, self.dim),
            "key": (self.layers, self.batch, heads, self.dim),
            "image": (self.batch, self.channels, self.size, self.size),
            "scale": (self.layers, self.channels, 1, 1),
        }
        leaves = {
            name: torch.randn(shape, generator=generator).to(device).requires_grad_() for name, shape in shapes.items()
        }
        read = {"concatenated": _concatenated, "sdpa": _sdpa}.get(contestant, _listed)
        if contestant == "graphattn compiled":
            read = torch.compile(read)

        def compute(_: None) -> Tensor:
            values = [leaves["image"] * scale for scale in leaves["scale"].unbind()]
            return read(leaves["query"].unbind(), leaves["key"].unbind(), values)

        return Entry(compute, lambda: None, leaves)


def _summed(readings: Sequence[Tensor]) -> Tensor:
    """Of which nothing is kept for backward."""
    out = torch.zeros_like(readings[0])
    for t, reading in enumerate(readings):
        out = torch.add(out, reading, alpha=1 + t / len(readings))
    return out


def _listed(queries: Sequence[Tensor], keys: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    scale = queries[0].shape[-1] ** -0.5
    steps = range(1, len(queries) + 1)
    return _summed([attend_layers(queries[t - 1], keys[:t], values[:t], scale)[0] for t in steps])


def _concatenated(queries: Sequence[Tensor], keys: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    batch, channels, *space = values[0].shape
    heads, dim = queries[0].shape[1:]
    key_cache, value_cache = queries[0].new_empty(batch, 0, heads, dim), values[0].new_empty(batch, 0, channels, *space)
    readings = []
    for query, key, value in zip(queries, keys, values, strict=True):
        key_cache = torch.cat([key_cache, key.unsqueeze(1)], 1)
        value_cache = torch.cat([value_cache, value.unsqueeze(1)], 1)
        weights = (torch.einsum("bhd,bthd->bth", query, key_cache) * dim**-0.5).softmax(1)
        spread = weights.repeat_interleave(channels // heads, 2)
        readings.append((spread[..., None, None] * value_cache).sum(1))
    return _summed(readings)


def _sdpa(queries: Sequence[Tensor], keys: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    batch, channels, *space = values[0].shape
    heads = queries[0].shape[1]
    query, key = torch.stack(list(queries), 2), torch.stack(list(keys), 2)
    value = torch.stack(list(values), 1).reshape(batch, len(values), heads, -1).transpose(1, 2)
    out = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return _summed(out.transpose(1, 2).reshape(batch, len(values), channels, *space).unbind(1))
