"""Many seeds: what each writes, what is not run again, what is lost when one fails or dies, and their summary."""

from __future__ import annotations

import csv
import json
import operator
import os
import pickle
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from graphattn import data, experiment
from graphattn.data import NodeData
from graphattn.experiment import Experiment
from graphattn.models import MODELS
from graphattn.models.mlp import MLP
from graphattn.training import Diverged, Finished, Job, run_seed, run_seeds, runs, summary
from graphattn.training.provenance import OF_A_SEED, provenance
from graphattn.training.runs import CURVE_POINTS, prepared

NAMES = ["digits/mlp", "digits/gat"]


class Killed(BaseException):
    """As if the process had ended here."""


class Inline:
    """A process pool that runs its jobs at once, in this process; it breaks when a seed of `dies` begins."""

    dies: ClassVar[Counter[int]]
    pools: ClassVar[list[list[int]]]  # the seeds submitted to each

    def __init__(self, workers: int, **_: Any) -> None:
        self.broken = False
        self.pools.append([])

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, call: Callable[[Job], Any], job: Job) -> Future[Any]:
        self.pools[-1].append(job.seed)
        future: Future[Any] = Future()
        if not self.broken and self.dies[job.seed]:
            self.dies[job.seed] -= 1
            self.broken = True
            job.seed_folder.mkdir(parents=True, exist_ok=True)
        if self.broken:
            future.set_exception(BrokenProcessPool())
            return future
        try:
            future.set_result(call(job))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> type[Inline]:
    monkeypatch.setattr(Inline, "dies", Counter(), raising=False)
    monkeypatch.setattr(Inline, "pools", [], raising=False)
    monkeypatch.setattr(runs, "ProcessPoolExecutor", Inline)
    return Inline


@pytest.fixture(scope="module")
def digits() -> NodeData:
    return data.load("digits")


@pytest.fixture(autouse=True)
def loads(digits: NodeData, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The digits are read once for all tests here; gives the arguments of each call."""
    calls: list[dict[str, Any]] = []

    def load(name: str, **options: Any) -> NodeData:
        calls.append({"name": name, **options})
        return digits

    monkeypatch.setattr(data, "load", load)
    threads = torch.get_num_threads()
    yield calls
    torch.set_num_threads(threads)


def short(name: str = "digits/mlp", *overrides: str) -> Experiment:
    return experiment.load(name, ["train.epochs=4", *overrides])


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """What is the same whenever and wherever the seed ran."""
    return {name: value for name, value in result.items() if name not in ("seconds", *OF_A_SEED)}


def test_what_a_seed_leaves(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    job = Job(short(), 3, tmp_path, checkpoint_every=0)
    result = run_seed(job, rows.append)
    best = min(rows, key=lambda row: row["val_loss"])
    measures = ["seed", "val_loss", "val_accuracy", "test_accuracy", "best_epoch", "epochs", "seconds", "parameters"]
    assert list(result) == [*measures, "machine", "commit", "date"]
    assert numbers(result) == {
        "seed": 3,
        **{name: best[name] for name in ("val_loss", "val_accuracy", "test_accuracy")},
        "best_epoch": best["epoch"],
        "epochs": 4,
        "parameters": sum(p.numel() for p in prepared(job)[0].parameters()),
    }
    folder = tmp_path / "seed-3"
    assert {file.name for file in folder.iterdir()} == {"result.json", "best.pt", "metrics.csv"}
    assert json.loads((folder / "result.json").read_text()) == result
    with (folder / "metrics.csv").open() as file:
        assert [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)] == rows
    model = prepared(job)[0]
    model.load_state_dict(torch.load(folder / "best.pt", weights_only=True)["model"])


def test_layers_are_recomputed_on_request(tmp_path: Path) -> None:
    numbers_of = {}
    for recompute in ("false", "true"):
        job = Job(short("digits/gat", f"train.recompute={recompute}"), 0, tmp_path / recompute)
        assert prepared(job)[0].recompute is (recompute == "true")
        numbers_of[recompute] = numbers(run_seed(job))
    assert numbers_of["true"] == numbers_of["false"]
    with pytest.raises(ValueError, match=r"train.recompute is for models of one hop a layer, .* gcn is none"):
        prepared(Job(short("digits/gcn", "train.recompute=true"), 0, tmp_path))
    with pytest.raises(ValueError, match=r"would count each batch twice in the statistics of model.batch_norm"):
        prepared(Job(short("digits/gat", "train.recompute=true", "model.batch_norm=true"), 0, tmp_path))
    with pytest.raises(ValueError, match=r"train.recompute is not for a step that is replayed: leave out --cuda-graph"):
        prepared(Job(short("digits/gat", "train.recompute=true"), 0, tmp_path, device="cpu", cuda_graph=True))


def test_a_seed_names_the_commit_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter(["first", "second"])
    monkeypatch.setattr(runs, "origin", lambda device: {"machine": "m", "commit": next(commits), "date": "d"})
    ended: list[str] = []

    def later(row: dict[str, float]) -> None:
        if row["epoch"] == 3:
            ended.append(runs.origin("cpu")["commit"])

    assert run_seed(Job(short(), 0, tmp_path), later)["commit"] == "first" and ended == ["second"]


def test_what_is_smoothed_is_trained_in_32_bits(tmp_path: Path) -> None:
    definition = short("digits/mlp", "train.precision=64-true", "correct_and_smooth.scale=1.0")
    with pytest.raises(ValueError, match=r"correct_and_smooth. is computed in 32-true, train.precision is 64-true"):
        run_seed(Job(definition, 0, tmp_path))


def test_data_is_loaded_as_the_definition_says(tmp_path: Path, loads: list[dict[str, Any]]) -> None:
    definition = short("digits/mlp", "data.split=random", "data.dense=true")
    run_seed(Job(definition, 5, tmp_path, data_folder=tmp_path / "data"))
    options = {"name": "digits", "split": "random", "row_normalise": None, "dense": True, "reorder": False}
    options |= {"standardise": False, "centre": False}
    assert loads == [{**options, "seed": 5, "folder": tmp_path / "data"}]


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_fixes_its_numbers(tmp_path: Path, name: str) -> None:
    torch.manual_seed(77)
    first = run_seed(Job(short(name), 1, tmp_path / "a"))
    torch.rand(9)
    again = run_seed(Job(short(name), 1, tmp_path / "b"))
    other = run_seed(Job(short(name), 2, tmp_path / "b"))
    assert numbers(again) == numbers(first)
    assert other["val_loss"] != first["val_loss"]
    assert (tmp_path / "a/seed-1/metrics.csv").read_bytes() == (tmp_path / "b/seed-1/metrics.csv").read_bytes()


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_precision_is_the_definitions(tmp_path: Path, precision: str) -> None:
    run_seed(Job(short("digits/gat", f"train.precision={precision}"), 0, tmp_path))
    best = torch.load(tmp_path / "seed-0" / "best.pt", weights_only=True)["model"]
    assert {value.dtype for value in best.values()} == {torch.float64 if precision == "64-true" else torch.float32}


def test_products_are_as_exact_as_the_definition_says_while_it_runs(tmp_path: Path) -> None:
    before, during = torch.get_float32_matmul_precision(), []

    def on_epoch(row: dict[str, float]) -> None:
        during.append(torch.get_float32_matmul_precision())
        if tmp_path / "stops" in tmp_path.iterdir():
            raise KeyboardInterrupt

    run_seed(Job(short("digits/mlp", "train.matmul_precision=medium"), 0, tmp_path), on_epoch)
    run_seed(Job(short(), 1, tmp_path), on_epoch)
    assert during == ["medium"] * 4 + ["highest"] * 4
    (tmp_path / "stops").touch()
    with pytest.raises(KeyboardInterrupt):
        run_seed(Job(short("digits/mlp", "train.matmul_precision=high"), 2, tmp_path), on_epoch)
    assert during[-1] == "high"
    assert torch.get_float32_matmul_precision() == before


def test_a_model_without_parameters_has_a_result(tmp_path: Path) -> None:
    definition = replace(short(), model=experiment.Model("label-propagation", {"steps": 2}))
    result = run_seed(Job(definition, 0, tmp_path))
    assert result["test_accuracy"] > 50 and result["epochs"] == 0
    assert summary(definition, [Finished(0, result)], tmp_path, "cpu")["curve"] == []


def test_a_done_seed_is_not_run_again(tmp_path: Path) -> None:
    job = Job(short(), 0, tmp_path)
    tampered = run_seed(job) | {"test_accuracy": 1.25}
    experiment.save(tampered, tmp_path / "seed-0" / "result.json")
    assert run_seed(job) == tampered


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("epoch", [0, 2, 3])
def test_a_killed_seed_goes_on(tmp_path: Path, name: str, epoch: int) -> None:
    def kill(row: dict[str, float]) -> None:
        if row["epoch"] == epoch:
            raise Killed

    whole = run_seed(Job(short(name), 0, tmp_path / "whole"))
    killed = Job(short(name), 0, tmp_path / "killed", checkpoint_every=0)
    with pytest.raises(Killed):
        run_seed(killed, kill)
    assert not (killed.seed_folder / "result.json").exists()
    rows: list[dict[str, float]] = []
    assert numbers(run_seed(killed, rows.append)) == numbers(whole)
    assert rows[0]["epoch"] == epoch
    metrics = (killed.seed_folder / "metrics.csv").read_bytes()
    assert metrics == (tmp_path / "whole" / "seed-0" / "metrics.csv").read_bytes()
    assert not (killed.seed_folder / "last.pt").exists()


KILLED = """
import os, signal, threading, time
from pathlib import Path
from graphattn import experiment
from graphattn.training import Job, run_seed, run_seeds

definition = experiment.load("digits/gcn", ["train.epochs=60"])

def job(folder):
    threads = len(os.sched_getaffinity(0))
    return Job(definition, 0, Path(folder) / "digits" / "gcn" / definition.key(), threads=threads, checkpoint_every=0)

def kill(last):
    while not last.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

run_seed(job("whole"))
threading.Thread(target=kill, args=[job("killed").seed_folder / "last.pt"]).start()
list(run_seeds([job("killed")], workers=1))
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_a_command_that_was_really_killed_goes_on_when_repeated(tmp_path: Path) -> None:
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    here.pop("OMP_NUM_THREADS", None)  # both take all cores
    # It returns when nobody holds the output any more: the worker has ended with its parent.
    ended = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=tmp_path, env=here, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    (killed,) = tmp_path.glob("killed/digits/gcn/*/seed-0")
    assert 0 < torch.load(killed / "last.pt", weights_only=True)["progress"]["epoch"] < 60
    assert not (killed / "result.json").exists()

    options = ["--seeds=1", "--workers=1", "--device=cpu", "--set=train.epochs=60", "--runs=killed"]
    command = [sys.executable, "-m", "graphattn", "run", "digits/gcn", *options]
    subprocess.run(command, cwd=tmp_path, env=here, check=True, timeout=300)
    (whole,) = tmp_path.glob("whole/digits/gcn/*/seed-0")
    assert {file.name for file in killed.iterdir()} >= {"result.json", "best.pt", "metrics.csv"}
    assert not (killed / "last.pt").exists()
    results = [json.loads((folder / "result.json").read_text()) for folder in (killed, whole)]
    assert numbers(results[0]) == numbers(results[1])
    assert (killed / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def jobs(definition: Experiment, folder: Path, seeds: int) -> list[Job]:
    return [Job(definition, seed, folder) for seed in range(seeds)]


def by_seed(finished: Iterator[Finished]) -> dict[int, Finished]:
    found = list(finished)
    assert len({f.seed for f in found}) == len(found), "each seed once"
    return {f.seed: f for f in found}


def test_a_failing_seed_is_reported_and_the_others_count(
    tmp_path: Path, inline: type[Inline], monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = jobs(short(), tmp_path, 3)
    built = []

    def fails_second(*sizes: int, **options: Any) -> nn.Module:
        built.append(sizes)
        if len(built) == 2:
            raise ValueError("no such luck")
        return MLP(*sizes, **options)

    monkeypatch.setitem(MODELS, "mlp", fails_second)
    found = by_seed(run_seeds(waiting, workers=2))
    assert found[1] == Finished(1, None, "ValueError: no such luck")
    assert all(found[seed].result and found[seed].error is None for seed in (0, 2))
    assert not (tmp_path / "seed-1" / "result.json").exists(), "so that a repeated command tries it again"


def test_a_diverged_seed_is_reported_with_its_advice(tmp_path: Path, inline: type[Inline]) -> None:
    found = by_seed(run_seeds(jobs(short("digits/mlp", "train.lr=1e30"), tmp_path, 1), workers=1))
    assert found[0].result is None
    assert re.match(
        r"graphattn\.training\.fit\.Diverged: the (training loss|norm of the parameters) is \S+ at epoch \d",
        found[0].error or "",
    )


@pytest.mark.parametrize("deaths", [{1: 1}, {0: 1, 2: 1}])
def test_a_seed_whose_process_dies_once_counts(tmp_path: Path, inline: type[Inline], deaths: dict[int, int]) -> None:
    inline.dies.update(deaths)
    found = by_seed(run_seeds(jobs(short(), tmp_path, 4), workers=2))
    assert [found[seed].error for seed in range(4)] == [None] * 4


def test_a_seed_whose_process_dies_twice_is_reported_and_no_other(tmp_path: Path, inline: type[Inline]) -> None:
    for seed in (2, 3):  # as if these had been running side by side with seed 1
        (tmp_path / f"seed-{seed}").mkdir()
    inline.dies.update({1: 99})
    found = by_seed(run_seeds(jobs(short(), tmp_path, 5), workers=2))
    assert found[1] == Finished(1, None, "its process died twice (killed, or out of memory)")
    assert [found[seed].error for seed in (0, 2, 3, 4)] == [None] * 4
    assert inline.pools[1:] == [[1], [2], [3], [4]], "those that had begun are tried again, each alone"


def test_what_had_not_begun_is_not_suspected(tmp_path: Path, inline: type[Inline]) -> None:
    inline.dies.update({1: 1})
    by_seed(run_seeds(jobs(short(), tmp_path, 5), workers=2))
    assert inline.pools == [[0, 1, 2, 3, 4], [1], [2, 3, 4]]


def light(monkeypatch: pytest.MonkeyPatch, folder: Path, *calls: Callable[[], Any]) -> list[Job]:
    """Jobs for a real pool that call these instead of training; their processes need not even import torch."""
    monkeypatch.setattr(runs, "run_seed", operator.methodcaller("__call__"))
    monkeypatch.setattr(runs, "_end_with_parent", time.monotonic)
    for seed, call in enumerate(calls):
        vars(call).update(seed=seed, seed_folder=folder / f"seed-{seed}")
    return list(calls)  # type: ignore[arg-type]


def test_a_process_that_really_dies_loses_no_other_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [partial(dict, seed=0), partial(os._exit, 9), partial(dict, seed=2)]
    assert by_seed(run_seeds(light(monkeypatch, tmp_path, *calls), workers=1)) == {
        0: Finished(0, {"seed": 0}),
        1: Finished(1, None, "its process died twice (killed, or out of memory)"),
        2: Finished(2, {"seed": 2}),
    }


def test_an_interrupt_does_not_wait_for_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [partial(dict, seed=0), partial(time.sleep, 60), partial((tmp_path / "begun").touch)]
    finished = run_seeds(light(monkeypatch, tmp_path, *calls), workers=1)
    assert next(finished).seed == 0
    began = time.monotonic()
    finished.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 30
    assert not active_children()
    assert not (tmp_path / "begun").exists(), "nor does it begin those that wait"


def result(seed: int, accuracy: float) -> dict[str, Any]:
    return {"seed": seed, "val_loss": 1.0, "test_accuracy": accuracy, "best_epoch": 3, "epochs": 9, "seconds": 0.5}


def test_summary(tmp_path: Path) -> None:
    definition = short()
    finished = [Finished(2, result(2, 84.0)), Finished(1, None, "it broke"), Finished(0, result(0, 81.0))]
    found = summary(definition, [*finished, Finished(3, result(3, 84.5))], tmp_path, "cpu")
    accuracies = [81.0, 84.0, 84.5]
    assert found["result"]["test_accuracy"] == {
        "mean": pytest.approx(statistics.fmean(accuracies)),
        "std": pytest.approx(statistics.stdev(accuracies)),  # unbiased
        "min": 81.0,
        "max": 84.5,
    }
    assert set(found["result"]) == {"val_loss", "test_accuracy", "epochs", "seconds"}
    assert found["seeds"] == [result(0, 81.0), result(2, 84.0), result(3, 84.5)], "in order"
    assert found["failed"] == {"1": "it broke"}
    assert experiment.from_table(definition.name, found["definition"], "x") == definition
    assert found.keys() - {"definition", "result", "seeds", "failed", "parameters", "curve"} == provenance("cpu").keys()
    assert found["curve"] == []
    experiment.save(found, tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text()) == found


def test_summary_of_one_seed_has_no_spread(tmp_path: Path) -> None:
    found = summary(short(), [Finished(0, result(0, 81.0))], tmp_path, "cpu")
    assert found["result"]["test_accuracy"] == {"mean": 81.0, "std": None, "min": 81.0, "max": 81.0}


def test_summary_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"no seed of digits/mlp ended well: .*it broke"):
        summary(short(), [Finished(0, None, "it broke")], tmp_path, "cpu")


@pytest.mark.parametrize(
    ("epochs", "kept"),
    [
        (1, range(1)),
        (CURVE_POINTS, range(CURVE_POINTS)),
        (CURVE_POINTS + 1, range(0, CURVE_POINTS + 1, 2)),
        (7 * CURVE_POINTS, range(0, 7 * CURVE_POINTS, 7)),
    ],
)
def test_the_curve_is_that_of_the_first_seed_thinned(tmp_path: Path, epochs: int, kept: range) -> None:
    path = tmp_path / "seed-1" / "metrics.csv"
    path.parent.mkdir()
    rows = (f"{epoch},{1 / (epoch + 1)},{2 / 3e6}\n" for epoch in range(epochs))
    path.write_text("epoch,val_loss,gradient\n" + "".join(rows))
    found = summary(short(), [Finished(0, None, "it broke"), Finished(1, result(1, 80.0))], tmp_path, "cpu")
    assert len(kept) <= CURVE_POINTS
    losses = [row["val_loss"] for row in found["curve"]]
    assert [row["epoch"] for row in found["curve"]] == list(kept)
    assert losses == pytest.approx([1 / (epoch + 1) for epoch in kept], rel=5e-6)
    assert {row["gradient"] for row in found["curve"]} == {6.66667e-07}, "rounded, and not to nothing"


def test_jobs_travel(tmp_path: Path) -> None:
    """To another process, by pickle; their definition by JSON."""
    job = Job(short(), 4, tmp_path / "runs")
    assert job.seed_folder == tmp_path / "runs" / "seed-4"
    assert json.loads(json.dumps(asdict(job.experiment))) == asdict(job.experiment)


def test_diverged_travels() -> None:
    """A process hands its error to another by pickle."""
    assert str(pickle.loads(pickle.dumps(Diverged("advice")))) == "advice"
