"""The compiled kernels, or the reason why there are none, and how many threads they may use."""

from __future__ import annotations

import os
from typing import Any

import torch  # before the kernels: where both link the same OpenMP library, they then share its threads
from torch.utils.dlpack import to_dlpack

kernels: Any = None
missing = ""
try:
    from graphattn import _cpu  # type: ignore[attr-defined]  # compiled
except ImportError as error:
    missing = str(error)
else:
    kernels = _cpu

_forked = False


def threads() -> int:
    """As many as torch may use; one in a forked process, where OpenMP's threads are gone (the results are the same)."""
    return 1 if _forked else torch.get_num_threads()


def arrays(*tensors: torch.Tensor | None) -> list[Any]:
    """As the kernels take them: what a tensor's own __dlpack__ gives, at a tenth of its cost.

    They refuse what is not contiguous, so that a result is never written into a copy.
    """
    return [None if tensor is None else to_dlpack(tensor) for tensor in tensors]


def inputs(*tensors: torch.Tensor | None) -> list[Any]:
    """The same for what is only read, and may be copied to be contiguous."""
    return arrays(*(None if tensor is None else tensor.contiguous() for tensor in tensors))


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
