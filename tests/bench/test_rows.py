"""Rows in a CSV and on the terminal."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from graphattn.bench import record, shown
from graphattn.bench.rows import COLUMNS


def rows(case: str, *contestants: str, machine: str = "here", p50: float = 2.0, **more: Any) -> list[dict[str, Any]]:
    common = {"suite": "layers", "case": case, "direction": "forward", "status": "ok", "machine": machine}
    times = {"p20_ms": 1.0, "p50_ms": p50, "p80_ms": 3.0, "ratio": 1.5}
    return [{**common, **times, "contestant": name, **more} for name in contestants]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def told(path: Path) -> list[tuple[str, str, str, str]]:
    return [(row["case"], row["contestant"], row["machine"], row["p50_ms"]) for row in read(path)]


def test_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "bench" / "layers.csv"
    record(rows("a", "ours", "pyg"), path)
    assert path.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    assert told(path) == [("a", "ours", "here", "2.0"), ("a", "pyg", "here", "2.0")]
    assert read(path)[0]["peak_mib"] == ""
    assert list(path.parent.iterdir()) == [path], "no part is left"


def test_a_case_that_is_timed_again_takes_its_old_place(tmp_path: Path) -> None:
    path = tmp_path / "layers.csv"
    for case in ("a", "b", "c"):
        record(rows(case, "ours", "pyg", "dgl"), path)
    record(rows("b", "ours", "pyg", p50=9.0), path)
    assert told(path) == [
        *(("a", name, "here", "2.0") for name in ("ours", "pyg", "dgl")),
        ("b", "ours", "here", "9.0"),
        ("b", "pyg", "here", "9.0"),
        *(("c", name, "here", "2.0") for name in ("ours", "pyg", "dgl")),
    ]


def test_other_machines_keep_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "layers.csv"
    record(rows("a", "ours"), path)
    record(rows("a", "ours", machine="there", p50=5.0), path)
    record(rows("a", "ours", p50=4.0), path)
    assert told(path) == [("a", "ours", "here", "4.0"), ("a", "ours", "there", "5.0")]


def test_a_file_with_other_columns_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("case,p50_ms\na,1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"results\.csv has other columns .*choose a new --out"):
        record(rows("a", "ours"), path)
    assert path.read_text(encoding="utf-8") == "case,p50_ms\na,1\n"


def test_a_case_that_could_not_run_replaces_no_times(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    record(rows("a", "ours"), path)
    before = path.read_bytes()
    lacking = {"suite": "layers", "case": "a", "direction": "forward", "machine": "here", "contestant": "ours"}
    record([lacking | {"status": "skipped: no data"}], path)
    assert path.read_bytes() == before
    record([lacking | {"case": "b", "status": "skipped: no data"}], path)
    assert [row["case"] for row in read(path)] == ["a", "b"], "but is put down where there was none"


def test_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    there = rows("gat-ppi-256", "graphattn", peak_mib=1234.56, roofline=0.5, p50=12345.6)
    lacking = {"case": "gat-ppi-256", "contestant": "pyg", "direction": "forward", "status": "skipped: no memory"}
    Console(width=80).print(shown([*there, lacking]))
    text = capsys.readouterr().out
    assert all(part in text for part in ("gat-ppi-256", "12,346", "1,234.6", "1.50", "0.500", "pyg skipped: no memory"))
    assert "…" not in text
