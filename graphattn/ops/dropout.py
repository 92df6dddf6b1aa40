"""Dropout on attention weights that every back end repeats: the mask is a function of (seed, edge, head).

No mask is stored: forward and backward, the reference and a fused kernel, each compute the same one. The seed comes
from torch's default generator, so `torch.manual_seed` holds; the edge is its position in the caller's edge list, so
the mask does not depend on how a back end sorts the edges.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

_LOW = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: spreads consecutive heads over the word


class Dropout(NamedTuple):
    """Probability that a weight is dropped, and 62-bit seed of the mask: a tensor, so that drawing never waits."""

    p: float
    seed: Tensor  # [], int64


def draw(p: float, device: torch.device) -> Dropout | None:
    """A fresh mask from torch's generator of that device, or None where nothing is dropped."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout is {p}: needed a probability between 0 and 1")
    return Dropout(p, torch.randint(1 << 62, (), device=device)) if p > 0 else None


def numbers(p: float, seed: Tensor | None) -> tuple[float, int]:
    """As compiled kernels take them; where nothing is dropped the seed does not matter."""
    return p, 0 if seed is None else int(seed)


def scale(dropout: Dropout, edges: Int[Tensor, "*E"], heads: int, dtype: torch.dtype) -> Float[Tensor, "*E {heads}"]:
    """The factor of each edge and head: 0 if dropped, else 1 / (1 - p).

    A 32-bit word is mixed twice (edge with the low seed bits, then head and high edge bits with the high seed bits)
    and compared with p * 2^32. Arithmetic is modulo 2^32, carried in int64 because torch has few unsigned operations.
    """
    head = torch.arange(heads, device=edges.device) * _GOLDEN
    word = _mix((edges & _LOW) ^ (dropout.seed & _LOW))
    word = _mix((word.unsqueeze(-1) + head + (edges >> 32).unsqueeze(-1) & _LOW) ^ (dropout.seed >> 32))
    keep = word >= int(dropout.p * 2**32)
    return keep.to(dtype) * (0.0 if dropout.p == 1 else 1 / (1 - dropout.p))


def _mix(word: Tensor) -> Tensor:
    """The `lowbias32` integer hash (Chris Wellons, 'Prospecting for hash functions', 2018; public domain)."""
    word = word ^ (word >> 16)
    word = word * 0x7FEB352D & _LOW
    word = word ^ (word >> 15)
    word = word * 0x846CA68B & _LOW
    return word ^ (word >> 16)
