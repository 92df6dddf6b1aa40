"""The optimizer that a recipe asks for, and which parameters decay and how fast each moves."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from graphattn.recipe import Train
from graphattn.training.adabound import AdaBound, AdaBoundW


def optimizer_of(model: nn.Module, train: Train) -> torch.optim.Optimizer | None:
    """Groups of the parameters that `train.decay` and `train.lr_of` put together; None for a model without parameters.

    What weighs the losses of several tasks, the `weighting` of a `multitask.Learner`, never decays, nor does what mixes
    the towers of a `multitask.CrossStitch`.

    Raises:
        ValueError: a name in `train.lr_of` that no parameter's name has, or two that one has; a model whose first layer
            is not called so.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        return None
    decayed = {
        "all": lambda name: True,
        "weights": lambda name: not name.endswith("bias"),
        "first": lambda name: name.startswith(("layers.0.", "nodes.layers.0.")),
    }[train.decay]
    if train.weight_decay and not any(decayed(name) for name, _ in named):
        raise ValueError(
            f"train.decay is {train.decay!r}, which no parameter of {type(model).__name__} is: take another, or "
            f"weight_decay = 0"
        )
    rates = _rates([name for name, _ in named], train)
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for rate in (train.lr, *train.lr_of.values()):  # the order of the groups: those that decay first
        for decays in (True, False):
            groups[rate, decays] = {"params": [], "lr": rate, "weight_decay": train.weight_decay if decays else 0.0}
    for name, p in named:
        apart = name.startswith(("weighting.", "sharing.mixtures."))
        groups[rates[name], decayed(name) and not apart]["params"].append(p)
    filled: list[dict[str, Any]] = [group for group in groups.values() if group["params"]]
    if train.optimizer == "sgd":
        return torch.optim.SGD(filled, lr=train.lr, momentum=train.momentum, nesterov=train.nesterov, fused=True)
    if train.optimizer in ("adabound", "amsbound"):
        return AdaBound(filled, lr=train.lr, final_lr=train.final_lr, amsbound=train.optimizer == "amsbound")
    if train.optimizer == "adaboundw":
        return AdaBoundW(filled, lr=train.lr, final_lr=train.final_lr)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[train.optimizer]
    return kind(filled, lr=train.lr, betas=(0.9, train.beta2), fused=True)


def _rates(names: list[str], train: Train) -> dict[str, float]:
    """The rate of each parameter."""
    rates: dict[str, float] = {}
    for part, rate in train.lr_of.items():
        meant = [name for name in names if part in name]
        if not meant:
            raise ValueError(
                f"train.lr_of: {part!r} is in no parameter's name, needed a part of one: {', '.join(names)}"
            )
        if twice := next((name for name in meant if name in rates), None):
            raise ValueError(f"train.lr_of has two rates for the parameter {twice}, needed one: make {part!r} longer")
        rates |= dict.fromkeys(meant, rate)
    return dict.fromkeys(names, train.lr) | rates
