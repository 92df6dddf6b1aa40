"""Classification of images with auxiliary tasks on the same images, or on more of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.data import Images
from graphattn.multitask import Plan
from graphattn.multitask.image_tasks import image_task, turned
from graphattn.training.few_labels import few_of_each
from graphattn.training.image_classification import ImageClassification
from graphattn.training.multitask_building import MAIN
from graphattn.training.multitask_steps import conflicts, generator, one_loss
from graphattn.training.ranks import number, weighted


class MultiTaskImages(ImageClassification):
    """As ImageClassification, of a `multitask.Learner`.

    A step's `batch` images are the main task's. Auxiliaries look at the same ones; if the main task has few labels, at
    `batch` others (or all, if there are fewer), drawn from all training images. Those that are posed look at turned
    copies of them. All go through the model together, and each task's loss is a mean over its own.

    Measures are the main task's alone: no auxiliary is computed for them.
    """

    def __init__(
        self,
        data: Images,
        batch: int,
        plan: Plan,
        *,
        augment: Literal["none", "crop-flip"] = "none",
        label_smoothing: float = 0.0,
        channels_last: bool = False,
        log_gradient: bool = False,
    ) -> None:
        self.pool = None if plan.labels_per_class is None else data
        self.batch, self.plan = min(batch, len(data.train)), plan
        if plan.labels_per_class is not None:
            few = few_of_each(data.train_labels, plan.labels_per_class, data.num_classes, data.name)
            data = replace(data, train=data.train[few], train_labels=data.train_labels[few])
        super().__init__(
            data,
            batch,
            augment=augment,
            label_smoothing=label_smoothing,
            channels_last=channels_last,
            log_gradient=log_gradient,
        )
        shape = data.train.shape[1:]
        self.tasks = {name: image_task(name, shape, data.num_classes, plan.groups) for name in plan.wanted}

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The main task's cross-entropy and the auxiliaries' losses, as they are weighted."""
        learner: Any = model
        draw = generator(learner.weighting)
        images, labels = batch
        parts, own, asked = [images], slice(0, len(images)), (images, labels)
        if self.tasks and self.pool is not None:
            asked = self._drawn(draw)
            parts.append(asked[0])
            own = slice(len(images), len(images) + len(asked[0]))
        rows, about = dict.fromkeys(self.tasks, own), dict.fromkeys(self.tasks, asked)
        if posed := [name for name, task in self.tasks.items() if task.posed]:
            turns = torch.randint(4, (len(asked[0]),), generator=draw).to(labels.device)
            parts.append(turned(asked[0], turns))
            count = sum(map(len, parts))
            rows |= dict.fromkeys(posed, slice(count - len(turns), count))
            about |= dict.fromkeys(posed, (parts[-1], turns))
        outputs = learner(torch.cat(parts) if len(parts) > 1 else images)
        loss = F.cross_entropy(outputs[MAIN][: len(images)], labels, label_smoothing=self.label_smoothing)
        losses = {MAIN: weighted(loss, len(labels))}
        for name, task in self.tasks.items():
            found = task.loss(outputs[name][rows[name]], *about[name])
            losses[name] = weighted(found, len(about[name][0]))
        return one_loss(learner, losses, self.plan, self.steps)

    def measures(self, model: nn.Module) -> dict[str, float]:
        """Those of the main task, and where conflicts are logged the cosines of the gradients."""
        return super().measures(model) | conflicts(model, self.plan)

    def logits(self, model: nn.Module, images: Tensor) -> Tensor:
        return model(images, tasks=(MAIN,))[MAIN]

    def _drawn(self, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """This rank's share of the images that the auxiliaries see in a step, and their classes."""
        assert self.pool is not None
        rank, ranks = number()
        ids = torch.randperm(len(self.pool.train), generator=draw)[: self.batch][rank::ranks]
        ids = ids.to(self.pool.train.device)
        return self._seen(self.pool.train[ids]), self.pool.train_labels[ids]
