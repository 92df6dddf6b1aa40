"""When training stops, and which epoch's parameters are kept. Both look at validation data only, or at nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol


class Verdict(NamedTuple):
    keep: bool  # these parameters are the best so far
    stop: bool


class Rule(Protocol):
    """Sees each epoch's validation loss and score, in order; NaN where nothing validates. Its attributes are its whole
    state.

    A rule that is `penalised` sees the loss with the optimizer's L2 penalty added.
    """

    def update(self, loss: float, score: float) -> Verdict: ...


@dataclass
class Gat:
    """The GAT authors' rule: patience starts again if either measure is at least as good as its best so far, the
    parameters are kept only if both are, and `patience` epochs in a row without either end the run.
    """

    patience: int
    best_loss: float = float("inf")
    best_score: float = 0.0
    waited: int = 0

    def update(self, loss: float, score: float) -> Verdict:
        lower, higher = loss <= self.best_loss, score >= self.best_score
        self.best_loss, self.best_score = min(self.best_loss, loss), max(self.best_score, score)
        self.waited = 0 if lower or higher else self.waited + 1
        return Verdict(keep=lower and higher, stop=self.waited >= self.patience)


@dataclass
class GatScore(Gat):
    """Stop as `Gat` does; keep the best score, the first of equals. An epoch without a finite loss is not kept.

    For scores that still rise where the loss has begun to: Velickovic et al. stop by both on PPI too, and do not say
    which epoch they test.
    """

    kept_score: float = float("-inf")

    def update(self, loss: float, score: float) -> Verdict:
        keep = score > self.kept_score and loss < float("inf")
        self.kept_score = score if keep else self.kept_score
        return super().update(loss, score)._replace(keep=keep)


@dataclass
class Window:
    """Stop when the loss is above the mean of the `patience` losses before it; keep the lowest loss.

    `first` epochs pass before it may stop: PyG's citation benchmark passes half of them.
    """

    patience: int
    first: int = 0
    best_loss: float = float("inf")
    losses: list[float] = field(default_factory=list)

    def update(self, loss: float, score: float) -> Verdict:
        recent = self.losses[-self.patience :]
        self.losses.append(loss)
        keep = loss < self.best_loss
        self.best_loss = min(self.best_loss, loss)
        full = len(recent) == self.patience and len(self.losses) > self.first
        return Verdict(keep, stop=full and loss > sum(recent) / self.patience)


@dataclass
class Never:
    """Run all epochs; keep the lowest loss."""

    best_loss: float = float("inf")

    def update(self, loss: float, score: float) -> Verdict:
        keep = loss < self.best_loss
        self.best_loss = min(self.best_loss, loss)
        return Verdict(keep, stop=False)


@dataclass
class Patience:
    """Keep the lowest loss, the last of equals; `patience` epochs in a row above it end the run.

    As Shchur et al., Pitfalls of Graph Neural Network Evaluation, 2018 (arXiv:1811.05868) stop: to their validation
    loss the L2 penalty belongs, so that a model is given time while its weights still shrink.
    """

    penalised: ClassVar[bool] = True
    patience: int
    best_loss: float = float("inf")
    waited: int = 0

    def update(self, loss: float, score: float) -> Verdict:
        keep = loss <= self.best_loss and loss < float("inf")
        self.best_loss = loss if keep else self.best_loss
        self.waited = 0 if keep else self.waited + 1
        return Verdict(keep, stop=self.waited >= self.patience)


@dataclass
class BestScore:
    """Run all epochs; keep the best score, the first of equals. An epoch without a finite loss is not kept.

    As Platonov et al., A Critical Look at the Evaluation of GNNs under Heterophily, ICLR 2023 choose the step.
    """

    best_score: float = float("-inf")

    def update(self, loss: float, score: float) -> Verdict:
        keep = score > self.best_score and loss < float("inf")
        self.best_score = score if keep else self.best_score
        return Verdict(keep, stop=False)


@dataclass
class Last:
    """Run all epochs; keep the last one. It needs no validation data."""

    def update(self, loss: float, score: float) -> Verdict:
        return Verdict(keep=True, stop=False)


def rule(name: str, patience: int, epochs: int) -> Rule:
    """`none`, `gat`, `gat-score`, `window` (Kipf and Welling's), `second-half` (PyG's benchmark: a window, after half),
    `patience` (Shchur et al.'s), `best-score` (Platonov et al.'s) or `last`.
    """
    if name == "gat":
        return Gat(patience)
    if name == "gat-score":
        return GatScore(patience)
    if name == "window":
        return Window(patience)
    if name == "second-half":
        return Window(patience, first=epochs // 2)
    if name == "patience":
        return Patience(patience)
    if name == "best-score":
        return BestScore()
    if name == "last":
        return Last()
    return Never()
