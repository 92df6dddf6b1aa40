"""Labels that answer yes-or-no tasks: 0, 1, or NaN where nothing is known."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from graphattn.data.manifest import Manifest


def check_tasks(manifest: Manifest, parts: Mapping[str, Tensor], thing: str) -> None:
    """Check the labels [n, T] of the parts of a split, train, val and test; `thing` has them.

    Raises:
        ValueError: another number of tasks, a label that is neither 0, 1 nor NaN, or a part on which no loss or no
            ROC-AUC can be computed.
    """
    for part, labels in parts.items():
        manifest.check_size("classes", labels.shape[1])
        wrong = (labels != 0) & (labels != 1) & ~labels.isnan()
        if wrong.any():
            row, task = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"{manifest.name}: the label of {part} {thing} {row} for task {task} is {float(labels[row, task]):g}, "
                f"needed 0, 1, or none"
            )
        if labels.isnan().all():
            raise ValueError(f"{manifest.name}: no {part} {thing} has a label; needed at least one")
        if part != "train" and not has_both(labels).any():
            raise ValueError(
                f"{manifest.name}: no task has both a 0 and a 1 among the {part} {thing}s, so there is no ROC-AUC; "
                f"take another split"
            )


def has_both(labels: Tensor) -> Tensor:
    """[T] bool: the tasks that have a 0 and a 1 among `labels` [n, T]."""
    return torch.logical_and((labels == 0).any(0), (labels == 1).any(0))
