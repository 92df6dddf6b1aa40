"""Every contestant of every kind of case is built, computes the baseline's numbers and is timed in each direction."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch
from small import GAT, LAYERS, OPS
from torch import Tensor, nn
from torch_geometric.data import Data

from graphattn import Graph, ops
from graphattn.bench import agreement
from graphattn.bench.case import Case
from graphattn.bench.epochs import EpochCase
from graphattn.bench.layers import LayerCase
from graphattn.bench.operations import OpCase
from graphattn.bench.run import run
from graphattn.bench.seeds import SeedsCase
from graphattn.data import GraphSet

HERE = {"torch-scatter": find_spec("torch_scatter") is not None, "scatter": find_spec("torch_scatter") is not None}


def statuses(case: Case) -> dict[str, str]:
    (rows,) = run("layers", [case], 5)
    for row in rows:
        assert row["status"] != "ok" or row["p20_ms"] <= row["p50_ms"] <= row["p80_ms"], row
    return {row["contestant"]: row["status"] for row in rows}


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
@pytest.mark.usefixtures("quick")
def test_layers(case: LayerCase) -> None:
    expected = {name: "ok" for name in ("graphattn", "pyg", "torch-scatter") if HERE.get(name, True)}
    assert statuses(case) == expected


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # torch's compiler uses torch.jit
@pytest.mark.usefixtures("quick")
def test_pyg_compiled() -> None:
    expected = {"graphattn": "ok", "pyg": "ok", "pyg compiled": "ok"}
    assert statuses(replace(GAT, peers=("pyg", "pyg compiled"))) == expected


@pytest.mark.parametrize("case", OPS, ids=lambda case: case.name)
@pytest.mark.usefixtures("quick")
def test_operations(case: OpCase) -> None:
    found = statuses(case)
    assert set(found.values()) == {"ok"}
    assert ("torch.sparse" in found) == (case.name == "attend-one-head")
    assert {name for name in ops.BACKENDS if name not in ("dense", "gpu") and HERE.get(name, True)} <= set(found)


@pytest.mark.usefixtures("quick")
def test_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the embedded set, whose features are dense, once taken as they are and once as a bag of words."""
    monkeypatch.setattr(EpochCase, "contestants", lambda self, device: ("graphattn", "pyg"))
    assert statuses(EpochCase("epoch", "digits", bag_of_words=False)) == {"graphattn": "ok", "pyg": "ok"}


def test_an_epoch_on_a_bag_of_words(data_folder: Any) -> None:
    case = EpochCase("epoch", "cora", bag_of_words=True, data_folder=data_folder)
    assert case.contestants("cpu") == ("graphattn", "graphattn dense", "pyg", "pyg compiled")
    entries = {name: case.build(name, "cpu") for name in case.contestants("cpu")[:3]}
    assert set(entries["graphattn"].directions) == {"forward", "training step", "epoch"}
    expected = entries["pyg"].answer()
    for name in ("graphattn", "graphattn dense"):
        agreement.check(case.name, name, entries[name].answer(), expected, case.tolerance)
    assert entries["graphattn"].inputs[0].numel() < entries["pyg"].inputs[0].numel() / 50


@pytest.mark.usefixtures("quick")
def test_an_epoch_of_several_seeds() -> None:
    case = SeedsCase("seeds", "digits", seeds=3)
    assert statuses(case) == {"side by side": "ok", "one by one": "ok"}
    together, alone = (case.build(name, "cpu") for name in case.contestants("cpu"))
    assert set(together.directions) == {"forward", "training step", "epoch"}
    (rows,) = together.forward()
    assert rows == [pytest.approx(row, rel=1e-5) for row in alone.forward()]
    assert together.answer().keys() == alone.answer().keys() and len(alone.answer()) > 4
    assert together.step().numel() == alone.step().numel() == 3


@pytest.mark.usefixtures("quick")
def test_an_epoch_on_a_set_of_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = torch.stack([torch.arange(9), torch.arange(9).roll(1)])
    graphs = [Data(x=torch.randn(9, 4), edge_index=ring, y=torch.ones(9, 3)) for _ in range(5)]
    rings = GraphSet("rings", graphs[:3], graphs[3:4], graphs[4:], num_features=4, num_classes=3)
    monkeypatch.setattr("graphattn.data.load", lambda *_, **__: rings)
    case = EpochCase("epoch", "ppi-like", one_graph=False)
    assert case.contestants("cuda") == ("graphattn", "pyg", "pyg compiled"), "batches that change are not captured"
    entry = case.build("graphattn", "cpu")
    steps = []
    monkeypatch.setattr(entry, "_step", lambda batch=None: steps.append(batch))
    entry.directions["epoch"]()
    assert [batch.num_graphs for batch in steps] == [2, 1]
    monkeypatch.setattr(EpochCase, "contestants", lambda self, device: ("graphattn", "pyg"))
    assert statuses(case) == {"graphattn": "ok", "pyg": "ok"}


def test_data_that_are_not_there(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, **_: Any) -> str:
        raise ConnectionError(f"no network in tests: {url}")

    monkeypatch.setattr("pooch.retrieve", refuse)
    monkeypatch.delenv("GRAPHATTN_DATA", raising=False)
    reason = EpochCase("epoch", "cora", bag_of_words=True, data_folder=tmp_path).obstacle("pyg", "cpu")
    assert reason is not None and "ind.cora.x is not here" in reason


class _DglLayer(nn.Module):
    """As DGL's layers are called and as their parameters are named; the maths is ours."""

    def __init__(self, in_feats: int, out_feats: int, num_heads: int) -> None:
        super().__init__()
        self.shape = (-1, num_heads, out_feats)
        for name in self.linear:
            setattr(self, name, nn.Linear(in_feats, out_feats * num_heads))

    linear: tuple[str, ...] = ()


class _DglGAT(_DglLayer):
    linear = ("fc",)

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        z: Any = nn.functional.linear(x, self.fc.weight).view(self.shape)
        out = ops.additive(z, (z * self.attn_l).sum(-1), (z * self.attn_r).sum(-1), graph)
        return out + self.bias.view(1, *self.shape[1:])


class _DglGATv2(_DglLayer):
    linear = ("fc_src", "fc_dst")

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        return ops.additive_v2(self.fc_src(x).view(self.shape), self.fc_dst(x).view(self.shape), self.attn[0], graph)


@pytest.mark.parametrize("case", [GAT, LAYERS[2]], ids=lambda case: case.name)
def test_dgl_gets_the_weights_of_pyg(case: LayerCase, monkeypatch: pytest.MonkeyPatch) -> None:
    """DGL's wheels cannot be imported beside today's torch, so a stand-in with its names takes its place."""
    dgl, layers = ModuleType("dgl"), ModuleType("dgl.nn")
    layers.GATConv, layers.GATv2Conv = _DglGAT, _DglGATv2  # type: ignore[attr-defined]
    dgl.nn, dgl.graph = layers, lambda ends, num_nodes: Graph(*ends, num_nodes, num_nodes)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dgl", dgl)
    monkeypatch.setitem(sys.modules, "dgl.nn", layers)
    answer, expected = case.build("dgl", "cpu").answer(), case.build("pyg", "cpu").answer()
    without = {"gradient of bias"} if case.layer == "gatv2" else set()
    assert set(answer) == set(expected) - without
    agreement.check(case.name, "dgl", answer, expected, 1e-3)


def test_dgl_only_where_it_is_installed_and_has_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    everyone = [replace(case, peers=("pyg", "dgl")) for case in LAYERS]
    monkeypatch.setattr("graphattn.bench.layers.find_spec", lambda name: None)
    assert all("dgl" not in case.contestants("cpu") for case in everyone)
    monkeypatch.setattr("graphattn.bench.layers.find_spec", lambda name: object())
    assert [case.layer for case in everyone if "dgl" in case.contestants("cpu")] == ["gat", "gatv2"]


def test_contestants_share_weights_and_input() -> None:
    ours, theirs = GAT.build("graphattn", "cpu"), GAT.build("pyg", "cpu")
    assert ours.leaves.keys() == theirs.leaves.keys()
    for name, leaf in ours.leaves.items():
        assert torch.equal(leaf, theirs.leaves[name]) and leaf is not theirs.leaves[name], name


@pytest.mark.skipif(not HERE["torch-scatter"], reason="needs torch-scatter: make scatter")
def test_torch_scatter_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch_scatter

    def refuse(*_: Any, **__: Any) -> Tensor:
        raise AssertionError("torch-scatter was called")

    entries = {name: GAT.build(name, "cpu") for name in ("graphattn", "torch-scatter")}
    monkeypatch.setattr(torch_scatter, "segment_csr", refuse)
    entries["graphattn"].step()
    with pytest.raises(AssertionError, match="torch-scatter was called"):
        entries["torch-scatter"].step()


def test_a_renewed_graph_is_equal_and_another() -> None:
    entry = GAT.build("graphattn", "cpu")
    before, answer = entry.graph, entry.answer()
    entry.renew()
    assert entry.graph is not before and torch.equal(entry.graph, before)
    agreement.check(GAT.name, "graphattn", entry.answer(), answer, GAT.tolerance)
