"""What a model is asked on the data of a definition."""

from __future__ import annotations

from typing import Any

from torch import nn

from graphattn.data import GraphSet, Images, NodeData, PairSet, SceneSet, TextSet
from graphattn.experiment import CorrectAndSmooth, Decoding, Labels
from graphattn.models import GraphNetwork
from graphattn.multitask import Plan
from graphattn.recipe import Train
from graphattn.training.detection import Detection
from graphattn.training.graph_classification import GraphClassification
from graphattn.training.graph_tasks import MultiLabelNodes
from graphattn.training.image_classification import ImageClassification
from graphattn.training.label_inputs import LabelInputs
from graphattn.training.language_modelling import LanguageModelling
from graphattn.training.multitask_images import MultiTaskImages
from graphattn.training.multitask_nodes import MultiTaskNodes
from graphattn.training.ranks import number
from graphattn.training.sampled import SampledNodeClassification
from graphattn.training.tasks import NodeClassification, Task
from graphattn.training.text_pairs import TextPairs

_OF_IMAGES = ("augment", "label_smoothing", "channels_last", "compile", "log_gradient")
_OF_TEXTS = ("window", "average")
_NOT_OF_TEXTS = ("augment", "channels_last", "log_gradient")


def task(
    loaded: NodeData | GraphSet | Images | SceneSet | PairSet | TextSet,
    train: Train,
    model: nn.Module,
    labels: Labels | None = None,
    smoothing: CorrectAndSmooth | None = None,
    decoding: Decoding | None = None,
    plan: Plan | None = None,
) -> Task:
    """What the model is asked on such data.

    Raises:
        ValueError: `batch` without `neighbors` for one graph, or `neighbors` without `batch`; a model that cannot do
            what is asked; one graph as a whole for several ranks, which would all do the same; options of one kind of
            data for another, such as those of images for graphs.
    """
    texts = isinstance(loaded, PairSet | TextSet)
    if plan is not None and plan.task_gradients and train.precision.endswith("mixed"):
        raise ValueError(
            f"train.precision is {train.precision!r}, which gives no gradients task by task, as gradnorm, pcgrad and "
            f"log_conflicts of [multitask] need them: take '32-true', or leave these out"
        )
    if not isinstance(loaded, PairSet) and decoding is not None:
        raise ValueError(f"[decoding] is for pairs of texts, {loaded.name} has none: leave it out")
    for option in () if texts else _OF_TEXTS:
        if getattr(train, option) != getattr(Train, option):
            raise ValueError(f"train.{option} is for texts, {loaded.name} has none: leave it out")
    if isinstance(loaded, PairSet | TextSet):
        return _of_texts(loaded, train, labels, smoothing, decoding or Decoding())
    if isinstance(loaded, Images | SceneSet):
        return _of_images(loaded, train, labels, smoothing, plan)
    for option in _OF_IMAGES:
        if getattr(train, option) != getattr(Train, option):
            raise ValueError(f"train.{option} is for images, {loaded.name} has none: leave it out")
    if train.neighbors is not None and train.batch is None:
        raise ValueError(f"train.neighbors is {train.neighbors} without train.batch, the nodes a step: give both")
    one_class = isinstance(loaded, NodeData) and loaded.y.dim() == 1
    if smoothing is not None and train.precision != "32-true":
        raise ValueError(
            f"[correct_and_smooth] is computed in 32-true, train.precision is {train.precision}: leave it out"
        )
    if smoothing is not None and (not one_class or getattr(model, "uses_labels", False)):
        raise ValueError(
            f"[correct_and_smooth] is for predictions of one class a node on one graph, by a model with features: "
            f"leave it out for {type(model).__name__} on {loaded.name}"
        )
    spreads = getattr(model.nodes if isinstance(model, GraphNetwork) else model, "uses_labels", False)
    if spreads and not one_class:
        raise ValueError(
            f"{loaded.name} has no labels to spread: label propagation needs one class a node on one graph; take "
            f"another model"
        )
    elsewhere = isinstance(loaded, GraphSet) or train.batch is not None or getattr(model, "uses_labels", False)
    if plan is not None and (elsewhere or smoothing is not None):
        raise ValueError(
            "[multitask] is for a model with features on one graph as a whole, by itself: leave the section out, or "
            "train.batch and [correct_and_smooth]"
        )
    if labels is not None and elsewhere:
        raise ValueError(
            "[labels] are for a model with features on one graph as a whole: leave the section out, or train.batch"
        )
    if isinstance(loaded, GraphSet):
        if loaded.labels_of == "graphs":
            if train.neighbors is not None:
                raise ValueError(f"train.neighbors samples nodes, {loaded.name} has labels of graphs: leave it out")
            return GraphClassification(loaded, 1 if train.batch is None else train.batch)
        return MultiLabelNodes(loaded, 1 if train.batch is None else train.batch, train.neighbors)
    if train.batch is not None and train.neighbors is not None:
        if not getattr(model, "by_hop", False):
            raise ValueError(
                f"{type(model).__name__} cannot be measured layer by layer, as sampled training needs on one graph: "
                f"leave out train.batch and train.neighbors, or take a model such as gat, gatv2, sage or mlp"
            )
        return SampledNodeClassification(loaded, train.batch, train.neighbors)
    if train.batch is not None:
        raise ValueError(
            f"train.batch is {train.batch} without train.neighbors: on one graph, as {loaded.name} is, needed both, to "
            f"sample, or neither, to train on the whole"
        )
    if (ranks := number()[1]) > 1:
        raise ValueError(
            f"{loaded.name} as a whole cannot be shared by {ranks} ranks: give train.batch and train.neighbors, or "
            f"start without torchrun"
        )
    if plan is not None:
        if plan.passes > 1:
            raise ValueError(
                f"passes of [multitask] is {plan.passes}, and an epoch of {loaded.name} is one step on the whole "
                f"graph: leave it out, and give train.epochs"
            )
        return MultiTaskNodes(loaded, plan)
    return NodeClassification(loaded) if labels is None else LabelInputs(loaded, labels.rate, labels.reuse)


def _of_images(
    loaded: Images | SceneSet,
    train: Train,
    labels: Labels | None,
    smoothing: CorrectAndSmooth | None,
    plan: Plan | None,
) -> ImageClassification | Detection:
    given = {"[labels]": labels, "[correct_and_smooth]": smoothing, "train.neighbors": train.neighbors}
    for option, value in {**given, "train.recompute": train.recompute}.items():
        if value:
            raise ValueError(f"{option} is for graphs, {loaded.name} has images: leave it out")
    if train.batch is None:
        raise ValueError(f"{loaded.name} has images: needed train.batch, how many of them a step takes")
    if isinstance(loaded, SceneSet):
        for option in ("augment", "label_smoothing"):
            if getattr(train, option) != getattr(Train, option):
                raise ValueError(
                    f"train.{option} is for images of one class each, {loaded.name} has objects: leave it out"
                )
        return Detection(loaded, train.batch)
    if train.stop != "last" and not len(loaded.val):
        raise ValueError(
            f"train.stop is {train.stop!r}, which chooses an epoch by validation images, and {loaded.name} has none in "
            f"this split: take 'last', or a data.split that holds some out"
        )
    return _classification(loaded, train, plan)


def _classification(loaded: Images, train: Train, plan: Plan | None) -> ImageClassification:
    options: dict[str, Any] = {
        name: getattr(train, name) for name in ("augment", "label_smoothing", "channels_last", "log_gradient")
    }
    assert train.batch is not None
    if plan is None:
        return ImageClassification(loaded, train.batch, **options)
    if train.log_gradient:
        raise ValueError(
            "train.log_gradient is of the first layer of a model of one task: leave it out, or take log_conflicts of "
            "[multitask]"
        )
    if plan.labels_per_class is not None and train.augment != "none":
        raise ValueError(
            f"train.augment is {train.augment!r}, which does not move what the auxiliaries see beside the "
            f"labels_per_class of [multitask]: leave one of them out"
        )
    return MultiTaskImages(loaded, train.batch, plan, **options)


def _of_texts(
    loaded: PairSet | TextSet,
    train: Train,
    labels: Labels | None,
    smoothing: CorrectAndSmooth | None,
    decoding: Decoding,
) -> TextPairs | LanguageModelling:
    given = {"[labels]": labels, "[correct_and_smooth]": smoothing, "train.neighbors": train.neighbors}
    foreign = {f"train.{name}": getattr(train, name) != getattr(Train, name) for name in _NOT_OF_TEXTS}
    for option, value in {**given, "train.recompute": train.recompute, **foreign}.items():
        if value:
            raise ValueError(f"{option} is for graphs or images, {loaded.name} has texts: leave it out")
    if train.batch is None:
        raise ValueError(f"{loaded.name} has texts: needed train.batch, how many of their tokens a step takes")
    if train.stop in ("gat", "gat-score", "best-score"):
        raise ValueError(
            f"train.stop is {train.stop!r}, which wants a score that rises; {loaded.name} has texts, whose epochs "
            f"val_loss tells apart: take 'last', 'none' or 'patience'"
        )
    if train.window != Train.window and not (isinstance(loaded, TextSet) and loaded.runs_on):
        raise ValueError(f"train.window is for a text that runs on, {loaded.name} has separate ones: leave it out")
    if isinstance(loaded, PairSet):
        return TextPairs(loaded, train.batch, decoding, label_smoothing=train.label_smoothing)
    if train.label_smoothing:
        raise ValueError(
            f"train.label_smoothing would change what perplexity measures, the score on {loaded.name}: leave it out"
        )
    return LanguageModelling(loaded, train.batch, train.window)
