"""Ways of sharing: what each task gets, what is shared, and what is left for inference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from graphattn.multitask import CrossStitch, HardSharing, MMoE, Sharing, SoftSharing

TASKS = ("main", "a", "b")


def trunk() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.Sequential(nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4)))


def heads() -> dict[str, nn.Module]:
    return {task: nn.Linear(4, width) for task, width in zip(TASKS, (3, 1, 2), strict=True)}


KINDS: dict[str, Callable[[], Sharing]] = {
    "hard": lambda: HardSharing(trunk(), heads()),
    "soft": lambda: SoftSharing({task: trunk() for task in TASKS}, heads()),
    "cross-stitch": lambda: CrossStitch({task: trunk() for task in TASKS}, heads()),
    "mmoe": lambda: MMoE([trunk(), trunk()], {task: nn.Linear(5, 2) for task in TASKS}, heads()),
}


def x() -> Tensor:
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> Sharing:
    return KINDS[request.param]()


def test_each_task_has_its_output(model: Sharing) -> None:
    outputs = model(x())
    assert model.main == "main" and tuple(outputs) == TASKS
    assert [tuple(out.shape) for out in outputs.values()] == [(7, 3), (7, 1), (7, 2)]


def test_some_tasks_are_what_they_are_among_all(model: Sharing) -> None:
    model.eval()
    everything = model(x())
    some = model(x(), tasks=("b",))
    assert tuple(some) == ("b",)
    torch.testing.assert_close(some["b"], everything["b"], rtol=0, atol=0)
    with pytest.raises(ValueError, match="unknown task 'c': there are main, a, b"):
        model(x(), tasks=("c",))


def test_what_is_shared_is_all_but_the_heads(model: Sharing) -> None:
    names = {id(p): name for name, p in model.named_parameters()}
    shared = {names[id(p)] for p in model.shared()}
    assert shared == {name for name in names.values() if not name.startswith("heads.")}
    next(p for p in model.shared()).requires_grad_(False)
    assert len(model.shared()) == len(shared) - 1


@pytest.mark.parametrize("task", [None, "b"])
def test_auxiliaries_are_dropped_for_inference(model: Sharing, task: str | None) -> None:
    model.eval()
    alone = model.only(task).eval()
    name = task or "main"
    torch.testing.assert_close(alone(x()), model(x())[name], rtol=0, atol=0)
    left = {key.removeprefix("sharing.") for key in alone.state_dict()}
    assert f"heads.{name}.weight" in left and not any(
        f".{other}." in key for key in left for other in TASKS if other != name and key.startswith(("heads", "gates"))
    )
    assert tuple(model(x())) == TASKS, "it is a copy"
    with torch.no_grad():
        for p in alone.parameters():
            p.zero_()
    assert model(x())[name].abs().sum() > 0


def test_a_soft_tower_is_left_alone() -> None:
    model = KINDS["soft"]()
    assert {key.split(".")[2] for key in model.only().state_dict() if ".towers." in key} == {"main"}


def test_hard_sharing_is_trunk_and_head() -> None:
    body, outs = trunk(), heads()
    body.eval()
    model = HardSharing(body, outs)
    for task in TASKS:
        torch.testing.assert_close(model(x())[task], outs[task](body(x())))
        assert model.trunk_of(task) is body


def test_errors() -> None:
    with pytest.raises(ValueError, match="heads is empty"):
        HardSharing(trunk(), {})
    for kind in (SoftSharing, CrossStitch):
        with pytest.raises(ValueError, match=r"towers for \['main'\] and heads for \['main', 'a', 'b'\]"):
            kind({"main": trunk()}, heads())
    with pytest.raises(ValueError, match=r"gates for \['main'\]"):
        MMoE([trunk()], {"main": nn.Linear(5, 1)}, heads())
    with pytest.raises(ValueError, match="experts is empty"):
        MMoE([], {task: nn.Linear(5, 1) for task in TASKS}, heads())
    with pytest.raises(ValueError, match="unknown task 'c'"):
        KINDS["hard"]().only("c")
