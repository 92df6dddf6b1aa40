"""Self-attentive layer aggregation (SA-ResNet): the last layer attends to all layers, and what it reads is classified.

Luo, "Self-Attentive Layer Aggregation", 2019 (slides). Lin et al., "A Structured Self-Attentive Sentence Embedding",
ICLR 2017, is what it grew from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from graphattn.depth.memory import LayerMemory
from graphattn.depth.rule import Place, Rule, Score
from graphattn.graph import Graph
from graphattn.layer_dags import readout


def read_out(query: Tensor, keys: Tensor, values: Tensor, heads: int = 1) -> tuple[Tensor, Tensor]:
    """softmax(q K^T / sqrt(d / heads)) V over layers: `query` [B, P, d] for P tokens, `keys` and `values` [B, L, P, d]
    of L layers; gives ([B, P, d], weights [B, P, heads, L]). One query a token: only the last layer asks.
    """
    batch, layers, tokens, width = keys.shape
    split = (batch, layers, tokens, heads, width // heads)
    scores = torch.einsum("bphd,blphd->bphl", query.reshape(batch, tokens, heads, -1), keys.reshape(split))
    weights = (scores * (width // heads) ** -0.5).softmax(-1)
    out = torch.einsum("bphl,blphd->bphd", weights, values.reshape(split))
    return out.reshape(batch, tokens, width), weights


@dataclass(frozen=True, kw_only=True)
class SelfAttentive(Rule):
    """X_1, ..., X_L made equal in width; Q = X W_Q, K = X W_K, V = X W_V; the last row of softmax(Q K^T / sqrt(d)) V
    over the layer axis replaces the last layer's output.

    What the slides leave open are options; the defaults are the cheapest faithful reading, 15,680 parameters on a CIFAR
    ResNet of any depth.

    tokens    "mean": one token a layer, its global average; the result is [B, C, 1, 1], which a global average pool
              behind it leaves as it is. "positions": each position of the last layer's map attends by itself, earlier
              maps are average-pooled to its size.
    project    "stage": layers of one width share the linear map to the last width C, which the last width does not
               have; "layer": every layer has its own.
    heads      attention heads, 1 in the slides.
    entry      what enters the first block (the stem's output) is a node too.
    skip       the last layer's own token is added to what it read.
    """

    scope: str | int = "network"
    tokens: Literal["mean", "positions"] = "mean"
    project: Literal["stage", "layer"] = "stage"
    heads: int = 1
    entry: bool = False
    skip: bool = False

    score: ClassVar[Score] = "query-key"
    normalisation: ClassVar[str] = "softmax"
    cost: ClassVar[str] = "O(1) to push, O(L) to read; holds t tokens"
    identity: ClassVar[bool] = False
    one_shape: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("tokens", ("mean", "positions")), ("project", ("stage", "layer"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}, needed {known[0]!r} or {known[1]!r}")

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        last = places[-1]
        if len(last.shape) != 3 or last.channels % self.heads:
            raise ValueError(
                f"{last.name} gives {list(last.shape)}: needed maps [C, H, W], C a multiple of the {self.heads} heads"
            )
        size = (1, 1) if self.tokens == "mean" else (last.shape[1], last.shape[2])
        widths = [places[0].entry_channels] * self.entry + [place.channels for place in places]
        read = ReadOut(widths, last.channels, size, self, alone=len(places) == 1)
        return [*(Token(size, self.entry and i == 0) for i in range(len(places) - 1)), read]

    def graph(self, num_layers: int) -> Graph:
        return readout(num_layers + self.entry)


class Token(nn.Module):
    """Remembers a layer's tokens, and the entry's if asked; passes on what the layer gave."""

    def __init__(self, size: tuple[int, int], entry: bool) -> None:
        super().__init__()
        self.size, self.entry = size, entry

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        push_tokens(x, memory, self.size, self.entry)
        return x


class ReadOut(nn.Module):
    """The last layer: widths made equal, three linear maps, one query."""

    def __init__(
        self, widths: Sequence[int], width: int, size: tuple[int, int], options: SelfAttentive, *, alone: bool
    ) -> None:
        super().__init__()
        self.size, self.heads, self.skip, self.entry = size, options.heads, options.skip, options.entry and alone
        self.shared = options.project == "stage"
        needed = dict.fromkeys(w for w in widths if w != width) if self.shared else range(len(widths))
        self.align = nn.ModuleDict({str(key): nn.Linear(key if self.shared else widths[key], width) for key in needed})
        self.names = [str(w if self.shared else index) for index, w in enumerate(widths)]
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        push_tokens(x, memory, self.size, self.entry)
        equal = torch.stack(
            [
                self.align[name](layer) if name in self.align else layer
                for name, layer in zip(self.names, memory.values, strict=True)
            ],
            dim=1,
        )
        out, weights = read_out(self.query(equal[:, -1]), self.key(equal), self.value(equal), self.heads)
        memory.note(weights)
        if self.skip:
            out = out + equal[:, -1]
        return out.transpose(1, 2).reshape(x.shape[0], -1, *self.size)


def push_tokens(x: Tensor, memory: LayerMemory, size: tuple[int, int], entry: bool) -> None:
    """Remember a layer's tokens, and before them, if asked, those of what entered the scope."""
    if entry:
        assert memory.entry is not None
        memory.push(None, tokens_of(memory.entry, size))
    memory.push(None, tokens_of(x, size))


def tokens_of(x: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, C, H, W] -> [B, P, C]: the averages over a grid of P = size[0] size[1] cells."""
    return nn.functional.adaptive_avg_pool2d(x, size).flatten(2).transpose(1, 2)
