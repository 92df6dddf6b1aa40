"""Memory that is kept while an experiment runs, and given back after it."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from graphattn.experiment import load
from graphattn.training import Job, run_seed, runs
from graphattn.training.freed_memory import kept_for_reuse

needs_glibc = pytest.mark.skipif(os.name == "nt" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")

# In a process of its own, whose heap has no gaps yet: the pages that the system had to find for five tensors of 64 MiB,
# made and freed one after the other, and those that are resident.
MEASURED = """
import json, resource, torch
from pathlib import Path
from graphattn.training.freed_memory import kept_for_reuse

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])

found = {"before": faults()}
with kept_for_reuse():
    faults()
    found |= {"within": faults(), "held": resident()}
print(json.dumps(found | {"left": resident(), "page": resource.getpagesize()}))
"""


@needs_glibc
def test_the_next_tensor_takes_the_memory_of_the_last_until_it_is_given_back() -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True, env=plain)
    found = json.loads(done.stdout)
    assert found["within"] < found["before"] // 4
    assert found["left"] < found["held"] - 2**25 // found["page"]


def test_where_the_allocator_is_another_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with kept_for_reuse():
        pass
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(ctypes, "CDLL", refused)
    with kept_for_reuse():
        pass


def refused(name: None) -> None:
    raise TypeError("as on Windows")


@needs_glibc
@pytest.mark.parametrize("given", [None, "65536"])
def test_the_environment_has_the_last_word(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Library:
        def mallopt(self, which: int, value: int) -> None:
            asked.append(which)

        def malloc_trim(self, pad: int) -> None: ...

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    monkeypatch.delenv("MALLOC_MMAP_MAX_", raising=False)
    if given:
        monkeypatch.setenv("MALLOC_MMAP_MAX_", given)
    with kept_for_reuse():
        pass
    assert bool(asked) is (given is None)


def test_a_run_keeps_it_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    within, during = [False], []

    @contextmanager
    def kept() -> Iterator[None]:
        within[0] = True
        yield
        within[0] = False

    monkeypatch.setattr(runs, "kept_for_reuse", kept)
    run_seed(Job(load("digits/mlp", ["train.epochs=2"]), 0, tmp_path), lambda row: during.append(within[0]))
    assert (during, within) == ([True, True], [False])
