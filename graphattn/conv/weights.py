"""Asking an operation for its weights only where the layer's caller asked for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


def attended(
    operation: Callable[..., Any], *tensors: Any, wanted: bool, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """(out, weights) of one of the operations of `ops`; weights are None unless `wanted`, which lets SDPA be used."""
    result = operation(*tensors, return_weights=wanted, **options)
    return result if wanted else (result, None)
