"""The repository keeps its promises: imports point down, the README runs, the records agree with their tables."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "graphattn"

# From the top down; a module may import those of lower rows, and its own.
ROWS = [
    ["__main__"],
    ["cli"],
    ["report", "bench"],
    ["training"],
    ["experiment"],
    ["models", "data"],
    ["conv", "depth", "grid", "multitask", "sequence"],
    ["ops"],
    ["topology", "layer_dags"],
    ["graph"],
    ["native", "recipe", "record"],
]
RANK = {name: rank for rank, row in enumerate(ROWS) for name in row}


def imports(path: Path) -> set[str]:
    """The graphattn modules that a file imports, dotted, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "graphattn"}


def unit(path: Path) -> str:
    """The module or sub-package that a file belongs to: graphattn/conv/gat.py -> conv."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def wrong_imports(files: list[Path]) -> list[str]:
    wrong = []
    for path in files:
        own = unit(path)
        for name in imports(path):
            parts = name.split(".")
            other = parts[1] if len(parts) > 1 else ""
            if own != other and other in RANK and RANK[other] <= RANK[own]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    return wrong


def package_files() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def test_every_module_has_its_row() -> None:
    assert {unit(path) for path in package_files()} == set(RANK)


def test_imports_point_down() -> None:
    assert wrong_imports(package_files()) == []


def test_an_import_that_points_up_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "ops").mkdir()
    guilty = tmp_path / "ops" / "reference.py"
    guilty.write_text("def f():\n    from graphattn.conv import GATConv\n")
    assert wrong_imports([guilty]) == ["ops/reference.py imports graphattn.conv.GATConv"]


def test_only_ops_knows_that_back_ends_exist() -> None:
    back_ends = ("reference", "dense", "scatter", "cpu", "gpu")
    knowing = [
        str(path)
        for path in package_files()
        if unit(path) != "ops"
        and any(name.startswith(f"graphattn.ops.{end}") for name in imports(path) for end in back_ends)
    ]
    assert knowing == []


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_readme_code_runs(number: int) -> None:
    exec(compile(blocks("python")[number], f"README.md, block {number}", "exec"), {})


def test_readme_commands_exist() -> None:
    from typer.main import get_command

    from graphattn.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    used = re.findall(r"^graphattn (\w+)", "\n".join(blocks("bash")), re.MULTILINE)
    assert used
    assert set(used) <= set(commands)


def test_readme_make_targets_exist() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    used = re.findall(r"^make (\w+)", "\n".join(blocks("bash")), re.MULTILINE)
    assert {"demo", "test"} <= set(used) <= set(targets)


def test_readme_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_results_table_follows_from_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphattn.report import write_results

    monkeypatch.chdir(tmp_path)
    for path in (ROOT / "experiments").rglob("*"):
        if path.suffix in (".toml", ".json", ".csv") or path.name == "notes.md":
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    written = write_results(Path("experiments")).read_text(encoding="utf-8")
    assert written == (ROOT / "experiments" / "RESULTS.md").read_text(encoding="utf-8"), "run `graphattn report`"


def test_version_is_one() -> None:
    import graphattn

    assert f'version = "{graphattn.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_importing_the_package_needs_no_extra() -> None:
    """scikit-learn and pooch are imported where they are used."""
    code = (
        "import sys, graphattn, graphattn.conv, graphattn.models, graphattn.data, graphattn.training\n"
        "print([m for m in ('sklearn', 'pooch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_wheel_carries_data_sets_and_experiments(tmp_path: Path) -> None:
    """What `pip install .` installs works in an empty folder: the installed copy, or a wheel made here."""
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("graphattn-*.whl")
    code = "from graphattn import data, experiment; print(len(data.names()), len(experiment.names()))"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    sets = len(list((ROOT / "datasets").glob("*.toml")))
    definitions = len(list((ROOT / "experiments").rglob("definition.toml")))
    assert done.stdout.split() == [str(sets), str(definitions)]


README_ROWS = {"GAT": "gat", "GCN-64": "gcn-64", "GCN": "gcn", "MoNet": "monet", "Chebyshev": "cheb", "MLP": "mlp"}


@pytest.mark.parametrize(("title", "model"), README_ROWS.items())
def test_readme_numbers_are_the_recorded_ones(title: str, model: str) -> None:
    from graphattn.report.tables import measured

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| {re.escape(title)} \|(.*)\|$", text, re.MULTILINE)
    cells = [cell.strip() for cell in row.split("|")]
    for cell, data_set in ((cells[0], "cora"), (cells[2], "citeseer")):
        path = ROOT / "experiments" / data_set / model / "result.json"
        expected = measured(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else "not run here"
        assert cell == expected, f"{data_set}/{model}"
