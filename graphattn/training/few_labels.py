"""A few labelled examples of each class, to see what learning from the others is worth."""

from __future__ import annotations

import torch
from torch import Tensor


def few_of_each(labels: Tensor, count: int, num_classes: int, what: str) -> Tensor:
    """The places, ascending, of `count` examples of each class in `labels` [n], drawn by the seed of torch's generator
    but from one of their own.

    Raises:
        ValueError: a class that has fewer.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(torch.initial_seed()))
    held, found = labels.cpu()[order], []
    for label in range(num_classes):
        places = order[held == label]
        if len(places) < count:
            raise ValueError(
                f"labels_per_class is {count}, and {what} has {len(places)} of class {label} to train on: needed at "
                f"most that"
            )
        found.append(places[:count])
    return torch.cat(found).sort().values.to(labels.device)
