"""Memory: of functions whose memory is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from small import GAT
from torch import Tensor

from graphattn.bench import memory
from graphattn.bench.case import Case, Entry

MIB = 2**20
ROWS = 2**18  # one column of them is a MiB of float32


def columns(number: int) -> Tensor:
    return torch.ones(ROWS, number, requires_grad=True)


def kept(compute: Any, *leaves: Tensor, parameters: tuple[Tensor, ...] = ()) -> tuple[float, float]:
    named = {str(i): leaf for i, leaf in enumerate((*leaves, *parameters))}
    return memory.kept(Entry(lambda graph: compute(*leaves, *parameters), lambda: None, named, parameters))


def test_an_output_that_is_kept() -> None:
    assert kept(torch.exp, columns(3)) == (3, 6)


def test_nothing_is_kept() -> None:
    assert kept(torch.neg, columns(3)) == (0, 6)


def test_a_storage_counts_once_and_whole() -> None:
    assert kept(lambda x: x * x + x[:, :1] * x[:, 1:], columns(2)) == (2, 4)


def test_two_storages() -> None:
    assert kept(lambda x, y: (x * y).exp(), columns(2), columns(2)) == (6, 6)


def test_weights_and_their_views_do_not_count() -> None:
    x, w = columns(4), torch.ones(2, 4, requires_grad=True)
    assert kept(lambda x, w: x @ w.t(), x, parameters=(w,)) == (4, 6)


def test_indices_do_not_count() -> None:
    index = torch.zeros(ROWS, dtype=torch.int64)
    assert kept(lambda x: x.index_select(0, index), columns(1)) == (0, 2)


def test_a_mask_counts() -> None:
    assert kept(lambda x: torch.where(x > 0, x, 0 * x), columns(4))[0] == pytest.approx(1)


def test_a_layer_of_pyg_keeps_its_messages() -> None:
    sizes = GAT.about()
    ours, _ = memory.kept(GAT.build("graphattn", "cpu"))
    theirs, _ = memory.kept(GAT.build("pyg", "cpu"))
    assert theirs > 4 * sizes["E"] * sizes["H"] * sizes["D"] / MIB
    assert ours > 0


@dataclass(frozen=True)
class Known(Case):
    """A step that needs twice `mebibytes`: the exponential, which is also kept, and its gradient.

    Before it, building needs and frees more, which must not count.
    """

    baseline: ClassVar[str] = "only"
    name: str = "known"
    mebibytes: int = 64

    def contestants(self, device: str) -> tuple[str, ...]:
        return ("only",)

    def obstacle(self, contestant: str, device: str) -> None:
        return None

    def about(self) -> dict[str, Any]:
        return {}

    def build(self, contestant: str, device: str) -> Entry:
        torch.ones(4 * self.mebibytes * MIB // 4).sum()
        x = torch.zeros(1, requires_grad=True)
        wide = self.mebibytes * MIB // 4
        return Entry(lambda graph: x.expand(wide).exp().sum()[None], lambda: None, {"x": x})


def test_peak_of_a_process_of_its_own() -> None:
    assert 127 <= memory.peak(Known(), "only", "cpu") < 127 + 40


@pytest.mark.parametrize(("free", "reason"), [(4.0, None), (3.0, "needs about 2.5 GiB, 3.0 GiB are free")])
def test_lack(free: float, reason: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_kibibytes", lambda file, key: free * 2**20)
    assert memory.lack(2.5 * 2**30, "cpu") == reason


def test_where_nothing_is_known_of_the_memory_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_kibibytes", lambda file, key: float("nan"))
    assert memory.lack(1e30, "cpu") is None


def test_an_unfused_step() -> None:
    assert memory.unfused_step("additive", E=10, H=2, D=3) == 4.5 * 4 * 60
    assert memory.unfused_step("dot_product", E=10, H=2, D=3) == 6.5 * 4 * 60
