"""The training loop: what it keeps, what it writes, and that a run killed anywhere ends with the same numbers."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from graphattn.data import NodeData
from graphattn.models import MODELS
from graphattn.training import Diverged, NodeClassification, Outcome, fit
from graphattn.training.fit import penalty, write_whole
from graphattn.training.stopping import Never, Rule, Verdict, rule

EPOCHS = 6
NEVER = 1e9  # seconds between two checkpoints
OPTIONS: dict[str, dict[str, Any]] = {
    "gat": {"hidden": 4, "heads": 2},  # dropout of torch's and of our own
    "mlp": {"hidden": 8},
}


class Killed(BaseException):
    """As if the process had ended here."""


@dataclass
class Scripted:
    """A rule that keeps and stops at given epochs."""

    keep: list[int] = field(default_factory=lambda: [0])
    stop: int = -1
    epoch: int = -1

    def update(self, loss: float, accuracy: float) -> Verdict:
        self.epoch += 1
        return Verdict(self.epoch in self.keep, self.epoch == self.stop)


class Broken(NodeClassification):
    """Its training loss is not finite from the epoch `at`, or its validation loss always (`at` None)."""

    def __init__(self, data: NodeData, at: int | None, value: float = math.nan) -> None:
        super().__init__(data)
        self.at, self.value, self.epoch = at, value, -1

    def loss(self, model: nn.Module, batch: NodeData) -> Tensor:
        self.epoch += 1
        return super().loss(model, batch) * (self.value if self.epoch == self.at else 1.0)

    def measures(self, model: nn.Module) -> dict[str, float]:
        return super().measures(model) | ({} if self.at is not None else {"val_loss": self.value})


def generated() -> NodeData:
    """Forty nodes of three classes on a ring with chords; the features tell the class, with noise."""
    generator = torch.Generator().manual_seed(0)
    nodes = torch.arange(40)
    ends = torch.cat([torch.stack([nodes, (nodes + step) % 40]) for step in (1, 3, 7)], 1)
    y = nodes % 3
    x = torch.eye(6)[y] + torch.rand(40, 6, generator=generator)
    return NodeData("generated", x, torch.cat([ends, ends.flip(0)], 1), y, nodes[:12], nodes[12:24], nodes[24:], 3)


DATA = generated()


def trained(
    folder: Path,
    name: str = "mlp",
    stopping: Rule | None = None,
    *,
    task: NodeClassification | None = None,
    seed: int = 0,
    epochs: int = EPOCHS,
    **options: Any,
) -> tuple[nn.Module, Outcome]:
    torch.manual_seed(seed)
    model = MODELS[name](DATA.num_features, DATA.num_classes, **OPTIONS[name])
    outcome = fit(
        model,
        task or NodeClassification(DATA),
        torch.optim.Adam(model.parameters(), lr=0.05),
        stopping or Never(),
        fabric=Fabric(accelerator="cpu", devices=1),
        epochs=epochs,
        folder=folder,
        **options,
    )
    return model, outcome


def killed_at(epoch: int) -> Callable[[dict[str, float]], None]:
    def kill(row: dict[str, float]) -> None:
        if row["epoch"] == epoch:
            raise Killed

    return kill


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_the_kept_epoch_is_what_is_left(tmp_path: Path) -> None:
    states: list[dict[str, Tensor]] = []
    rows: list[dict[str, float]] = []
    torch.manual_seed(0)
    model = MODELS["mlp"](DATA.num_features, DATA.num_classes, **OPTIONS["mlp"])

    def watch(row: dict[str, float]) -> None:
        states.append({key: value.clone() for key, value in model.state_dict().items()})
        rows.append(row)

    outcome = fit(
        model,
        NodeClassification(DATA),
        torch.optim.Adam(model.parameters(), lr=0.05),
        Scripted(keep=[1, 4]),
        fabric=Fabric(accelerator="cpu", devices=1),
        epochs=EPOCHS,
        folder=tmp_path,
        on_epoch=watch,
    )
    assert same(model.state_dict(), states[4])
    assert not same(model.state_dict(), states[-1])
    assert (outcome.best_epoch, outcome.epochs) == (4, EPOCHS)
    assert outcome.measures == {name: rows[4][name] for name in ("val_loss", "val_accuracy", "test_accuracy")}
    assert outcome.measures == NodeClassification(DATA).measures(model.eval()), "measured without dropout"
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert same(best["model"], states[4])
    assert best["row"] == rows[4]


def test_on_epoch_sees_each_row(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    _, outcome = trained(tmp_path, on_epoch=rows.append)
    assert rows == outcome.history
    assert [row["epoch"] for row in rows] == list(range(EPOCHS))
    assert all(list(row) == ["epoch", "train_loss", "val_loss", "val_accuracy", "test_accuracy"] for row in rows)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert outcome.seconds > 0


@pytest.mark.parametrize("penalised", [False, True])
def test_a_penalised_rule_sees_the_l2_penalty_too(tmp_path: Path, penalised: bool) -> None:
    """Its gradient is what Adam adds: decay times the weight, here of the first of two groups."""
    seen, penalties = [], []

    class Watching(Scripted):
        def update(self, loss: float, score: float) -> Verdict:
            seen.append(loss)
            penalties.append(0.3 / 2 * sum(p.detach().square().sum().item() for p in model.layers[0].parameters()))
            return super().update(loss, score)

    watching = Watching()
    watching.penalised = penalised  # type: ignore[attr-defined]
    model = MODELS["mlp"](DATA.num_features, DATA.num_classes, **OPTIONS["mlp"])
    assert isinstance(model.layers, nn.ModuleList)
    groups = [{"params": model.layers[0].parameters(), "weight_decay": 0.3}, {"params": model.layers[1].parameters()}]
    outcome = fit(
        model,
        NodeClassification(DATA),
        torch.optim.Adam(groups, lr=0.05),
        watching,
        fabric=Fabric(accelerator="cpu", devices=1),
        epochs=EPOCHS,
        folder=tmp_path,
    )
    losses = [row["val_loss"] for row in outcome.history]
    expected = [loss + penalty for loss, penalty in zip(losses, penalties, strict=True)] if penalised else losses
    assert seen == pytest.approx(expected, rel=1e-5)
    assert min(penalties) > 0.01


def test_the_rule_sees_validation_only_and_ends_the_run(tmp_path: Path) -> None:
    seen = []

    class Watching(Scripted):
        def update(self, loss: float, accuracy: float) -> Verdict:
            seen.append((loss, accuracy))
            return super().update(loss, accuracy)

    _, outcome = trained(tmp_path, stopping=Watching(stop=2))
    assert outcome.epochs == 3
    assert seen == [(row["val_loss"], row["val_accuracy"]) for row in outcome.history]


def test_training_has_dropout_and_measuring_has_not(tmp_path: Path) -> None:
    modes = []

    class Watching(NodeClassification):
        def loss(self, model: nn.Module, batch: NodeData) -> Tensor:
            modes.append(model.training)
            return super().loss(model, batch)

        def measures(self, model: nn.Module) -> dict[str, float]:
            modes.append(model.training)
            return super().measures(model)

    trained(tmp_path, task=Watching(DATA), epochs=2)
    assert modes == [True, False, True, False]


def test_a_model_without_parameters_is_only_measured(tmp_path: Path) -> None:
    model = MODELS["label-propagation"](DATA.num_features, DATA.num_classes, steps=3)
    task = NodeClassification(DATA)
    fabric = Fabric(accelerator="cpu", devices=1)
    outcome = fit(model, task, None, Never(), fabric=fabric, epochs=5, folder=tmp_path)
    assert outcome == Outcome(task.measures(model), best_epoch=0, epochs=0, seconds=0.0, history=[])
    assert not list(tmp_path.iterdir())


def test_no_epochs_for_a_model_with_parameters(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.epochs is 0, needed at least 1"):
        trained(tmp_path, epochs=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path, value: float) -> None:
    with pytest.raises(Diverged) as caught:
        trained(tmp_path, task=Broken(DATA, at=3, value=value), checkpoint_every=0)
    last = tmp_path / "last.pt"
    for part in (f"loss is {value} at epoch 3", f"checkpoint is {last}", "train.lr (it is 0.05)", "train.precision"):
        assert part in str(caught.value)
    content = torch.load(last, weights_only=True)
    assert content["progress"]["epoch"] == 3, "three epochs were good"
    assert all(value.isfinite().all() for value in content["model"].values())


def test_a_loss_that_is_not_finite_before_any_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="checkpoint is none yet"):
        trained(tmp_path, task=Broken(DATA, at=1), checkpoint_every=NEVER)


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_step_after_which_parameters_are_not_finite_ends_the_run(tmp_path: Path, epochs: int) -> None:
    torch.manual_seed(0)
    model = MODELS["mlp"](DATA.num_features, DATA.num_classes, hidden=4)
    optimizer, fabric = torch.optim.SGD(model.parameters(), lr=3e38), Fabric(accelerator="cpu", devices=1)
    with pytest.raises(Diverged, match=r"norm of the parameters is (inf|nan) at epoch 0; .* checkpoint is none yet"):
        fit(
            model,
            NodeClassification(DATA),
            optimizer,
            rule("last", 0, epochs),
            fabric=fabric,
            epochs=epochs,
            folder=tmp_path,
            checkpoint_every=0,
        )
    assert not (tmp_path / "last.pt").exists()


def test_no_validation_loss_is_finite(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=f"no epoch of {EPOCHS} had a finite validation loss: lower train.lr"):
        trained(tmp_path, task=Broken(DATA, at=None))


def test_checkpoints_follow_the_clock(tmp_path: Path) -> None:
    written = []

    def watch(row: dict[str, float]) -> None:
        last = tmp_path / "often" / "last.pt"
        written.append(torch.load(last, weights_only=True)["progress"]["epoch"] if last.exists() else 0)

    trained(tmp_path / "often", on_epoch=watch, checkpoint_every=0)
    assert written == list(range(EPOCHS)), "after each epoch"
    trained(tmp_path / "never", checkpoint_every=NEVER)
    assert {file.name for file in (tmp_path / "often").iterdir()} == {"last.pt", "best.pt"}
    assert {file.name for file in (tmp_path / "never").iterdir()} == {"best.pt"}


RULES: dict[str, Callable[[], Rule]] = {
    "none": lambda: rule("none", 100, EPOCHS),
    "gat": lambda: rule("gat", 2, EPOCHS),
    "kept early": lambda: Scripted(keep=[0, 1], stop=4),
}


@pytest.mark.parametrize("checkpoint_every", [0, NEVER], ids=["checkpoint", "no checkpoint"])
@pytest.mark.parametrize("make_rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_killed_run_ends_as_one_never_stopped(
    tmp_path: Path, name: str, make_rule: Callable[[], Rule], checkpoint_every: float
) -> None:
    model, whole = trained(tmp_path / "whole", name, make_rule(), checkpoint_every=checkpoint_every)
    for epoch in range(whole.epochs):
        folder = tmp_path / f"killed-{epoch}"
        with pytest.raises(Killed):
            trained(folder, name, make_rule(), checkpoint_every=checkpoint_every, on_epoch=killed_at(epoch))
        begins = epoch if checkpoint_every == 0 else 0  # the epoch of the kill was not yet written
        assert (folder / "last.pt").exists() == (begins > 0)
        rows: list[dict[str, float]] = []
        seed = 999 if begins else 0  # a checkpoint holds all, random state included
        again, resumed = trained(
            folder, name, make_rule(), seed=seed, checkpoint_every=checkpoint_every, on_epoch=rows.append
        )
        assert same(again.state_dict(), model.state_dict()), f"killed at epoch {epoch}"
        assert resumed.history == whole.history
        assert (resumed.measures, resumed.best_epoch) == (whole.measures, whole.best_epoch)
        assert [row["epoch"] for row in rows] == list(range(begins, whole.epochs)), "and nothing is trained twice"


def test_a_run_killed_twice(tmp_path: Path) -> None:
    model, whole = trained(tmp_path / "whole", "gat")
    for epoch in (2, 4):
        with pytest.raises(Killed):
            trained(tmp_path / "killed", "gat", seed=epoch - 2, checkpoint_every=0, on_epoch=killed_at(epoch))
    again, resumed = trained(tmp_path / "killed", "gat", seed=999)
    assert same(again.state_dict(), model.state_dict())
    assert resumed.history == whole.history


@pytest.mark.parametrize("stop", [-1, 4], ids=["all epochs", "stopped"])
def test_a_run_killed_after_its_last_epoch_trains_no_more(tmp_path: Path, stop: int) -> None:
    def must_not(row: dict[str, float]) -> None:
        raise AssertionError("trained again")

    model, whole = trained(tmp_path, stopping=Scripted(stop=stop), checkpoint_every=0)
    again, resumed = trained(tmp_path, stopping=Scripted(stop=stop), seed=999, on_epoch=must_not)
    assert resumed == whole
    assert same(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("average", [2, 3])
def test_the_mean_of_the_last_epochs_is_kept_and_measured(tmp_path: Path, average: int) -> None:
    torch.manual_seed(0)
    model = MODELS["mlp"](DATA.num_features, DATA.num_classes, **OPTIONS["mlp"])
    states: list[dict[str, Tensor]] = []

    def watch(row: dict[str, float]) -> None:
        states.append({name: value.detach().clone() for name, value in model.state_dict().items()})

    outcome = fit(
        model,
        NodeClassification(DATA),
        torch.optim.Adam(model.parameters(), lr=0.05),
        rule("last", 100, EPOCHS),
        fabric=Fabric(accelerator="cpu", devices=1),
        epochs=EPOCHS,
        folder=tmp_path,
        average=average,
        on_epoch=watch,
    )
    kept = model.state_dict()
    for name, value in kept.items():
        torch.testing.assert_close(value, torch.stack([state[name] for state in states[-average:]]).mean(0))
    assert any(not torch.equal(kept[name], states[-1][name]) for name in kept)
    assert outcome.best_epoch == EPOCHS - 1
    measured = NodeClassification(DATA).measures(model.eval())
    assert {name: outcome.measures[name] for name in measured} == pytest.approx(measured)
    assert outcome.measures["val_loss"] != outcome.history[-1]["val_loss"]
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert same(best["model"], kept)


def test_a_run_killed_among_the_averaged_epochs_ends_as_one_never_stopped(tmp_path: Path) -> None:
    options: dict[str, Any] = {"stopping": rule("last", 100, EPOCHS), "average": 3, "checkpoint_every": 0}
    model, whole = trained(tmp_path / "whole", **options)
    for epoch in (2, EPOCHS - 2, EPOCHS - 1):
        with pytest.raises(Killed):
            trained(tmp_path / f"{epoch}", on_epoch=killed_at(epoch), **options)
        content = torch.load(tmp_path / f"{epoch}" / "last.pt", weights_only=True)
        assert len(content["progress"]["recent"]) == max(0, epoch - EPOCHS + 3), "no more is written than is needed"
        again, resumed = trained(tmp_path / f"{epoch}", seed=999, **options)
        assert same(again.state_dict(), model.state_dict())
        assert resumed.measures == whole.measures


def test_seconds_add_up_over_a_kill(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        trained(tmp_path, checkpoint_every=0, on_epoch=killed_at(3))
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    content["progress"]["seconds"] = 1000.0
    torch.save(content, tmp_path / "last.pt")
    assert 1000 < trained(tmp_path)[1].seconds < 1100


class Rogue:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch.save(Rogue(tmp_path / "made"), tmp_path / "last.pt")
    with pytest.raises(pickle.UnpicklingError):
        trained(tmp_path)
    assert not (tmp_path / "made").exists()


def test_a_checkpoint_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "last.pt"
    write_whole({"epoch": 1}, path)
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]
    save = torch.save

    def dies_halfway(content: Any, file: Path) -> None:
        save(content, file)
        os.truncate(file, 50)
        raise Killed

    monkeypatch.setattr(torch, "save", dies_halfway)
    with pytest.raises(Killed):
        write_whole({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}


class Counting(Never):
    penalised = True


def test_the_penalty_is_what_weight_decay_adds_to_the_loss() -> None:
    plain, decayed = nn.Parameter(torch.tensor([5.0])), nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    groups = [{"params": [decayed], "weight_decay": 0.1}, {"params": [plain], "weight_decay": 0.0}]
    optimizer = torch.optim.Adam(groups)
    assert penalty(Counting(), optimizer) == pytest.approx(0.05 * 14)
    assert penalty(Counting(), optimizer, member=1) == pytest.approx(0.05 * 9), "of one of several models"
    assert penalty(Never(), optimizer) == 0.0, "of rules that do not count it"
