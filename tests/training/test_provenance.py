"""Provenance: versions, machine and date are this process's, the commit that of the checkout the package lies in."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import graphattn
from graphattn.training import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, and the module as if it lay there; gives the package's folder."""
    package = tmp_path / "graphattn"
    file = package / "training" / "provenance.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    (tmp_path / "README.md").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(file))
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(variable, raising=False)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return package


def git(folder: Path, *command: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.check_output(["git", *who, *command], cwd=folder, text=True).strip()


def test_what_is_recorded() -> None:
    found = provenance.provenance("cpu")
    assert found["versions"] == {
        "graphattn": graphattn.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch-geometric": version("torch-geometric"),
    }
    assert set(found) == {"versions", "machine", "commit", "date"}
    assert abs((datetime.now(timezone.utc).date() - datetime.fromisoformat(found["date"]).date()).days) <= 1


def test_commit_of_a_clean_checkout(checkout: Path) -> None:
    assert provenance.provenance("cpu")["commit"] == git(checkout, "rev-parse", "--short", "HEAD")


@pytest.mark.parametrize("changed", ["training/provenance.py", "new.py"])
def test_a_changed_package_is_marked(checkout: Path, changed: str) -> None:
    (checkout / changed).write_text("x = 1\n")
    assert provenance.provenance("cpu")["commit"] == git(checkout, "rev-parse", "--short", "HEAD") + "+"


def test_a_change_beside_the_package_is_none(checkout: Path) -> None:
    (checkout.parent / "README.md").write_text("changed")
    assert not provenance.provenance("cpu")["commit"].endswith("+")


def test_no_commit_below_somebody_elses_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = checkout.parent / "site-packages" / "graphattn" / "training"
    installed.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(installed / "provenance.py"))
    assert provenance.provenance("cpu")["commit"] is None


def test_no_commit_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.provenance("cpu")["commit"] is None


def test_no_commit_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.provenance("cpu")["commit"] is None


def test_machine_names_processor_and_cores() -> None:
    name, _, cores = provenance.machine("cpu").rpartition(", ")
    assert name
    assert cores == f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"


@pytest.mark.parametrize(
    ("lines", "name"),
    [("processor : 0\nmodel name\t: Fast CPU @ 3GHz\nmodel name\t: other\n", "Fast CPU @ 3GHz"), ("", "riscv64")],
)
def test_processor(monkeypatch: pytest.MonkeyPatch, lines: str, name: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(Path, "read_text", lambda self, **_: lines)
    assert provenance.machine("cpu").startswith(f"{name}, ")


def test_processor_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path, **_: str) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert provenance.machine("cpu").startswith("arm, ")


def test_machine_names_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H200")
    assert provenance.machine("cuda") == "H200"
    assert "cores" in provenance.machine("cpu")


def test_seeds_of_several_machines_together() -> None:
    rows = [
        {"machine": "one", "commit": "abc", "date": "2026-01-03"},
        {"machine": "two", "commit": None, "date": "2026-01-01"},
        {"machine": "one", "commit": "def", "date": "2026-01-02"},
    ]
    found = provenance.together(rows, "cpu")
    assert {key: found[key] for key in provenance.OF_A_SEED} == {
        "machine": "one; two",
        "commit": "abc, def",
        "date": "2026-01-03",
    }
    assert provenance.together([{}, {}], "cpu") == provenance.provenance("cpu"), "seeds that do not say ran here"
