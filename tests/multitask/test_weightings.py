"""Weighting, on problems small enough to be solved by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graphattn.multitask import DynamicAverage, GradNorm, HardSharing, PCGrad, SoftSharing, Uncertainty, Weighting
from graphattn.multitask.dynamic_average import dynamic_weights
from graphattn.multitask.gradients import cosines, steered, task_gradients
from graphattn.multitask.gradnorm import gradnorm_loss
from graphattn.multitask.pcgrad import without_conflicts
from graphattn.multitask.schedules import factor
from graphattn.multitask.uncertainty import uncertainty_loss

KINDS = (Weighting, Uncertainty, DynamicAverage, GradNorm, PCGrad)


class Point(nn.Module):
    """A trunk that is its parameter."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values))

    def forward(self) -> Tensor:
        return self.w


def shared_point(*values: float, tasks: str = "ab") -> Any:
    return HardSharing(Point(*values), {task: nn.Identity() for task in tasks})


def toward(model: Any, **aims: list[float]) -> dict[str, Tensor]:
    """Squared distances from aims: gradients w - aim."""
    return {task: (model()[task] - torch.tensor(aim)).square().sum() / 2 for task, aim in aims.items()}


# --- the sum


def test_weights_and_schedule() -> None:
    weighting = Weighting({"a": 1.0, "b": 0.5}, lambda epoch: 1 - epoch / 2)
    model = shared_point(0.0)
    losses = {"a": torch.tensor(2.0), "b": torch.tensor(8.0)}
    found = []
    for _ in range(3):
        found.append(float(weighting(losses, model)))
        weighting.next_epoch()
    assert found == [6.0, 4.0, 2.0]


@pytest.mark.parametrize("kind", [Weighting, PCGrad])
@pytest.mark.parametrize("schedule", [None, lambda epoch: 0.0])
def test_a_weight_of_zero_is_a_task_less(schedule: Any, kind: type[Weighting]) -> None:
    model, alone = shared_point(0.3, -0.7), shared_point(0.3, -0.7, tasks="a")
    weighting = kind({"a": 1.0, "b": 0.0 if schedule is None else 0.4}, schedule)
    weighting(toward(model, a=[1.1, 2.3], b=[-3.7, 0.9]), model).backward()
    Weighting({"a": 1.0})(toward(alone, a=[1.1, 2.3]), alone).backward()
    assert torch.equal(model.trunk.w.grad, alone.trunk.w.grad)


@pytest.mark.parametrize("kind", [Uncertainty, DynamicAverage, GradNorm])
def test_a_weight_of_zero_is_refused_where_factors_are_found(kind: type[Weighting]) -> None:
    with pytest.raises(ValueError, match=f"the weight of b is 0, and {kind.__name__} finds factors"):
        kind({"a": 1.0, "b": 0.0})
    model, weighting = shared_point(0.3, -0.7), kind({"a": 1.0, "b": 1.0}, lambda epoch: 1.0 - epoch)
    weighting(toward(model, a=[1.1, 2.3], b=[-3.7, 0.9]), model)
    weighting.next_epoch()
    with pytest.raises(ValueError, match=f"the schedule is 0 in epoch 1, and {kind.__name__} finds factors"):
        weighting(toward(model, a=[1.1, 2.3], b=[-3.7, 0.9]), model)


@pytest.mark.parametrize(
    ("name", "found"), [("constant", [1, 1, 1, 1]), ("fade", [1, 0.75, 0.5, 0.25]), ("first-half", [1, 1, 0, 0])]
)
def test_schedules(name: Any, found: list[float]) -> None:
    assert [factor(name, epoch, 4) for epoch in range(4)] == found


def test_an_odd_number_of_epochs_has_its_middle_in_the_first_half() -> None:
    assert [factor("first-half", epoch, 3) for epoch in range(3)] == [1, 1, 0]


# --- uncertainty


def test_uncertainty_has_its_least_where_the_variance_is_the_loss() -> None:
    losses = torch.tensor([0.5, 4.0], dtype=torch.float64)
    s = torch.tensor([0.3, -1.0], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(uncertainty_loss(losses, s), s)
    torch.testing.assert_close(found, (0.5 - losses / (2 * s.exp())).detach())
    best = losses.log().requires_grad_()
    torch.testing.assert_close(uncertainty_loss(losses, best), (0.5 + best / 2).sum())
    assert torch.autograd.grad(uncertainty_loss(losses, best), best)[0].abs().max() < 1e-12


def test_uncertainty_learns_its_variances() -> None:
    weighting, model = Uncertainty({"a": 1.0, "b": 2.0}), shared_point(0.0)
    assert weighting.log_variances.tolist() == [-0.5, -0.5]
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        weighting({"a": torch.tensor(0.5), "b": torch.tensor(2.0)}, model).backward()
        optimizer.step()
    torch.testing.assert_close(weighting.log_variances.exp().detach(), torch.tensor([0.5, 4.0]), rtol=1e-3, atol=0)


# --- dynamic average


def test_dynamic_weights() -> None:
    found = dynamic_weights(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0]), temperature=1.0)
    torch.testing.assert_close(found, 2 * torch.tensor([0.5, 1.5]).softmax(0))
    torch.testing.assert_close(dynamic_weights(torch.ones(3), torch.ones(3)), torch.ones(3))


def test_dynamic_average_goes_by_whole_epochs() -> None:
    weighting, model = DynamicAverage({"a": 1.0, "b": 1.0}), shared_point(0.0)
    found = []
    for first, second in (
        [[4.0, 1.0], [2.0, 3.0]],
        [[1.0, 1.0], [2.0, 2.0]],
        [[8.0, 1.0], [4.0, 1.0]],
        [[5.0, 1.0]] * 2,
    ):
        for losses in (first, second):
            found.append(float(weighting(dict(zip("ab", map(torch.tensor, losses), strict=True)), model)))
        weighting.next_epoch()
    assert found[:4] == [5.0, 5.0, 2.0, 4.0], "the sum, in the first two epochs"

    def factors(a: float, b: float) -> list[float]:
        return (2 * torch.tensor([a / 2, b / 2]).softmax(0)).tolist()

    a, b = factors(1.5 / 3, 1.5 / 2)  # of the means of the second and the first epoch
    assert found[4:6] == pytest.approx([8 * a + b, 4 * a + b])
    a, b = factors(6 / 1.5, 1 / 1.5)
    assert found[6:] == pytest.approx([5 * a + b] * 2)


# --- GradNorm


def test_gradnorm_loss() -> None:
    factors = torch.tensor([1.5, 0.5], dtype=torch.float64, requires_grad=True)
    norms, losses, first = (torch.tensor(v, dtype=torch.float64) for v in ([2.0, 4.0], [1.0, 3.0], [2.0, 2.0]))
    # G = 3, 2, mean 2.5; ratios 0.5, 1.5, over their mean 1: aims 1.25, 3.75 for alpha 1
    found = gradnorm_loss(factors, norms, losses, first, alpha=1.0)
    torch.testing.assert_close(found, torch.tensor(1.75 + 1.75, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(found, factors)
    torch.testing.assert_close(gradient, torch.tensor([2.0, -4.0], dtype=torch.float64))  # sign times norm


def test_gradnorm_evens_out_gradients_of_other_sizes() -> None:
    """Two losses that fall alike, one ten times the other: the factors end as 1 to 10."""
    weighting, model = GradNorm({"a": 1.0, "b": 1.0}), shared_point(0.0)
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        one = model()["a"].sum() + 1
        total = weighting({"a": one, "b": 10 * one}, model)
        total.backward()
        optimizer.step()
    factors = 2 * weighting.logits.detach().softmax(0)
    torch.testing.assert_close(factors, torch.tensor([20 / 11, 2 / 11]), rtol=0.05, atol=0)


def test_gradnorm_follows_the_factors_in_the_trunk_and_the_norms_in_the_factors() -> None:
    weighting, model = GradNorm({"a": 1.0, "b": 1.0}), shared_point(1.0, 0.0)
    with torch.no_grad():
        weighting.logits.copy_(torch.tensor([math.log(3.0), 0.0]))
    total = weighting(toward(model, a=[0.0, 0.0], b=[1.0, 2.0]), model)
    total.backward()
    torch.testing.assert_close(total.detach(), torch.tensor(1.5 * 0.5 + 0.5 * 2))
    torch.testing.assert_close(model.trunk.w.grad, torch.tensor([1.5, -1.0]))
    # G = 1.5 * 1, 0.5 * 2; ratios 1: both should be 1.25, so the loss is 0.25 + 0.25, its gradient in factors (1, -2)
    slope = 2 * torch.tensor([0.75, 0.25])
    jacobian = torch.diag(slope) - torch.outer(slope, slope) / 2
    torch.testing.assert_close(weighting.logits.grad, jacobian @ torch.tensor([1.0, -2.0]))


def test_gradnorm_gives_more_to_the_task_that_has_learned_less() -> None:
    """Of two gradients of one size, the second's loss stays while the first's is a tenth of what it was at first."""
    weighting, model = GradNorm({"a": 1.0, "b": 1.0}), shared_point(0.0)
    for level in (1.0, 0.1, 0.1):
        weighting.zero_grad()
        slope = model()["a"].sum()
        weighting({"a": slope + level, "b": slope + 1.0}, model).backward()
        found = weighting.logits.grad
        if level == 1.0:
            assert found.abs().max() == 0, "nothing is behind yet"
        else:
            # G = 1, 1 and ratios 0.1, 1: the first has too much, the second too little, a slope of (1, -1) in factors
            torch.testing.assert_close(found, torch.tensor([1.0, -1.0]))


# --- PCGrad


def test_pcgrad_projects_conflicts_away() -> None:
    g = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    # each loses its part along the other: (1, 0) - (-1 / 2)(-1, 1) = (.5, .5); (-1, 1) + (1, 0) = (0, 1)
    torch.testing.assert_close(without_conflicts(g), torch.tensor([0.5, 1.5]))
    torch.testing.assert_close(without_conflicts(g.flip(0)), torch.tensor([0.5, 1.5]))


def test_pcgrad_of_opposites_and_of_nothing() -> None:
    g = torch.tensor([[2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(without_conflicts(g), torch.zeros(2))


def test_pcgrad_without_conflict_is_the_sum() -> None:
    g = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0], [1.0, 1.0, 1.0]])
    assert torch.equal(without_conflicts(g), g.sum(0))


def test_pcgrad_projects_on_the_gradients_as_they_came_one_by_one() -> None:
    g = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [-1.0, 0.0, 2.0]])
    seen = {tuple(without_conflicts(g, torch.Generator().manual_seed(k)).tolist()) for k in range(20)}

    def along(order: tuple[int, int]) -> Tensor:
        own = g[0]
        for other in order:
            own = own - min(0.0, float(own @ g[other])) / g[other].square().sum() * g[other]
        return own

    rest = torch.tensor([0.0, 1.0, 0.0]) + torch.tensor([0.0, 0.0, 2.0])  # the others conflict with the first alone
    expected = {tuple((along(order) + rest).tolist()) for order in ((1, 2), (2, 1))}
    assert len(expected) == 2, "the order matters here"
    assert {tuple(round(v, 5) for v in s) for s in seen} == {tuple(round(v, 5) for v in e) for e in expected}


def test_pcgrad_in_the_model() -> None:
    model = HardSharing(Point(0.0, 0.0), {"a": nn.Identity(), "b": nn.Linear(2, 1, bias=False)})
    with torch.no_grad():
        model.heads["b"].weight.copy_(torch.tensor([[1.0, -1.0]]))
    total = PCGrad({"a": 1.0, "b": 1.0})({"a": model()["a"][0], "b": (model()["b"] - 1).square().sum() / 2}, model)
    total.backward()
    assert float(total.detach()) == 0.5
    torch.testing.assert_close(model.trunk.w.grad, torch.tensor([0.5, 1.5])), "of (1, 0) and (-1, 1)"
    torch.testing.assert_close(model.heads["b"].weight.grad, torch.zeros(1, 2)), "its own: the trunk gives 0"


def test_pcgrad_finds_nothing_to_do_in_separate_towers() -> None:
    found = []
    for kind in (PCGrad, Weighting):
        torch.manual_seed(0)
        model = SoftSharing({t: nn.Linear(3, 2) for t in "ab"}, {t: nn.Linear(2, 1) for t in "ab"})
        x = torch.randn(5, 3)
        out = model(x)
        kind({"a": 1.0, "b": 1.0})({"a": out["a"].sum(), "b": -out["b"].sum()}, model).backward()
        found.append([p.grad for p in model.parameters()])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


# --- gradients


def test_gradients_and_cosines() -> None:
    model = shared_point(0.0, 0.0, tasks="abc")
    losses = toward(model, a=[1.0, 0.0], b=[-2.0, 0.0], c=[0.0, 0.0])
    gradients = task_gradients(torch.stack(list(losses.values())), model.shared())
    assert gradients.tolist() == [[-1.0, 0.0], [2.0, 0.0], [0.0, 0.0]]
    assert cosines(gradients).tolist() == [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


def test_steered_adds_to_the_gradient_and_not_to_the_value() -> None:
    ps = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1, 3))]
    loss = steered(sum(p.sum() for p in ps), ps, torch.arange(5.0))
    loss.backward()
    assert float(loss.detach()) == 5.0
    assert [p.grad.tolist() for p in ps] == [[1.0, 2.0], [[3.0, 4.0, 5.0]]]
    assert steered(torch.tensor(2.0), [], torch.zeros(0)) == 2.0


@pytest.mark.parametrize("kind", KINDS)
def test_conflicts_are_seen_where_wanted(kind: type[Weighting]) -> None:
    weighting, model = kind({"a": 1.0, "b": 1.0}), shared_point(0.0)
    weighting(toward(model, a=[1.0], b=[-2.0]), model, watch=True)
    assert weighting.cosines is not None and weighting.cosines[0].tolist() == [1.0, -1.0]


# --- what all have in common


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_where_it_was(kind: type[Weighting]) -> None:
    def steps(weighting: Weighting, model: Any, number: int) -> None:
        optimizer = torch.optim.SGD([*weighting.parameters(), *model.parameters()], lr=0.1)
        for _ in range(number):
            optimizer.zero_grad()
            weighting(toward(model, a=[1.0, 0.5], b=[-2.0, 1.0], c=[-1.0, -1.0]), model).backward()
            optimizer.step()
            weighting.next_epoch()

    weights = {"a": 1.0, "b": 0.5, "c": 0.7}
    whole, model = kind(weights), shared_point(0.0, 0.0, tasks="abc")
    steps(whole, model, 3)
    later, other = kind(weights), shared_point(0.0, 0.0, tasks="abc")
    later.load_state_dict({k: v.clone() for k, v in whole.state_dict().items()})
    other.load_state_dict(model.state_dict())
    for weighting, its in ((whole, model), (later, other)):
        steps(weighting, its, 3)
    assert torch.equal(model.trunk.w, other.trunk.w)
    assert (whole.step, whole.epoch) == (later.step, later.epoch) == (6, 6)


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_trunks_and_heads(kind: type[Weighting]) -> None:
    model = HardSharing(nn.Linear(3, 2), {"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)})
    model.heads["b"].requires_grad_(False)
    model.trunk.requires_grad_(False)
    out = model(torch.ones(4, 3))
    kind({"a": 1.0, "b": 1.0})({t: o.square().mean() for t, o in out.items()}, model, watch=True).backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["heads.a.weight", "heads.a.bias"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_that_is_frozen_with_its_head(kind: type[Weighting]) -> None:
    model = SoftSharing({t: nn.Linear(3, 2) for t in "ab"}, {t: nn.Linear(2, 1) for t in "ab"})
    for part in (model.towers["b"], model.heads["b"]):
        part.requires_grad_(False)
    out = model(torch.ones(4, 3))
    kind({"a": 1.0, "b": 1.0})({t: o.square().mean() for t, o in out.items()}, model, watch=True).backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None and ".b." in name} == set()


@pytest.mark.parametrize("kind", [Weighting, PCGrad])
def test_a_task_without_a_loss_gets_zeros(kind: type[Weighting]) -> None:
    model = HardSharing(nn.Linear(3, 2), {"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)})
    kind({"a": 1.0, "b": 1.0})({"a": model(torch.ones(4, 3), tasks=["a"])["a"].sum()}, model).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.heads["b"].weight.grad.abs().max() == 0 and model.heads["a"].weight.grad.abs().max() > 0


@pytest.mark.parametrize("kind", [Uncertainty, DynamicAverage, GradNorm])
def test_some_need_every_loss(kind: type[Weighting]) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__} has no loss of \['b'\]"):
        kind({"a": 1.0, "b": 1.0})({"a": torch.tensor(1.0)}, shared_point(0.0))


def test_errors() -> None:
    with pytest.raises(ValueError, match="weights is empty"):
        Weighting({})
    for bad in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"the weight of b is {bad}"):
            Weighting({"a": 1.0, "b": bad})
    with pytest.raises(ValueError, match=r"losses of \['c'\], needed a weight for each: \['a'\]"):
        Weighting({"a": 1.0})({"a": torch.tensor(1.0), "c": torch.tensor(1.0)}, shared_point(0.0))
    with pytest.raises(ValueError, match="has no loss of"):
        Weighting({"a": 1.0})({}, shared_point(0.0))
