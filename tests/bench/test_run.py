"""What a run refuses, skips and says of what it timed."""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest
import torch
from small import GAT, LAYERS, OPS
from torch import Tensor

from graphattn import conv
from graphattn.bench import Disagreement, memory, run
from graphattn.bench import layers as layer_cases
from graphattn.bench.rows import COLUMNS

pytestmark = pytest.mark.usefixtures("quick")


def by_contestant(rows: list[dict[str, Any]], direction: str) -> dict[str, dict[str, Any]]:
    return {row["contestant"]: row for row in rows if row["direction"] == direction}


class WrongOutput(conv.GATConv):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return 1.01 * super().forward(*args, **kwargs)


class WrongGradient(conv.GATConv):
    def forward(self, x: Any, edge_index: Any, **kwargs: Any) -> Any:
        att_src = self.att_src
        out = super().forward(x, edge_index, **kwargs)
        return out + 0.01 * (att_src - att_src.detach()).sum()


class NotFinite(conv.GATConv):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = super().forward(*args, **kwargs)
        return torch.where(torch.arange(out.shape[0])[:, None] == 3, torch.nan, out)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [(WrongOutput, "the output"), (WrongGradient, "the gradient of att_src"), (NotFinite, "the output")],
)
def test_a_wrong_contestant_is_refused(wrong: type, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layer_cases._OURS, "gat", wrong)
    with pytest.raises(Disagreement, match=f"gat-tiny: {what} of graphattn is off by .*; nothing was timed"):
        list(run("layers", [GAT], 5))


def test_rows_of_a_layer() -> None:
    (rows,) = run("layers", [GAT], 5, threads=1)
    assert all(set(row) <= set(COLUMNS) for row in rows)
    steps = by_contestant(rows, "training step")
    assert set(by_contestant(rows, "graph")) == {"graphattn"}, "only we order the edges beforehand"
    assert set(by_contestant(rows, "forward")) == set(steps) >= {"graphattn", "pyg"}
    ours = steps["graphattn"]
    sizes = {"N": 40, "E": 240, "H": 2, "D": 3, "in_features": 6, "edge_features": 0}
    assert sizes.items() <= ours.items()
    about = {"suite": "layers", "case": "gat-tiny", "op": "gat", "graph": "power-law", "dtype": "float32", "threads": 1}
    assert about.items() <= ours.items()
    assert ours["torch"] == torch.__version__ and ours["repeats"] == 5 and ours["copy_gb_s"] == 1.0
    assert ours["ratio"] == pytest.approx(steps["pyg"]["p50_ms"] / ours["p50_ms"], rel=1e-2)
    assert steps["pyg"]["ratio"] == 1 and ours["peak_mib"] == 7.0
    assert ours["io_mib"] == pytest.approx(4 * 40 * (6 + 6) / 2**20, rel=1e-3)
    assert ours["kept_mib"] > 0
    assert not {"peak_mib", "kept_mib"} & set(by_contestant(rows, "forward")["graphattn"])
    assert not any("roofline" in row for row in rows), "a layer's linear maps have another limit"


def test_rows_of_an_operation() -> None:
    (rows,) = run("ops", [OPS[0]], 5)
    for row in by_contestant(rows, "forward").values():
        floats, indices = 240 * 3 + 240 + 40 * 3, 240 + 40 + 1
        assert row["roofline"] == pytest.approx((4 * floats + 8 * indices) / 1e9 / (1e-3 * row["p50_ms"]), rel=1e-2)
    assert not any("roofline" in row for row in by_contestant(rows, "training step").values())


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    cases = run("ops", OPS[:2], 5, threads=before + 1)
    assert next(cases)[0]["threads"] == torch.get_num_threads() == before + 1
    assert len(list(cases)) == 1
    assert torch.get_num_threads() == before


def test_what_does_not_fit_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_kibibytes", lambda file, key: 5.0)
    (rows,) = run("layers", [GAT], 5)
    status = {row["contestant"]: row["status"] for row in rows}
    assert status.pop("graphattn") == "not compared: pyg did not run"
    assert set(status.values()) == {"skipped: needs about 0.0 GiB, 0.0 GiB are free"}
    skipped = [row for row in rows if row["contestant"] == "pyg"]
    assert [row["direction"] for row in skipped] == ["forward", "training step"]
    assert not any("p50_ms" in row or "ratio" in row for row in skipped)


def test_a_peer_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Tensor:
        raise ImportError("libgraphbolt.so\nis not there")

    monkeypatch.setattr("torch.compile", broken)
    case = layer_cases.LayerCase("c", "gat", GAT.graph, 6, 2, 3, peers=("pyg", "pyg compiled"))
    (rows,) = run("layers", [case], 5)
    status = {row["contestant"]: row["status"] for row in rows}
    assert status == {
        "graphattn": "ok",
        "pyg": "ok",
        "pyg compiled": "failed: ImportError: libgraphbolt.so is not there",
    }


def test_a_process_that_dies_costs_only_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(case: Any, contestant: str, device: str) -> float:
        raise BrokenProcessPool("A process was terminated abruptly " + 300 * "x" + " the end")

    monkeypatch.setattr(memory, "peak", killed)
    (rows,) = run("ops", [OPS[1]], 5)
    assert all("p50_ms" in row and "peak_mib" not in row for row in rows)
    begin = "failed where its peak memory was measured: BrokenProcessPool: A process was terminated abruptly xxx"
    assert all(row["status"].startswith(begin) and row["status"].endswith("xxx the end") for row in rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 4}, "repeats is 4: needed at least 5"),
        ({"threads": 0}, "threads is 0: needed at least 1"),
        ({"device": "tpu"}, "device is 'tpu': needed cpu, or cuda on a machine with a GPU"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(run("layers", LAYERS, **options))
