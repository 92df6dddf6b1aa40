"""Residual connections as a rule behind bare branches: the running sum of what the branches gave.

He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, and "Identity Mappings in Deep
Residual Networks", ECCV 2016. With h the identity, x_L = x_l + F_l(x_l) + ... + F_{L-1}(x_{L-1}).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from graphattn.depth.memory import LayerMemory
from graphattn.depth.rule import Place, Rule, Score
from graphattn.graph import Graph
from graphattn.layer_dags import chain, residual


@dataclass(frozen=True, kw_only=True)
class Plain(Rule):
    """x_t = F_t(x_{t-1}): each layer replaces what was; with `relu`, x_t = ReLU(F_t(x_{t-1}))."""

    relu: bool = True

    score: ClassVar[Score] = "constant"
    normalisation: ClassVar[str] = "none"
    cost: ClassVar[str] = "O(1); holds nothing"
    identity: ClassVar[bool] = True
    one_shape: ClassVar[bool] = False

    @property
    def remembers(self) -> bool:
        return False

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        return [Activate(self.relu) for _ in places]

    def graph(self, num_layers: int) -> Graph:
        return chain(num_layers)


class Activate(nn.Module):
    """ReLU if asked."""

    def __init__(self, relu: bool) -> None:
        super().__init__()
        self.relu = relu

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        return x.relu() if self.relu else x


@dataclass(frozen=True, kw_only=True)
class Residual(Rule):
    """x_t = x_{t-1} + F_t(x_{t-1}), with x_0 what enters; with `relu`, as first published, x_t = ReLU of that sum,
    without it, as in pre-activation networks, nothing stands between x_l and x_L.

    Held as a running sum: one state, whatever the depth.
    """

    scope: str | int = "network"
    relu: bool = True

    score: ClassVar[Score] = "constant"
    normalisation: ClassVar[str] = "none"
    cost: ClassVar[str] = "O(1); holds the sum"
    identity: ClassVar[bool] = True
    replaces_shortcut: ClassVar[bool] = True
    reads_entry: ClassVar[bool] = True
    holds_one: ClassVar[bool] = True

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        return [Accumulate(self.relu) for _ in places]

    def graph(self, num_layers: int) -> Graph:
        return residual(num_layers + 1)


class Accumulate(nn.Module):
    """Adds to the state, which begins with what enters."""

    def __init__(self, relu: bool) -> None:
        super().__init__()
        self.relu = relu

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        before = memory.entry if memory.state is None else memory.state
        assert before is not None
        out = before + x
        memory.entry, memory.state = None, out.relu() if self.relu else out  # what entered is in the sum
        return memory.state
