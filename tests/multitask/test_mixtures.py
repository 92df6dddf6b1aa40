"""Cross-stitch units and gates: their equations, their beginnings, and towers of several stages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphattn.multitask import CrossStitch, MMoE
from graphattn.multitask.cross_stitch import stitched
from graphattn.multitask.mmoe import mixed


def test_stitching() -> None:
    weights = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64, requires_grad=True)
    a, b = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    first, second = stitched(weights, [a, b])
    torch.testing.assert_close(first, a + 2 * b)
    torch.testing.assert_close(second, 0.5 * a - b)
    assert torch.autograd.gradcheck(lambda w, a, b: stitched(w, [a, b]), (weights, a, b))
    assert stitched(weights.float(), [a.bfloat16(), b.bfloat16()])[0].dtype == torch.bfloat16


def heads(*tasks: str) -> dict[str, nn.Module]:
    return {task: nn.Identity() for task in tasks}


def towers() -> dict[str, nn.Module]:
    return {task: nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 2))) for task in "ab"}


def test_towers_of_stages_are_mixed_behind_each() -> None:
    parts = towers()
    model = CrossStitch(parts, heads("a", "b"), own=0.8)
    first, second = (m.detach() for m in model.mixtures)
    torch.testing.assert_close(first, torch.tensor([[0.8, 0.2], [0.2, 0.8]]))
    assert torch.equal(first, second)
    x = torch.randn(5, 3)
    a, b = parts["a"][0](x), parts["b"][0](x)
    a, b = 0.8 * a + 0.2 * b, 0.2 * a + 0.8 * b
    a, b = parts["a"][1](a), parts["b"][1](b)
    torch.testing.assert_close(model(x)["a"], 0.8 * a + 0.2 * b)
    torch.testing.assert_close(model(x, tasks=["b"])["b"], 0.2 * a + 0.8 * b)


def test_towers_for_themselves() -> None:
    parts = towers()
    model, x = CrossStitch(parts, heads("a", "b"), own=1.0), torch.randn(5, 3)
    for task, out in model(x).items():
        torch.testing.assert_close(out, parts[task](x))


def test_later_stages_get_the_other_inputs_too() -> None:
    class Scaled(nn.Module):
        def stages(self) -> list[Any]:
            return [lambda x, factor: x * factor, lambda x, factor: x + factor]

    model = CrossStitch({"a": Scaled(), "b": Scaled()}, heads("a", "b"), own=1.0)
    torch.testing.assert_close(model(torch.ones(2), 3.0)["b"], torch.full((2,), 6.0))


def test_a_part_that_is_called_stages_is_no_list_of_them() -> None:
    class Staged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 2)])

        def forward(self, x: Tensor) -> Tensor:
            return self.stages[1](self.stages[0](x).tanh())

    parts, x = {task: Staged() for task in "ab"}, torch.randn(5, 3)
    model = CrossStitch(parts, heads("a", "b"))
    assert len(model.mixtures) == 1
    torch.testing.assert_close(model(x)["a"], 0.9 * parts["a"](x) + 0.1 * parts["b"](x))


def test_stages_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="'a': 2, 'b': 1"):
        CrossStitch({"a": nn.Sequential(nn.ReLU(), nn.ReLU()), "b": nn.ReLU()}, heads("a", "b"))


def test_mixture_of_experts() -> None:
    gate = torch.tensor([[0.0, 0.0], [0.0, torch.tensor(3.0).log()]], dtype=torch.float64, requires_grad=True)
    experts = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    found = mixed(gate, experts)
    torch.testing.assert_close(found[0], experts[0].mean(0))
    torch.testing.assert_close(found[1], experts[1, 0] / 4 + experts[1, 1] * 3 / 4)
    assert torch.autograd.gradcheck(mixed, (gate, experts))


def test_each_task_has_its_gate() -> None:
    experts = [nn.Linear(3, 4) for _ in range(3)]
    gates = {task: nn.Linear(3, 3) for task in "ab"}
    model, x = MMoE(experts, gates, heads("a", "b")), torch.randn(5, 3)
    outputs: Tensor = torch.stack([expert(x) for expert in experts], 1)
    for task, weights in model.weights(x).items():
        torch.testing.assert_close(weights.sum(1), torch.ones(5))
        torch.testing.assert_close(model(x)[task], (weights[:, :, None] * outputs).sum(1))
    assert not torch.allclose(model(x)["a"], model(x)["b"])
