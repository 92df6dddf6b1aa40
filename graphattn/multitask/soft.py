"""Soft sharing: a tower for each task, and a penalty that keeps their parameters near each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from graphattn.multitask.sharing import Sharing
from graphattn.record import one_of


def distance(towers: Tensor) -> Tensor:
    """sum over pairs s < t of |w_s - w_t|^2, of towers [T, ...]: T * sum_t |w_t - mean|^2, so linear in T.

    Its gradient is 2 (T w_t - sum_s w_s). The mean itself is free: weight decay comes on top, and counts nothing twice.
    """
    return len(towers) * (towers - towers.mean(0)).square().sum()


def trace_norm(towers: Tensor) -> Tensor:
    """The sum of the singular values of the matrix [T, D] whose row t is w_t: low where towers are dependent.

    From the T x T products of the rows, in float64. Where the rank is below T, as it is for biases that begin at zero,
    the gradient is the shortest subgradient; that of an SVD would move such towers in directions that mean nothing.
    """
    rows = towers.flatten(1)
    held = rows.detach().double()
    values, vectors = torch.linalg.eigh(held @ held.T)
    least = values[-1] * len(rows) * torch.finfo(torch.float32).eps
    inverse = torch.where(values > least, values.clamp(min=torch.finfo(torch.float64).tiny).rsqrt(), 0)
    gradient = (vectors * inverse) @ (vectors.T @ held)  # (W W^T)^(-1/2) W
    return (gradient.to(rows.dtype) * rows).sum()


_PENALTIES = {"distance": distance, "trace-norm": trace_norm}


class SoftSharing(Sharing):
    """out_t = head_t(tower_t(inputs)); strength * sum over layers of penalty(the towers' parameters there) is added.

    penalty: `distance`, the squared distances of all pairs, or `trace-norm`.
    leave_out: parts of names of parameters that are not shared. Heads never are, nor are buffers, such as the means and
        variances of batch norms, which each tower has of its own data.

    Parameters are of the same layer if their names in the towers are the same.

    Raises:
        ValueError: tasks with a head and no tower, or the other way round; parameters that are not in all towers alike
            and are not left out; nothing to share.

    Papers: Duong et al., Low Resource Dependency Parsing, ACL 2015 (distance); Yang and Hospedales, Trace Norm
    Regularised Deep Multi-Task Learning, arXiv:1606.04038, their flattening by the last axis, of tasks.
    """

    def __init__(
        self,
        towers: Mapping[str, nn.Module],
        heads: Mapping[str, nn.Module],
        *,
        penalty: Literal["distance", "trace-norm"] = "distance",
        strength: float = 1e-3,
        leave_out: Sequence[str] = (),
    ) -> None:
        super().__init__(heads)
        if towers.keys() != heads.keys():
            raise ValueError(f"there are towers for {list(towers)} and heads for {list(heads)}, needed both for each")
        self.towers = nn.ModuleDict({task: towers[task] for task in heads})
        self.kind, self.strength = one_of(penalty, _PENALTIES, "penalty"), strength
        self.aligned = _aligned(self.towers, leave_out)

    def features(self, tasks: tuple[str, ...], *inputs: Any) -> dict[str, Any]:
        return {task: self.towers[task](*inputs) for task in tasks}

    def trunk_of(self, task: str) -> nn.Module:
        return self.towers[task]

    def penalties(self) -> dict[str, Tensor]:
        """The penalty of each layer, before `strength`, by the parameter's name in a tower."""
        towers = [dict(tower.named_parameters()) for tower in self.towers.values()]
        kind = _PENALTIES[self.kind]
        return {name: kind(torch.stack([tower[name] for tower in towers])) for name in self.aligned}

    def penalty(self) -> Tensor | None:
        if len(self.towers) == 1:
            return None
        return self.strength * torch.stack(list(self.penalties().values())).sum()

    def keep(self, task: str) -> None:
        super().keep(task)
        self.towers = nn.ModuleDict({task: self.towers[task]})


def _aligned(towers: nn.ModuleDict, leave_out: Sequence[str]) -> list[str]:
    shapes = {
        task: {name: p.shape for name, p in tower.named_parameters() if not any(part in name for part in leave_out)}
        for task, tower in towers.items()
    }
    (first, names), *others = shapes.items()
    for task, its in others:
        for name in sorted(names.keys() | its.keys()):
            if names.get(name) != its.get(name):
                ours, theirs = (list(s) if (s := t.get(name)) else "not there" for t in (names, its))
                raise ValueError(
                    f"parameter {name} is {ours} in the tower of {first} and {theirs} in that of {task}, needed alike: "
                    f"name it in leave_out, or give towers of one kind"
                )
    if not names:
        raise ValueError("the towers have no parameters in common: take HardSharing for heads alone")
    return list(names)
