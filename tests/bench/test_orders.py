"""The same graph under other names: contestants agree, and each has the order that it is named after."""

from __future__ import annotations

import pytest
import torch

from graphattn.bench import orders, run
from graphattn.bench.agreement import Disagreement
from graphattn.bench.orders import OrderCase

CASE = OrderCase("order-digits", "digits", heads=2, width=3)


@pytest.mark.usefixtures("quick")
def test_contestants_agree() -> None:
    (rows,) = run("orders", [CASE], 5)
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["contestant"] for row in rows} == set(CASE.contestants("cpu"))
    assert {row["direction"] for row in rows} == {"forward", "training step", "graph"}


def test_each_has_its_order() -> None:
    edge_index = torch.tensor([[0, 1, 2, 1, 3, 1], [1, 0, 1, 2, 1, 3]])
    assert orders._order("by degree", edge_index, 4).tolist() == [1, 0, 2, 3]
    assert orders._order("as it comes", edge_index, 4).tolist() == [0, 1, 2, 3]
    assert sorted(orders._order("reordered", edge_index, 4).tolist()) == [0, 1, 2, 3]


@pytest.mark.usefixtures("quick")
def test_answers_by_other_names_would_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(self: orders._Renamed) -> dict[str, torch.Tensor]:
        return super(orders._Renamed, self).answer()

    monkeypatch.setattr(orders._Renamed, "answer", forgetful)
    with pytest.raises(Disagreement):
        list(run("orders", [CASE], 5))


def test_a_set_that_is_not_here_is_said() -> None:
    assert "pubmed" in str(OrderCase("order-pubmed", "pubmed", data_folder=None).obstacle("reordered", "cpu"))
