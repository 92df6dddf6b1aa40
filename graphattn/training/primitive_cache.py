"""How many of oneDNN's primitives a process keeps."""

from __future__ import annotations

import os

_CAPACITY = "64"  # enough for a step of one shape
_VARIABLES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")  # oneDNN's own cache, and that of torch


def keep_few_primitives() -> None:
    """For batches of many sizes: 64 primitives instead of 1,024, unless the environment says how many.

    oneDNN, which multiplies matrices in bfloat16 on CPUs, makes a primitive for each shape and keeps it with its
    buffers. Batches that all differ never meet theirs again: GAT on PPI held 11 GiB. Both caches read the environment
    when they are first used, so call it before.
    """
    for name in _VARIABLES:
        os.environ.setdefault(name, _CAPACITY)
