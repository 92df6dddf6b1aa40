"""Where the seeds of an experiment run: in processes here, on torchrun's ranks, on Ray, or several as one model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from graphattn.experiment import Experiment
from graphattn.record import one_of
from graphattn.training.asked import task
from graphattn.training.batched import run_batches
from graphattn.training.on_ray import run_seeds_on_ray
from graphattn.training.runs import Finished, Job, prepared, run_seeds, run_seeds_on_ranks, take_in
from graphattn.training.side_by_side import stacked


@dataclass(frozen=True)
class Launch:
    """How seeds are to run; the defaults are one process a core, or one on a GPU.

    Raises:
        ValueError: what is not there, or options that do not go together.
    """

    device: str = "auto"  # cpu, cuda, or auto: a GPU where there is one
    workers: int | None = None  # seeds side by side
    fresh: bool = False  # forget what is in the folder of runs
    known: dict[str, Any] | None = None  # a record whose seeds count as done
    cuda_graph: bool = False
    batch_seeds: int | None = None  # so many seeds as one model
    executor: str = "processes"
    ray_address: str | None = None

    def __post_init__(self) -> None:
        one_of(self.executor, ("processes", "ray"), "executor")
        if self.ray_address is not None and self.executor != "ray":
            raise ValueError(f"--ray-address {self.ray_address} is for --executor ray: give both")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device is {self.device!r}: needed cpu, cuda or auto")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is 'cuda', but torch sees no GPU: use --device cpu")
        if self.cuda_graph and self.found_device == "cpu":
            raise ValueError("--cuda-graph needs a GPU, the device is the CPU: leave it out")
        if self.ranks > 1 and (self.fresh or self.cuda_graph or self.known):
            raise ValueError(
                "--fresh, --extend and --cuda-graph are not for several ranks: leave them out, or start without "
                "torchrun"
            )
        elsewhere = self.workers is not None or self.executor != "processes" or self.cuda_graph or self.ranks > 1
        if self.batch_seeds is not None and elsewhere:
            raise ValueError(
                "--batch-seeds trains in one process that takes all cores: leave out --workers, --executor, "
                "--cuda-graph and torchrun"
            )

    @property
    def found_device(self) -> str:
        """The device, with auto resolved."""
        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def ranks(self) -> int:
        """How many processes torchrun started, 1 without it."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    def side_by_side(self, seeds: int) -> tuple[int, int]:
        """How many of so many seeds run at once, and the threads of each."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        wanted = 1 if self.batch_seeds is not None else self.workers or (cores if self.found_device == "cpu" else 1)
        workers = min(wanted, seeds)
        allowed = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
        return workers, max(1, min(cores // workers, int(allowed) if allowed.isdigit() else cores))

    def jobs(self, definition: Experiment, seeds: int, runs: Path, data: Path | None) -> list[Job]:
        """One a seed, from 0 on, in the folder `runs`/<experiment>/<key>."""
        folder, (_, threads) = runs / definition.name / definition.key(), self.side_by_side(seeds)
        return [
            Job(definition, seed, folder, data, self.found_device, threads, cuda_graph=self.cuda_graph)
            for seed in range(seeds)
        ]

    def start(self, jobs: list[Job]) -> Iterable[Finished]:
        """The seeds as they end, those that are done first.

        Raises:
            ValueError, OSError, ImportError: what is wrong with the data or the model, once for all seeds.
        """
        definition, folder = jobs[0].experiment, jobs[0].folder
        if self.ranks > 1:
            return run_seeds_on_ranks(jobs)
        model, loaded, _ = prepared(replace(jobs[0], device="cpu"))
        parts = (definition.labels, definition.correct_and_smooth, definition.decoding, definition.multitask)
        task(loaded, definition.train, model, *parts)
        if self.batch_seeds is not None:
            stacked([model], [loaded], definition)
        if self.fresh:
            shutil.rmtree(folder, ignore_errors=True)
        if self.known:
            take_in(self.known, folder)
        if self.executor == "ray":
            return run_seeds_on_ray(jobs, self.ray_address)
        if self.batch_seeds is not None:
            return run_batches(jobs, self.batch_seeds)
        return run_seeds(jobs, self.side_by_side(len(jobs))[0])
