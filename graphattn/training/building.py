"""The model that a definition asks for, of the sizes that the data have."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from graphattn.data import GraphSet, Images, NodeData, PairSet, SceneSet, TextSet
from graphattn.experiment import Experiment
from graphattn.models import DETECTORS, GRAPH_MODELS, IMAGE_MODELS, MODELS, TEXT_MODELS, GraphNetwork, MoleculeEncoder
from graphattn.models.layered import Layered
from graphattn.multitask import Learner
from graphattn.training.multitask_building import learner


def built(definition: Experiment, loaded: NodeData | GraphSet | Images | SceneSet | PairSet | TextSet) -> nn.Module:
    """The freshly initialised model, on the CPU.

    Raises:
        ValueError: a model of one kind of data for another, such as one of graphs for images; options that the model
            cannot have.
    """
    if definition.multitask is not None:
        if definition.train.recompute:
            raise ValueError("train.recompute is for a model of one task: leave it out, or [multitask]")
        model: nn.Module = _of_tasks(definition, loaded)
    elif isinstance(loaded, Images | SceneSet):
        model = _of_images(definition, loaded)
    elif isinstance(loaded, PairSet | TextSet):
        model = _of_texts(definition, loaded)
    else:
        model = _of_graphs(definition, loaded)
    if definition.train.recompute:
        _recompute(model, definition.model.name)
    if definition.train.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if definition.train.compile:
        model.compile()
    return model


def _of_tasks(definition: Experiment, loaded: NodeData | GraphSet | Images | SceneSet | PairSet | TextSet) -> Learner:
    plan = definition.multitask
    assert plan is not None
    if not isinstance(loaded, Images) and not (isinstance(loaded, NodeData) and loaded.y.dim() == 1):
        raise ValueError(f"[multitask] is for images, or nodes of one graph, of one class each, {loaded.name} has none")
    if definition.labels is not None:
        raise ValueError("[labels] are for a model of one task: leave the section out, or [multitask]")
    features = replace(loaded, num_classes=plan.width)

    def trunk() -> nn.Module:
        if isinstance(features, Images):
            return _of_images(definition, features)
        model = _of_graphs(definition, replace(features, edge_attr=None))
        if getattr(model, "uses_labels", False):
            raise ValueError(f"{definition.model.name} gives no features for other tasks: leave out [multitask]")
        return model

    return learner(plan, trunk, loaded, definition.train.epochs)


def _of_images(definition: Experiment, loaded: Images | SceneSet) -> nn.Module:
    if definition.readout is not None:
        raise ValueError(f"[readout] is for graphs, {loaded.name} has images: leave it out")
    models, kind = (IMAGE_MODELS, "images") if isinstance(loaded, Images) else (DETECTORS, "objects in images")
    build = MODELS[_of_kind(definition, models, loaded.name, kind)]
    sized = "image_size" in inspect.signature(build).parameters
    return build(
        loaded.in_channels,
        loaded.num_classes,
        *([loaded.image_size] if sized else []),
        **definition.model.options,
    )


def _of_texts(definition: Experiment, loaded: PairSet | TextSet) -> nn.Module:
    if definition.readout is not None:
        raise ValueError(f"[readout] is for graphs, {loaded.name} has texts: leave it out")
    pairs = isinstance(loaded, PairSet)
    fitting = {name: TEXT_MODELS[name] for name in (["seq2seq"] if pairs else ["language-model"])}
    build = fitting[_of_kind(definition, fitting, loaded.name, "pairs of texts" if pairs else "texts")]
    return build(*[loaded.num_tokens] * (2 if pairs else 1), **definition.model.options)


def _of_graphs(definition: Experiment, loaded: NodeData | GraphSet) -> nn.Module:
    build = MODELS[_of_kind(definition, GRAPH_MODELS, loaded.name, "graphs")]
    options, readout = definition.model.options, definition.readout
    of_graphs = isinstance(loaded, GraphSet) and loaded.labels_of == "graphs"
    if of_graphs != (readout is not None):
        raise ValueError(
            f"{loaded.name} has labels of {'graphs' if of_graphs else 'nodes'}: "
            + ("needed a section [readout]" if of_graphs else "leave out the section [readout]")
        )
    sees_edges = loaded.num_edge_features > 0 and "edge_dim" in inspect.signature(build).parameters
    if readout is None:
        edges = (loaded.num_edge_features,) if sees_edges else ()
        shown = 0 if definition.labels is None else loaded.num_classes
        return build(loaded.num_features + shown, loaded.num_classes, *edges, **options)
    encoder, features, edge_features = None, loaded.num_features, loaded.num_edge_features
    if isinstance(loaded, GraphSet) and loaded.molecules:
        encoder = MoleculeEncoder(readout.width, sees_edges)
        features = edge_features = readout.width
    nodes = build(features, readout.width, *([edge_features] if sees_edges else []), **options)
    return GraphNetwork(
        nodes, readout.width, loaded.num_classes, readout=readout.name, dropout=readout.dropout, encoder=encoder
    )


def _of_kind(definition: Experiment, models: Mapping[str, object], data: str, kind: str) -> str:
    name = definition.model.name
    if name not in models:
        raise ValueError(f"{data} needs a model of {kind}, {name} is none: there are {', '.join(models)}")
    return name


def _recompute(model: nn.Module, name: str) -> None:
    layers = model.nodes if isinstance(model, GraphNetwork) else model
    if not isinstance(layers, Layered):
        raise ValueError(
            f"train.recompute is for models of one hop a layer, such as gat, sage or mlp, and {name} is none: leave it "
            f"out"
        )
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in layers.modules()):
        raise ValueError(
            "train.recompute would count each batch twice in the statistics of model.batch_norm: leave one of them out"
        )
    layers.recompute = True
