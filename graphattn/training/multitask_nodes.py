"""Node classification with auxiliary tasks on the same graph."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from graphattn.data import NodeData
from graphattn.multitask import Plan
from graphattn.training.few_labels import few_of_each
from graphattn.training.judging import loss_of
from graphattn.training.multitask_building import MAIN, node_tasks
from graphattn.training.multitask_steps import conflicts, generator, one_loss
from graphattn.training.tasks import NodeClassification


class MultiTaskNodes(NodeClassification):
    """As NodeClassification, of a `multitask.Learner`; the auxiliaries see the whole graph, and no label.

    Measures are the main task's alone: no auxiliary is computed for them.
    """

    whole: ClassVar[bool] = False  # each step draws other pairs

    def __init__(self, data: NodeData, plan: Plan) -> None:
        if plan.labels_per_class is not None:
            few = few_of_each(data.y[data.train], plan.labels_per_class, data.num_classes, data.name)
            data = replace(data, train=data.train[few])
        super().__init__(data)
        self.plan, self.tasks = plan, node_tasks(plan, data)

    def loss(self, model: nn.Module, batch: NodeData) -> Tensor:
        """The main task's cross-entropy on the training nodes, and the auxiliaries' losses, as they are weighted."""
        learner: Any = model
        outputs = learner(batch.x, batch.edge_index)
        losses = {MAIN: loss_of(outputs[MAIN][batch.train], batch.y[batch.train])}
        draw = generator(learner.weighting)
        for name, task in self.tasks.items():
            losses[name] = task.loss(outputs[name], learner.sharing.trunk_of(name), draw)
        return one_loss(learner, losses, self.plan, self.steps)

    def measures(self, model: nn.Module) -> dict[str, float]:
        """Those of the main task, and where conflicts are logged the cosines of the gradients."""
        return super().measures(model) | conflicts(model, self.plan)

    def logits(self, model: nn.Module) -> Tensor:
        return model(self.data.x, self.data.edge_index, tasks=(MAIN,))[MAIN]
