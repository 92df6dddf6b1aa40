"""What an epoch of GAT costs, on our layers and on PyG's, side by side in one run.

All contestants have the same shape, arguments and optimizer; PyG's differ by the layer's class alone. They take turns,
epoch by epoch, so a slow minute of the machine falls on all. Memory is measured in a fresh process each.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn
from torch_geometric.nn import GATConv as PyGGATConv

from graphattn import data
from graphattn.conv import GATConv
from graphattn.models import MODELS
from graphattn.training import NodeClassification
from graphattn.training.provenance import provenance

Row = dict[str, Any]
_WARM_UP = 5
_DIRECTIONS = ("forward", "training step", "epoch")


@dataclass(frozen=True)
class Contestant:
    """Whose layers, whether the features stay sparse, and whether torch.compile has the model."""

    layers: str  # graphattn or pyg
    sparse: bool = False
    compiled: bool = False

    @property
    def name(self) -> str:
        return f"{self.layers}{', compiled' if self.compiled else ''}, {'sparse' if self.sparse else 'dense'} features"


CONTESTANTS = (
    Contestant("graphattn", sparse=True),
    Contestant("graphattn"),
    Contestant("pyg"),
    Contestant("pyg", compiled=True),
)
BASELINE = Contestant("pyg")


def epoch(data_set: str, data_folder: Path | None, device: str, repeats: int) -> list[Row]:
    """Time GAT's forward pass, training step and epoch (training step and evaluation) on a data set.

    Rows hold milliseconds (p20, p50, p80), the ratio of the baseline's p50 to theirs, and the peak memory of a
    training step beyond model and data, in MiB.

    Raises:
        ValueError: fewer than 5 repeats, or an unknown data set or device.
    """
    if repeats < 5:
        raise ValueError(f"repeats is {repeats}: needed at least 5 for quantiles that mean something")
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"device is {device!r}: needed cpu, or cuda on a machine with a GPU")
    sparse = not isinstance(data.load(data_set, folder=data_folder).x, torch.Tensor)
    contestants = [c for c in CONTESTANTS if sparse or not c.sparse]
    runners = {c: _runners(c, data_set, data_folder, device) for c in contestants}
    times: dict[tuple[Contestant, str], list[float]] = {(c, d): [] for c in contestants for d in _DIRECTIONS}
    for repeat in range(_WARM_UP + repeats):
        for contestant in contestants:
            for direction in _DIRECTIONS:
                seconds = _timed(runners[contestant][direction], device)
                if repeat >= _WARM_UP:
                    times[contestant, direction].append(1e3 * seconds)
    memory = {c: _peak_memory(c, data_set, data_folder, device) for c in contestants}
    base = {d: _quantile(times[BASELINE, d], 0.5) for d in _DIRECTIONS}
    about = provenance(device)
    common = {"machine": about["machine"], "threads": torch.get_num_threads(), "commit": about["commit"]}
    common |= {"date": about["date"], **about["versions"]}
    return [
        {
            "case": f"GAT on {data_set}",
            "contestant": contestant.name,
            "direction": direction,
            **{f"p{100 * q:.0f}_ms": round(_quantile(values, q), 3) for q in (0.2, 0.5, 0.8)},
            "ratio": round(base[direction] / _quantile(values, 0.5), 2),
            "peak_mib": round(memory[contestant], 1),
            **common,
        }
        for (contestant, direction), values in times.items()
    ]


def table(rows: list[Row]) -> Table:
    """The rows for the terminal."""
    shown = Table(
        "contestant", "direction", "p20 ms", "p50 ms", "p80 ms", "x baseline", "peak MiB", title=rows[0]["case"]
    )
    for row in rows:
        numbers = (f"{row[key]:.2f}" for key in ("p20_ms", "p50_ms", "p80_ms", "ratio"))
        shown.add_row(row["contestant"], row["direction"], *numbers, f"{row['peak_mib']:.1f}")
    return shown


def append(rows: list[Row], path: Path) -> None:
    """Add the rows to a CSV, with a header if it is new; the file is written whole and renamed."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        file.write(before)
        writer = csv.DictWriter(file, list(rows[0]))
        if not before:
            writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


def _runners(
    contestant: Contestant, data_set: str, data_folder: Path | None, device: str
) -> dict[str, Callable[[], Any]]:
    torch.manual_seed(0)
    loaded = data.load(data_set, dense=not contestant.sparse, folder=data_folder).to(device)
    model = MODELS["gat"](loaded.num_features, loaded.num_classes, feature_dropout=0.0).to(device)  # PyG has no third
    if contestant.layers == "pyg":
        for layer in [module for module in model.modules() if isinstance(module, GATConv)]:
            layer.__class__ = PyGGATConv
    if contestant.compiled:
        model.compile()
    task = NodeClassification(loaded)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005, weight_decay=5e-4)
    return {
        "forward": lambda: task.measures(model.eval()),
        "training step": lambda: _step(model, task, optimizer),
        "epoch": lambda: (_step(model, task, optimizer), task.measures(model.eval())),
    }


def _step(model: nn.Module, task: NodeClassification, optimizer: torch.optim.Optimizer) -> float:
    model.train()
    optimizer.zero_grad()
    loss = task.loss(model)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def _timed(run: Callable[[], Any], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _quantile(values: list[float], q: float) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(q))


def _peak_memory(contestant: Contestant, *where: Any) -> float:
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_step_memory, (contestant, *where, torch.get_num_threads()))


def _step_memory(contestant: Contestant, data_set: str, data_folder: Path | None, device: str, threads: int) -> float:
    """MiB at the peak of two training steps beyond what model and data hold: on the GPU torch's allocations, on the
    CPU resident memory (Linux; elsewhere NaN). Two steps, because the first makes Adam's moments.
    """
    torch.set_num_threads(threads)
    step = _runners(contestant, data_set, data_folder, device)["training step"]
    if device == "cuda":
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        step()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    if contestant.compiled:
        step()  # compiling takes memory of its own, which a training run pays once
    before = _status("VmRSS")
    if (clear := Path("/proc/self/clear_refs")).exists():
        clear.write_text("5")  # VmHWM begins again
    step()
    step()
    return (_status("VmHWM") - before) / 2**10


def _status(key: str) -> float:
    """KiB of this process, from Linux's /proc."""
    path = Path("/proc/self/status")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((float(line.split()[1]) for line in lines if line.startswith(key)), float("nan"))
