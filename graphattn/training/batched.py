"""Many seeds of a small model in one process: a batch of K is trained as one model, K times as wide.

Where a graph is small, much of a step is overhead, the same for one model and for many. What a seed leaves is what a
run of its own leaves, and lies where `runs` has it; while a batch runs, there is also
runs/<experiment>/<key>/batch-<first seed>-<last seed>/last.pt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from graphattn.training import stopping
from graphattn.training.fit import (
    Course,
    Diverged,
    check_finite,
    checkpoint,
    penalty,
    restore,
    train_epoch,
    write_whole,
)
from graphattn.training.float32_products import float32_products
from graphattn.training.optimizers import optimizer_of
from graphattn.training.provenance import origin
from graphattn.training.runs import Finished, Job, failure, finish, prepared, run_seed, size
from graphattn.training.side_by_side import stacked

_ENDED = 1 / 4  # of a batch must have ended before the others go on without them


def run_batches(jobs: Sequence[Job], size: int) -> Iterator[Finished]:
    """Run the jobs, `size` at a time, one batch after the other in this process, and yield each as it ends."""
    for start in range(0, len(jobs), size):
        batch = jobs[start : start + size]
        waiting = {job.seed for job in batch}
        try:
            for done in run_batch(batch):
                waiting.remove(done.seed)
                yield done
        except Exception as error:
            yield from (failure(seed, error) for seed in sorted(waiting))


def run_batch(
    jobs: Sequence[Job], on_epoch: Callable[[dict[int, dict[str, float]]], None] = lambda rows: None
) -> Iterator[Finished]:
    """Train the jobs' seeds at once and yield each as it ends; `on_epoch` gets each epoch's rows by seed.

    A seed has the initial parameters and the data of a run of its own, and its own loss, stopping rule and best
    checkpoint; only its dropout masks are others, and its `seconds` are its share of the batch's. A seed that fails
    leaves the others alone. Those that have ended leave the batch when they are a quarter of it. As with a run, a batch
    that was killed goes on from its last.pt and, on the CPU, ends with the numbers of one never stopped.

    Raises:
        ValueError: see `stacked`.
    """
    torch.set_num_threads(jobs[0].threads)
    batch = _Batch(jobs)
    yield from batch.ended.values()
    saved = time.monotonic()
    while batch.running:
        rows: dict[int, dict[str, float]] = {}
        yield from batch.epoch(rows)
        on_epoch(rows)
        batch.go_on_without_ended()
        if batch.running and time.monotonic() - saved >= jobs[0].checkpoint_every:
            batch.save()
            saved = time.monotonic()
    batch.last.unlink(missing_ok=True)
    if batch.last.parent.exists():
        batch.last.parent.rmdir()


class _Batch:
    """The seeds trained at once, `jobs` and their `courses`, in the order that their models have in the stack."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.last = jobs[0].folder / f"batch-{jobs[0].seed}-{jobs[-1].seed}" / "last.pt"
        self.train, self.whence = jobs[0].experiment.train, origin(jobs[0].device)
        done = {job.seed: None for job in jobs if job.done.exists()}
        content: dict[str, Any] = {"ended": done, "seeds": [job.seed for job in jobs if job.seed not in done]}
        resumed = False
        if self.last.exists() and len(done) < len(jobs):
            held = torch.load(self.last, map_location="cpu", weights_only=True)
            resumed = {*held["seeds"], *held["ended"]} == {job.seed for job in jobs}  # else of others, with these ends
            content = held if resumed else content
        self.ended = {
            job.seed: Finished(job.seed, None if (error := content["ended"][job.seed]) else run_seed(job), error)
            for job in jobs
            if job.seed in content["ended"]
        }
        self.jobs, ready = self._prepared([job for job in jobs if job.seed in content["seeds"]])
        self.courses = [
            Course(stopping.rule(self.train.stop, self.train.patience, self.train.epochs)) for _ in self.jobs
        ]
        if not ready:
            return
        models, loaded, fabrics = zip(*ready, strict=True)
        self.fabric = fabrics[0]
        self.stack, self.task = stacked(models, loaded, jobs[0].experiment)
        self.adam: Any = optimizer_of(self.stack.net, self.train)
        self.model, self.optimizer = self.fabric.setup(self.stack, self.adam)
        if resumed:
            restore(content, self.model, self.optimizer)
            for course, its in zip(self.courses, content["courses"], strict=True):
                course.resume(its)
        for job in self.jobs:
            if job.done.exists():  # since the checkpoint, by other means
                self.ended[job.seed] = Finished(job.seed, run_seed(job))

    def _prepared(self, jobs: Sequence[Job]) -> tuple[list[Job], list[tuple[Any, ...]]]:
        """Those that can begin, and with what."""
        begun, ready = [], []
        for job in jobs:
            try:
                job.seed_folder.mkdir(parents=True, exist_ok=True)
                ready.append(prepared(job))
                begun.append(job)
            except Exception as error:
                self.ended[job.seed] = failure(job.seed, error)
        return begun, ready

    @property
    def running(self) -> list[int]:
        """The places in the stack of those that go on."""
        return [place for place, job in enumerate(self.jobs) if job.seed not in self.ended]

    def epoch(self, rows: dict[int, dict[str, float]]) -> Iterator[Finished]:
        """One epoch of all, whose rows come into `rows`; yields those that it ends."""
        started = time.perf_counter()
        with float32_products(self.train.matmul_precision):
            losses = train_epoch(self.fabric, self.model, self.task, self.optimizer).tolist()
            self.model.eval()
            measures = self.task.measures(self.model)
        running = self.running
        seconds = (time.perf_counter() - started) / len(running)
        for place in running:
            job, course = self.jobs[place], self.courses[place]
            row = {"epoch": course.epoch, "train_loss": losses[place]}
            try:
                check_finite(row, self.last, self.adam, place)
                rows[job.seed] = row = row | measures[place]
                extra = penalty(course.rule, self.adam, place)
                course.add(row, self.task.score, partial(self.stack.state_of, place), seconds, extra)
                if course.stopped or course.epoch == self.train.epochs:
                    outcome = course.outcome()
                    write_whole(course.best, job.seed_folder / "best.pt")
                    self.ended[job.seed] = Finished(
                        job.seed, finish(job, outcome, size(self.stack) // self.stack.size, self.whence)
                    )
            except Diverged as error:
                self.ended[job.seed] = failure(job.seed, error)
            if job.seed in self.ended:
                yield self.ended[job.seed]

    def go_on_without_ended(self) -> None:
        running = self.running
        if not running or len(running) > (1 - _ENDED) * len(self.jobs):
            return
        self.stack.keep(running, self.adam)
        self.task.tasks = [self.task.tasks[place] for place in running]
        self.jobs, self.courses = [self.jobs[k] for k in running], [self.courses[k] for k in running]

    def save(self) -> None:
        content = {
            "seeds": [job.seed for job in self.jobs],
            "courses": [course.content() for course in self.courses],
            "ended": {seed: finished.error for seed, finished in self.ended.items()},
        }
        write_whole(checkpoint(self.model, self.optimizer) | content, self.last)
