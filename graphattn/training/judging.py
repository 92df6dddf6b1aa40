"""What labels are trained on and judged by, whatever has them: nodes or graphs, one class or several tasks.

Labels y are [n] int64, a class each, or [n, T] floats: yes-or-no tasks of 0 and 1, NaN where nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, multiclass_accuracy


def loss_of(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of logits [n, C], a mean over what is labelled: of the classes' softmax, or of each task's sigmoid.

    Nothing labelled gives 0.
    """
    if not y.is_floating_point():
        return F.cross_entropy(logits, y)
    known = ~y.isnan()
    losses = F.binary_cross_entropy_with_logits(logits, y.nan_to_num(), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def answers(y: Tensor) -> int:
    """How many labels the loss is a mean over."""
    return int((~y.isnan()).sum()) if y.is_floating_point() else y.numel()


def measures_of(score: str, found: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
    """val_loss, and val_<score> and test_<score> in percent, of the logits and labels of "val", if any, and "test"."""
    judge = {"accuracy": accuracy, "roc_auc": roc_auc}[score]
    numbers = {"val_loss": loss_of(*found["val"])} if "val" in found else {}
    numbers |= {f"{part}_{score}": 100 * judge(*of) for part, of in found.items()}
    values = torch.stack([number.double() for number in numbers.values()]).tolist()  # one wait for the GPU, not three
    return {name: x if name == "val_loss" else round(x, 4) for name, x in zip(numbers, values, strict=True)}


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Of [n] those that are put into their own class."""
    return multiclass_accuracy(logits, y, logits.shape[1], average="micro", validate_args=False)


def roc_auc(logits: Tensor, y: Tensor) -> Tensor:
    """Of the pairs of a 1 and a 0 those in the right order; a tie counts half. The mean over the tasks that have both,
    as OGB's Evaluator computes it.
    """
    if not y.is_floating_point():
        logits, y = logits[:, 1:] - logits[:, :1], y[:, None].float()
    found = []
    # Ranks, from 0 to 1: of anything else torchmetrics takes the sigmoid, which makes ties of large numbers.
    for task in range(y.shape[1]):
        known = ~y[:, task].isnan()
        own = y[known, task].long()
        if own.numel() and int(own.min()) < int(own.max()):
            rank = logits[known, task].unique(return_inverse=True)[1]
            found.append(binary_auroc(rank.double() / rank.numel(), own, validate_args=False))
    if not found:
        raise ValueError("no task has both a 0 and a 1 among these labels, so there is no ROC-AUC")
    return torch.stack(found).mean()
