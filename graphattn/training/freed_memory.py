"""What becomes of the memory that tensors free on the CPU while an experiment runs."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # glibc's malloc.h
_LARGEST, _MAPPINGS = 32 * 2**20, 65536  # where glibc's own threshold stops growing, and its default


@contextmanager
def kept_for_reuse() -> Iterator[None]:
    """Within it what the main thread frees stays with the process, whatever its size, and the next tensors take it.

    glibc gives blocks of more than 32 MiB back to the system, which must find pages for the next one and fill them with
    zeros: of a training step of GraphSAGE with max-pooling on PPI that was a third (0.90 s, with this 0.60). The peak
    grows where blocks of other sizes do not fit into the gaps: there by a fifth, by more than half if sizes are drawn
    at random. Afterwards glibc's thresholds are the largest that it would have come to by itself.

    Nothing is changed without glibc, or where the environment has MALLOC_MMAP_MAX_ (65536 is glibc's default).
    """
    library: Any = None if os.name == "nt" else ctypes.CDLL(None)
    if not hasattr(library, "mallopt") or "MALLOC_MMAP_MAX_" in os.environ:
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, _MAPPINGS)
        library.mallopt(_MMAP_THRESHOLD, _LARGEST)
        library.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST)
        library.malloc_trim(0)
