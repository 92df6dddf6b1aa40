"""The command line: what each command prints and writes, and one clear line where the user can mend it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

from graphattn import bench, cli, data, experiment
from graphattn.bench.graphs import MadeGraph
from graphattn.bench.operations import OpCase
from graphattn.data import NodeData, manifest
from graphattn.training import Finished, Job, launch, run_seed

COMMANDS = [
    [],
    ["list"],
    ["run"],
    ["report"],
    ["bench"],
    ["data"],
    ["data", "list"],
    ["data", "check"],
    ["data", "pin"],
]
TINY = """title = "Tiny"
note = "tried all"
[data]
name = "digits"
[model]
name = "mlp"
hidden = 8
[train]
epochs = 2
[run]
seeds = 2
"""


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, arguments)


def words(text: str) -> str:
    """Without line breaks."""
    return " ".join(text.split())


def refused(*arguments: str) -> str:
    """The one line with which a command ends that the user can mend."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit), "no traceback"
    (line,) = result.stderr.splitlines()
    assert line.startswith("graphattn: ")
    return line.removeprefix("graphattn: ")


@pytest.fixture(scope="module")
def digits() -> NodeData:
    return data.load("digits")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, digits: NodeData, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; the digits are read once, seeds run in this process, nothing is downloaded."""

    def load(name: str, **options: Any) -> NodeData:
        return digits if name == "digits" else real(name, **options)

    def inline(jobs: list[Job], workers: int) -> Iterator[Finished]:
        for job in jobs:
            try:
                yield Finished(job.seed, run_seed(job))
            except Exception as error:
                yield Finished(job.seed, None, repr(error))

    def refuse(url: str, **_: Any) -> str:
        raise ConnectionError(f"no network in tests: {url}")

    real = data.load
    monkeypatch.setattr(data, "load", load)
    monkeypatch.setattr(launch, "run_seeds", inline)
    monkeypatch.setattr("pooch.retrieve", refuse)
    monkeypatch.setattr(cli, "console", Console(width=250))
    monkeypatch.delenv("GRAPHATTN_DATA", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    threads = torch.get_num_threads()
    yield tmp_path / "here"
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(here: Path) -> Path:
    """The folder of an experiment `digits/tiny`."""
    folder = here / "experiments" / "digits" / "tiny"
    folder.mkdir(parents=True)
    (folder / "definition.toml").write_text(TINY, encoding="utf-8")
    return folder


def runs_of(name: str, *overrides: str) -> Path:
    definition = experiment.load(name, overrides)
    return Path("runs") / name / definition.key()


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_explains_every_option(command: list[str]) -> None:
    found: Any = typer.main.get_command(cli.app)
    for name in command:
        found = found.commands[name]
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    shown = words(result.stdout)
    assert words(found.help).split(". ")[0] in shown
    for parameter in found.params:
        assert parameter.help, f"{parameter.name} has no help"
        assert words(parameter.help) in shown
        assert all(option in shown for option in parameter.opts if option.startswith("-"))
    for name, below in getattr(found, "commands", {}).items():
        assert name in shown and below.help


@pytest.mark.parametrize(
    ("command", "lesson"),
    [
        ([], "graphattn run digits/gat --seeds 3"),
        ([], "graphattn run cora/gat"),
        (["run"], "--set train.lr=0.01"),
        (["run"], "a run that was killed goes on where it was: repeat the command"),
        (["run"], "see `graphattn list`"),
        (["report"], "Nothing is trained"),
        (["data", "check"], "FOLDER/NAME/<official file names>"),
    ],
)
def test_help_teaches(command: list[str], lesson: str) -> None:
    assert lesson in words(invoke(*command, "--help").stdout)


@pytest.mark.parametrize("command", [[], ["data"]], ids=" ".join)
def test_a_bare_command_shows_its_help(command: list[str]) -> None:
    bare, asked = invoke(*command), invoke(*command, "--help")
    assert words(bare.output) == words(asked.output)


@pytest.mark.parametrize("lesson", re.findall(r"graphattn (run \S+)", cli.app.info.help or ""))
def test_the_commands_that_help_gives_exist(lesson: str) -> None:
    command, name = lesson.split()
    assert command == "run" and name in experiment.names()


def test_list(tiny: Path) -> None:
    experiment.save({"seeds": [{"test_accuracy": 80.0}, {"test_accuracy": 82.0}]}, tiny / "result.json")
    result = invoke("list")
    assert result.exit_code == 0
    lines = {line.split("│")[1].strip(): line for line in result.stdout.splitlines() if "│" in line}
    assert [line for line in lines if ", " not in line] == experiment.names(), "records of presets come beside"
    assert "81.0 ± 1.4" in lines["digits/tiny"] and "Tiny" in lines["digits/tiny"]
    assert "83.0 ± 0.7" in lines["cora/gat"]


def test_list_of_some() -> None:
    lines = [line.split("│")[1].strip() for line in invoke("list", "cora/").stdout.splitlines() if "│" in line]
    assert lines == [name for name in experiment.names() if name.startswith("cora/")]
    assert "no experiment's name contains 'corra'" in refused("list", "corra")


@pytest.mark.parametrize(("width", "titled"), [(80, False), (140, True)])
def test_list_leaves_titles_out_where_they_would_be_cut(
    width: int, titled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.console, "width", width)
    lines = invoke("list", "minesweeper/").stdout.splitlines()
    definitions = experiment.all_of(["minesweeper/gat"])
    (line,) = (line for line in lines if "minesweeper/gat " in line)
    assert (definitions[0].title in line) == titled
    assert "92.0" in line and "not run here" in line


def test_list_with_a_broken_definition(tiny: Path) -> None:
    (tiny / "definition.toml").write_text(TINY.replace("epochs", "epoch"))
    assert "definition.toml, [train]: 'epoch': did you mean 'epochs'?" in refused("list")


def test_data_list() -> None:
    result = invoke("data", "list")
    assert result.exit_code == 0
    assert [line.split("│")[1].strip() for line in result.stdout.splitlines() if "│" in line] == manifest.names()
    assert "2,708" in result.stdout


def test_data_check_of_the_embedded_set(digits: NodeData) -> None:
    result = invoke("data", "check", "digits")
    assert result.exit_code == 0
    assert words(result.stdout) == (
        f"digits: 1797 nodes, {digits.edge_index.shape[1]} edges, 64 features, 10 classes; "
        "200 train, 500 validate, 1097 are tested"
    )


def test_data_check_of_a_set_that_is_not_here_says_the_way_out(tmp_path: Path) -> None:
    result = invoke("data", "check", "cora", "digits", "--data", str(tmp_path))
    assert result.exit_code == 1
    missing, found = words(result.output).split("digits: 1797")
    for part in (
        "the file ind.cora.x is not here",
        f"{tmp_path}/cora/ind.cora.x",
        "Ways out: put the file into FOLDER",
    ):
        assert part in missing
    assert found, "the others are still checked"
    assert "Traceback" not in result.output


def test_data_check_of_an_unknown_set() -> None:
    result = invoke("data", "check", "coar")
    assert result.exit_code == 1
    assert "unknown data set 'coar': did you mean 'cora'?" in words(result.output)


def test_data_pin_prints_what_to_paste(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "a.bin").write_bytes(b"abc")
    (here / "mine.toml").write_text(
        'title = "x"\nlicence = "x"\ncitation = "x"\nsource = "x"\nformat = "planetoid"\ndefault_split = "full"\n'
        "[sizes]\nnodes = 1\nfeatures = 1\nclasses = 1\n[splits.full]\n"
        '[[files]]\nname = "a.bin"\nurl = "https://example.org/a.bin"\nsha256 = ""\n'
    )
    result = invoke("data", "pin", "mine.toml", "--data", str(here))
    assert (result.exit_code, result.stdout) == (0, f"a.bin: {hashlib.sha256(b'abc').hexdigest()}\n")


def test_a_graph_and_an_experiment_of_ones_own(here: Path) -> None:
    masks = np.arange(12) % 3 == np.arange(3)[:, None]
    parts = {f"{part}_masks": mask[None] for part, mask in zip(("train", "val", "test"), masks, strict=True)}
    edges = np.stack([np.arange(12), np.roll(np.arange(12), 1)], 1)
    graph = {"node_features": np.eye(12, dtype=np.float32), "node_labels": np.arange(12) // 4, "edges": edges, **parts}
    (here / "mine").mkdir()
    np.savez(here / "mine" / "mine.npz", **graph)
    (here / "mine.toml").write_text(
        'title = "x"\nlicence = "x"\ncitation = "x"\nsource = "x"\nformat = "heterophilous"\ndefault_split = "fixed"\n'
        "[sizes]\nfeatures = 12\nclasses = 3\n[splits.fixed]\n"
        f'[[files]]\nname = "mine.npz"\narrays = {json.dumps(list(graph))}\ncontent_sha256 = ""\n'
    )
    pin = invoke("data", "pin", "mine.toml", "--data", str(here)).stdout.split()[-1]
    manifest = (here / "mine.toml").read_text()
    (here / "mine.toml").write_text(manifest.replace('content_sha256 = ""', f'content_sha256 = "{pin}"'))
    (here / "experiments" / "mine" / "gat").mkdir(parents=True)
    definition = TINY.replace('"digits"', '"mine.toml"').replace('"mlp"', '"gat"')
    (here / "experiments" / "mine" / "gat" / "definition.toml").write_text(definition)
    result = invoke("run", "mine/gat", "--data", str(here), "--workers", "1")
    assert result.exit_code == 0, result.output
    assert read(runs_of("mine/gat") / "result.json")["seeds"][0]["epochs"] == 2


def test_data_pin_of_what_is_not_here(here: Path) -> None:
    assert "the file ind.cora.x is not here" in refused("data", "pin", "cora", "--data", str(here))


def test_run(here: Path) -> None:
    change = "train.epochs=3"
    result = invoke("run", "digits/mlp", "--seeds", "2", "--set", change, "--workers", "1", "--runs", "elsewhere")
    assert result.exit_code == 0, result.output
    folder = "elsewhere" / runs_of("digits/mlp", change).relative_to("runs")
    assert f"runs in {folder}" in result.stdout
    summary = read(folder / "result.json")
    seeds = [read(folder / f"seed-{k}" / "result.json") for k in range(2)]
    assert summary["seeds"] == seeds
    spread = summary["result"]["test_accuracy"]
    assert f"{spread['mean']:.1f} ± {spread['std']:.1f}" in result.stdout
    assert not (here / "runs").exists() and not (here / "experiments").exists()


def test_a_repeated_command_uses_the_seeds_that_are_done(tiny: Path) -> None:
    assert invoke("run", "digits/tiny", "--seeds", "1").exit_code == 0
    done = runs_of("digits/tiny") / "seed-0" / "result.json"
    experiment.save(read(done) | {"test_accuracy": 12.5}, done)
    assert "12.5" in invoke("run", "digits/tiny", "--seeds", "1").stdout
    more = invoke("run", "digits/tiny", "--seeds", "2")
    assert read(runs_of("digits/tiny") / "result.json")["seeds"][0]["test_accuracy"] == 12.5
    assert more.exit_code == 0 and "2/2" in more.stdout


def test_seeds_in_batches_leave_what_seeds_leave(tiny: Path) -> None:
    result = invoke("run", "digits/tiny", "--seeds", "3", "--batch-seeds", "2")
    assert result.exit_code == 0 and "3/3" in result.stdout, result.output
    folder = runs_of("digits/tiny")
    assert {path.name for path in folder.iterdir()} == {"seed-0", "seed-1", "seed-2", "result.json"}
    assert read(folder / "result.json")["seeds"] == [read(folder / f"seed-{k}" / "result.json") for k in range(3)]
    assert invoke("report", "digits/tiny", "--out", "drawn").exit_code == 0
    done = folder / "seed-1" / "result.json"
    experiment.save(read(done) | {"test_accuracy": 12.5}, done)
    assert invoke("run", "digits/tiny", "--seeds", "3", "--batch-seeds", "2").exit_code == 0
    assert read(folder / "result.json")["seeds"][1]["test_accuracy"] == 12.5, "done seeds are not run again"


def test_fresh_forgets_this_definition_only(tiny: Path) -> None:
    other = ["--set", "train.lr=0.5"]
    for options in ([], other):
        invoke("run", "digits/tiny", "--seeds", "1", *options)
    folders = [runs_of("digits/tiny"), runs_of("digits/tiny", "train.lr=0.5")]
    assert folders[0] != folders[1]
    kept = [read(folder / "seed-0" / "result.json") for folder in folders]
    for folder, result in zip(folders, kept, strict=True):
        experiment.save(result | {"test_accuracy": 12.5}, folder / "seed-0" / "result.json")
    (folders[0] / "seed-7").mkdir()
    assert invoke("run", "digits/tiny", "--seeds", "1", "--fresh").exit_code == 0
    assert read(folders[0] / "seed-0" / "result.json")["test_accuracy"] == kept[0]["test_accuracy"]
    assert not (folders[0] / "seed-7").exists()
    assert read(folders[1] / "seed-0" / "result.json")["test_accuracy"] == 12.5


def test_a_failing_seed_is_reported_and_the_exit_code_tells(tiny: Path) -> None:
    in_the_way = runs_of("digits/tiny") / "seed-1"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("not a folder")
    result = invoke("run", "digits/tiny", "--record")
    assert result.exit_code == 2, "and it is not recorded"
    assert "not recorded: seeds 1 failed" in result.stderr
    result = invoke("run", "digits/tiny")
    assert result.exit_code == 1
    assert "seed 1 failed: FileExistsError" in words(result.stdout) and "1 (1 failed)" in result.stdout
    assert not (tiny / "result.json").exists()
    in_the_way.unlink()
    assert invoke("run", "digits/tiny").exit_code == 0, "the command repeated mends it"


def test_what_is_wrong_for_all_seeds_is_said_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, **_: Any) -> NodeData:
        raise ValueError("the data are broken")

    invoke("run", "digits/tiny", "--seeds", "1")
    monkeypatch.setattr(data, "load", broken)
    assert refused("run", "digits/tiny", "--fresh").strip() == "the data are broken"
    assert (runs_of("digits/tiny") / "seed-0" / "result.json").exists(), "nothing is forgotten for it"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["digits/gta"], "unknown experiment 'digits/gta': did you mean 'digits/gat'?"),
        (["../etc/passwd"], "unknown experiment '../etc/passwd'"),
        (["digits/gat", "--set", "train.lr"], "--set 'train.lr': needed SECTION.KEY=VALUE, for example train.lr=0.01"),
        (["digits/gat", "--set", "train.rl=1"], "[train]: 'rl'"),
        (["digits/gat", "--set", "train.lr=-1"], "lr is -1.0, needed a finite number of at least 0"),
        (["digits/gat", "--set", "model.head=2"], "unknown option of model gat in "),
        (["digits/gat", "--set", "data.name=coar"], "unknown data set 'coar': did you mean 'cora'?"),
        (["digits/gat", "--device", "tpu"], "device is 'tpu': needed cpu, cuda or auto"),
        (["digits/gat", "--device", "cuda"], "device is 'cuda', but torch sees no GPU: use --device cpu"),
        (
            ["digits/gat", "--record", "--set", "train.lr=1"],
            "--record and --extend are for the definition as it stands",
        ),
        (
            ["digits/gat", "--extend", "--set", "train.lr=1"],
            "--record and --extend are for the definition as it stands",
        ),
        (["digits/gat", "--extend", "--fresh"], "--fresh forgets the seeds that --extend counts"),
        (["ppi/gat", "--extend"], "ppi/gat has no record yet"),
        (["ppi-like/gat", "--batch-seeds", "2"], "--batch-seeds needs NodeClassification on one graph as a whole"),
        (["digits/gat", "--batch-seeds", "2", "--workers", "2"], "--batch-seeds trains in one process that takes all"),
        (["digits/gat", "--batch-seeds", "2", "--executor", "ray"], "--batch-seeds trains in one process that takes"),
        (
            ["digits/gat", "--batch-seeds", "2", "--set", "model.name=gatv2"],
            "GATv2 cannot be stacked: needed models of",
        ),
        (["cora/gat"], "the file ind.cora.x is not here"),
    ],
)
def test_what_cannot_run_is_refused(
    here: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert message in refused("run", *arguments)
    assert not list(here.iterdir()), "and leaves nothing"


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--workers", "0"], ["--seed", "3"]])
def test_wrong_options_show_the_usage(arguments: list[str]) -> None:
    result = invoke("run", "digits/gat", *arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr and arguments[0] in result.stderr


@pytest.mark.parametrize(
    ("seeds", "asked", "allowed", "workers", "threads"),
    [
        (10, None, None, 8, 1),
        (2, None, None, 2, 4),
        (10, 3, None, 3, 2),
        (2, 5, None, 2, 4),
        (10, 20, None, 10, 1),
        (1, None, "3", 1, 3),
        (2, None, "16", 2, 4),
        (1, None, "2,1", 1, 2),
    ],
)
def test_seeds_share_the_cores(
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    seeds: int,
    asked: int | None,
    allowed: str | None,
    workers: int,
    threads: int,
) -> None:
    seen: list[Any] = []

    def watched(jobs: list[Job], workers: int) -> Iterator[Finished]:
        seen.extend([jobs, workers])
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(launch, "run_seeds", watched)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if allowed is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", allowed)
    options = [] if asked is None else ["--workers", str(asked)]
    invoke("run", "digits/tiny", "--device", "cpu", "--seeds", str(seeds), "--data", "mine", *options)
    jobs, found = seen
    assert found == workers
    assert [job.seed for job in jobs] == list(range(seeds))
    assert {(job.threads, job.device, job.data_folder) for job in jobs} == {(threads, "cpu", Path("mine"))}
    assert {job.folder for job in jobs} == {runs_of("digits/tiny")}


@pytest.mark.parametrize(("gpu", "device", "workers"), [(True, "cuda", 1), (False, "cpu", 2)])
def test_auto_takes_the_gpu_if_there_is_one(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, device: str, workers: int
) -> None:
    seen: list[Any] = []

    def watched(jobs: list[Job], workers: int) -> Iterator[Finished]:
        seen.append(({job.device for job in jobs}, workers))
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(launch, "run_seeds", watched)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    invoke("run", "digits/tiny")
    assert seen == [({device}, workers)]


def test_an_interrupt_says_how_to_go_on(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(jobs: list[Job], workers: int) -> Iterator[Finished]:
        yield Finished(0, run_seed(jobs[0]))
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "run_seeds", interrupted)
    result = invoke("run", "digits/tiny")
    assert result.exit_code == 130
    assert result.stderr.strip() == "stopped: repeat the command to go on from here"


def test_record_writes_beside_the_definition(tiny: Path, here: Path) -> None:
    result = invoke("run", "digits/tiny", "--record")
    assert result.exit_code == 0, result.output
    assert read(tiny / "result.json") == read(runs_of("digits/tiny") / "result.json")
    assert (tiny / "definition.toml").read_text() == TINY
    text = (here / "experiments" / "RESULTS.md").read_text(encoding="utf-8")
    mean = read(tiny / "result.json")["result"]["test_accuracy"]["mean"]
    assert f"| digits/tiny | {mean:.1f} ± " in text and "- digits/tiny: tried all" in text
    assert "recorded in experiments/digits/tiny/result.json" in words(result.stdout)


def test_a_preset_is_run_and_recorded_beside(tiny: Path, here: Path) -> None:
    text = TINY + "[presets.short.train]\nepochs = 1\n[presets.short.run]\nseeds = 1\n"
    (tiny / "definition.toml").write_text(text, encoding="utf-8")
    assert "digits/tiny, short" not in invoke("list").stdout, "only once it was run"
    result = invoke("run", "digits/tiny", "--preset", "short", "--record")
    assert result.exit_code == 0, result.output
    assert "digits/tiny, short" in result.stdout
    assert {path.name for path in tiny.iterdir()} == {"definition.toml", "result-short.json"}
    short = read(tiny / "result-short.json")
    assert short["definition"]["preset"] == "short" and short["result"]["epochs"]["mean"] == 1
    assert (tiny / "definition.toml").read_text(encoding="utf-8") == text
    assert invoke("run", "digits/tiny", "--record").exit_code == 0
    assert read(tiny / "result-short.json") == short
    assert read(tiny / "result.json")["result"]["epochs"]["mean"] == 2

    again = invoke("run", "digits/tiny", "--preset", "short", "--record", "--extend", "--seeds", "2", "--runs", "other")
    assert again.exit_code == 0, again.output
    assert read(tiny / "result-short.json")["seeds"][0] == short["seeds"][0], "its record grows"
    table = (here / "experiments" / "RESULTS.md").read_text(encoding="utf-8")
    assert "| digits/tiny, short | " in table and "| digits/tiny | " in table
    assert "digits/tiny, short" in invoke("list").stdout
    assert invoke("report", "digits/tiny", "--preset", "short", "--runs", "other").exit_code == 0
    assert "<td>digits/tiny, short</td>" in (here / "report" / "report.html").read_text(encoding="utf-8")


def test_an_unknown_preset(tiny: Path) -> None:
    assert refused("run", "digits/tiny", "--preset", "short") == (
        "digits/tiny has no presets, asked for 'short': leave out --preset"
    )


def test_a_record_grows(tiny: Path, here: Path) -> None:
    assert invoke("run", "digits/tiny", "--seeds", "1", "--record", "--runs", "first").exit_code == 0
    path = tiny / "result.json"
    first = read(path)
    text = (here / "experiments" / "RESULTS.md").read_text(encoding="utf-8")
    assert "| 1 of 2 |" in text and first["definition"]["run"]["seeds"] == 2
    first["seeds"][0] |= {"machine": "another machine", "commit": "abc1234", "date": "2026-01-02"}
    experiment.save(first, path)

    result = invoke("run", "digits/tiny", "--record", "--extend", "--runs", "second")
    assert result.exit_code == 0, result.output
    both = read(path)
    assert both["seeds"][0] == first["seeds"][0], "is not trained again"
    assert [row["seed"] for row in both["seeds"]] == [0, 1] and both["curve"] == first["curve"]
    here_, seed = both["seeds"][1]["machine"], both["seeds"][1]
    assert both["machine"] == f"another machine; {here_}" and both["date"] == seed["date"]
    assert both["commit"] == "abc1234" + (f", {seed['commit']}" if seed["commit"] else "")

    fewer = invoke("run", "digits/tiny", "--seeds", "1", "--record", "--runs", "third")
    assert fewer.exit_code == 2 and "the record has 2 seeds, this run 1" in fewer.stderr
    assert read(path) == both


def test_a_record_of_another_definition_does_not_grow(tiny: Path) -> None:
    assert invoke("run", "digits/tiny", "--seeds", "1", "--record").exit_code == 0
    (tiny / "definition.toml").write_text(TINY.replace("[train]", "[train]\nweight_decay = 0.125"), encoding="utf-8")
    assert "the definition of digits/tiny has changed since it was recorded" in refused(
        "run", "digits/tiny", "--extend"
    )


def test_record_copies_a_definition_that_came_with_the_package(
    tiny: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = here.parent / "package" / "_experiments"
    tiny.parent.parent.rename(shipped.parent.mkdir() or shipped)
    monkeypatch.setattr(experiment, "_SHIPPED", (shipped,))
    assert invoke("run", "digits/tiny", "--record").exit_code == 0
    assert {path.name for path in tiny.iterdir()} == {"definition.toml", "result.json"}
    assert (tiny / "definition.toml").read_text() == TINY
    assert not (shipped / "digits" / "tiny" / "result.json").exists(), "the package is left alone"


def test_report_rebuilds_the_results(tiny: Path, here: Path) -> None:
    invoke("run", "digits/tiny", "--record")
    path = here / "experiments" / "RESULTS.md"
    recorded = path.read_bytes()
    path.unlink()
    result = invoke("report")
    assert result.exit_code == 0 and "wrote experiments/RESULTS.md" in words(result.stdout)
    assert path.read_bytes() == recorded


def test_report_without_experiments() -> None:
    assert "no definition.toml below experiments" in refused("report")


def test_report_of_what_was_not_run(here: Path) -> None:
    assert "first `graphattn run digits/gat`" in refused("report", "digits/gat")
    assert "unknown experiment 'digits/gta'" in refused("report", "digits/gta")
    assert not list(here.iterdir())


def test_report_draws_what_was_run(tiny: Path, here: Path) -> None:
    invoke("run", "digits/tiny")
    result = invoke("report", "digits/tiny", "--out", "drawn")
    assert result.exit_code == 0 and "wrote drawn/report.html" in words(result.stdout)
    assert {path.name for path in (here / "drawn").iterdir()} == {
        "report.html",
        "learning-curves.png",
        "learning-curves.svg",
    }
    assert not (here / "experiments" / "RESULTS.md").exists()


@pytest.fixture
def one_case(monkeypatch: pytest.MonkeyPatch) -> OpCase:
    """The suite ops is one small case; no process is spawned."""
    case = OpCase("attend-tiny", "attend", MadeGraph("tiny", "uniform", 20, 60), heads=2, width=3)
    monkeypatch.setitem(bench.SUITES, "ops", (case,))
    monkeypatch.setattr(bench.memory, "peak", lambda case, contestant, device: 1.0)
    return case


def test_bench_records(one_case: OpCase, here: Path) -> None:
    result = invoke("bench", "ops", "--repeats", "5", "--out", "bench/ops.csv")
    assert result.exit_code == 0, result.output
    assert "attend-tiny" in result.stdout and "recorded in bench/ops.csv" in result.stdout
    with (here / "bench" / "ops.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["contestant"] for row in rows} >= {"reference"}
    assert {row["direction"] for row in rows} == {"forward", "training step"}


def test_bench_ends_with_an_error_if_a_contestant_failed(one_case: OpCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpCase, "contestants", lambda self, device: ("reference", "nonesuch"))
    result = invoke("bench", "ops", "--repeats", "5")
    assert result.exit_code == 1
    assert "nonesuch failed: ValueError" in words(result.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cora"], "unknown suite 'cora': there are layers, ops, scaling"),
        (["ops", "--case", "attend-tinny"], "did you mean 'attend-tiny'?"),
        (["ops", "--repeats", "4"], "repeats is 4: needed at least 5"),
        (["ops", "--device", "tpu"], "device is 'tpu': needed cpu, or cuda on a machine with a GPU"),
    ],
)
def test_bench_refuses(one_case: OpCase, arguments: list[str], message: str) -> None:
    assert message in refused("bench", *arguments)


def test_bench_refuses_a_wrong_contestant(one_case: OpCase, monkeypatch: pytest.MonkeyPatch) -> None:
    right = OpCase.build

    def wrong(self: OpCase, contestant: str, device: str) -> Any:
        entry = right(self, contestant, device)
        if contestant != "reference":
            entry.leaves["values"].detach().mul_(2)
        return entry

    monkeypatch.setattr(OpCase, "build", wrong)
    assert "is off by" in refused("bench", "ops", "--repeats", "5")
