"""Recurrent layer attention for vision transformers: tokens [B, T, C], class tokens first, patches on a square grid.

Fang, Cai, Chen and Yang, "Cross-Layer Retrospective Retrieving via Layer Attention", ICLR 2023, as in their DeiT code.
The tokens are layer-normalised; patches go back to their grid and through the maps of `mrla`; the class tokens, which
have no place there, get their own norm added. Heads have 16 channels in both forms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.depth.attend import attend_layers
from graphattn.depth.memory import LayerMemory
from graphattn.depth.mrla import QueryKeyValue, light_scan
from graphattn.depth.rule import Place, Rule, Score
from graphattn.graph import Graph
from graphattn.layer_dags import history


@dataclass(frozen=True, kw_only=True)
class MRLABaseTokens(Rule):
    """x_t <- x_t + [LN(x_t) of the class tokens, sum over s <= t of softmax_s(<q_t, k_s> / sqrt(d)) v_s of the
    patches].

    In the published models a scope is 4 blocks.
    """

    scope: str | int = 4
    dim: int = 16
    class_tokens: int = 1

    score: ClassVar[Score] = "query-key"
    normalisation: ClassVar[str] = "softmax"
    cost: ClassVar[str] = "O(t); holds t maps"
    identity: ClassVar[bool] = False

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        return [BaseTokens(_channels(place, self.class_tokens), self.dim, self.class_tokens) for place in places]

    def graph(self, num_layers: int) -> Graph:
        return history(num_layers)


@dataclass(frozen=True, kw_only=True)
class MRLALightTokens(Rule):
    """o_t = sigmoid(<q_t, k_t> / sqrt(d)) GELU(v_t) + lambda_t LN'(block t's input);  x_t <- x_t + [LN(x_t) of the
    class tokens, o_t of the patches]. What is carried is the block's input, with a norm of its own; lambda [C] is
    drawn from N(0, 1).
    """

    dim: int = 16
    class_tokens: int = 1

    score: ClassVar[Score] = "key-only"
    normalisation: ClassVar[str] = "sigmoid"
    cost: ClassVar[str] = "O(1); holds the block's input"
    identity: ClassVar[bool] = False

    @property
    def remembers(self) -> bool:
        return False

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        return [LightTokens(_channels(place, self.class_tokens), self.dim, self.class_tokens) for place in places]

    def graph(self, num_layers: int) -> Graph:
        return history(num_layers)


class BaseTokens(nn.Module):
    """Norm, and attention over the memory for the patches."""

    def __init__(self, channels: int, dim: int, class_tokens: int) -> None:
        super().__init__()
        self.class_tokens = class_tokens
        self.norm = nn.LayerNorm(channels)
        self.maps = QueryKeyValue(channels, dim)

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        cls, patches = split(self.norm(x), self.class_tokens)
        query, key, value = self.maps(patches)
        memory.push(key, value)
        out, weights = attend_layers(query, memory.keys, memory.values, self.maps.scale)
        memory.note(weights)
        return x + join(cls, out)


class LightTokens(nn.Module):
    """Norm, and the scan for the patches."""

    def __init__(self, channels: int, dim: int, class_tokens: int) -> None:
        super().__init__()
        self.class_tokens = class_tokens
        self.norm, self.carried_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.maps = QueryKeyValue(channels, dim)
        self.decay = nn.Parameter(torch.randn(channels))

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        assert memory.shortcut is not None
        cls, patches = split(self.norm(x), self.class_tokens)
        _, carried = split(self.carried_norm(memory.shortcut), self.class_tokens)
        query, key, value = self.maps(patches)
        gates = (query * key).sum(-1) * self.maps.scale
        return x + join(cls, light_scan(gates, F.gelu(value), self.decay[:, None, None], carried))


def split(tokens: Tensor, class_tokens: int) -> tuple[Tensor, Tensor]:
    """[B, T, C] -> the class tokens [B, T_c, C] and the patches as a map [B, C, side, side]."""
    cls, patches = tokens[:, :class_tokens], tokens[:, class_tokens:]
    side = math.isqrt(patches.shape[1])
    return cls, patches.transpose(1, 2).unflatten(2, (side, side))


def join(cls: Tensor, patches: Tensor) -> Tensor:
    """The inverse of `split`."""
    return torch.cat([cls, patches.flatten(2).transpose(1, 2)], dim=1)


def _channels(place: Place, class_tokens: int) -> int:
    count = place.shape[0] - class_tokens
    if len(place.shape) != 2 or count < 1 or math.isqrt(count) ** 2 != count:
        raise ValueError(
            f"{place.name} gives {list(place.shape)}: needed tokens [T, C], of which all but the first {class_tokens} "
            f"lie on a square grid; say how many class tokens there are"
        )
    return place.channels
