"""Many seeds of one experiment: each a run of its own in its own folder, side by side in processes, and their summary.

    runs/<experiment>/<key>/seed-<k>/   last.pt (while it runs), best.pt, metrics.csv, result.json
    runs/<experiment>/<key>/result.json the summary of all seeds

`key` is a hash of the definition, so results of different definitions never mix. A seed that has its result.json is
not run again, one that was killed goes on from last.pt, one that failed is reported and the others count. Seeds of a
record can be taken in (`take_in`), so that a record grows over several days and machines.
"""

from __future__ import annotations

import csv
import json
import os
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric, seed_everything
from torch import nn

from graphattn import data
from graphattn.data import GraphSet, Images, NodeData, PairSet, SceneSet, TextSet
from graphattn.experiment import Experiment, save
from graphattn.training import stopping
from graphattn.training.asked import task
from graphattn.training.building import built
from graphattn.training.fit import Outcome, fit
from graphattn.training.float32_products import float32_products
from graphattn.training.freed_memory import kept_for_reuse
from graphattn.training.image_classification import ImageClassification
from graphattn.training.optimizers import optimizer_of
from graphattn.training.primitive_cache import keep_few_primitives
from graphattn.training.provenance import OF_A_SEED, origin, together
from graphattn.training.ranks import check_same, joined
from graphattn.training.sampled import SampledNodeClassification
from graphattn.training.schedules import schedule
from graphattn.training.smoothed import smoothed_measures
from graphattn.training.tasks import NodeClassification
from graphattn.training.text_pairs import TextPairs

CURVE_POINTS = 200  # of the first seed's learning curve, kept in the summary


@dataclass(frozen=True)
class Job:
    """One seed of an experiment, and where it runs."""

    experiment: Experiment
    seed: int
    folder: Path  # of the experiment's runs: runs/<experiment>/<key>
    data_folder: Path | None = None
    device: str = "auto"
    threads: int = 1
    checkpoint_every: float = 10.0
    cuda_graph: bool = False

    @property
    def seed_folder(self) -> Path:
        return self.folder / f"seed-{self.seed}"

    @property
    def done(self) -> Path:
        """What is there once the seed has ended well."""
        return self.seed_folder / "result.json"


@dataclass(frozen=True)
class Finished:
    """A seed's result (see `run_seed`), or the error that ended it."""

    seed: int
    result: dict[str, Any] | None
    error: str | None = None


def run_seed(job: Job, on_epoch: Callable[[dict[str, float]], None] = lambda row: None) -> dict[str, Any]:
    """Train one seed from the beginning or from where it was killed; its measures, epochs and seconds.

    Raises:
        whatever loading, building or training raises; nothing of the seed is lost then.
    """
    if job.done.exists():
        return json.loads(job.done.read_text(encoding="utf-8"))
    job.seed_folder.mkdir(parents=True, exist_ok=True)  # it has begun
    torch.set_num_threads(job.threads)
    with float32_products(job.experiment.train.matmul_precision), kept_for_reuse():
        return _trained(job, on_epoch)


def _trained(job: Job, on_epoch: Callable[[dict[str, float]], None]) -> dict[str, Any]:
    whence = origin(job.device)  # before hours of training, in which files and commits may change
    model, loaded, fabric = prepared(job)
    check_same("the experiment", f"{job.experiment.key()}, seed {job.seed}")
    check_same("the data", lambda: loaded.digest())
    train = job.experiment.train
    smoothing = job.experiment.correct_and_smooth
    parts = (job.experiment.labels, smoothing, job.experiment.decoding, job.experiment.multitask)
    asked = task(loaded, train, model, *parts)
    outcome = fit(
        model,
        asked,
        optimizer_of(model, train),
        stopping.rule(train.stop, train.patience, train.epochs),
        fabric=fabric,
        epochs=train.epochs,
        rate=schedule(train, asked.steps),
        folder=job.seed_folder,
        checkpoint_every=job.checkpoint_every,
        cuda_graph=job.cuda_graph,
        average=train.average,
        on_epoch=on_epoch,
    )
    if smoothing is not None:
        assert isinstance(asked, NodeClassification | SampledNodeClassification)  # `task` has seen to it
        outcome = replace(outcome, measures=smoothed_measures(asked, model, smoothing))
    if isinstance(asked, ImageClassification):
        over = asked.over_epochs(outcome.history, outcome.best_epoch)
        outcome = replace(outcome, measures=outcome.measures | over)
    if isinstance(asked, TextPairs):
        outcome = replace(outcome, measures=outcome.measures | asked.judged(model))
    result = finish(job, outcome, size(model), whence, fabric.is_global_zero)
    fabric.barrier()  # no rank goes on, or ends, before all is written
    return result


def size(model: nn.Module) -> int:
    """How many parameters it trains."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def finish(
    job: Job, outcome: Outcome, parameters: int, whence: Mapping[str, Any], writes: bool = True
) -> dict[str, Any]:
    """A seed's result; if this process `writes`, it is in the seed's folder, with the curve and without last.pt."""
    result = {
        "seed": job.seed,
        **outcome.measures,
        "best_epoch": outcome.best_epoch,
        "epochs": outcome.epochs,
        "seconds": round(outcome.seconds, 3),
        "parameters": parameters,
        **whence,
    }
    if writes:
        _write_csv(outcome.history, job.seed_folder / "metrics.csv")
        save(result, job.done)
        (job.seed_folder / "last.pt").unlink(missing_ok=True)
    return result


def prepared(job: Job) -> tuple[nn.Module, NodeData | GraphSet | Images | SceneSet | PairSet | TextSet, Fabric]:
    """The freshly initialised model, the data on the device, and Fabric, all as the seed has them."""
    seed_everything(job.seed, verbose=False)
    definition = job.experiment
    fabric = joined(job.device, definition.train.precision)
    loaded = data.load(**asdict(definition.data), seed=job.seed, folder=job.data_folder).to(fabric.device)
    if isinstance(loaded, GraphSet | PairSet) or definition.train.neighbors:  # whose batches differ in size
        keep_few_primitives()
    model = built(definition, loaded)
    if job.cuda_graph and definition.multitask is not None:
        raise ValueError(
            "[multitask] draws and counts between steps, which a replayed one does not: leave out --cuda-graph"
        )
    if job.cuda_graph and definition.train.recompute:
        raise ValueError("train.recompute is not for a step that is replayed: leave out --cuda-graph, or set it false")
    return model, loaded, fabric


def run_seeds_on_ranks(jobs: list[Job]) -> Iterator[Finished]:
    """Run the jobs one after the other in this process, one of those that torchrun has started, and yield each.

    An error is raised, not yielded: torchrun then ends the other ranks, which wait for this one. What was finished
    before stays, and the same command goes on from there.
    """
    for job in jobs:
        joined(job.device, job.experiment.train.precision)  # so that they can be compared
        check_same(f"seed {job.seed} in the folder of runs", "its result" if job.done.exists() else "none")
        yield Finished(job.seed, run_seed(job))


def run_seeds(jobs: list[Job], workers: int) -> Iterator[Finished]:
    """Run the jobs in `workers` processes and yield each as it ends. A seed whose process dies is tried once more."""
    waiting = {job.seed: job for job in jobs}
    while waiting:
        yield from _side_by_side(waiting, workers)
        # The pool cannot say whose process died. All that had begun and not ended are tried again, each alone.
        for seed in [seed for seed, job in waiting.items() if job.seed_folder.exists()] or list(waiting):
            alone = {seed: waiting.pop(seed)}
            yield from _side_by_side(alone, 1)
            if alone:
                yield Finished(seed, None, "its process died twice (killed, or out of memory)")


def _side_by_side(waiting: dict[int, Job], workers: int) -> Iterator[Finished]:
    """Yield each job of `waiting` as it ends, and take it out of there; what a dying process leaves undone stays."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        futures = {pool.submit(run_seed, job): job.seed for job in waiting.values()}
        try:
            for future in as_completed(futures):
                if not isinstance(future.exception(), BrokenProcessPool):
                    yield _finished(future, futures[future])
                    del waiting[futures[future]]
        except BaseException:
            for process in list(pool._processes.values()):  # else they first train the seeds that the pool has queued
                process.terminate()
            raise


def _end_with_parent() -> None:
    """In a worker: if the parent is killed, end too; else it would train on unseen, then wait for work for ever."""

    def watch() -> None:
        if parent := parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _finished(future: Future[dict[str, Any]], seed: int) -> Finished:
    error = future.exception()
    return Finished(seed, future.result()) if error is None else failure(seed, error)


def failure(seed: int, error: BaseException) -> Finished:
    return Finished(seed, None, "".join(traceback.format_exception_only(error)).strip())


def summary(experiment: Experiment, finished: Iterable[Finished], folder: Path, device: str) -> dict[str, Any]:
    """All that a table needs, as JSON: the definition, mean and unbiased spread of each measure, each seed, provenance.

    Raises:
        RuntimeError: no seed ended well.
    """
    ordered = sorted(finished, key=lambda f: f.seed)
    rows = [f.result for f in ordered if f.result is not None]
    failed = {str(f.seed): f.error for f in ordered if f.error is not None}
    if not rows:
        raise RuntimeError(f"no seed of {experiment.name} ended well: {failed}")
    rest = ("seed", "best_epoch", "parameters", *OF_A_SEED)
    measures = [name for name, value in rows[0].items() if name not in rest and not isinstance(value, str)]
    return {
        "definition": asdict(experiment),
        "result": {name: _spread([row[name] for row in rows]) for name in measures},
        "seeds": rows,
        "failed": failed,
        "parameters": rows[0].get("parameters"),  # not in what was trained before they were counted
        "curve": _curve(folder / f"seed-{rows[0]['seed']}" / "metrics.csv"),
        **together(rows, device),
    }


def take_in(record: Mapping[str, Any], folder: Path) -> None:
    """Make the seeds of a record seeds of `folder` that are done: those that have not run there themselves.

    The record has the first seed's learning curve; the parameters that were kept are not in it.
    """
    about = {key: record[key] for key in OF_A_SEED}  # of seeds recorded before they had their own
    for row in record["seeds"]:
        done = folder / f"seed-{row['seed']}" / "result.json"
        if not done.exists():
            if row is record["seeds"][0]:
                _write_csv(record["curve"], done.with_name("metrics.csv"))
            save(about | row, done)


def _spread(values: list[float]) -> dict[str, float | None]:
    numbers = torch.tensor(values, dtype=torch.float64)
    std = float(numbers.std()) if len(values) > 1 else None
    return {"mean": float(numbers.mean()), "std": std, "min": min(values), "max": max(values)}


def _write_csv(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with part.open("w", newline="", encoding="utf-8") as file:
        if rows:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    part.replace(path)


def _curve(path: Path) -> list[dict[str, float]]:
    """The learning curve in at most CURVE_POINTS evenly spaced epochs, rounded to six significant digits."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    step = max(1, -(-len(rows) // CURVE_POINTS))
    return [{name: float(f"{float(value):.6g}") for name, value in row.items()} for row in rows[::step]]
