"""How much the auxiliary tasks count as training goes on."""

from __future__ import annotations

from typing import Literal

Schedule = Literal["constant", "fade", "first-half"]


def factor(schedule: Schedule, epoch: int, epochs: int) -> float:
    """1 always; falling in a line from 1 to 0 at the end (`fade`); 1, and 0 from the middle on (`first-half`)."""
    if schedule == "fade":
        return 1 - epoch / epochs
    if schedule == "first-half":
        return float(2 * epoch < epochs)
    return 1.0
