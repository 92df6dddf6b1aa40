"""How a model is trained: what a step sees, the optimizer and its rate, and when it ends. The table [train]."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Train:
    """What is seen in a step:

    batch is so many graphs or images a step, on sets of them. With `neighbors`, so many of them drawn hop by hop (-1:
    all), batch counts the nodes whose neighbours are drawn. Without either, one graph is trained on as a whole. With
    `recompute`, what the layers compute inside is not kept for the backward pass but computed again there: slower by a
    forward pass, and only each layer's input is held.

    On texts, batch is so many tokens a step, and a text that runs on is cut into pieces of `window` tokens; of the last
    `average` epochs the mean of their parameters is kept. `label_smoothing` is as on images, of texts made from texts.

    On images, `augment` moves and mirrors each (`data.augment`), `label_smoothing` gives so much of a label to all
    classes alike, `channels_last` lays images and weights out by pixel, `compile` compiles the model.

    How the parameters move: `weight_decay`, times the parameter, is added to the gradient (adamw: taken from the
    parameter, as torch.optim.AdamW does; adaboundw: see `training.AdaBoundW`), on `decay`: all parameters, the weights
    without biases, or the parameters of the first layer. `lr_of` names parts of parameters' names, whose rate is
    another than `lr`. momentum and nesterov are sgd's, beta2 is that of adam and adamw; final_lr, the rate of sgd that
    they come to, is that of adabound and its kin.

    The rate at a time is `lr` times what `schedule` says, anew in each step: nothing; `steps`, times `factor` from each
    of the epochs `milestones` on; `cosine`, down to 0 at the end; `inverse-sqrt`, the
    root of the steps of the warm-up over those so far; `one-cycle`, as torch.optim.lr_scheduler.OneCycleLR with
    constant momentum. For the first `warmup` epochs, which count among them, it rises linearly, or is `warmup_lr`.

    `matmul_precision` is how exactly products of float32 matrices are computed: `highest`, as float32; `high`, as TF32
    where the device has it (NVIDIA from Ampere on); `medium`, also from factors rounded to bfloat16 and summed in
    float32 where that is faster (CPUs with AMX). Unlike with precision = "bf16-mixed", all that is stored is float32.

    `stop` is a rule of `training.stopping`. On images, with `log_gradient`, the mean absolute gradient of the first
    layer's parameters in the last step of each epoch is among the measures.
    """

    lr: float = 0.01
    weight_decay: float = 5e-4
    decay: Literal["all", "weights", "first"] = "weights"
    epochs: int = 200
    stop: Literal["none", "gat", "gat-score", "window", "second-half", "patience", "best-score", "last"] = "none"
    patience: int = 100
    precision: Literal["32-true", "64-true", "bf16-mixed"] = "32-true"
    batch: int | None = None
    neighbors: tuple[int, ...] | None = None
    recompute: bool = False
    augment: Literal["none", "crop-flip"] = "none"
    label_smoothing: float = 0.0
    channels_last: bool = False
    compile: bool = False
    optimizer: Literal["adam", "adamw", "sgd", "adabound", "amsbound", "adaboundw"] = "adam"
    lr_of: Mapping[str, float] = field(default_factory=dict)
    momentum: float = 0.0
    nesterov: bool = False
    final_lr: float = 0.1
    schedule: Literal["constant", "steps", "cosine", "one-cycle", "inverse-sqrt"] = "constant"
    milestones: tuple[int, ...] | None = None
    factor: float = 0.1
    warmup: int = 0
    warmup_lr: float | None = None
    log_gradient: bool = False
    window: int = 128
    average: int = 1
    beta2: float = 0.999
    matmul_precision: Literal["highest", "high", "medium"] = "highest"

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"batch is {self.batch}, needed at least 1")
        if self.neighbors is not None and (not self.neighbors or min(self.neighbors) < -1):
            raise ValueError(f"neighbors is {list(self.neighbors)}, needed a number for each hop, or -1 for all")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and (not math.isfinite(value) or value < least):
                raise ValueError(f"{name} is {value}, needed a finite number of at least {least}")
        for name, rate in self.lr_of.items():
            if not math.isfinite(rate) or rate < 0:
                raise ValueError(f"lr_of {name!r} is {rate}, needed a finite number of at least 0.0")
        if self.label_smoothing > 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}, needed a part of 1")
        for name, (owner, allowed) in _ONLY_WITH.items():
            if getattr(self, name) != getattr(Train, name) and getattr(self, owner) not in allowed:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, which {owner} = {getattr(self, owner)!r} does not look at: "
                    f"leave it out, or take {' or '.join(map(repr, allowed))}"
                )
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov is true with momentum 0.0, needed a momentum: give one, or leave nesterov out")
        epochs = self.milestones or ()
        if (self.schedule == "steps") != bool(epochs) or sorted({0, *epochs}) != [0, *epochs]:
            raise ValueError(
                f"milestones is {list(epochs)} with schedule = {self.schedule!r}, needed for 'steps' epochs from 1 on "
                f"in ascending order, else none"
            )
        if self.warmup and self.warmup >= self.epochs:
            raise ValueError(f"warmup is {self.warmup} of {self.epochs} epochs, needed fewer")
        if self.schedule == "inverse-sqrt" and not self.warmup:
            raise ValueError("warmup is 0 with schedule = 'inverse-sqrt', needed the epochs that it falls from")
        if self.average > max(1, self.epochs):
            raise ValueError(f"average is {self.average} of {self.epochs} epochs, needed no more than there are")
        if self.beta2 >= 1:
            raise ValueError(f"beta2 is {self.beta2}, needed a number below 1")
        if self.stop == "patience" and self.optimizer in ("adamw", "adaboundw"):
            raise ValueError(
                f"stop is 'patience', which counts the L2 penalty, whose gradient {self.optimizer} does not follow: "
                f"take another rule"
            )
        if self.warmup_lr is not None and not (self.warmup and self.lr):
            raise ValueError(
                f"warmup_lr is {self.warmup_lr} with warmup {self.warmup} and lr {self.lr}, needed epochs that it is "
                f"for and another rate after them"
            )


_LEAST: dict[str, float] = {
    "lr": 0.0,
    "weight_decay": 0.0,
    "epochs": 0,
    "patience": 1,
    "label_smoothing": 0.0,
    "momentum": 0.0,
    "final_lr": 0.0,
    "factor": 0.0,
    "warmup": 0,
    "warmup_lr": 0.0,
    "window": 2,
    "average": 1,
    "beta2": 0.0,
}

# Options that say something only where another has one of these values.
_ONLY_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    "momentum": ("optimizer", ("sgd",)),
    "nesterov": ("optimizer", ("sgd",)),
    "final_lr": ("optimizer", ("adabound", "amsbound", "adaboundw")),
    "factor": ("schedule", ("steps",)),
    "beta2": ("optimizer", ("adam", "adamw")),
    "matmul_precision": ("precision", ("32-true",)),
    "average": ("stop", ("last",)),
    "warmup": ("schedule", ("constant", "steps", "cosine", "inverse-sqrt")),
}
