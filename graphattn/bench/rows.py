"""Rows of the benchmark: what their columns mean, as a table for the terminal, and in a CSV."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Column, Table

Row = dict[str, Any]

COLUMNS = (
    "suite",
    "case",
    "op",  # the layer or operation
    "graph",  # uniform, power-law, hub, or the data set
    "contestant",
    "direction",  # forward, training step, epoch, sampling (a batch), decoding, or graph: ordering the edges, once
    "N",
    "E",
    "H",
    "D",
    "in_features",
    "edge_features",
    "dtype",
    "p20_ms",
    "p50_ms",
    "p80_ms",
    "ratio",  # the baseline's p50 over this one's; the baseline is PyG eager, of operations the back end `reference`
    "peak_mib",  # of a training step beyond weights and inputs, in a process of its own; scale: all that process holds
    "kept_mib",  # saved for backward
    "io_mib",  # inputs and output, to hold kept_mib against
    "roofline",  # least time that moving the operation's bytes takes, over p50; see limit.py
    "status",  # ok, or why there are no numbers
    "device",
    "machine",
    "threads",
    "copy_gb_s",  # copy bandwidth in this run, read and written together
    "repeats",
    "commit",
    "date",
    "graphattn",
    "python",
    "torch",
    "torch-geometric",
    "torch-scatter",
    "dgl",
)
_SAME = ("suite", "case", "machine")


def shown(rows: Sequence[Row]) -> Table:
    """The rows of one case for the terminal: spread is p80 less p20. Below, why a contestant has no numbers."""
    heads = ("p50 ms", "spread", "x base", "peak MiB", "kept MiB", "of limit")
    columns = [Column(head, no_wrap=True) for head in ("contestant", "direction")]
    columns += [Column(head, justify="right") for head in heads]
    table = Table(*columns, box=box.SIMPLE_HEAD, padding=0)
    for row in rows:
        if "p50_ms" in row:
            spread = f"{100 * (row['p80_ms'] - row['p20_ms']) / row['p50_ms']:.0f} %" if "p80_ms" in row else ""
            keys = {"ratio": ".2f", "peak_mib": ",.1f", "kept_mib": ",.1f", "roofline": ".3f"}
            numbers = (format(row[key], form) if key in row else "" for key, form in keys.items())
            table.add_row(row["contestant"], row["direction"], _milliseconds(row["p50_ms"]), spread, *numbers)
    states = {row["contestant"]: row["status"] for row in rows if row["status"] != "ok"}
    table.title, table.caption = rows[0]["case"], "\n".join(f"{name} {state}" for name, state in states.items())
    return table


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def record(rows: Sequence[Row], path: Path) -> None:
    """Put the rows of one case into a CSV, in place of those of the same suite, case and machine.

    A case is replaced as a whole, so that the contestants of a case were always timed in one run. The file is written
    whole and renamed. Rows without any time, of a case that could not run now, replace none that have one.

    Raises:
        ValueError: the file has other columns.
    """
    before = _read(path) if path.exists() else []
    new = [{column: str(row.get(column, "")) for column in COLUMNS} for row in rows]
    key = [new[0][column] for column in _SAME]
    old = [i for i, row in enumerate(before) if [row[column] for column in _SAME] == key]
    if not any(row["p50_ms"] for row in new) and any(before[i]["p50_ms"] for i in old):
        return
    place = old[0] if old else len(before)
    rest = [row for i, row in enumerate(before) if i not in old]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rest[:place], *new, *rest[place:]])
    part.replace(path)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            missing = sorted(set(COLUMNS) - set(reader.fieldnames or ()))
            raise ValueError(f"{path} has other columns (without {', '.join(missing[:3])} ...): choose a new --out")
        return list(reader)
