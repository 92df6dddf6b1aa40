"""What tasks with auxiliaries have in common: the losses of a step made one, and what is logged of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from graphattn.multitask import Plan, Weighting
from graphattn.training.ranks import number


def generator(weighting: Weighting) -> torch.Generator:
    """Of the CPU, for what the auxiliaries draw in this step: of the run's seed and the step alone, so that the model's
    own random numbers are those of a run without them, and a resumed run draws what one that was never stopped draws.
    """
    return torch.Generator().manual_seed((torch.initial_seed() << 32) % (1 << 63) + weighting.step)


def one_loss(model: Any, losses: Mapping[str, Tensor], plan: Plan, steps: int) -> Tensor:
    """What a learner makes of the losses of a step, of so many an epoch."""
    weighting = model.weighting
    watch = plan.log_conflicts and (weighting.step + 1) % steps == 0
    total = weighting(losses, model.sharing, average=averaged, watch=watch)
    if weighting.step % steps == 0:
        weighting.next_epoch()
    return total


def conflicts(model: Any, plan: Plan) -> dict[str, float]:
    """The cosine of each auxiliary's gradient with the main task's, when they were last looked at."""
    found = model.weighting.cosines
    if not plan.log_conflicts or found is None:
        return {}
    return {f"cosine_{name}": round(x, 4) for name, x in zip(plan.wanted, found[0, 1:].tolist(), strict=True)}


def averaged(own: Tensor) -> Tensor:
    """The mean over the ranks."""
    _, ranks = number()
    if ranks == 1:
        return own
    total = own.clone()
    dist.all_reduce(total)
    return total / ranks
