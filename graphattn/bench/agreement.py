"""Test, then time: no number for a contestant that computes something else."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_FLOOR = 1e-2  # of the largest gradient's: one that is zero but for rounding (a bias on keys) has no scale of its own


class Disagreement(RuntimeError):
    """A contestant's output or gradient is not the baseline's."""


def check(
    case: str, contestant: str, answer: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float
) -> None:
    """Compare the output and all gradients that both contestants have, by the root mean square of their difference.

    Not by its largest value: of millions of logits one lies so near the kink of leaky ReLU that rounding decides its
    slope, which moves a few entries of the gradients by a visible part of themselves, in any two correct computations.

    Raises:
        Disagreement: one is off by more than `tolerance`, not finite, or the output is missing.
    """
    largest = max((_size(tensor) for name, tensor in expected.items() if name != "output"), default=0.0)
    for name in ["output", *(name for name in expected if name in answer and name != "output")]:
        truth = expected[name]
        scale = max(_size(truth), 0.0 if name == "output" else _FLOOR * largest)
        off = _size(answer[name].reshape(truth.shape) - truth)
        if not off <= tolerance * scale:  # NaN is no agreement
            raise Disagreement(
                f"{case}: the {name} of {contestant} is off by {off:.2g} where it is of size {scale:.2g} (root mean "
                f"squares): needed at most {tolerance:g} of it; nothing was timed"
            )


def _size(tensor: Tensor) -> float:
    """Root mean square; 0 of nothing."""
    return float(tensor.double().square().mean().sqrt()) if tensor.numel() else 0.0
