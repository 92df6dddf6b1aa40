"""Ours against what users have, on generated graphs and on Cora: time, memory, and the machine's own limit.

The contestants of a case have the same weights and input, and must give the same output and gradients before anything
is timed. They take turns in one process, so a slow minute of the machine falls on all; peak memory is measured in a
fresh process each. `suites.py` names the cases; `layers.py`, `operations.py` and `epochs.py` build their contestants.
"""

from graphattn.bench.agreement import Disagreement
from graphattn.bench.rows import record, shown
from graphattn.bench.run import run
from graphattn.bench.suites import SUITES, chosen

__all__ = ["SUITES", "Disagreement", "chosen", "record", "run", "shown"]
