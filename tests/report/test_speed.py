"""The Speed section: what it says of recorded rows, and that it says nothing where there are none."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from graphattn.bench import record
from graphattn.report import speed

MACHINE = {"machine": "a machine", "threads": 2, "torch": "2.13.0", "torch-geometric": "2.8.1", "copy_gb_s": 20.4}
FORWARD, STEP = "forward", "training step"


def rows(suite: str, case: str, times: dict[tuple[str, str], float], **more: Any) -> list[dict[str, Any]]:
    """By (contestant, direction) its median in milliseconds; the step's memory is the same number."""
    common = {
        "suite": suite,
        "case": case,
        "status": "ok",
        "commit": "abc1234",
        "date": "2026-01-02",
        **MACHINE,
        **more,
    }
    made = [{**common, "contestant": c, "direction": d, "p50_ms": ms} for (c, d), ms in times.items()]
    return [
        row | {"peak_mib": row["p50_ms"], "kept_mib": 6, "io_mib": 4} if row["direction"] == STEP else row
        for row in made
    ]


def lines(folder: Path) -> list[str]:
    return "\n".join(speed.section(folder)).splitlines()


def cells(folder: Path, first: str) -> list[str]:
    (line,) = [line for line in lines(folder) if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line[1:-1].split("|")]


def test_nothing_recorded(tmp_path: Path) -> None:
    assert speed.section(tmp_path / "bench") == []


def test_a_layer(tmp_path: Path) -> None:
    times = {("graphattn", FORWARD): 4, ("graphattn", STEP): 10, ("graphattn", "graph"): 1}
    times |= {("pyg", FORWARD): 20, ("pyg", STEP): 1234, ("pyg compiled", FORWARD): 3, ("pyg compiled", STEP): 55}
    record(rows("layers", "gat-ppi", times, op="gat", graph="uniform", N=4700, E=135000), tmp_path / "layers.csv")
    row = ["gat-ppi", "4,700", "135,000", "10.0", "1,234", "55.0", "123", "5.50", "5.00", "0.75"]
    assert cells(tmp_path, "gat-ppi") == [*row, "10.0 / 1,234 / 55.0", "1.50 / 1.50 / 1.50"]
    assert "- gat-ppi, forward: pyg compiled 3.00, graphattn 4.00" in lines(tmp_path)
    assert "torch 2.13.0 with 2 threads, torch-geometric 2.8.1; copies 20 GB/s; abc1234 2026-01-02." in lines(tmp_path)


def test_notes_come_last(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("What falls short.\n", encoding="utf-8")
    assert speed.section(tmp_path) == [], "of no measurement"
    test_a_layer(tmp_path)
    assert speed.section(tmp_path)[-1] == "What falls short.\n"


def test_a_peer_that_was_skipped(tmp_path: Path) -> None:
    there = rows("layers", "gat-ppi", {("graphattn", FORWARD): 4, ("graphattn", STEP): 10}, op="gat", N=5, E=9)
    skipped = {key: value for key, value in there[0].items() if key != "p50_ms"} | {"contestant": "pyg"}
    record([*there, skipped | {"status": "skipped: needs about 99 GiB"}], tmp_path / "layers.csv")
    row = ["gat-ppi", "5", "9", "10.0", "", "", "", "", "", ""]
    assert cells(tmp_path, "gat-ppi") == [*row, "10.0 / – / –", "1.50 / – / –"]
    assert not any("faster" in line for line in lines(tmp_path)[8:])


def test_an_epoch_is_measured_whole(tmp_path: Path) -> None:
    times = {("graphattn", STEP): 5, ("graphattn", "epoch"): 8, ("pyg", STEP): 70, ("pyg", "epoch"): 80}
    record(rows("layers", "epoch-cora", times, op="GAT", graph="cora"), tmp_path / "layers.csv")
    assert cells(tmp_path, "epoch-cora")[:8] == ["epoch-cora", "", "", "8.00", "80.0", "", "10.0", ""]


def test_an_operation(tmp_path: Path) -> None:
    times = {("reference", FORWARD): 40, ("reference", STEP): 100, ("cpu", FORWARD): 8, ("cpu", STEP): 20}
    made = rows("ops", "attend-ppi", times | {("torch.sparse", STEP): 10}, op="attend", N=5, E=9)
    record([row | {"roofline": 0.25} if row["direction"] == FORWARD else row for row in made], tmp_path / "ops.csv")
    assert cells(tmp_path, "attend-ppi") == ["attend-ppi", "cpu", "8.00", "25 %", "20.0", "5.00", "", "0.50"]
    assert "- attend-ppi, training step: torch.sparse 10.0, cpu 20.0" in lines(tmp_path)


@pytest.fixture
def scaling(tmp_path: Path) -> Path:
    for size in (10**4, 10**5):
        about = {"graph": "uniform", "N": size // 10, "E": size}
        times = {("graphattn", STEP): size / 1e4, ("graphattn", "graph"): 0.5, ("pyg", STEP): size / 1e3}
        record(rows("scaling", f"gat-uniform-{size}", times, op="gat", **about), tmp_path / "scaling.csv")
        operation = rows("scaling", f"additive-{size}", {("cpu", FORWARD): 1}, op="additive", roofline=0.5, **about)
        record(operation, tmp_path / "scaling.csv")
    return tmp_path


def test_a_back_end_that_did_not_run_is_not_ours(tmp_path: Path) -> None:
    made = rows("ops", "attend", {("reference", FORWARD): 9, ("cpu", FORWARD): 3}, op="attend", N=5, E=9)
    failed = {**made[0], "contestant": "gpu", "p50_ms": "", "status": "failed: no GPU"}
    record([*made, failed], tmp_path / "ops.csv")
    assert cells(tmp_path, "attend")[1:3] == ["cpu", "3.00"]


def test_scaling(scaling: Path) -> None:
    found = [line for line in lines(scaling) if line.startswith("| uniform |")]
    assert found == [
        "| uniform | 10,000 | 1.00 | 100 | 10.0 | 10.0 | 0.50 | 50 % |",
        "| uniform | 100,000 | 10.0 | 100 | 100 | 10.0 | 0.50 | 50 % |",
    ]


def test_the_plot_is_the_same_for_the_same_rows(scaling: Path) -> None:
    assert f"![Time of a training step over the number of edges]({scaling.name}/scaling.svg)" in lines(scaling)
    first = (scaling / "scaling.svg").read_text(encoding="utf-8")
    assert all(label in first for label in ("graphattn, uniform", "pyg, uniform", "proportional to E", "a machine"))
    (scaling / "scaling.svg").unlink()
    speed.section(scaling)
    assert (scaling / "scaling.svg").read_text(encoding="utf-8") == first


def test_each_machine_has_its_tables(scaling: Path) -> None:
    with (scaling / "scaling.csv").open(newline="", encoding="utf-8") as file:
        again = [row | {"machine": "another"} for row in csv.DictReader(file) if row["case"] == "gat-uniform-10000"]
    record(again, scaling / "scaling.csv")
    assert [line for line in lines(scaling) if line.startswith("### ")] == ["### a machine", "### another"]
    assert "another" in (scaling / "scaling.svg").read_text(encoding="utf-8")


def test_graphs_that_fill_the_memory(tmp_path: Path) -> None:
    full = rows(
        "scale", "full-batch-2m", {("graphattn", STEP): 90_000, ("graphattn recomputed", STEP): 120_500}, N=2, E=30
    )
    failed = {key: value for key, value in full[0].items() if key not in ("p50_ms", "peak_mib")} | {"contestant": "pyg"}
    record([*full, failed | {"status": "skipped: needs about 99 GiB"}], tmp_path / "scale.csv")
    times = {("graphattn", "sampling"): 50, ("graphattn", STEP): 2048, ("graphattn", "epoch"): 99_000}
    record(rows("scale", "sampled-2m", times, N=3, E=40), tmp_path / "scale.csv")
    table = lines(tmp_path)
    assert "| 2 | 30 | graphattn | 90.0 | 87.9 |" in table and "| 2 | 30 | graphattn recomputed | 120 | 118 |" in table
    assert "| 2 | 30 | pyg | needs about 99 GiB |  |" in table
    assert "| 3 | 40 | graphattn | 50.0 | 2,048 | 99.0 | 2.00 |" in table
    assert not any("faster" in line for line in table[8:])


def test_contestants_that_are_compared_among_themselves(tmp_path: Path) -> None:
    times = {
        ("side by side", STEP): 30,
        ("side by side", "epoch"): 40,
        ("one by one", STEP): 90,
        ("one by one", "epoch"): 100,
    }
    made = rows("seeds", "seeds-cora-10", times, op="GAT")
    ratio = {"side by side": 2.5, "one by one": 1.0}
    made = [row | {"ratio": ratio[row["contestant"]]} for row in made]
    record(made, tmp_path / "seeds.csv")
    assert "| seeds-cora-10 | side by side | 30.0 | 40.0 | 2.50 | 30.0 | 6.00 |" in lines(tmp_path)
    assert "| seeds-cora-10 | one by one | 90.0 | 100 | 1.00 | 90.0 | 6.00 |" in lines(tmp_path)
    times = {("reordered", STEP): 30, ("reordered", "graph"): 2, ("as it comes", STEP): 60}
    record(rows("orders", "order-cora", times, op="gat", ratio=2.0), tmp_path / "orders.csv")
    assert "| order-cora | reordered | 30.0 | 2.00 | 30.0 | 6.00 | 2.00 |" in lines(tmp_path)
    assert not any("faster" in line for line in lines(tmp_path)[8:])


def test_what_is_for_a_gpu_stands_beside_the_layers(tmp_path: Path) -> None:
    record(
        rows("gpu", "gat-products", {("graphattn", STEP): 10, ("pyg", STEP): 50}, op="gat", N=5, E=9),
        tmp_path / "gpu.csv",
    )
    assert cells(tmp_path, "gat-products")[:5] == ["gat-products", "5", "9", "10.0", "50.0"]


def test_sequences_and_what_is_decoded(tmp_path: Path) -> None:
    times = {("graphattn", FORWARD): 2, ("graphattn", STEP): 5, ("matrices", FORWARD): 8, ("matrices", STEP): 20}
    made = rows("sequence", "self-attention-9", times, op="self-attention")
    nothing = {"p50_ms": "", "peak_mib": "", "kept_mib": "", "status": "skipped: needs about 99 GiB"}
    skipped = [{**row, **nothing, "case": "self-attention-99"} for row in made[2:]]
    decoded = {("light", "decoding"): 10, ("dynamic", "decoding"): 8, ("self-attention", "decoding"): 20}
    record([*made, *skipped, *rows("sequence", "decode-9", decoded, op="greedy")], tmp_path / "sequence.csv")
    found = lines(tmp_path)
    assert "| self-attention-99 | matrices | skipped: needs about 99 GiB |  |  |  |" in found
    assert found[found.index("| case | contestant | ms | × the last |") + 2 :][:3] == [
        "| decode-9 | light | 10.0 | 2.00 |",
        "| decode-9 | dynamic | 8.00 | 2.50 |",
        "| decode-9 | self-attention | 20.0 | 1.00 |",
    ]
