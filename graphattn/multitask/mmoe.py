"""Multi-gate mixture of experts: several trunks, of which each task takes its own mixture, input by input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphattn.multitask.sharing import Sharing


def mixed(gate: Tensor, experts: Tensor) -> Tensor:
    """sum_e softmax(gate)_e experts_e, of gate [N, E] and experts [N, E, ...]: [N, ...]."""
    return torch.einsum("ne,ne...->n...", gate.softmax(1), experts)


class MMoE(Sharing):
    """out_t = head_t(sum_e softmax(gate_t(inputs))_e expert_e(inputs)).

    Experts and gates are called with the inputs; an expert gives [N, ...], all of one shape, and a gate [N, E].

    Raises:
        ValueError: no expert; tasks with a head and no gate, or the other way round.

    Paper: Ma et al., Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts, KDD 2018.
    """

    def __init__(
        self, experts: Sequence[nn.Module], gates: Mapping[str, nn.Module], heads: Mapping[str, nn.Module]
    ) -> None:
        super().__init__(heads)
        if not experts:
            raise ValueError("experts is empty, needed at least one trunk")
        if gates.keys() != heads.keys():
            raise ValueError(f"there are gates for {list(gates)} and heads for {list(heads)}, needed both for each")
        self.experts = nn.ModuleList(experts)
        self.gates = nn.ModuleDict({task: gates[task] for task in heads})

    def features(self, tasks: tuple[str, ...], *inputs: Any) -> dict[str, Any]:
        outputs = torch.stack([expert(*inputs) for expert in self.experts], 1)
        return {task: mixed(self.gates[task](*inputs), outputs) for task in tasks}

    def trunk_of(self, task: str) -> nn.Module:
        return self.experts

    def weights(self, *inputs: Any) -> dict[str, Tensor]:
        """What each task takes of each expert: [N, E], rows that sum to 1."""
        return {task: gate(*inputs).softmax(1) for task, gate in self.gates.items()}

    def keep(self, task: str) -> None:
        super().keep(task)
        self.gates = nn.ModuleDict({task: self.gates[task]})
