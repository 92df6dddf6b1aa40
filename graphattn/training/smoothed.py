"""Measures of a trained model's predictions, corrected and smoothed over the graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from graphattn.experiment import CorrectAndSmooth
from graphattn.models import correct_and_smooth
from graphattn.training.sampled import SampledNodeClassification
from graphattn.training.tasks import NodeClassification, node_measures


@torch.no_grad()
def smoothed_measures(
    task: NodeClassification | SampledNodeClassification, model: nn.Module, how: CorrectAndSmooth
) -> dict[str, float]:
    """The task's measures of what correcting and smoothing by the training labels makes of the model's predictions.

    The scores before it go with them, as plain_val_<score> and plain_test_<score>.
    """
    model.eval()
    data = task.data
    logits = task.logits(model).float()
    known = F.one_hot(data.y[data.train], data.num_classes).to(logits)
    labels = (known, data.train, data.edge_index)
    found = correct_and_smooth.correct(
        logits.softmax(1), *labels, steps=how.correct_steps, alpha=how.correct_alpha, scale=how.scale
    )
    found = correct_and_smooth.smooth(found, *labels, steps=how.smooth_steps, alpha=how.smooth_alpha)
    plain = node_measures(logits, data)
    measures = node_measures(found.clamp(min=torch.finfo(found.dtype).tiny).log(), data)
    return measures | {f"plain_{name}": value for name, value in plain.items() if name != "val_loss"}
