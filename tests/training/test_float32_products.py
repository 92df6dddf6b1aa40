"""How exactly products are computed is what it was after a run, however it was set before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from graphattn.training.float32_products import float32_products

CUDA: Any = torch.backends.cuda.matmul
CPU: Any = getattr(torch.backends.mkldnn, "matmul", None)
pytestmark = pytest.mark.skipif(not hasattr(CPU, "fp32_precision"), reason="torch before 2.9 has one setting for all")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    precision, before = torch.get_float32_matmul_precision(), finer()
    yield
    torch.set_float32_matmul_precision(precision)
    CUDA.fp32_precision, CPU.fp32_precision = before


def finer() -> tuple[str, str]:
    return CUDA.fp32_precision, CPU.fp32_precision


@pytest.mark.parametrize(("cuda", "cpu"), [("none", "none"), ("tf32", "none"), ("none", "bf16"), ("tf32", "ieee")])
def test_what_was_set_for_a_kind_of_device_is_set_again(cuda: str, cpu: str) -> None:
    CUDA.fp32_precision, CPU.fp32_precision = cuda, cpu
    with float32_products("medium"):
        assert torch.get_float32_matmul_precision() == "medium"
        assert finer() == ("tf32", "bf16")
    assert finer() == (cuda, cpu)


def test_tf32_on_gpus_alone_stays_theirs_alone() -> None:
    CUDA.allow_tf32 = True
    before = finer()
    with float32_products("highest"):
        assert finer() == ("ieee", "ieee")
    assert torch.get_float32_matmul_precision() == "high"
    assert finer() == before
