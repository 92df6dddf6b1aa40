"""No process is spawned and no bandwidth measured but where a test is about that."""

from __future__ import annotations

import pytest

from graphattn.bench import limit, memory, timing


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "peak", lambda case, contestant, device: 7.0)
    monkeypatch.setattr(limit, "copy_bandwidth", lambda device: 1e9)
    monkeypatch.setattr(timing, "TURN", 0.0)
