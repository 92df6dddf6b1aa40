"""Multi-head recurrent layer attention: each block asks all blocks of its stage (base), or carries one state (light).

Fang, Cai, Chen and Yang, "Cross-Layer Retrospective Retrieving via Layer Attention", ICLR 2023. With y = GAP(x),

    q = Conv1d_k(y),  k = Conv1d_k(y),  v = DWConv3x3(x)

where Conv1d runs along the channels and its size is that of efficient channel attention. A head has `dim` channels:
16 in base and 32 in light, or all C where C is less (the released light code divides by zero heads there).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from graphattn.depth.attend import attend_layers
from graphattn.depth.channel_attention import eca_kernel
from graphattn.depth.drop_path import DropPath
from graphattn.depth.memory import LayerMemory
from graphattn.depth.rule import Place, Rule, Score
from graphattn.graph import Graph
from graphattn.layer_dags import history


def light_scan(gates: Tensor, values: Tensor, decay: Tensor, state: Tensor) -> Tensor:
    """o_t = sigmoid(g) v + lambda o_{t-1}: `gates` [B, H] before the sigmoid, one a group of channels of `values` and
    `state` [B, C, h, w]; `decay` lambda [C, 1, 1].
    """
    channels = values.shape[1]
    spread = gates.sigmoid().repeat_interleave(channels // gates.shape[1], dim=1)
    return torch.addcmul(spread[..., None, None] * values, decay, state)


@dataclass(frozen=True, kw_only=True)
class MRLABase(Rule):
    """x_t <- x_t + DropPath(ReLU(BN(sum over s <= t of softmax_s(<q_t, k_s> / sqrt(d)) v_s))), for each head.

    k_s and v_s are computed by layer s once and kept. With `relu` False as in the released variant with a 7x7 stem. At
    initialisation the branch is live: its BN is not zero.
    """

    dim: int = 16
    relu: bool = True
    drop_path: float = 0.0

    score: ClassVar[Score] = "query-key"
    normalisation: ClassVar[str] = "softmax"
    cost: ClassVar[str] = "O(t); holds t maps"
    identity: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_align(self)

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        return [BaseLayer(_channels(place), self.dim, self.relu, self.drop_path) for place in places]

    def graph(self, num_layers: int) -> Graph:
        return history(num_layers)


@dataclass(frozen=True, kw_only=True)
class MRLALight(Rule):
    """o_t = sigmoid(<q_t, k_t> / sqrt(d)) v_t + lambda_t o_{t-1};  x_t <- x_t + DropPath(BN(o_t)).

    Unrolled, o_t = sum over s <= t of (lambda_{s+1} ... lambda_t) sigmoid_s v_s: unnormalised, a static weight an edge
    and channel, times a gate that only its source knows. Run as the scan it is: one state.

    carry    "shortcut", as in the released code: o_{t-1} is the shortcut tensor of block t, its input after its own
             `downsample`; "state", the recurrence as printed: o_{t-1} is what the layer before computed, and zero at
             the start of a stage.

    lambda is drawn from N(0, 1): at initialisation the branch is live. The published cost of 0.16 M on ResNet-50 leaves
    lambda out; it is 181,420.
    """

    dim: int = 32
    carry: Literal["shortcut", "state"] = "shortcut"
    drop_path: float = 0.0

    score: ClassVar[Score] = "key-only"
    normalisation: ClassVar[str] = "sigmoid"
    cost: ClassVar[str] = "O(1); holds one map"
    identity: ClassVar[bool] = False
    holds_one: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.carry not in ("shortcut", "state"):
            raise ValueError(f"carry is {self.carry!r}, needed 'shortcut' or 'state'")

    @property
    def remembers(self) -> bool:
        return self.carry == "state"

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        for place in places if self.carry == "shortcut" else ():
            if place.shortcut != place.shape:
                raise ValueError(
                    f"block {place.name} turns {list(place.entry)} into {list(place.shape)} and has no `downsample`, "
                    f"whose result carry='shortcut' takes: take carry='state', or blocks that have one"
                )
        return [
            LightLayer(_channels(p), self.dim, self.carry, first=i == 0, drop_path=self.drop_path)
            for i, p in enumerate(places)
        ]

    def graph(self, num_layers: int) -> Graph:
        return history(num_layers)


class QueryKeyValue(nn.Module):
    """q and k [B, H, d], v [B, C, h, w] of a map x, and the number of heads H = C / d."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        dim = min(dim, channels)
        if channels % dim:
            raise ValueError(f"a block has {channels} channels, needed a multiple of dim={dim}")
        kernel = eca_kernel(channels)
        self.heads, self.scale = channels // dim, dim**-0.5
        self.query = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.key = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)
        self.value = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pooled = x.mean((2, 3)).unsqueeze(1)
        shape = (x.shape[0], self.heads, -1)
        return self.query(pooled).reshape(shape), self.key(pooled).reshape(shape), self.value(x)


class BaseLayer(nn.Module):
    """x + DropPath(ReLU(BN(attention over the memory)))."""

    def __init__(self, channels: int, dim: int, relu: bool, drop_path: float) -> None:
        super().__init__()
        self.maps = QueryKeyValue(channels, dim)
        self.norm = nn.BatchNorm2d(channels)
        self.relu, self.drop_path = relu, DropPath(drop_path)

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        query, key, value = self.maps(x)
        memory.push(key, value)
        out, weights = attend_layers(query, memory.keys, memory.values, self.maps.scale)
        memory.note(weights)
        out = self.norm(out)
        return x + self.drop_path(out.relu() if self.relu else out)


class LightLayer(nn.Module):
    """x + DropPath(BN(scan)). The first layer of a stage that carries its own state has none, and no lambda."""

    def __init__(self, channels: int, dim: int, carry: str, *, first: bool, drop_path: float) -> None:
        super().__init__()
        self.carry = carry
        self.maps = QueryKeyValue(channels, dim)
        self.decay = None if first and carry == "state" else nn.Parameter(torch.randn(channels, 1, 1))
        self.norm = nn.BatchNorm2d(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        query, key, value = self.maps(x)
        gates = (query * key).sum(-1) * self.maps.scale
        carried = memory.shortcut if self.carry == "shortcut" else memory.state
        if self.decay is None:
            out = gates.sigmoid().repeat_interleave(value.shape[1] // gates.shape[1], 1)[..., None, None] * value
        else:
            assert carried is not None
            out = light_scan(gates, value, self.decay, carried)
        if self.carry == "state":
            memory.state = out
        return x + self.drop_path(self.norm(out))


def _check_align(rule: Rule) -> None:
    if rule.align != "error":
        raise ValueError(f"align is {rule.align!r}, and keys of heads cannot be aligned: take scope='stage'")


def _channels(place: Place) -> int:
    if len(place.shape) != 3:
        raise ValueError(
            f"{place.name} gives {list(place.shape)}: needed maps [C, H, W]; for tokens take the ViT variants"
        )
    return place.channels
