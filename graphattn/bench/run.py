"""Checks, then times, the contestants of each case: tidy rows."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor

from graphattn.bench import agreement, limit, memory
from graphattn.bench.case import Alone, AnyCase, Case, Entry
from graphattn.bench.rows import Row
from graphattn.bench.timing import in_turns, quantile
from graphattn.training.provenance import provenance

_FAILURES = (ImportError, OSError, RuntimeError, ValueError)  # of contestants that are not built for this machine


def run(
    suite: str, cases: Iterable[AnyCase], repeats: int = 11, threads: int | None = None, device: str = "cpu"
) -> Iterator[list[Row]]:
    """The rows of one case after the other; `rows.COLUMNS` says what is in them.

    `threads` is how many torch may use, by default as many as it does.

    Raises:
        ValueError: fewer than 5 repeats, no thread, or an unknown device.
        Disagreement: a contestant computes something else; its case gives no rows.
    """
    if repeats < 5:
        raise ValueError(f"repeats is {repeats}: needed at least 5 for quantiles that mean something")
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}: needed at least 1")
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"device is {device!r}: needed cpu, or cuda on a machine with a GPU")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        bandwidth = limit.copy_bandwidth(device)
        common = {"suite": suite, "device": device, "repeats": repeats}
        common |= {"copy_gb_s": _short(bandwidth / 1e9), **_provenance(device)}
        for case in cases:
            about = {"case": case.name, **case.about()}
            assert isinstance(case, Case | Alone)
            rows = _rows(case, repeats, device, bandwidth) if isinstance(case, Case) else _alone(case, device)
            yield [about | common | row for row in rows]
    finally:
        torch.set_num_threads(before)


def _rows(case: Case, repeats: int, device: str, bandwidth: float) -> Iterator[Row]:
    torch.compiler.reset()  # a compiled contestant is compiled for this case's shapes, not for any
    entries, status = _agreeing(case, device)
    times = in_turns(entries, repeats, device)
    kept = {name: memory.kept(entry) for name, entry in entries.items()}
    with_peak = [name for name, entry in entries.items() if entry.has_peak]
    entries.clear()  # the processes that measure the peak need the memory
    if device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
    middle = {key: quantile(values, 0.5) for key, values in times.items()}
    least = case.least_bytes()
    peak = {}
    for name in with_peak:
        try:
            peak[name] = memory.peak(case, name, device)
        except _FAILURES as error:
            status[name] = f"failed where its peak memory was measured: {_reason(error)}"
    for (name, direction), values in times.items():
        row: Row = {"contestant": name, "direction": direction, "status": status[name]}
        row |= {f"p{100 * q:.0f}_ms": _short(quantile(values, q)) for q in (0.2, 0.5, 0.8)}
        if (base := middle.get((case.baseline, direction))) is not None:
            row["ratio"] = _short(base / middle[name, direction])
        if direction == "training step":
            row |= {"kept_mib": _short(kept[name][0]), "io_mib": _short(kept[name][1])}
            row |= {"peak_mib": _short(peak[name])} if name in peak else {}
        if direction == "forward" and least is not None:
            row["roofline"] = _short(limit.share(least, middle[name, direction], bandwidth))
        yield row
    for name in case.contestants(device):
        if name not in kept:
            yield from ({"contestant": name, "direction": d, "status": status[name]} for d in case.directions)


def _alone(case: Alone, device: str) -> Iterator[Row]:
    for name in case.contestants(device):
        status = case.obstacle(name, device)
        rows: list[Row] = []
        if status is None:
            try:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                    rows = pool.submit(_measured, case, name, device, torch.get_num_threads()).result()
            except _FAILURES as error:
                status = f"failed: {_reason(error)}"
        else:
            status = f"skipped: {status}"
        yield from ({"contestant": name, "status": "ok"} | row for row in rows)
        if not rows:
            yield from ({"contestant": name, "direction": d, "status": status} for d in case.directions)


def _measured(case: Alone, contestant: str, device: str, threads: int) -> list[Row]:
    """In a process that asks for no more memory than is free, so that too large a case is an error and no more."""
    torch.set_num_threads(threads)
    memory.limit_to_free()
    return [
        {name: _short(value) if isinstance(value, float) else value for name, value in row.items()}
        for row in case.measure(contestant, device)
    ]


def _agreeing(case: Case, device: str) -> tuple[dict[str, Entry], dict[str, str]]:
    """The contestants that run here and agree with the baseline; for every one, what became of it."""
    entries: dict[str, Entry] = {}
    status: dict[str, str] = {}
    expected: dict[str, Tensor] | None = None
    for name in sorted(case.contestants(device), key=lambda name: name != case.baseline):
        if reason := case.obstacle(name, device):
            status[name] = f"skipped: {reason}"
            continue
        try:
            entry = case.build(name, device)
            answer = entry.answer()
        except _FAILURES as error:
            status[name] = f"failed: {_reason(error)}"
            continue
        if name == case.baseline:
            expected = {key: tensor.clone() for key, tensor in answer.items()}
        elif expected is not None:
            agreement.check(case.name, name, answer, expected, case.tolerance)
        status[name] = "ok" if expected is not None else f"not compared: {case.baseline} did not run"
        entries[name] = entry
    return {name: entries[name] for name in case.contestants(device) if name in entries}, status


def _reason(error: Exception) -> str:
    """In one line; of a compiler's pages the beginning and the end."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 300 else f'{text[:140]} ... {text[-140:]}'}"


def _provenance(device: str) -> dict[str, Any]:
    about = provenance(device)
    versions = about["versions"] | {name: _version(name) for name in ("torch-scatter", "dgl")}
    common = {"machine": about["machine"], "threads": torch.get_num_threads(), "commit": about["commit"] or ""}
    return common | {"date": about["date"]} | versions


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _short(value: float) -> float:
    """Four digits, more than any clock here is good for."""
    return float(f"{value:.4g}")
