"""Where a result comes from: versions, machine, commit and date."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import graphattn

OF_A_SEED = ("machine", "commit", "date")  # of the provenance, what may differ between the seeds of one record


def provenance(device: str) -> dict[str, Any]:
    """`versions`, `machine`, `commit` (None outside a checkout, "+" behind it if files had changed) and `date`."""
    return {
        "versions": {
            "graphattn": graphattn.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torch-geometric": version("torch-geometric"),
        },
        "machine": machine(device),
        "commit": _commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def origin(device: str) -> dict[str, Any]:
    """Machine, commit and date of a seed."""
    about = provenance(device)
    return {key: about[key] for key in OF_A_SEED}


def together(rows: Sequence[Mapping[str, Any]], device: str) -> dict[str, Any]:
    """The provenance of seeds that may have run on several machines: each machine and commit once, the last date."""
    about = provenance(device)
    found = {key: [row.get(key, about[key]) for row in rows] for key in OF_A_SEED}
    machines, commits = "; ".join(dict.fromkeys(found["machine"])), [c for c in dict.fromkeys(found["commit"]) if c]
    return about | {"machine": machines, "commit": ", ".join(commits) or None, "date": max(found["date"])}


def machine(device: str) -> str:
    """The GPU's name, or the CPU's and how many cores this process may use."""
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_cpu()}, {cores} cores"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str | None:
    def git(*command: str) -> str:
        folder = Path(__file__).resolve().parent
        return subprocess.run(
            ["git", *command], cwd=folder, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        if not git("ls-files", "provenance.py"):  # installed below somebody else's checkout
            return None
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", "..") else "")
    except (OSError, subprocess.SubprocessError):
        return None
