"""How exactly products of float32 matrices are computed while an experiment runs, and not after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch


@contextmanager
def float32_products(precision: Literal["highest", "high", "medium"]) -> Iterator[None]:
    """Within it, torch.set_float32_matmul_precision(precision), and what was set before is set again at the end.

    It goes for the whole process. What attention itself computes (scores, softmax, sums) stays float32.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
