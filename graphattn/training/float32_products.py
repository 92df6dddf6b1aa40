"""How exactly products of float32 matrices are computed while an experiment runs, and not after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch


@contextmanager
def float32_products(precision: Literal["highest", "high", "medium"]) -> Iterator[None]:
    """Within it, torch.set_float32_matmul_precision(precision), and what was set before is set again at the end.

    It goes for the whole process. What attention itself computes (scores, softmax, sums) stays float32.
    """
    kinds: tuple[Any, ...] = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    # Since torch 2.9 each kind of device has its own setting, which the function above writes over.
    finer = [(kind, kind.fp32_precision) for kind in kinds if hasattr(kind, "fp32_precision")]
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # the finer ones alone were set, of which it knows nothing
        before = "highest"
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        for kind, value in finer:
            kind.fp32_precision = value
