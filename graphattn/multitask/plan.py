"""What is learned beside the main task, and how: the table [multitask] of a definition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from graphattn.multitask.schedules import Schedule


@dataclass(frozen=True)
class Plan:
    """The main task is what the data are labelled with; epochs are chosen by it and models judged by it alone.

    auxiliaries: the weight of each auxiliary task; 0 is without it, and none at all is single-task learning. On one
        graph: link, features, degree, centrality, attention. On images: coarse, reconstruction, rotation, edges.
    groups: of classes, which `coarse` tells apart.
    schedule: what the weights do over the epochs, see `schedules.factor`.
    sharing: one trunk for all tasks (`hard`), one each with a penalty (`soft`, `soft-trace-norm`), one each and mixed
        (`cross-stitch`), or several that each task mixes for itself (`mmoe`). `strength` is of the penalty, `experts`
        is how many there are.
    weighting: see the classes of the same names; `dwa` is DynamicAverage.
    width: channels that the trunk, one of MODELS, gives the heads.
    labels_per_class: so many labelled examples of each class, drawn anew for each seed, train the main task; auxiliary
        tasks have all training data. Default: all.
    passes: how often an epoch passes over those labelled images, after which all that validate are measured.
    log_conflicts: the cosine of each auxiliary's gradient with the main task's, in the last step of each epoch, is
        among the measures.

    Raises:
        ValueError: numbers out of range; options that would do nothing beside the others.
    """

    auxiliaries: Mapping[str, float] = field(default_factory=dict)
    groups: tuple[tuple[int, ...], ...] | None = None
    schedule: Schedule = "constant"
    sharing: Literal["hard", "soft", "soft-trace-norm", "cross-stitch", "mmoe"] = "hard"
    strength: float = 1e-3
    experts: int = 3
    weighting: Literal["fixed", "uncertainty", "dwa", "gradnorm", "pcgrad"] = "fixed"
    width: int = 64
    labels_per_class: int | None = None
    passes: int = 1
    log_conflicts: bool = False

    def __post_init__(self) -> None:
        for name, weight in (*self.auxiliaries.items(), ("strength", self.strength)):
            if not math.isfinite(weight) or weight < 0:
                raise ValueError(f"{name} is {weight}, needed a finite number that is not negative")
        for name, least in (("experts", 1), ("width", 1), ("labels_per_class", 1), ("passes", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}, needed at least {least}")
        if self.schedule != "constant" and self.weighting not in ("fixed", "pcgrad"):
            raise ValueError(
                f"schedule is {self.schedule!r}, and weighting = {self.weighting!r} finds weights of its own: take "
                f"'constant', or weighting 'fixed' or 'pcgrad'"
            )
        if ("coarse" in self.auxiliaries) != (self.groups is not None):
            raise ValueError(
                f"groups is {self.groups} and auxiliaries are {sorted(self.auxiliaries)}, needed groups of classes for "
                f"'coarse', and only for it"
            )
        for option, sharing in (("strength", ("soft", "soft-trace-norm")), ("experts", ("mmoe",))):
            if getattr(self, option) != getattr(Plan, option) and self.sharing not in sharing:
                raise ValueError(
                    f"{option} is {getattr(self, option)}, which sharing = {self.sharing!r} does not look at: leave it "
                    f"out, or take {' or '.join(map(repr, sharing))}"
                )
        if self.passes > 1 and self.labels_per_class is None:
            raise ValueError(
                f"passes is {self.passes}, which is of few labels only: leave it out, or give labels_per_class"
            )
        for option, value in (("weighting", "pcgrad"), ("log_conflicts", True)):
            if getattr(self, option) == value and self.sharing.startswith("soft"):
                raise ValueError(
                    f"{option} is {value!r}, and in sharing = {self.sharing!r} no two tasks' gradients meet: leave it "
                    f"out, or take another sharing"
                )
        for option in () if self.auxiliaries else ("schedule", "sharing", "weighting", "log_conflicts"):
            if getattr(self, option) != getattr(Plan, option):
                raise ValueError(
                    f"{option} is {getattr(self, option)!r}, which is nothing without auxiliaries: leave it out, or "
                    f"give some"
                )

    @property
    def task_gradients(self) -> bool:
        """Whether the gradient of each task by itself is looked at."""
        return self.weighting in ("gradnorm", "pcgrad") or self.log_conflicts

    @property
    def wanted(self) -> dict[str, float]:
        """The auxiliaries that count, and their weights."""
        return {name: weight for name, weight in self.auxiliaries.items() if weight}
