"""What a case and a contestant are to the rest of the benchmark."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor


class Entry:
    """One contestant on one case, built and ready to be timed.

    `has_peak` is False where memory is held beforehand, so that a step's peak says nothing.

    Args:
        compute: the differentiable output [N, ...], given what `make_graph` returns.
        make_graph: the graph as this contestant takes it; called again, it shares nothing with the one before.
        leaves: by name, features and weights, most of which want a gradient.
        parameters: those of the leaves that are weights.
        order: what making the graph ready costs, where the contestant orders its edges once and keeps them.
    """

    has_peak = True

    def __init__(
        self,
        compute: Callable[[Any], Tensor],
        make_graph: Callable[[], Any],
        leaves: Mapping[str, Tensor],
        parameters: Sequence[Tensor] = (),
        order: Callable[[], Any] | None = None,
    ) -> None:
        self.leaves, self.parameters, self._order = leaves, parameters, order
        self._compute, self._make_graph = compute, make_graph
        self.graph = make_graph()
        self._grad: Tensor | None = None

    @property
    def directions(self) -> dict[str, Callable[[], Any]]:
        """What is timed, by name."""
        timed: dict[str, Callable[[], Any]] = {"forward": self.forward, "training step": self.step}
        return timed if self._order is None else timed | {"graph": self._order}

    @property
    def inputs(self) -> list[Tensor]:
        """The leaves that are no weights."""
        return [leaf for leaf in self.leaves.values() if not any(leaf is p for p in self.parameters)]

    def output(self) -> Tensor:
        """With its autograd graph."""
        return self._compute(self.graph)

    @torch.no_grad()
    def forward(self) -> Any:
        return self.output()

    def step(self) -> Tensor:
        """Gradients dropped, forward, backward from a fixed random gradient of the output; gives the output."""
        for leaf in self.leaves.values():
            leaf.grad = None
        out = self.output()
        if self._grad is None:
            self._grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
        out.backward(self._grad)
        return out.detach()

    def answer(self) -> dict[str, Tensor]:
        """The output and every gradient, by name."""
        return {"output": self.step()} | self.gradients()

    def gradients(self) -> dict[str, Tensor]:
        found = {f"gradient of {name}": leaf.grad for name, leaf in self.leaves.items()}
        return {name: grad for name, grad in found.items() if grad is not None}

    def renew(self) -> None:
        """Forget the graph and what was made of it; take an equal one."""
        self.graph = None
        self.graph = self._make_graph()


class AnyCase(ABC):
    """What is to be computed. Cases are frozen dataclasses: plain data that a fresh process can take."""

    directions: ClassVar[tuple[str, ...]] = ("forward", "training step")
    name: str

    @abstractmethod
    def contestants(self, device: str) -> tuple[str, ...]:
        """Those there are on this machine for this device."""

    @abstractmethod
    def obstacle(self, contestant: str, device: str) -> str | None:
        """Why this contestant cannot run here: memory or data that are lacking."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """The columns that describe the case: op, graph, N, E, H, D, dtype and so on."""


class Alone(AnyCase):
    """Of a size that fills the memory: each contestant is measured in a process of its own, one after the other."""

    @abstractmethod
    def measure(self, contestant: str, device: str) -> Iterator[dict[str, Any]]:
        """Its rows, less what they share with the others': direction, times in ms, peak_mib."""


class Case(AnyCase):
    """Contestants that are built side by side, must agree and take turns."""

    baseline: ClassVar[str]  # the contestant that the others must agree with and are compared to

    @property
    def tolerance(self) -> float:
        """Of a tensor's root mean square, within which contestants must agree."""
        return 1e-3

    @abstractmethod
    def build(self, contestant: str, device: str) -> Entry: ...

    def least_bytes(self) -> int | None:
        """What the forward pass has to move at least, where that is its limit."""
        return None
