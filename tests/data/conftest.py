"""Where the official files are, and small sets written to disk; no test here may download."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from small_sets import Writer, tiny_parts, tiny_table, toml


@pytest.fixture
def real() -> Path:
    """The folder with the official files."""
    folder = os.environ.get("GRAPHATTN_DATA")
    if not folder:
        pytest.skip("GRAPHATTN_DATA names no folder with the official files")
    return Path(folder)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that takes no `real` data sees no data folder; none may download."""

    def refuse(url: str, **_: Any) -> str:
        raise ConnectionError(f"no network in tests: {url}")

    monkeypatch.setattr("pooch.retrieve", refuse)
    if "real" not in request.fixturenames:
        monkeypatch.delenv("GRAPHATTN_DATA", raising=False)


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Write a manifest and its files to FOLDER/tiny; gives the manifest's path, whose folder is FOLDER."""

    def write_set(table: Mapping[str, Any], files: Mapping[str, bytes]) -> Path:
        path = tmp_path / "tiny.toml"
        path.write_text(toml(table), encoding="utf-8")
        (tmp_path / "tiny").mkdir(exist_ok=True)
        for name, data in files.items():
            file = tmp_path / "tiny" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return path

    return write_set


@pytest.fixture
def write_planetoid(write: Writer) -> Writer:
    """Write TINY, with some parts replaced and some keys of the manifest changed, everything pinned as written."""

    def write_set(changed: Mapping[str, bytes] | None = None, **keys: Any) -> Path:
        parts = tiny_parts() | dict(changed or {})
        return write(tiny_table(parts) | keys, {f"ind.tiny.{part}": data for part, data in parts.items()})

    return write_set
