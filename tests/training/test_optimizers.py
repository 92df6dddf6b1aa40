"""Which parameters decay, how fast each moves, and by what."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graphattn.models import GRAPH_MODELS, MODELS
from graphattn.recipe import Train
from graphattn.training import AdaBound, AdaBoundW
from graphattn.training.optimizers import optimizer_of


def groups_of(train: Train) -> dict[str, dict[str, Any]]:
    """The group of each parameter of an MLP of two layers, by the parameter's name."""
    model = MODELS["mlp"](5, 3)
    optimizer = optimizer_of(model, train)
    assert optimizer is not None
    found = {p: group for group in optimizer.param_groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in optimizer.param_groups), "none is in two groups"
    return {name: found[p] for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("decay", "decayed"),
    [
        ("all", {"layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"}),
        ("weights", {"layers.0.weight", "layers.1.weight"}),
        ("first", {"layers.0.weight", "layers.0.bias"}),
    ],
)
def test_weight_decay_falls_on_the_parameters_named(decay: Any, decayed: set[str]) -> None:
    model = MODELS["mlp"](5, 3)
    optimizer = optimizer_of(model, Train(lr=0.25, weight_decay=0.125, decay=decay))
    assert type(optimizer) is torch.optim.Adam
    found = {p: group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert found.pop(parameter)["weight_decay"] == (0.125 if name in decayed else 0.0), name
    assert not found
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}


def test_parameters_that_are_fixed_are_not_trained() -> None:
    model = MODELS["mlp"](5, 3)
    model.layers[1].requires_grad_(False)
    optimizer = optimizer_of(model, Train())
    assert optimizer is not None
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in model.layers[0].parameters()}


def test_a_model_without_parameters_has_no_optimizer() -> None:
    assert optimizer_of(MODELS["label-propagation"](5, 3), Train()) is None


@pytest.mark.parametrize("name", sorted(GRAPH_MODELS.keys() - {"label-propagation", "random"}))
def test_the_first_layer_of_every_model_is_found(name: str) -> None:
    """`decay = "first"` goes by the name of the parameter."""
    optimizer = optimizer_of(MODELS[name](5, 3), Train(weight_decay=0.5, decay="first"))
    assert optimizer is not None
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]


@pytest.mark.parametrize(
    ("train", "kind", "found"),
    [
        (Train(), torch.optim.Adam, {"betas": (0.9, 0.999)}),
        (Train(optimizer="adamw"), torch.optim.AdamW, {"betas": (0.9, 0.999)}),
        (Train(beta2=0.98), torch.optim.Adam, {"betas": (0.9, 0.98)}),
        (Train(optimizer="adamw", beta2=0.95), torch.optim.AdamW, {"betas": (0.9, 0.95)}),
        (Train(optimizer="adabound"), AdaBound, {"final_lr": 0.1, "amsbound": False}),
        (Train(optimizer="amsbound", final_lr=0.5), AdaBound, {"final_lr": 0.5, "amsbound": True}),
        (Train(optimizer="adaboundw", final_lr=0.5), AdaBoundW, {"final_lr": 0.5, "amsbound": False}),
        (Train(optimizer="sgd"), torch.optim.SGD, {"momentum": 0.0, "nesterov": False}),
        (
            Train(optimizer="sgd", momentum=0.9, nesterov=True),
            torch.optim.SGD,
            {"momentum": 0.9, "nesterov": True, "dampening": 0},
        ),
    ],
)
def test_the_optimizer_that_is_asked_for(train: Train, kind: type, found: dict[str, Any]) -> None:
    optimizer = optimizer_of(MODELS["mlp"](5, 3), train)
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert {key: group[key] for key in found} == found


def test_some_move_at_another_rate() -> None:
    groups = groups_of(Train(lr=0.25, lr_of={"layers.1": 0.5}))
    assert {name: group["lr"] for name, group in groups.items()} == {
        "layers.0.weight": 0.25,
        "layers.0.bias": 0.25,
        "layers.1.weight": 0.5,
        "layers.1.bias": 0.5,
    }
    assert [groups[f"layers.1.{kind}"]["weight_decay"] for kind in ("weight", "bias")] == [5e-4, 0.0]


def test_a_rate_can_be_that_of_the_others() -> None:
    assert {group["lr"] for group in groups_of(Train(lr=0.25, lr_of={"layers.1": 0.25})).values()} == {0.25}


@pytest.mark.parametrize(
    ("lr_of", "message"),
    [
        ({"attention": 0.1}, "'attention' is in no parameter's name, needed a part of one: layers.0.weight, "),
        ({"layers": 0.1, "bias": 0.2}, "two rates for the parameter layers.0.bias, needed one: make 'bias' longer"),
    ],
)
def test_rates_that_fit_no_parameter_or_two_fit(lr_of: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        groups_of(Train(lr_of=lr_of))


def test_a_model_whose_first_layer_has_another_name() -> None:
    with pytest.raises(
        ValueError, match=r"train\.decay is 'first', which no parameter of CifarResNet is: take another"
    ):
        optimizer_of(MODELS["resnet"](3, 10, depth=8), Train(decay="first"))
