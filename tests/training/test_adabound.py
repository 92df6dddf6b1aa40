"""AdaBound: step by step what its formulas say, written out for one number; and what users of it have tripped over."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR, StepLR

from graphattn.training import AdaBound, AdaBoundW
from graphattn.training.adabound import bounds

OPTIMIZERS = [AdaBound, AdaBoundW]
SIZES = [(3,), (2, 2), (), (0,)]
FACTORS = [1.0] * 4 + [0.1] * 4 + [0.5] * 4  # of lr at each step


def scalar(
    p: float,
    gradients: Sequence[float],
    factors: Sequence[float],
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    final_lr: float = 0.1,
    gamma: float = 1e-3,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsbound: bool = False,
    decoupled: bool = False,
) -> list[float]:
    """One coordinate, from the formulas: its value after each step."""
    m = v = largest = 0.0
    values = []
    for t, (gradient, factor) in enumerate(zip(gradients, factors, strict=True), start=1):
        g = gradient if decoupled else gradient + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        largest = max(largest, v)
        f = final_lr * factor
        rate = lr * factor * math.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t)
        rate /= math.sqrt(largest if amsbound else v) + eps
        rate = max(f * (1 - 1 / (gamma * t + 1)), min(f * (1 + 1 / (gamma * t)), rate))
        p = p - rate * m - (weight_decay * factor * p if decoupled else 0.0)
        values.append(p)
    return values


def given(
    dtype: torch.dtype = torch.float64, steps: int = len(FACTORS)
) -> tuple[list[nn.Parameter], list[list[Tensor]]]:
    """Parameters, and their gradients at each step: of sizes that reach both bounds, and the rates between them."""
    params = [nn.Parameter(torch.randn(size, dtype=dtype)) for size in SIZES]
    scales = [10.0 ** (t % 5 - 3) for t in range(steps)]
    return params, [[torch.randn_like(p) * scale for p in params] for scale in scales]


def train(
    optimizer: torch.optim.Optimizer,
    params: Sequence[nn.Parameter],
    gradients: Sequence[Sequence[Tensor]],
    after: Callable[[], None] = lambda: None,
) -> list[list[Tensor]]:
    """The parameters after each step."""
    course = []
    for step in gradients:
        for param, gradient in zip(params, step, strict=True):
            param.grad = gradient.clone()
        optimizer.step()
        after()
        course.append([p.detach().clone() for p in params])
    return course


VARIANTS: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.1},
    {"amsbound": True},
    {"amsbound": True, "weight_decay": 0.01, "lr": 0.05, "betas": (0.7, 0.8), "eps": 1e-3},
    {"gamma": 0.5, "final_lr": 0.02, "betas": (0.0, 0.9)},
]


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_every_coordinate_follows_the_formulas(
    make: type[AdaBound], options: dict[str, Any], scheduled: bool, foreach: bool
) -> None:
    params, gradients = given()
    start = [p.detach().clone() for p in params]
    factors = FACTORS if scheduled else [1.0] * len(FACTORS)
    optimizer = make(params, **options, foreach=foreach)
    schedule = LambdaLR(optimizer, lambda t: (*factors, 1.0)[t])
    course = train(optimizer, params, gradients, schedule.step)
    for i, first in enumerate(start):
        for place in range(first.numel()):
            expected = scalar(
                float(first.flatten()[place]),
                [float(step[i].flatten()[place]) for step in gradients],
                factors,
                decoupled=make is AdaBoundW,
                **options,
            )
            found = [float(step[i].flatten()[place]) for step in course]
            assert found == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_the_cases_reach_both_bounds_and_the_middle() -> None:
    """Else the test above could not tell a bound that is missing."""
    _, gradients = given()
    where = set()
    v = 0.0
    for t, step in enumerate(gradients, start=1):
        g = float(step[2])
        v = 0.9 * v + 0.1 * g * g
        low, high = bounds(t, 0.02, 0.5)
        rate = 1e-3 * math.sqrt(1 - 0.9**t) / (math.sqrt(v) + 1e-8)
        where.add("below" if rate < low else "above" if rate > high else "between")
    assert where == {"below", "above", "between"}


# facts/layer-attention.md gives them for the defaults, to these digits
@pytest.mark.parametrize(
    ("step", "low", "high"),
    [
        (1, "1.0e-04", "100.1"),
        (100, "9.1e-03", "1.1"),
        (1000, "5.0e-02", "0.2"),
        (10_000, "0.0909", "0.110"),
        (78_200, "0.0987", "0.1013"),
    ],
)
def test_bounds_close_in(step: int, low: str, high: str) -> None:
    found = bounds(step, 0.1, 1e-3)
    for number, text in zip(found, (low, high), strict=True):
        digits = len(text.split("e")[0].split(".")[1])
        assert (f"{number:.{digits}e}" if "e" in text else f"{number:.{digits}f}") == text


@pytest.mark.parametrize("amsbound", [False, True])
def test_with_bounds_out_of_reach_it_is_adam(amsbound: bool) -> None:
    """torch's Adam judges the moments. It adds eps after its correction of v, so eps is next to nothing here."""
    params, gradients = given()
    others = [nn.Parameter(p.detach().clone()) for p in params]
    ours = AdaBound(params, final_lr=1e-6, gamma=1e-15, eps=1e-30, weight_decay=0.1, amsbound=amsbound, lr=1e-2)
    adam = torch.optim.Adam(others, lr=1e-2, eps=1e-30, weight_decay=0.1, amsgrad=amsbound)
    for mine, theirs in zip(train(ours, params, gradients), train(adam, others, gradients), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_foreach_gives_the_numbers_of_the_loop(
    make: type[AdaBound], options: dict[str, Any], dtype: torch.dtype, device: torch.device
) -> None:
    params, gradients = given(dtype)
    courses = []
    for foreach in (False, True):
        own = [nn.Parameter(p.detach().clone().to(device)) for p in params]
        optimizer = make(own, **options, foreach=foreach, maximize=True)
        courses.append(train(optimizer, own, [[g.to(device) for g in step] for step in gradients]))
    if dtype == torch.bfloat16:  # where torch rounds betas before it multiplies lists by them: they part with time
        torch.testing.assert_close(courses[0][0], courses[1][0])
    elif device.type == "cpu":
        torch.testing.assert_close(courses[0], courses[1], rtol=0, atol=0)
    else:
        torch.testing.assert_close(courses[0], courses[1])


@pytest.mark.parametrize("foreach", [False, True])
def test_dtypes_and_missing_gradients_may_differ_within_a_group(foreach: bool) -> None:
    """Each tensor has its own count of steps, so one that was frozen at first has the bounds of its own step 1."""
    wide, narrow, frozen = (nn.Parameter(torch.ones(2, dtype=d)) for d in (torch.float64, torch.float32, torch.float64))
    optimizer = AdaBound([wide, narrow, frozen], foreach=foreach)
    for step in range(3):
        wide.grad, narrow.grad = torch.full_like(wide, 0.3), torch.full_like(narrow, 0.3)
        frozen.grad = None if step < 2 else torch.full_like(frozen, 0.3)
        optimizer.step()
    expected = scalar(1.0, [0.3] * 3, [1.0] * 3)
    assert wide.tolist() == pytest.approx([expected[2]] * 2, rel=1e-12)
    assert narrow.tolist() == pytest.approx([expected[2]] * 2, rel=1e-6)
    assert frozen.tolist() == pytest.approx([expected[0]] * 2, rel=1e-12)
    assert [int(optimizer.state[p]["step"]) for p in (wide, narrow, frozen)] == [3, 3, 1]


@pytest.mark.parametrize("foreach", [False, True])
def test_maximize_climbs(foreach: bool) -> None:
    up, down = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    gradients = [torch.randn(3) for _ in range(5)]
    train(AdaBound([up], weight_decay=0.1, maximize=True, foreach=foreach), [up], [[g] for g in gradients])
    train(AdaBound([down], weight_decay=0.1, foreach=foreach), [down], [[-g] for g in gradients])
    assert torch.equal(up, down)
    assert not torch.equal(up, torch.ones(3))


def test_gradients_are_left_as_they_are() -> None:
    for foreach in (False, True):
        params, gradients = given(steps=1)
        train(AdaBound(params, weight_decay=0.1, maximize=True, foreach=foreach), params, gradients)
        for param, gradient in zip(params, gradients[0], strict=True):
            assert torch.equal(param.grad, gradient)  # type: ignore[arg-type]


def test_which_path_is_taken_without_being_asked(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    """As torch's optimizers: together on GPUs, one by one on CPUs."""
    from graphattn.training import adabound

    taken = []
    monkeypatch.setattr(adabound, "_together", lambda *args: taken.append("together"))
    monkeypatch.setattr(adabound, "_one_by_one", lambda *args: taken.append("one by one"))
    param = nn.Parameter(torch.ones(2, device=device))
    param.grad = torch.ones_like(param)
    AdaBound([param]).step()
    AdaBound([param], foreach=True).step()
    AdaBound([param], foreach=False).step()
    assert taken == ["one by one" if device.type == "cpu" else "together", "together", "one by one"]


def test_a_closure_is_called_with_gradients() -> None:
    param = nn.Parameter(torch.tensor([2.0]))
    optimizer = AdaBound([param])

    def closure() -> float:
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 4.0
    assert float(param.detach()) < 2.0


def test_it_trains() -> None:
    x = torch.randn(64, 4)
    y = x @ torch.tensor([1.0, -2.0, 3.0, 0.5])
    for make in OPTIMIZERS:
        model = nn.Linear(4, 1)
        optimizer = make(model.parameters(), lr=1e-2)
        for _ in range(300):
            optimizer.zero_grad()
            loss = (model(x).squeeze(1) - y).square().mean()
            loss.backward()
            optimizer.step()
        assert float(loss.detach()) < 1e-3


# What users of the published code have tripped over.


@pytest.mark.parametrize("foreach", [False, True])
def test_a_group_added_later_is_updated_with_bounds_of_its_own(foreach: bool) -> None:
    first, later = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
    optimizer = AdaBound([first], lr=1e-3, foreach=foreach)
    train(optimizer, [first], [[torch.ones(1, dtype=torch.float64)]] * 2)
    optimizer.add_param_group({"params": [later], "lr": 1e-2})
    gradients = [0.5, 100.0, -3.0]
    train(optimizer, [later], [[torch.tensor([g], dtype=torch.float64)] for g in gradients])
    assert later.tolist() == pytest.approx(scalar(1.0, gradients, [1.0] * 3, lr=1e-2)[-1:], rel=1e-12)


def one(lr: float, **options: Any) -> tuple[nn.Parameter, AdaBound]:
    param = nn.Parameter(torch.ones(1, dtype=torch.float64))
    return param, AdaBound([param], lr=lr, **options)


def followed(param: nn.Parameter, optimizer: AdaBound, gradients: Sequence[float], rates: Sequence[float]) -> float:
    """The parameter in the end, with lr set by hand before each step."""
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        param.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    return float(param.detach())


GRADIENTS = [0.5, 40.0, -3.0, 1e-4]


def test_a_schedule_may_start_at_zero() -> None:
    param, optimizer = one(1e-3)
    schedule = LambdaLR(optimizer, lambda t: t / 3)
    train(optimizer, [param], [[torch.tensor([g], dtype=torch.float64)] for g in GRADIENTS], schedule.step)
    expected = scalar(1.0, GRADIENTS, [0, 1 / 3, 2 / 3, 1])
    assert expected[0] == 1.0
    assert float(param.detach()) == pytest.approx(expected[-1], rel=1e-12)


def test_an_optimizer_made_with_lr_zero_takes_the_largest_so_far() -> None:
    """As some trainers do, which set the rate before each step: bounds neither fail nor grow while it warms up."""
    param, optimizer = one(0.0)
    found = followed(param, optimizer, GRADIENTS, [0.0, 1e-3, 2e-3, 1e-3])
    expected = 1.0
    m = v = 0.0
    for t, (g, lr, factor) in enumerate(zip(GRADIENTS, [0.0, 1e-3, 2e-3, 1e-3], [0, 1, 1, 0.5], strict=True), start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        low, high = bounds(t, 0.1 * factor, 1e-3)
        rate = lr * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) / (math.sqrt(v) + 1e-8)
        expected -= max(low, min(high, rate)) * m
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_group_may_say_what_its_bounds_belong_to() -> None:
    param = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = AdaBound([{"params": [param], "lr": 0.0, "base_lr": 2e-3}])
    found = followed(param, optimizer, GRADIENTS, [1e-3] * 4)
    assert found == pytest.approx(scalar(1.0, GRADIENTS, [0.5] * 4, lr=2e-3)[-1], rel=1e-12)


def test_bounds_follow_the_lr_it_was_made_with_whatever_the_scheduler_writes() -> None:
    """OneCycleLR overwrites initial_lr by its lowest rate; bounds relative to that would be 25 times too wide."""
    param, optimizer = one(1e-2)
    schedule = OneCycleLR(optimizer, max_lr=1e-2, total_steps=8, cycle_momentum=False)
    assert optimizer.param_groups[0]["initial_lr"] == pytest.approx(1e-2 / 25)
    rates = []

    def after() -> None:
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])

    begin = optimizer.param_groups[0]["lr"]
    train(optimizer, [param], [[torch.tensor([g], dtype=torch.float64)] for g in GRADIENTS], after)
    factors = [rate / 1e-2 for rate in (begin, *rates[:-1])]
    assert max(factors) > 0.9
    assert float(param.detach()) == pytest.approx(scalar(1.0, GRADIENTS, factors, lr=1e-2)[-1], rel=1e-12)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_state_dict_goes_on_where_it_ended(
    make: type[AdaBound], options: dict[str, Any], foreach: bool, tmp_path: Path
) -> None:
    """Through a file, after a schedule lowered the rate, into an optimizer that was made with another one."""
    params, gradients = given(steps=8)
    optimizer = make(params, **options, foreach=foreach)
    schedule = StepLR(optimizer, 3, gamma=0.1)
    train(optimizer, params, gradients[:4], schedule.step)
    torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, tmp_path / "state.pt")

    others = [nn.Parameter(p.detach().clone()) for p in params]
    resumed = make(others, **options | {"lr": 0.7}, foreach=foreach)
    content = torch.load(tmp_path / "state.pt", weights_only=True)
    again = StepLR(resumed, 3, gamma=0.1)
    again.load_state_dict(content["schedule"])
    resumed.load_state_dict(content["optimizer"])

    expected = train(optimizer, params, gradients[4:], schedule.step)
    found = train(resumed, others, gradients[4:], again.step)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert isinstance(resumed.state[others[0]]["step"], Tensor)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_go_on_alike(copied: Callable[[Any], Any]) -> None:
    param, optimizer = one(1e-3)
    followed(param, optimizer, GRADIENTS[:2], [1e-3, 1e-4])
    other, twin = copied((param, optimizer))
    assert followed(param, optimizer, GRADIENTS[2:], [1e-4] * 2) == followed(other, twin, GRADIENTS[2:], [1e-4] * 2)


@pytest.mark.parametrize("scheduled", [True, False])
def test_state_dicts_of_the_published_package_load(scheduled: bool) -> None:
    """Steps are ints there, and the initial rate is with the scheduler, if there is one."""
    param, optimizer = one(1e-3)
    followed(param, optimizer, GRADIENTS[:2], [1e-3, 1e-4 if scheduled else 1e-3])
    published = copy.deepcopy(optimizer.state_dict())
    published["state"][0]["step"] = 2
    (group,) = published["param_groups"]
    for name in ("base_lr", "foreach", "maximize"):
        del group[name]
    if scheduled:
        group["initial_lr"] = 1e-3
    other, resumed = one(0.5)
    other.data.copy_(param.detach())
    resumed.load_state_dict(published)
    rates = [1e-4 if scheduled else 1e-3] * 2
    assert followed(other, resumed, GRADIENTS[2:], rates) == followed(param, optimizer, GRADIENTS[2:], rates)
    assert resumed.param_groups[0]["base_lr"] == 1e-3


# At the door.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, r"lr is -1.0, needed a number, at least 0"),
        ({"lr": torch.tensor(0.1)}, r"lr is tensor\(0.1.*, needed a number"),
        ({"betas": (0.9, 1.0)}, r"betas is \(0.9, 1.0\), needed two numbers from 0 to below 1"),
        ({"final_lr": -0.1}, "final_lr is -0.1, needed at least 0"),
        ({"gamma": 0.0}, "gamma is 0.0, needed between 0 and 1"),
        ({"gamma": 1.0}, "gamma is 1.0, needed between 0 and 1"),
        ({"eps": 0.0}, "eps is 0.0, needed above 0"),
        ({"weight_decay": -1e-4}, "weight_decay is -0.0001, needed at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaBound([nn.Parameter(torch.ones(1))], **options)


def test_a_group_that_is_refused_is_not_kept() -> None:
    _, optimizer = one(1e-3)
    for group, message in (
        (
            {"params": [nn.Parameter(torch.ones(2, dtype=torch.complex64))]},
            r"shape \[2\] is torch.complex64, needed a real",
        ),
        ({"params": [nn.Parameter(torch.ones(2))], "base_lr": -1.0}, "base_lr is -1.0, needed at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.add_param_group(group)
        assert len(optimizer.param_groups) == 1


def test_sparse_gradients_are_refused_before_anything_moves() -> None:
    dense, table = nn.Parameter(torch.ones(2)), nn.Embedding(5, 2, sparse=True)
    optimizer = AdaBound([dense, *table.parameters()])
    (table(torch.tensor([1])).sum() + dense.sum()).backward()
    with pytest.raises(RuntimeError, match=r"AdaBound got a sparse gradient of a parameter of shape \[5, 2\]"):
        optimizer.step()
    assert torch.equal(dense, torch.ones(2))
