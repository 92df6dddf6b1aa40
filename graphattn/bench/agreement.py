"""Test, then time: no number for a contestant that computes something else."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

TOLERANCE = 1e-3  # of a tensor's largest value
_FLOOR = 1e-2  # of the largest gradient: one that is zero but for rounding (a bias on keys) has no scale of its own


class Disagreement(RuntimeError):
    """A contestant's output or gradient is not the baseline's."""


def check(case: str, contestant: str, answer: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Compare the output and all gradients that both contestants have.

    Raises:
        Disagreement: one is off by more than TOLERANCE of its largest value, not finite, or the output is missing.
    """
    largest = max((float(t.abs().max()) for name, t in expected.items() if name != "output"), default=0.0)
    for name in ["output", *(name for name in expected if name in answer and name != "output")]:
        truth = expected[name]
        scale = max(float(truth.abs().max()), 0.0 if name == "output" else _FLOOR * largest)
        off = float((answer[name].reshape(truth.shape) - truth).abs().max())
        if not off <= TOLERANCE * scale:  # NaN is no agreement
            raise Disagreement(
                f"{case}: the {name} of {contestant} is off by {off:.2g} where the largest value is {scale:.2g}: "
                f"needed at most {TOLERANCE:g} of it; nothing was timed"
            )
