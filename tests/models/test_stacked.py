"""Models as one: the outputs and gradients of each are those that it has alone, and nothing of one reaches another."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import close
from torch import Tensor, nn

from graphattn.conv.sparse_linear import SparseFeatures
from graphattn.models import MODELS
from graphattn.models.stacked import Stacked

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gat": ("gat", {"hidden": 4, "heads": 3}),
    "gat, deep": ("gat", {"hidden": 4, "heads": 2, "out_heads": 3, "num_layers": 3, "skip": True}),
    "gcn": ("gcn", {"hidden": 5, "num_layers": 3}),
    "mlp": ("mlp", {"hidden": 5, "num_layers": 3}),
}
FEATURES, CLASSES, NODES = 7, 3, 20
KINDS = {"dense": lambda x: x, "sparse": SparseFeatures.from_dense}


def graph() -> tuple[Tensor, Tensor]:
    """Features, most of them zero, and edges among which are loops and duplicates, and nodes without any."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(NODES, FEATURES, generator=generator, dtype=torch.float64)
    edge_index = torch.randint(NODES - 2, (2, 60), generator=generator)
    return x * (x > 0.7), edge_index


def built(family: str, count: int) -> list[nn.Module]:
    name, options = FAMILIES[family]
    models = [MODELS[name](FEATURES, CLASSES, **options).double() for _ in range(count)]
    for model in models:
        for parameter in model.parameters():  # biases are zero at first
            nn.init.normal_(parameter)
    return models


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_each_has_its_own_output_and_gradients(family: str, kind: str) -> None:
    x, edge_index = graph()
    x = KINDS[kind](x)
    models = built(family, 3)
    stack = Stacked(models).eval()
    out = stack(x, edge_index)
    upstream = torch.randn_like(out)
    out.backward(upstream)
    parameters = dict(stack.net.named_parameters())
    for place, model in enumerate(models):
        alone = model.eval()(x, edge_index)
        close(out[place], alone)
        alone.backward(upstream[place])
        for name, parameter in model.named_parameters():
            close(parameters[name].grad[place], parameter.grad, name)
    assert parameters.keys() == dict(models[0].named_parameters()).keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_state_of_each_is_its_own(family: str) -> None:
    models = built(family, 3)
    stack = Stacked(models)
    assert stack.size == 3
    for place, model in enumerate(models):
        state = stack.state_of(place)
        assert list(state) == list(model.state_dict())
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    with torch.no_grad():
        next(stack.parameters()).zero_()
    assert all(bool(next(model.parameters()).any()) for model in models), "the models are left alone"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_one_alone_draws_the_masks_of_the_model_itself(family: str, kind: str) -> None:
    x, edge_index = graph()
    x = KINDS[kind](x)
    (model,) = models = built(family, 1)
    torch.manual_seed(3)
    out = Stacked(models)(x, edge_index)
    torch.manual_seed(3)
    close(out[0], model(x, edge_index))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dropout", ["dropout", "attention_dropout", "feature_dropout"])
def test_masks_are_independent(dropout: str, kind: str) -> None:
    """Equal models differ in what is dropped, in each of GAT's three places alone; without dropout they agree."""
    x, edge_index = graph()
    x = KINDS[kind](x)
    off = {"dropout": 0.0, "attention_dropout": 0.0, "feature_dropout": 0.0}
    for rates, differ in ((off, False), (off | {dropout: 0.5}, True)):
        model = MODELS["gat"](FEATURES, CLASSES, num_layers=1, **rates).double()
        first, second = Stacked([model, model])(x, edge_index)
        assert torch.allclose(first, second) != differ


def test_only_those_that_are_kept_stay() -> None:
    x, edge_index = graph()
    stack = Stacked(built("gat", 4))
    adam = torch.optim.Adam(stack.parameters(), lr=0.1)
    stack.eval()(x, edge_index).square().sum().backward()
    adam.step()
    before = {name: value.clone() for name, value in stack.state_dict().items()}
    moments = [adam.state[parameter]["exp_avg_sq"].clone() for parameter in stack.parameters()]
    stack.keep([0, 3], adam)
    assert stack.size == 2
    assert all(torch.equal(value, before[name][[0, 3]]) for name, value in stack.state_dict().items())
    for parameter, was in zip(stack.parameters(), moments, strict=True):
        assert torch.equal(adam.state[parameter]["exp_avg_sq"], was[[0, 3]])
        assert adam.state[parameter]["exp_avg"].stride() == parameter.stride(), "as a fused step needs"
    stack(x, edge_index).square().sum().backward()
    adam.step()


@pytest.mark.parametrize(
    ("names", "found"),
    [(["gatv2"], "GATv2"), (["label-propagation"], "LabelPropagation"), (["gat", "mlp"], "GAT, MLP")],
)
def test_what_cannot_be_stacked_is_named_beside_what_can(names: list[str], found: str) -> None:
    models = [MODELS[name](FEATURES, CLASSES) for name in names]
    with pytest.raises(ValueError, match=rf"^{found} cannot be stacked: needed .* of GAT, GCN, MLP$"):
        Stacked(models)
