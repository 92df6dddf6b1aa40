"""The seeds of an experiment over the machines of a Ray cluster."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from graphattn.experiment import save
from graphattn.training.runs import Finished, Job, run_seed


def run_seeds_on_ray(jobs: list[Job], address: str | None = None) -> Iterator[Finished]:
    """Run the jobs as Ray tasks, as many at a time as the cluster has cores (or GPUs) for, and yield each as it ends.

    `address` is that of a running cluster, as `ray.init` takes it; without one, and without RAY_ADDRESS, Ray starts on
    this machine, and ends with the last job. A seed whose worker or machine is lost is given to another, once; if both
    see the same `runs` folder it goes on from its last checkpoint, else it begins again. Results are kept here whatever
    machine they come from; checkpoints and curves stay where they were written. Ray's workers import from this
    process's working directory first, so one that holds another copy of graphattn, such as a checkout, is not the place
    to start from.

    Raises:
        ImportError: Ray is not installed.
        ValueError: Ray has started on this machine, which lacks the cores, or the GPU, that a job takes. Machines may
            join a running cluster: there a warning says what is waited for.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("--executor ray needs Ray: pip install 'graphattn[ray]'") from error
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    try:
        gpus = 1 if jobs and jobs[0].device == "cuda" else 0
        _check_room(ray.nodes(), max((job.threads for job in jobs), default=0), gpus, grows=address != "local")
        task = ray.remote(num_gpus=gpus, max_retries=1, retry_exceptions=False)(run_seed)
        running = {task.options(num_cpus=job.threads).remote(_absolute(job)): job for job in jobs}
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            yield _outcome(ray, done, running.pop(done))
    finally:
        ray.shutdown()


def _check_room(nodes: list[dict[str, Any]], threads: int, gpus: int, grows: bool) -> None:
    """Ray itself would wait without a word."""
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    if any(has.get("CPU", 0) >= threads and has.get("GPU", 0) >= gpus for has in machines):
        return
    listed = ", ".join(f"{has.get('CPU', 0):g} cores and {has.get('GPU', 0):g} GPUs" for has in machines)
    found = (
        f"a seed takes {threads} cores and {gpus} GPUs, which no machine of the Ray cluster has (there are {listed}): "
        f"lower OMP_NUM_THREADS, raise --workers, or take another --device"
    )
    if not grows:
        raise ValueError(found)
    warnings.warn(f"{found}; now waiting for one that joins the cluster", RuntimeWarning, stacklevel=3)


def _absolute(job: Job) -> Job:
    """Workers have working directories of their own."""
    data = None if job.data_folder is None else job.data_folder.resolve()
    return replace(job, folder=job.folder.resolve(), data_folder=data)


def _outcome(ray: Any, done: Any, job: Job) -> Finished:
    try:
        result = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        return Finished(job.seed, None, f"{type(error.cause).__name__}: {error.cause}")
    except ray.exceptions.RayError as error:
        return Finished(job.seed, None, f"its worker was lost twice ({type(error).__name__}: {error})")
    kept = job.seed_folder / "result.json"
    if not kept.exists():  # the worker writes to another machine's disk
        save(result, kept)
    return Finished(job.seed, result)
