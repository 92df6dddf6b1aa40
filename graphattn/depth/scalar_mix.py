"""ELMo's scalar mix: one learned weight a layer, for a read-out over all of them.

Peters et al., "Deep Contextualized Word Representations", NAACL 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from graphattn.depth.memory import LayerMemory
from graphattn.depth.rule import Place, Rule, Score
from graphattn.graph import Graph
from graphattn.layer_dags import readout


def scalar_mix(logits: Tensor, gamma: Tensor, layers: Sequence[Tensor], layer_norm: bool = False) -> Tensor:
    """gamma sum_t softmax(logits)_t x_t, of T `layers` of one shape; x_t are normalised first with `layer_norm`, each
    sample over all its entries, without learned scale.
    """
    if layer_norm:
        layers = [nn.functional.layer_norm(x, x.shape[1:]) for x in layers]
    weights = logits.softmax(0)
    out = weights[0] * layers[0]
    for weight, x in zip(weights[1:], layers[1:], strict=True):
        out = torch.addcmul(out, weight, x)
    return gamma * out


@dataclass(frozen=True, kw_only=True)
class ScalarMix(Rule):
    """The last layer of the scope is replaced by gamma sum_t softmax(w)_t x_t; the others pass on what they gave.

    w starts at zeros and gamma at one: the mean of the layers. `recorded` shows softmax(w), the parameter `logits` is
    w. The layer norm of the paper's option is over all entries of a sample, as in the authors' code.
    """

    layer_norm: bool = False

    score: ClassVar[Score] = "static"
    normalisation: ClassVar[str] = "softmax"
    cost: ClassVar[str] = "O(1); holds t maps until the read-out"
    identity: ClassVar[bool] = False

    def modules(self, places: Sequence[Place]) -> list[nn.Module]:
        return [*(Remember() for _ in places[1:]), Mix(len(places), self.layer_norm)]

    def graph(self, num_layers: int) -> Graph:
        return readout(num_layers)


class Remember(nn.Module):
    """Pass on, and remember."""

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        memory.push(None, x)
        return x


class Mix(nn.Module):
    """`scalar_mix` of what is remembered and x."""

    def __init__(self, num_layers: int, layer_norm: bool) -> None:
        super().__init__()
        self.layer_norm = layer_norm
        self.logits = nn.Parameter(torch.zeros(num_layers))
        self.gamma = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, memory: LayerMemory) -> Tensor:
        memory.push(None, x)
        memory.note(self.logits.softmax(0))
        return scalar_mix(self.logits, self.gamma, memory.values, self.layer_norm)
