"""AdaBound and AMSBound: Adam whose rate of each coordinate lies between two bounds that close in on that of SGD."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT, _default_to_fused_or_foreach


class AdaBound(Optimizer):
    """Adam with its rates clipped; `amsbound` divides by the largest v so far instead of the latest.

        m_t = b1 m + (1 - b1) g,   v_t = b2 v + (1 - b2) g^2
        rate_t = clip(lr sqrt(1 - b2^t) / (1 - b1^t) / (sqrt(v_t) + eps), low_t, high_t)
        low_t = f (1 - 1 / (gamma t + 1)),   high_t = f (1 + 1 / (gamma t)),   f = final_lr * lr / base_lr
        p_t = p - rate_t m_t

    so m is not corrected for its start at zero where the rate is clipped. `weight_decay` times p is added to the
    gradient; `AdaBoundW` takes it from the parameter instead.

    **Schedules move the bounds.** A schedule that makes `lr` ten times smaller makes both bounds ten times smaller.
    They are relative to the group's `base_lr`: what `lr` was when the group came in (or its `initial_lr`, if it brought
    one). So construct the optimizer with the lr that the schedule's factors are for, or give a group its `base_lr`. It
    stands beside the `initial_lr` of torch's schedulers because OneCycleLR overwrites that. Where it is 0, as when lr
    is 0 until a schedule sets it, the largest lr so far stands for it; at lr 0 nothing moves. A state dict holds it:
    one saved after a schedule lowered the rate keeps its bounds in an optimizer made with another `lr`. One of the
    published package, which holds none, takes the scheduler's `initial_lr`, else its lr.

    The published code fixed the initial rates when constructed, so that a group added later was never updated and an lr
    of 0 divided by zero; here each group has its own. Not offered: complex parameters, sparse gradients, tensors as lr.

    Args:
        foreach: all tensors of a device and dtype in one call; None leaves it to torch's rule: on GPUs, not on CPUs.
        maximize: follow the gradient upwards.

    Raises:
        ValueError: a number out of its range, or a complex parameter.
        RuntimeError: `step` with a sparse gradient.

    Paper: Luo, Xiong, Liu, Sun, "Adaptive Gradient Methods with Dynamic Bound of Learning Rate", ICLR 2019.
    """

    _decoupled: ClassVar[bool] = False

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        final_lr: float = 0.1,
        gamma: float = 1e-3,
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsbound: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "final_lr": final_lr,
            "gamma": gamma,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsbound": amsbound,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        try:
            _check(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise
        _remember_base(self.param_groups[-1])

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in (("amsbound", False), ("foreach", None), ("maximize", False)):
                group.setdefault(name, value)
            _remember_base(group)
        for held in self.state.values():
            if held and not isinstance(held["step"], Tensor):
                held["step"] = torch.tensor(float(held["step"]))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step on every parameter that has a gradient; the closure's loss, if there is a closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            foreach = group["foreach"]
            if foreach is None:
                _, foreach = _default_to_fused_or_foreach(params, differentiable=False)
            states = [self._state(p, group["amsbound"]) for p in params]
            names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsbound"] else [])]
            lists = [params, [p.grad for p in params], [s["step"] for s in states]]
            lists += [[s[name] for s in states] for name in names]
            (_together if foreach else _one_by_one)(lists, group, _schedule(group), self._decoupled)
        return loss

    def _state(self, param: Tensor, amsbound: bool) -> dict[str, Tensor]:
        if param.grad is not None and param.grad.is_sparse:
            raise RuntimeError(
                f"{type(self).__name__} got a sparse gradient of a parameter of shape {list(param.shape)}, needed a "
                f"dense one: leave out sparse=True of the embedding, or take torch.optim.SparseAdam for it"
            )
        state = self.state[param]
        if not state:
            state["step"] = torch.tensor(0.0)
            for name in ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if amsbound else [])):
                state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)
        return state


class AdaBoundW(AdaBound):
    """AdaBound with decoupled weight decay: p_t = p - rate_t m_t - weight_decay * lr / base_lr * p.

    At a constant lr this is the published code. There a schedule leaves the decay as it is; here it scales the decay as
    it scales the bounds, which is the schedule multiplier of the paper. So `weight_decay` is the part of a parameter
    that goes in a step; it is not times lr as in torch.optim.AdamW, whose 0.01 at lr 1e-3 is 1e-5 here.

    Paper: Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    _decoupled = True


def bounds(step: float, final_lr: float, gamma: float) -> tuple[float, float]:
    """Between which values the rate lies at step 1, 2, ...: [1.0e-4, 100.1] at first, near `final_lr` in the end."""
    return final_lr * (1 - 1 / (gamma * step + 1)), final_lr * (1 + 1 / (gamma * step))


def _one_by_one(lists: list[list[Tensor]], group: dict[str, Any], schedule: float, decoupled: bool) -> None:
    beta1, beta2 = group["betas"]
    decay = group["weight_decay"]
    for param, grad, step, mean, square, *largest in zip(*lists, strict=True):
        step += 1
        size, low, high = _rates(step.item(), group, schedule)
        if group["maximize"]:
            grad = -grad
        if decay and decoupled:
            param.mul_(1 - decay * schedule)
        elif decay:
            grad = grad.add(param, alpha=decay)
        mean.lerp_(grad, 1 - beta1)
        square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        for top in largest:
            torch.maximum(top, square, out=top)
        rate = (largest[0] if largest else square).sqrt().add_(group["eps"]).div_(size).reciprocal_().clamp_(low, high)
        param.addcmul_(rate, mean, value=-1)


def _together(lists: list[list[Tensor]], group: dict[str, Any], schedule: float, decoupled: bool) -> None:
    beta1, beta2 = group["betas"]
    decay = group["weight_decay"]
    for alike, _ in Optimizer._group_tensors_by_device_and_dtype(cast(Any, lists)).values():
        params, grads, steps, means, squares, *largest = cast("list[list[Tensor]]", alike)
        torch._foreach_add_(steps, 1)
        sizes, lows, highs = zip(*(_rates(step.item(), group, schedule) for step in steps), strict=True)
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        if decay and decoupled:
            torch._foreach_mul_(params, 1 - decay * schedule)
        elif decay:
            grads = list(torch._foreach_add(grads, params, alpha=decay))
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - beta2)
        for top in largest:
            torch._foreach_maximum_(top, squares)
        rates = torch._foreach_sqrt(largest[0] if largest else squares)
        torch._foreach_add_(rates, group["eps"])
        torch._foreach_div_(rates, sizes)
        torch._foreach_reciprocal_(rates)
        torch._foreach_clamp_min_(rates, lows)
        torch._foreach_clamp_max_(rates, highs)
        torch._foreach_addcmul_(params, rates, means, value=-1)


def _rates(step: float, group: dict[str, Any], schedule: float) -> tuple[float, float, float]:
    """Adam's rate times sqrt(v) + eps, and the bounds."""
    beta1, beta2 = group["betas"]
    size = group["lr"] * math.sqrt(1 - beta2**step) / (1 - beta1**step)
    return size, *bounds(step, group["final_lr"] * schedule, group["gamma"])


def _schedule(group: dict[str, Any]) -> float:
    """lr / base_lr; without a base, relative to the largest lr so far."""
    if group["base_lr"] == 0:
        group["largest_lr"] = max(group.get("largest_lr", 0.0), group["lr"])
    base = group["base_lr"] or group["largest_lr"]
    return group["lr"] / base if base else 0.0


def _remember_base(group: dict[str, Any]) -> None:
    group.setdefault("base_lr", group.get("initial_lr", group["lr"]))


def _check(group: dict[str, Any]) -> None:
    """Of a group that comes in."""
    beta1, beta2 = group["betas"]
    for name, value, fits, needed in (
        ("lr", group["lr"], not isinstance(group["lr"], Tensor) and group["lr"] >= 0, "a number, at least 0"),
        ("betas", group["betas"], 0 <= beta1 < 1 and 0 <= beta2 < 1, "two numbers from 0 to below 1"),
        ("final_lr", group["final_lr"], group["final_lr"] >= 0, "at least 0"),
        ("gamma", group["gamma"], 0 < group["gamma"] < 1, "between 0 and 1: the bounds meet after some 1/gamma steps"),
        ("eps", group["eps"], group["eps"] > 0, "above 0"),
        ("weight_decay", group["weight_decay"], group["weight_decay"] >= 0, "at least 0"),
        ("base_lr", group.get("base_lr", 0), group.get("base_lr", 0) >= 0, "at least 0, or leave it out"),
    ):
        if not fits:
            raise ValueError(f"{name} is {value!r}, needed {needed}")
    for param in group["params"]:
        if param.is_complex():
            raise ValueError(
                f"a parameter of shape {list(param.shape)} is {param.dtype}, needed a real one: make it one of "
                f"torch.view_as_real"
            )
