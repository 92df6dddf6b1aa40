"""Classification of images with auxiliary tasks on the same images, or on more of them."""

from __future__ import annotations

from collections.abc import Iterator
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
    `batch` others (or all, if there are fewer), drawn from all training images, and an epoch passes over the few
    `plan.passes` times. Those that are posed look at turned copies of them. Others and turned copies go through the
    model in a pass of their own, see `Learner`, so that the main task's images are normalised as without auxiliaries.
    Each task's loss is a mean over its own.

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

    @property
    def steps(self) -> int:
        return self.plan.passes * super().steps

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.plan.passes):
            yield from super().batches()

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The main task's cross-entropy and the auxiliaries' losses, as they are weighted."""
        learner: Any = model
        draw = generator(learner.weighting)
        images, labels = batch
        plain, posed = ([name for name, task in self.tasks.items() if task.posed is is_so] for is_so in (False, True))
        asked = batch if self.pool is None or not self.tasks else self._drawn(draw)
        about = dict.fromkeys(plain, asked)
        if posed:
            turns = self._turns(draw, len(asked[0])).to(labels.device)
            about |= dict.fromkeys(posed, (turned(asked[0], turns), turns))
        own = (MAIN, *plain) if self.pool is None else (MAIN,)
        others = [about[names[0]][0] for names in (plain, posed) if names and names[0] not in own]
        outputs = learner(images, tasks=own, beside=(torch.cat(others),) if others else None)
        loss = F.cross_entropy(outputs[MAIN], labels, label_smoothing=self.label_smoothing)
        losses = {MAIN: weighted(loss, len(labels))}
        for name, task in self.tasks.items():
            seen, answers = about[name]
            output = outputs[name][-len(seen) :] if task.posed else outputs[name][: len(seen)]
            losses[name] = weighted(task.loss(output, seen, answers), len(seen))
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

    def _turns(self, draw: torch.Generator, count: int) -> Tensor:
        """Those of this rank's `count` images of a step."""
        rank, ranks = number()
        return torch.randint(4, (self.batch,), generator=draw)[rank::ranks][:count]
