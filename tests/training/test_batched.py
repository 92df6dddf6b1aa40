"""A batch of seeds: each leaves what a run of its own leaves, and no end, failure or kill changes the others."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from graphattn import data, experiment
from graphattn.data import NodeData
from graphattn.experiment import Experiment
from graphattn.models import MODELS
from graphattn.models.gat import GAT
from graphattn.models.mlp import MLP
from graphattn.models.stacked import Stacked
from graphattn.training import Finished, Job, run_batch, run_batches, run_seed
from graphattn.training.provenance import OF_A_SEED
from graphattn.training.runs import prepared

NO_DROPOUT = {
    "gat": [f"model.{name}=0.0" for name in ("dropout", "attention_dropout", "feature_dropout")],
    "gcn": ["model.dropout=0.0"],
    "mlp": ["model.dropout=0.0"],
}


class Killed(BaseException):
    """As if the process had ended here."""


def generated(seed: int = 0, nodes: int = 60) -> NodeData:
    """Nodes of three classes on a ring with chords; the features tell the class, with noise. The seed splits them."""
    generator = torch.Generator().manual_seed(0)
    ring = torch.arange(nodes)
    ends = torch.cat([torch.stack([ring, (ring + step) % nodes]) for step in (1, 3, 7)], 1)
    x = torch.eye(6)[ring % 3] + 2 * torch.rand(nodes, 6, generator=generator)
    order = torch.randperm(nodes, generator=torch.Generator().manual_seed(seed))
    train, val, test = (part.sort().values for part in order.split(nodes // 3))
    return NodeData("generated", x, torch.cat([ends, ends.flip(0)], 1), ring % 3, train, val, test, 3)


@pytest.fixture(autouse=True)
def _small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every data set is the generated one, split by seed if the split is random."""
    monkeypatch.setattr(data, "load", lambda name, **o: generated(o["seed"] if o["split"] == "random" else 0))


def defined(name: str = "gat", *overrides: str, epochs: int = 12, dropout: bool = False) -> Experiment:
    changes = [
        f"train.epochs={epochs}",
        "train.lr=0.05",
        "train.precision=64-true",
        *([] if dropout else NO_DROPOUT[name]),
        *overrides,
    ]
    return experiment.load(f"digits/{name}", changes)


def jobs(definition: Experiment, folder: Path, seeds: int = 4, **options: Any) -> list[Job]:
    return [Job(definition, seed, folder, device="cpu", **options) for seed in range(seeds)]


def numbers(finished: Finished) -> dict[str, Any]:
    assert finished.error is None and finished.result is not None, finished.error
    return {name: value for name, value in finished.result.items() if name not in ("seconds", *OF_A_SEED)}


def batched(waiting: list[Job], *rest: Any) -> dict[int, Finished]:
    found = list(run_batch(waiting, *rest))
    assert len({finished.seed for finished in found}) == len(found) == len(waiting), "each seed once"
    return {finished.seed: finished for finished in found}


def curve(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def best(job: Job) -> dict[str, Any]:
    return torch.load(job.seed_folder / "best.pt", weights_only=True)


def test_a_rule_that_counts_the_penalty_counts_each_seeds_own(tmp_path: Path) -> None:
    overrides = ["train.stop=patience", "train.patience=2", "train.weight_decay=1.0", "train.decay=all"]
    definition = defined("mlp", *overrides, epochs=60)
    alone, together = jobs(definition, tmp_path / "alone"), jobs(definition, tmp_path / "together")
    expected = {job.seed: run_seed(job) for job in alone}
    found = batched(together)
    for seed, result in expected.items():
        assert numbers(found[seed]) == pytest.approx(numbers(Finished(seed, result)))
    kept = [row["best_epoch"] for row in expected.values()]
    losses = [min(curve(job.seed_folder), key=lambda row: row["val_loss"])["epoch"] for job in alone]
    assert kept != losses, "the penalty decides"


def test_products_are_as_exact_as_the_definition_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    during, multiply = [], MLP.forward

    def forward(*args: Any, **options: Any) -> torch.Tensor:
        during.append(torch.get_float32_matmul_precision())
        return multiply(*args, **options)

    monkeypatch.setattr(MLP, "forward", forward)
    before = torch.get_float32_matmul_precision()
    overrides = ["train.precision=32-true", "train.matmul_precision=medium"]
    for _ in run_batch(jobs(defined("mlp", *overrides, epochs=2), tmp_path)):
        assert torch.get_float32_matmul_precision() == before
    assert during
    assert set(during) == {"medium"}


@pytest.mark.parametrize("split", ["public", "random"])
@pytest.mark.parametrize("name", NO_DROPOUT)
def test_without_dropout_each_seed_is_the_run_of_its_own(tmp_path: Path, name: str, split: str) -> None:
    definition = defined(name)
    definition = replace(definition, data=replace(definition.data, split=split))
    alone, together = jobs(definition, tmp_path / "alone"), jobs(definition, tmp_path / "together")
    found = batched(together)
    for single, job in zip(alone, together, strict=True):
        expected = run_seed(single)
        assert numbers(found[job.seed]) == pytest.approx(numbers(Finished(job.seed, expected)))
        assert curve(job.seed_folder) == [pytest.approx(row) for row in curve(single.seed_folder)]
        assert json.loads(job.done.read_text()) == found[job.seed].result
        assert list(found[job.seed].result or {}) == list(expected)
        assert best(job)["row"] == curve(job.seed_folder)[expected["best_epoch"]]
        ours, due = best(job)["model"], best(single)["model"]
        assert list(ours) == list(due)
        torch.testing.assert_close(ours, due, rtol=1e-6, atol=1e-8)
        prepared(job)[0].load_state_dict(ours)
    assert {path.name for path in (tmp_path / "together").iterdir()} == {f"seed-{k}" for k in range(4)}
    assert {path.name for path in together[0].seed_folder.iterdir()} == {"result.json", "best.pt", "metrics.csv"}
    assert len({found[seed].result["val_loss"] for seed in found}) == 4  # type: ignore[index]


def test_a_batch_of_one_is_the_run_with_its_dropout(tmp_path: Path) -> None:
    definition = defined("gat", dropout=True)
    alone, (finished,) = (
        run_seed(jobs(definition, tmp_path / "a", 1)[0]),
        run_batch(jobs(definition, tmp_path / "b", 1)),
    )
    assert numbers(finished) == pytest.approx(numbers(Finished(0, alone)))


def test_with_dropout_the_spread_of_the_seeds_is_that_of_runs_of_their_own(tmp_path: Path) -> None:
    """Twelve seeds each: the two means lie within three standard errors of each other."""
    definition = defined("gat", "train.stop=none", epochs=40, dropout=True)

    def accuracies(finished: list[Finished]) -> torch.Tensor:
        return torch.tensor([numbers(one)["test_accuracy"] for one in finished], dtype=torch.float64)

    alone = accuracies([Finished(job.seed, run_seed(job)) for job in jobs(definition, tmp_path / "a", 12)])
    together = accuracies(list(run_batch(jobs(definition, tmp_path / "b", 12))))
    error = ((alone.var() + together.var()) / 12).sqrt()
    assert alone.std() > 0 and not torch.equal(alone, together)
    assert abs(alone.mean() - together.mean()) < 3 * error + 0.5


def stops(*overrides: str) -> Experiment:
    """Seeds that end at different epochs."""
    return defined("gat", "train.stop=gat", "train.patience=4", *overrides, epochs=80, dropout=True)


def test_seeds_end_by_their_own_rule_and_the_others_go_on_without_them(tmp_path: Path) -> None:
    sizes: list[set[int]] = []
    found = batched(jobs(stops(), tmp_path, 6), lambda rows: sizes.append(set(rows)))
    epochs = {seed: numbers(finished)["epochs"] for seed, finished in found.items()}
    assert len(set(epochs.values())) > 2, "else this shows nothing"
    for seed, count in epochs.items():
        assert len(curve(tmp_path / f"seed-{seed}")) == count == sum(seed in rows for rows in sizes)


def test_a_batch_grows_smaller_without_a_change_of_those_that_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = defined("gat", "data.split=random", "train.stop=window", "train.patience=3", epochs=60)
    kept: list[list[int]] = []
    keep = Stacked.keep
    monkeypatch.setattr(Stacked, "keep", lambda self, m, o: (kept.append(list(m)), keep(self, m, o))[1])
    found = batched(jobs(definition, tmp_path / "together", 6))
    assert kept, "else this shows nothing"
    for job in jobs(definition, tmp_path / "alone", 6):
        assert numbers(found[job.seed]) == pytest.approx(numbers(Finished(job.seed, run_seed(job))))


@pytest.mark.parametrize("epoch", [0, 7, 30])
def test_a_killed_batch_goes_on(tmp_path: Path, epoch: int) -> None:
    def kill(rows: dict[int, dict[str, float]]) -> None:
        if any(row["epoch"] == epoch for row in rows.values()):
            raise Killed

    whole = batched(jobs(stops(), tmp_path / "whole", 6))
    assert max(numbers(finished)["epochs"] for finished in whole.values()) > 31
    waiting = jobs(stops(), tmp_path / "killed", 6, checkpoint_every=0)
    with pytest.raises(Killed):
        batched(waiting, kill)
    assert (tmp_path / "killed" / "batch-0-5" / "last.pt").exists() == (epoch > 0)
    seen: list[dict[int, dict[str, float]]] = []
    again = batched(waiting, seen.append)
    assert {seed: numbers(finished) for seed, finished in again.items()} == {
        seed: numbers(finished) for seed, finished in whole.items()
    }
    assert min(row["epoch"] for row in seen[0].values()) == epoch
    for job in waiting:
        assert (job.seed_folder / "metrics.csv").read_bytes() == (
            tmp_path / "whole" / f"seed-{job.seed}" / "metrics.csv"
        ).read_bytes()
    assert not (tmp_path / "killed" / "batch-0-5").exists()


def test_a_checkpoint_of_other_seeds_is_not_taken(tmp_path: Path) -> None:
    def kill(rows: dict[int, dict[str, float]]) -> None:
        if any(row["epoch"] == 3 for row in rows.values()):
            raise Killed

    waiting = jobs(defined("mlp"), tmp_path, 4, checkpoint_every=0)
    with pytest.raises(Killed):
        batched([waiting[0], waiting[3]], kill)
    assert (tmp_path / "batch-0-3" / "last.pt").exists()
    found = batched(waiting)
    assert sorted(found) == [0, 1, 2, 3]
    assert all(numbers(finished)["epochs"] == 12 for finished in found.values())


def test_done_seeds_are_not_run_again(tmp_path: Path) -> None:
    waiting = jobs(defined(), tmp_path)
    tampered = run_seed(waiting[1]) | {"test_accuracy": 1.25}
    experiment.save(tampered, waiting[1].done)
    seen: list[dict[int, dict[str, float]]] = []
    assert batched(waiting, seen.append)[1] == Finished(1, tampered)
    assert all(set(rows) == {0, 2, 3} for rows in seen)
    seen.clear()
    assert batched(waiting, seen.append)[1] == Finished(1, tampered) and not seen


def test_seeds_that_ended_by_other_means_are_not_run_again_by_a_resumed_batch(tmp_path: Path) -> None:
    def kill(rows: dict[int, dict[str, float]]) -> None:
        if rows[0]["epoch"] == 5:
            raise Killed

    waiting = jobs(defined(), tmp_path, checkpoint_every=0)
    with pytest.raises(Killed):
        batched(waiting, kill)
    tampered = run_seed(waiting[1]) | {"test_accuracy": 1.25}
    experiment.save(tampered, waiting[1].done)
    seen: list[dict[int, dict[str, float]]] = []
    assert batched(waiting, seen.append)[1] == Finished(1, tampered)
    assert all(set(rows) == {0, 2, 3} for rows in seen) and seen[0][0]["epoch"] == 5
    assert json.loads(waiting[1].done.read_text()) == tampered


def first_builds_badly(place: int, change: Callable[[nn.Module], Any]) -> Callable[..., nn.Module]:
    count = [-1]

    def build(*sizes: int, **options: Any) -> nn.Module:
        count[0] += 1
        model = GAT(*sizes, **options)
        if count[0] == place:
            change(model)
        return model

    return build


def test_a_seed_that_diverges_is_reported_and_the_others_are_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = defined()
    good = {job.seed: run_seed(job) for job in jobs(definition, tmp_path / "good")}

    def spoil(model: nn.Module) -> None:
        nn.init.constant_(model.layers[0].lin.weight, torch.nan)  # type: ignore[union-attr, index]

    monkeypatch.setitem(MODELS, "gat", first_builds_badly(1, spoil))
    found = batched(jobs(definition, tmp_path / "bad"))
    assert (found[1].error or "").startswith("graphattn.training.fit.Diverged: the training loss is nan at epoch 0")
    assert not (tmp_path / "bad" / "seed-1" / "result.json").exists()
    for seed in (0, 2, 3):
        assert numbers(found[seed]) == pytest.approx(numbers(Finished(seed, good[seed])))


def test_a_seed_that_cannot_begin_is_reported_and_the_others_count(tmp_path: Path) -> None:
    (tmp_path / "seed-1").write_text("not a folder")
    found = batched(jobs(defined(), tmp_path))
    assert (found[1].error or "").startswith("FileExistsError") and all(found[seed].result for seed in (0, 2, 3))


def test_batches_follow_one_another_and_one_that_fails_loses_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = defined()
    found = list(run_batches(jobs(definition, tmp_path, 5), 2))
    assert [finished.seed for finished in found] == [0, 1, 2, 3, 4] and all(finished.result for finished in found)

    def too_wide(model: nn.Module) -> None:
        model.layers[0].lin.weight = nn.Parameter(torch.zeros(3, 3))  # type: ignore[union-attr, index]

    monkeypatch.setitem(MODELS, "gat", first_builds_badly(1, too_wide))
    found = list(run_batches(jobs(definition, tmp_path / "other", 4), 2))
    assert [finished.seed for finished in found if finished.error] == [0, 1]
    assert [finished.seed for finished in found if finished.result] == [2, 3]
