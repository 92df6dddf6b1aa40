"""Networks of one hop a layer: computing layers again in the backward pass instead of keeping what they computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import GRAPHS, close, edge_index
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from graphattn.conv import SparseFeatures
from graphattn.models import MODELS
from graphattn.models.layered import Layered

OPTIONS: dict[str, dict[str, Any]] = {
    "gat": {"num_layers": 3, "skip": True, "hidden": 4, "heads": 2},
    "gatv2": {"num_layers": 3, "hidden": 4, "heads": 2},
    "graph-transformer": {"num_layers": 3, "hidden": 4, "heads": 2},
    "sage": {"hidden": (8, 8), "dropout": 0.5},
    "mlp": {"num_layers": 3},
}
EDGES = edge_index(GRAPHS["random"])
X = torch.rand(GRAPHS["random"].num_senders, 6, generator=torch.Generator().manual_seed(0))


def network(name: str, recompute: bool) -> Layered:
    torch.manual_seed(0)
    model = MODELS[name](6, 3, **OPTIONS[name])
    model.recompute = recompute
    return model


def gradients(model: nn.Module, x: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    out = model(x, EDGES)
    out.square().sum().backward()
    return {"out": out.detach(), **{key: p.grad for key, p in model.named_parameters()}}


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_recomputed_layers_give_the_same_numbers_and_drop_the_same(name: str, sparse: bool) -> None:
    x = SparseFeatures.from_dense(X) if sparse else X
    expected, found = (gradients(network(name, recompute), x) for recompute in (False, True))
    assert (expected["out"] != network(name, False).eval()(x, EDGES)).any(), "dropout is on"
    for what in expected:
        close(found[what], expected[what], what)


def saved(compute: Callable[[], Tensor], but: set[int]) -> int:
    """Bytes that are kept for the backward pass, each storage once."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in but:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        out = compute()
    return out.numel() and sum(kept.values())


@pytest.mark.parametrize("name", ["gat", "gatv2", "graph-transformer"])
def test_recomputed_layers_keep_their_inputs_alone(name: str) -> None:
    model = network(name, False)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    whole = saved(lambda: model(X, EDGES), weights)
    model.recompute = True
    inputs = X.nbytes + EDGES.nbytes + 2 * 4 * X.shape[0] * 8  # two layers of 8 channels enter the next one
    assert saved(lambda: model(X, EDGES), weights) <= inputs + 1024  # and random states
    assert whole > 2 * inputs


def test_nothing_is_recomputed_without_gradients() -> None:
    model, calls = network("gat", True), []
    step = model.step
    model.step = lambda i, *rest: calls.append(i) or step(i, *rest)  # type: ignore[method-assign]
    with torch.no_grad():
        model(X, EDGES)
    assert calls == [0, 1, 2]
    model(X, EDGES).sum().backward()
    assert sorted(calls[3:]) == [0, 0, 1, 1, 2, 2]
