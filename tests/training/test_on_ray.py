"""Seeds over a Ray cluster on this machine: the numbers of single runs, also when a worker is killed."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graphattn import experiment
from graphattn.training import Finished, Job, run_seed, run_seeds_on_ray
from graphattn.training.provenance import OF_A_SEED

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own


def jobs(folder: Path, seeds: int, *overrides: str, checkpoint_every: float = 10.0) -> list[Job]:
    definition = experiment.load("digits/mlp", ["train.epochs=40", *overrides])
    return [Job(definition, seed, folder, device="cpu", checkpoint_every=checkpoint_every) for seed in range(seeds)]


def numbers(found: Iterator[Finished]) -> dict[int, dict[str, float]]:
    """Of each seed all but the time it took and whence it comes; none may have failed."""
    results = {}
    for finished in found:
        assert finished.result is not None, finished.error
        results[finished.seed] = {
            name: value for name, value in finished.result.items() if name not in ("seconds", *OF_A_SEED)
        }
    return results


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers import from the working directory first: in a checkout, another graphattn than the one installed."""
    monkeypatch.chdir(tmp_path)


class Killer(threading.Thread):
    """Kills a process that runs a seed as soon as `when` is true, or ends when it is `over`."""

    def __init__(self, when: Callable[[], bool]) -> None:
        super().__init__(daemon=True)
        self.when, self.killed, self.over = when, False, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.05):
            if self.when() and (process := next(self._processes(), None)):
                os.kill(process, signal.SIGKILL)
                self.killed = True
                return

    def _processes(self) -> Iterator[int]:
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and b"ray::run_seed" in (folder / "cmdline").read_bytes():
                    yield int(folder.name)
            except OSError:
                continue


def test_a_cluster_gives_the_numbers_of_single_runs(tmp_path: Path) -> None:
    found = numbers(run_seeds_on_ray(jobs(tmp_path / "ray", 3)))
    alone = (Finished(job.seed, run_seed(job)) for job in jobs(tmp_path / "alone", 3))
    assert found == numbers(alone)
    assert (tmp_path / "ray" / "seed-2" / "metrics.csv").exists()


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    long = ["train.epochs=600"]
    killer = Killer((tmp_path / "seed-0" / "last.pt").exists)
    found = numbers(run_seeds_on_ray(jobs(tmp_path, 2, *long, checkpoint_every=0.0)))
    killer.over.set()
    killer.join()
    assert killer.killed, "the worker ended before it was killed: train longer"
    assert found == numbers(Finished(job.seed, run_seed(job)) for job in jobs(tmp_path / "alone", 2, *long))


def test_a_seed_that_fails_is_reported_and_the_others_count(tmp_path: Path) -> None:
    good, bad = jobs(tmp_path, 2)
    bad = replace(bad, experiment=experiment.load("ppi/mlp"))  # whose files are not pinned, or not there
    found = {finished.seed: finished for finished in run_seeds_on_ray([good, bad])}
    assert found[0].result is not None
    assert found[1].result is None
    assert re.match("(FileNotFound|Value)Error: .*ppi", str(found[1].error))


def test_what_no_machine_has_is_not_waited_for(tmp_path: Path) -> None:
    (job,) = jobs(tmp_path, 1)
    job = replace(job, threads=10_000)
    with pytest.raises(
        ValueError, match=r"a seed takes 10000 cores and 0 GPUs, which no machine of the Ray cluster has"
    ):
        next(run_seeds_on_ray([job]))


@pytest.mark.parametrize(
    ("given", "named", "taken"), [(None, "", "local"), (None, "a:1", "a:1"), ("b:2", "a:1", "b:2")]
)
def test_a_cluster_is_joined_if_it_is_named(
    given: str | None, named: str, taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray by itself would also join one that happens to run on this machine."""
    import ray

    asked = []

    def init(address: str, **options: Any) -> None:
        asked.append(address)
        raise ConnectionError

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", named)
    with pytest.raises(ConnectionError):
        next(run_seeds_on_ray(jobs(tmp_path, 1), given))
    assert asked == [taken]


def test_a_machine_that_may_join_a_running_cluster_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    init = ray.init
    monkeypatch.setattr(ray, "init", lambda address, **options: init("local", **options))
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 0.0}}])  # as yet
    with pytest.warns(RuntimeWarning, match=r"which no machine of the Ray cluster has \(there are 0 cores .*waiting"):
        assert numbers(run_seeds_on_ray(jobs(tmp_path, 1, "train.epochs=1"), "head:6379")).keys() == {0}


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"--executor ray needs Ray: pip install 'graphattn\[ray\]'"):
        next(run_seeds_on_ray(jobs(tmp_path, 1)))
