"""Definitions: what they may say, what a change of them changes, and where they are looked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from graphattn import data, experiment
from graphattn.experiment import Experiment, Paper

SHIPPED = experiment.names()

TEXT = """
title = "Small"
note = "a note"
[data]
name = "digits"
[model]
name = "gat"
heads = 4
dropout = 0
[train]
epochs = 7
[run]
seeds = 3
[paper]
mean = 83
source = "table 2"
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write ./experiments/NAME/definition.toml in a working directory of its own."""
    monkeypatch.chdir(tmp_path)

    def write_definition(text: str = TEXT, name: str = "digits/small") -> Path:
        path = tmp_path / "experiments" / name / "definition.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write_definition


@pytest.fixture
def small(write: Callable[..., Path]) -> Experiment:
    write()
    return experiment.load("digits/small")


ALL = [(entry.name, entry.preset) for entry in experiment.all_of(SHIPPED)]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_definition_is_sound(name: str) -> None:
    definition = experiment.load(name)
    assert definition.name == name
    assert definition.title and definition.run.seeds >= 1
    assert name.split("/")[0] == (definition.data.name if definition.multitask is None else "multitask")
    assert definition.data.name in data.names()
    lines = experiment.definition(name).read_text(encoding="utf-8").splitlines()
    opening = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert re.search(rf"graphattn run {name}(?![\w-])", opening), "it opens with its command"
    if definition.paper:
        assert f"{definition.paper.mean}" in opening, "and with the number to expect"


@pytest.mark.parametrize(("name", "preset"), [entry for entry in ALL if experiment.recorded(*entry)])
def test_what_was_recorded_is_what_is_defined(name: str, preset: str | None) -> None:
    definition, result = experiment.load(name, preset=preset), experiment.recorded(name, preset)
    found = experiment.from_table(name, result["definition"], "result.json")
    assert (found.key(), found.preset) == (definition.key(), preset)
    recorded = [row["seed"] for row in result["seeds"]]  # all, or the first ones: a record may grow
    assert recorded and recorded == list(range(definition.run.seeds))[: len(recorded)]
    assert not result["failed"]


def test_the_embedded_experiments_are_shipped() -> None:
    assert {"digits/gat", "digits/gcn", "digits/mlp", "cora/gat"} <= set(SHIPPED)


def test_a_definition_is_read_in_full(small: Experiment) -> None:
    assert small == Experiment(
        name="digits/small",
        title="Small",
        data=experiment.Data("digits"),
        model=experiment.Model("gat", {"heads": 4, "dropout": 0.0}),
        train=experiment.Train(epochs=7),
        run=experiment.Run(3),
        paper=Paper(83.0, "table 2"),
        note="a note",
    )


def test_what_is_left_out_has_its_default(write: Callable[..., Path]) -> None:
    write('title = "Small"\n[data]\nname = "digits"\n[model]\nname = "gat"\n')
    assert experiment.load("digits/small") == Experiment(
        "digits/small",
        "Small",
        experiment.Data("digits"),
        experiment.Model("gat"),
        experiment.Train(),
        experiment.Run(),
    )


@pytest.mark.parametrize(("section", "needed"), [("data", "name"), ("model", "name")])
def test_what_has_no_default_is_missed(write: Callable[..., Path], section: str, needed: str) -> None:
    write("[".join(part for part in TEXT.split("[") if not part.startswith(f"{section}]")))
    with pytest.raises(ValueError, match=rf"definition\.toml, \[{section}\]: the key '{needed}' is missing"):
        experiment.load("digits/small")


def test_data_is_what_load_takes(small: Experiment) -> None:
    loaded = data.load(**asdict(small.data), seed=0)
    assert loaded.name == "digits"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title =", "titel =", "unknown key in PATH: 'titel': did you mean 'title'?"),
        ('title = "Small"', "", "PATH: the key 'title' is missing"),
        ('title = "Small"', "title = 3", "PATH: title is 3, needed str"),
        ("[train]", "[trian]", "unknown key in PATH: 'trian'"),
        ("epochs =", "epoch =", "unknown key in PATH, [train]: 'epoch': did you mean 'epochs'?"),
        ("epochs = 7", "epochs = 7.5", "PATH, [train]: epochs is 7.5, needed int"),
        ("epochs = 7", "epochs = -1", "PATH, [train]: epochs is -1, needed a finite number of at least 0"),
        ("epochs = 7", "patience = 0", "PATH, [train]: patience is 0, needed a finite number of at least 1"),
        ("epochs = 7", "lr = nan", "PATH, [train]: lr is nan, needed a finite number of at least 0"),
        ("epochs = 7", "lr = inf", "PATH, [train]: lr is inf, needed a finite number"),
        ("epochs = 7", "lr = -0.1", "PATH, [train]: lr is -0.1, needed a finite number"),
        ("epochs = 7", "weight_decay = -1", "PATH, [train]: weight_decay is -1.0, needed a finite number"),
        ("epochs = 7", 'stop = "never"', "unknown value for PATH, [train]: stop: 'never': there are none, gat"),
        ("epochs = 7", 'decay = "weight"', "unknown value for PATH, [train]: decay: 'weight': did you mean 'weights'?"),
        ("epochs = 7", 'precision = "16"', "unknown value for PATH, [train]: precision: '16'"),
        ("seeds = 3", "seeds = 0", "PATH, [run]: seeds is 0, needed at least 1"),
        ("seeds = 3", "seeds = true", "PATH, [run]: seeds is True, needed int"),
        ("[paper]", '[readout]\nname = "max"\n[paper]', "unknown value for PATH, [readout]: name: 'max'"),
        ("[paper]", "[labels]\nrate = 1.0\n[paper]", "PATH, [labels]: rate is 1.0, needed a probability below 1"),
        ("[paper]", "[labels]\nreuse = -1\n[paper]", "PATH, [labels]: reuse is -1, needed a number of runs"),
        (
            "[paper]",
            "[correct_and_smooth]\nsmooth_alpha = 2\n[paper]",
            "smooth_alpha is 2.0, needed a number between 0 and",
        ),
        (
            "[paper]",
            "[correct_and_smooth]\ncorrect_steps = -2\n[paper]",
            "correct_steps is -2, needed a number that is not",
        ),
        ("[paper]", "[readout]\nwidth = 0\n[paper]", "PATH, [readout]: width is 0, needed at least 1"),
        ("[paper]", "[readout]\ndropout = 2.0\n[paper]", "PATH, [readout]: dropout is 2.0, needed a probability"),
        ('name = "digits"', "", "PATH, [data]: the key 'name' is missing"),
        ("[data]", "[data]\nsplits = 3", "unknown key in PATH, [data]: 'splits': did you mean 'split'?"),
        ('name = "gat"', 'name = "gta"', "unknown model in PATH: 'gta': did you mean 'gat'?"),
        ('name = "gat"', "name = 3", "unknown model in PATH: 3: there are attention-wise, centernet"),
        ('name = "gat"', "", "PATH, [model]: the key 'name' is missing; there are attention-wise, centernet, cheb"),
        ("heads =", "head =", "unknown option of model gat in PATH: 'head': did you mean 'heads'?"),
        ("heads = 4", "in_channels = 4", "unknown option of model gat in PATH: 'in_channels'"),
        ("heads = 4", 'heads = "4"', "PATH, [model]: heads is '4', needed int"),
        ("heads = 4", "heads = 0", "PATH, [model]: heads is 0, needed at least 1"),
        ("dropout = 0", "dropout = 1.5", "PATH, [model]: dropout is 1.5, needed a probability between 0 and 1"),
        ("dropout = 0", "attention_dropout = -1", "PATH, [model]: attention_dropout is -1.0, needed a probability"),
        ("dropout = 0", "dropout = nan", "PATH, [model]: dropout is nan, needed a probability"),
        ("heads = 4", "options = 3", "PATH, [model]: options is 3, needed a table"),
        ("mean = 83\n", "", "PATH, [paper]: the key 'mean' is missing"),
        ("mean = 83", 'mean = "83"', "PATH, [paper]: mean is '83', needed float"),
    ],
)
def test_a_wrong_definition_says_where_and_what(write: Callable[..., Path], old: str, new: str, message: str) -> None:
    assert TEXT.count(old) == 1
    path = write(TEXT.replace(old, new)).relative_to(Path.cwd())
    with pytest.raises(ValueError, match=re.escape(message.replace("PATH", str(path)))):
        experiment.load("digits/small")


@pytest.mark.parametrize("section", ["data", "model", "train", "run", "paper"])
def test_a_section_must_be_a_table(write: Callable[..., Path], section: str) -> None:
    kept = [part for part in TEXT.split("[") if not part.startswith(f"{section}]")]
    write(f"{section} = 3\n" + "[".join(kept))
    with pytest.raises(ValueError, match=rf"definition\.toml, \[{section}\]: "):
        experiment.load("digits/small")


def test_invalid_toml(write: Callable[..., Path]) -> None:
    write("title = Small")
    with pytest.raises(ValueError, match=r"experiments/digits/small/definition\.toml is no valid TOML: .*line 1"):
        experiment.load("digits/small")


def test_an_unknown_experiment_gives_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown experiment 'cora/gta': did you mean 'cora/gat'\? there are cora/"):
        experiment.load("cora/gta")


@pytest.mark.parametrize(("name", "listed"), [("digits", "digits/"), ("corra/gat", "actor/..., ")])
def test_an_unknown_experiment_lists_those_on_its_data_or_the_data_sets(name, listed):
    with pytest.raises(ValueError, match=f"there are {re.escape(listed)}") as error:
        experiment.load(name)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.lr=0.5", "train", "lr", 0.5),
        ("train.lr = 1", "train", "lr", 1.0),
        ("train.stop=gat", "train", "stop", "gat"),  # a bare word is a string
        ("train.stop = gat ", "train", "stop", "gat"),
        ('train.stop="gat"', "train", "stop", "gat"),
        ("data.split=public", "data", "split", "public"),
        ("data.dense=true", "data", "dense", True),
        ("run.seeds=2", "run", "seeds", 2),
    ],
)
def test_an_override_is_put_in(small: Experiment, override: str, section: str, key: str, value: Any) -> None:
    changed = experiment.load("digits/small", [override])
    assert getattr(getattr(changed, section), key) == value
    assert replace(changed, **{section: getattr(small, section)}) == small, "and nothing else is changed"


def test_overrides_of_the_model(small: Experiment) -> None:
    assert experiment.load("digits/small", ["model.heads=2"]).model.options == {"heads": 2, "dropout": 0.0}
    with pytest.raises(ValueError, match=r"unknown option of model gcn in .*: 'heads'"):
        experiment.load("digits/small", ["model.name=gcn"])


def test_the_last_override_holds(small: Experiment) -> None:
    assert experiment.load("digits/small", ["train.lr=1", "train.lr=2"]).train.lr == 2.0


def test_an_override_can_begin_a_section(write: Callable[..., Path]) -> None:
    write(TEXT.replace("[train]\nepochs = 7\n", ""))
    assert experiment.load("digits/small", ["train.epochs=2"]).train.epochs == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr", "--set 'train.lr': needed SECTION.KEY=VALUE, for example train.lr=0.01"),
        ("lr=0.01", "--set 'lr=0.01': needed SECTION.KEY=VALUE"),
        ("tran.lr=0.01", "unknown section in --set 'tran.lr=0.01': 'tran': did you mean 'train'?"),
        ("paper.mean=99", "unknown section in --set 'paper.mean=99': 'paper': there are data, model, train, run"),
        ("train.rl=0.01", "definition.toml, [train]: 'rl'"),
        ("train.lr=", "[train]: lr is '', needed float"),
        ("train.lr=nan", "[train]: lr is nan, needed a finite number"),
        ("data.dense=True", "[data]: dense is 'True', needed bool"),  # TOML's is true
    ],
)
def test_a_wrong_override(small: Experiment, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        experiment.load("digits/small", [override])


PRESETS = """
[presets.short.train]
epochs = 3
stop = "last"
[presets.short.model]
heads = 2
[presets.short.run]
seeds = 1
[presets.other]
note = "another note"
paper = {mean = 50, source = "table 3"}
"""


def test_a_preset_takes_the_place_of_some_entries(write: Callable[..., Path]) -> None:
    write(TEXT + PRESETS)
    small, short = experiment.load("digits/small"), experiment.load("digits/small", preset="short")
    assert (small.train.epochs, small.label, small.preset) == (7, "digits/small", None)
    assert short == replace(
        small,
        preset="short",
        model=experiment.Model("gat", {"heads": 2, "dropout": 0.0}),
        train=experiment.Train(epochs=3, stop="last"),
        run=experiment.Run(1),
        paper=None,
        note="",
    ), "the published number and the note are not of it"
    assert short.label == "digits/small, short"
    assert short.key() != small.key()
    other = experiment.load("digits/small", preset="other")
    assert (other.note, other.paper) == ("another note", Paper(50.0, "table 3"))
    assert other.key() == small.key(), "it is trained the same way"
    assert experiment.all_of(["digits/small"]) == [small, short, other]


def test_overrides_come_after_the_preset(write: Callable[..., Path]) -> None:
    write(TEXT + PRESETS)
    assert experiment.load("digits/small", ["train.epochs=4"], "short").train == experiment.Train(epochs=4, stop="last")


def test_a_preset_goes_through_json(write: Callable[..., Path]) -> None:
    write(TEXT + PRESETS)
    short = experiment.load("digits/small", preset="short")
    assert experiment.from_table("digits/small", json.loads(json.dumps(asdict(short))), "here") == short


@pytest.mark.parametrize(
    ("text", "preset", "message"),
    [
        ("", "short", "digits/small has no presets, asked for 'short': leave out --preset"),
        (PRESETS, "shrt", "unknown preset of digits/small: 'shrt': did you mean 'short'? there are short, other"),
        (
            PRESETS.replace("[presets.short.train]", "[presets.short.trian]"),
            "short",
            "section in PATH, [presets.short]:",
        ),
        (PRESETS.replace("epochs = 3", "epoch = 3"), "short", "unknown key in PATH, [train]: 'epoch'"),
        ("[presets.short]\ntrain = 3", "short", "PATH, [presets.short]: train is 3, needed a table"),
        ("[presets]\nshort = 3", "short", "PATH, [presets.short]: found 3, needed a table"),
        ('[presets."../x".train]\nepochs = 3', None, "PATH: preset '../x', needed letters, digits and hyphens"),
    ],
)
def test_a_wrong_preset(write: Callable[..., Path], text: str, preset: str | None, message: str) -> None:
    path = write(TEXT + text).relative_to(Path.cwd())
    with pytest.raises(ValueError, match=re.escape(message.replace("PATH", str(path)))):
        experiment.load("digits/small", preset=preset)


@pytest.mark.parametrize(
    ("line", "message"), [("presets = 3", "presets is 3, needed tables"), ('preset = "x"', "'preset'")]
)
def test_presets_are_tables(write: Callable[..., Path], line: str, message: str) -> None:
    write(f"{line}\n{TEXT}")
    with pytest.raises(ValueError, match=message):
        experiment.load("digits/small")


CHANGES = ("data.split=random", "data.reorder=true", "model.heads=2", "train.lr=0.5", "train.recompute=true")


@pytest.mark.parametrize("override", [*CHANGES, "train.precision=64-true", "readout.name=attention"])
def test_the_key_changes_with_what_changes_numbers(small: Experiment, override: str) -> None:
    assert experiment.load("digits/small", [override]).key() != small.key()


def test_the_key_changes_with_the_read_out(small: Experiment) -> None:
    keys = {
        experiment.load("digits/small", [f"readout.{entry}"]).key() for entry in ("width=8", "width=9", "dropout=0.5")
    }
    assert len(keys) == 3


@pytest.mark.parametrize(
    "change", [{"run": experiment.Run(9)}, {"paper": None}, {"title": "x"}, {"note": ""}, {"name": "digits/other"}]
)
def test_the_key_does_not_change_with_the_rest(small: Experiment, change: dict[str, Any]) -> None:
    assert replace(small, **change).key() == small.key()


def test_the_key_is_the_same_for_ever() -> None:
    """Runs lie in folders named after it."""
    old = Experiment(
        name="any",
        title="any",
        data=experiment.Data("cora", split="public"),
        model=experiment.Model("gat", {"heads": 8}),
        train=experiment.Train(lr=0.005, epochs=100, stop="gat"),
        run=experiment.Run(),
    )
    assert old.key() == "93a6fc2f"


@pytest.mark.parametrize(("name", "preset"), ALL)
def test_json_gives_the_definition_back(name: str, preset: str | None) -> None:
    definition = experiment.load(name, preset=preset)
    written = json.loads(json.dumps(asdict(definition)))
    again = experiment.from_table(name, written, "result.json")
    assert again == definition
    assert again.key() == definition.key()


def test_a_presets_record_lies_beside(small: Experiment, tmp_path: Path) -> None:
    folder = tmp_path / "experiments" / "digits" / "small"
    experiment.save({"seeds": [1, 2]}, folder / "result-short.json")
    assert experiment.recorded("digits/small") is None
    assert experiment.recorded("digits/small", "short") == {"seeds": [1, 2]}


def test_recorded(small: Experiment, tmp_path: Path) -> None:
    assert experiment.recorded("digits/small") is None
    experiment.save({"seeds": [1]}, tmp_path / "experiments" / "digits" / "small" / "result.json")
    assert experiment.recorded("digits/small") == {"seeds": [1]}


def test_the_working_directory_comes_before_the_package(write: Callable[..., Path]) -> None:
    shipped = experiment.load("digits/gat")
    assert shipped.title != "Small"
    path = write(name="digits/gat")
    write(name="mine")
    assert experiment.load("digits/gat").title == "Small"
    assert experiment.definition("digits/gat").resolve() == path
    assert experiment.definition("digits/gcn").resolve() != path
    assert experiment.names() == sorted([*SHIPPED, "mine"])


def test_save_writes_whole_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "folder" / "result.json"
    experiment.save({"mean": 81.5}, path)
    assert json.loads(path.read_text()) == {"mean": 81.5}
    assert [file.name for file in path.parent.iterdir()] == ["result.json"]

    with pytest.raises(ValueError, match="JSON"):
        experiment.save({"mean": float("nan")}, path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="no space left"):
        experiment.save({"mean": 0.0}, path)
    assert json.loads(path.read_text()) == {"mean": 81.5}, "the old file is still there"


def test_a_reader_meets_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    experiment.save({"mean": 1.0}, path)
    seen = []
    replace_file = Path.replace

    def watched(part: Path, target: Path) -> Path:
        seen.append((json.loads(path.read_text()), json.loads(part.read_text())))
        return replace_file(part, target)

    monkeypatch.setattr(Path, "replace", watched)
    experiment.save({"mean": 2.0}, path)
    assert seen == [({"mean": 1.0}, {"mean": 2.0})], "the new file was complete before it took the old one's place"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_layers=0", "num_layers is 0, needed at least 1"),
        ("model.heads=-2", "heads is -2, needed at least 1"),
        ("model.dropout=1.5", "dropout is 1.5, needed a probability"),
    ],
)
def test_model_options_out_of_range_are_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        experiment.load("cora/gat", [override])
