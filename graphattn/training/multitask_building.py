"""The learner that a plan asks for: trunks by name, a head for each task, their sharing and their weighting.

The main task's trunk and head draw the random numbers that a single-task model draws, and all else draws from a copy of
the generator: with the same seed, what the auxiliaries are changes nothing of the main task's beginning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn

from graphattn.data import Images, NodeData
from graphattn.models import MODELS
from graphattn.models.trunk import Trunk
from graphattn.multitask import (
    CrossStitch,
    DynamicAverage,
    GradNorm,
    HardSharing,
    Learner,
    MMoE,
    PCGrad,
    Plan,
    Sharing,
    SoftSharing,
    Uncertainty,
    Weighting,
)
from graphattn.multitask.image_tasks import image_task
from graphattn.multitask.node_pairs import NodePairs
from graphattn.multitask.node_tasks import (
    AttentionSupervision,
    FeatureReconstruction,
    LinkPrediction,
    NodeRegression,
    NodeTask,
    degrees,
    pagerank,
)
from graphattn.multitask.schedules import factor
from graphattn.record import one_of

MAIN = "class"
WEIGHTINGS: dict[str, type[Weighting]] = {
    "fixed": Weighting,
    "uncertainty": Uncertainty,
    "dwa": DynamicAverage,
    "gradnorm": GradNorm,
    "pcgrad": PCGrad,
}
NODE_TASKS: dict[str, Callable[[NodeData], NodeTask]] = {
    "link": lambda data: LinkPrediction(NodePairs(data.edge_index, data.num_nodes)),
    "features": lambda data: FeatureReconstruction(data.x),
    "degree": lambda data: NodeRegression(degrees(data.edge_index, data.num_nodes)),
    "centrality": lambda data: NodeRegression(pagerank(data.edge_index, data.num_nodes)),
    "attention": lambda data: AttentionSupervision(NodePairs(data.edge_index, data.num_nodes)),
}


def learner(plan: Plan, trunk: Callable[[], nn.Module], loaded: NodeData | Images, epochs: int) -> Learner:
    """Built of trunks that `trunk()` makes, each a model with `plan.width` outputs.

    Raises:
        ValueError: an auxiliary task that these data do not have.
    """
    channels = {MAIN: loaded.num_classes, **_channels(plan, loaded)}
    first, main = Trunk(trunk()), nn.Linear(plan.width, loaded.num_classes)
    with torch.random.fork_rng(devices=[]):
        heads = {task: main if task == MAIN else _head(plan.width, count) for task, count in channels.items()}
        sharing = _sharing(plan, first, lambda: Trunk(trunk()), heads, loaded)
    weights = {MAIN: 1.0, **plan.wanted}
    schedule = None if plan.schedule == "constant" else lambda epoch: factor(plan.schedule, epoch, epochs)
    return Learner(sharing, WEIGHTINGS[plan.weighting](weights, schedule))


def node_tasks(plan: Plan, loaded: NodeData) -> dict[str, NodeTask]:
    """The auxiliaries that count, on one graph."""
    return {name: NODE_TASKS[one_of(name, NODE_TASKS, "auxiliary task on one graph")](loaded) for name in plan.wanted}


def _channels(plan: Plan, loaded: NodeData | Images) -> Mapping[str, int | None]:
    if isinstance(loaded, NodeData):
        return {name: task.channels for name, task in node_tasks(plan, loaded).items()}
    shape = loaded.train.shape[1:]
    return {name: image_task(name, shape, loaded.num_classes, plan.groups).channels for name in plan.wanted}


def _head(width: int, channels: int | None) -> nn.Module:
    return nn.Identity() if channels is None else nn.Linear(width, channels)


def _sharing(
    plan: Plan,
    first: nn.Module,
    another: Callable[[], nn.Module],
    heads: Mapping[str, nn.Module],
    loaded: NodeData | Images,
) -> Sharing:
    if plan.sharing == "hard":
        return HardSharing(first, heads)
    if plan.sharing == "mmoe":
        gates = {task: _gate(loaded, plan.experts) for task in heads}
        return MMoE([first, *(another() for _ in range(plan.experts - 1))], gates, heads)
    towers = {task: first if task == MAIN else another() for task in heads}
    if plan.sharing == "cross-stitch":
        return CrossStitch(towers, heads)
    penalty = "trace-norm" if plan.sharing == "soft-trace-norm" else "distance"
    return SoftSharing(towers, heads, penalty=penalty, strength=plan.strength)  # type: ignore[arg-type]


def _gate(loaded: NodeData | Images, experts: int) -> nn.Module:
    """A linear map of the inputs."""
    if isinstance(loaded, NodeData):
        return MODELS["mlp"](loaded.num_features, experts, num_layers=1, dropout=0.0)
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(loaded.train.shape[1:]), experts))
