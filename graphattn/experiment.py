"""What an experiment is: frozen dataclasses, read from TOML, saved as JSON beside it with the result.

    [data]   which set and split          [model]  name and options of one of MODELS
    [train]  how it is trained            [run]    how many seeds
    [readout]  on labelled graphs, how a graph is made of its nodes
    [labels]  known labels among the inputs  [correct_and_smooth]  what is done with the predictions in the end
    [multitask]  auxiliary tasks beside the main one
    [paper]  the published number, if any
    [presets.NAME.train], ...  what else the definition may be run as: entries that take the place of those above

An unknown key or value is an error. Definitions lie in `experiments/<name>/definition.toml`; `cora/gat` is a name.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import sys
import typing
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from graphattn.models import MODELS
from graphattn.multitask import Plan
from graphattn.recipe import Train
from graphattn.record import one_of, record, typed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Entries that definitions got after results were recorded, and their defaults: all of [train] but the first ones.
_FIRST = ("lr", "weight_decay", "decay", "epochs", "stop", "patience", "precision")
_LATER = {"reorder": False, "standardise": False, "centre": False} | {
    k: v for k, v in asdict(Train()).items() if k not in _FIRST
}
_LATER_OPTIONAL = {"passes": 1}

FOLDER = Path("experiments")  # of the working directory: a checkout's own, else made by the first recorded run
_PACKAGE = Path(__file__).resolve().parent
_SHIPPED = (_PACKAGE / "_packed" / "experiments", _PACKAGE.parent / "experiments")  # an installed wheel, a checkout


@dataclass(frozen=True)
class Data:
    """Arguments of `data.load`; `seed` is each run's own."""

    name: str
    split: str | None = None
    row_normalise: bool | None = None
    dense: bool = False
    reorder: bool = False
    standardise: bool = False
    centre: bool = False


@dataclass(frozen=True)
class Model:
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Readout:
    """What follows the model, which then gives each node `width` channels: see `models.GraphNetwork`."""

    name: Literal["attention", "mean"] = "attention"
    width: int = 64
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width is {self.width}, needed at least 1")
        if not 0 <= self.dropout <= 1:
            raise ValueError(f"dropout is {self.dropout}, needed a probability between 0 and 1")


@dataclass(frozen=True)
class Labels:
    """Known labels among the inputs: see `training.LabelInputs`."""

    rate: float = 0.5
    reuse: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate is {self.rate}, needed a probability below 1: some labels must be left to ask for")
        if self.reuse < 0:
            raise ValueError(f"reuse is {self.reuse}, needed a number of runs that is not negative")


@dataclass(frozen=True)
class CorrectAndSmooth:
    """What is done with the predictions of the kept epoch: see `models.correct_and_smooth`. No `scale`: each node's
    own.
    """

    correct_steps: int = 50
    correct_alpha: float = 1.0
    scale: float | None = None
    smooth_steps: int = 50
    smooth_alpha: float = 0.8

    def __post_init__(self) -> None:
        for name in ("correct_steps", "smooth_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, needed a number that is not negative")
        for name in ("correct_alpha", "smooth_alpha"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, needed a number between 0 and 1")


@dataclass(frozen=True)
class Decoding:
    """How a model of pairs of texts makes one: see `sequence.decoding.beam_search`. One beam is greedy."""

    beams: int = 4
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ValueError(f"beams is {self.beams}, needed at least 1")
        if not math.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty is {self.length_penalty}, needed a finite number")


@dataclass(frozen=True)
class Run:
    seeds: int = 10

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds}, needed at least 1")


@dataclass(frozen=True)
class Paper:
    """The published test score in percent, its spread where given, and where it stands."""

    mean: float
    source: str
    std: float | None = None


@dataclass(frozen=True)
class Experiment:
    name: str
    title: str
    data: Data
    model: Model
    train: Train
    run: Run
    readout: Readout | None = None
    labels: Labels | None = None
    correct_and_smooth: CorrectAndSmooth | None = None
    decoding: Decoding | None = None
    multitask: Plan | None = None
    paper: Paper | None = None
    note: str = ""  # printed under the table: what was tried where the paper's number is not met
    preset: str | None = None  # which of its presets it is; None: as it stands

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return self.name if self.preset is None else f"{self.name}, {self.preset}"

    def key(self) -> str:
        """Eight hex digits that change with anything that changes a seed's numbers."""
        parts = json.dumps([_lasting(part, _LATER) for part in (self.data, self.model, self.train)], sort_keys=True)
        for name in _OPTIONAL:
            if (part := getattr(self, name)) is not None:
                parts += name + json.dumps(_lasting(part, _LATER_OPTIONAL), sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:8]


_OPTIONAL: dict[str, type] = {
    "readout": Readout,
    "labels": Labels,
    "correct_and_smooth": CorrectAndSmooth,
    "decoding": Decoding,
    "multitask": Plan,
}
_CHANGEABLE = ("data", "model", "train", "run", *_OPTIONAL)


def _lasting(part: Any, later: Mapping[str, Any]) -> dict[str, Any]:
    """All entries, less later ones that are not used: a new entry changes no key of a definition without it."""
    return {name: value for name, value in asdict(part).items() if name not in later or value != later[name]}


def names() -> list[str]:
    """The experiments there are: those of ./experiments and those that came with the package."""
    found = set()
    for folder in (FOLDER, *_SHIPPED):
        found |= {path.parent.relative_to(folder).as_posix() for path in folder.rglob("definition.toml")}
    return sorted(found)


def load(name: str, overrides: Iterable[str] = (), preset: str | None = None) -> Experiment:
    """The experiment called `name`, or one of its presets, with overrides such as "train.lr=0.01" or "model.heads=4"
    put in.

    Raises:
        ValueError: an unknown experiment, preset, key or value.
    """
    return read(name, definition(name), overrides, preset)


def read(name: str, path: Path, overrides: Iterable[str] = (), preset: str | None = None) -> Experiment:
    """The experiment that the file at `path` defines."""
    table = _toml(path)
    if "preset" in table:
        raise ValueError(f"unknown key in {path}: 'preset': a preset is a table [presets.NAME.train]")
    presets = _presets(table, path)
    if preset is not None:
        if not presets:
            raise ValueError(f"{name} has no presets, asked for {preset!r}: leave out --preset")
        _put_in(table, presets[one_of(preset, presets, f"preset of {name}:")], f"{path}, [presets.{preset}]")
        table["preset"] = preset
    for override in overrides:
        _override(table, override)
    return from_table(name, table, str(path))


def presets_of(path: Path) -> list[str]:
    """The presets of the definition at `path`."""
    return list(_presets(_toml(path), path))


def all_of(names: Iterable[str]) -> list[Experiment]:
    """Each experiment as it stands, and after it each of its presets."""
    return [load(name, preset=preset) for name in names for preset in (None, *presets_of(definition(name)))]


def definition(name: str) -> Path:
    """Where the experiment is defined: ./experiments first, then the package's own."""
    known = names()
    folder = f"{name.partition('/')[0]}/"
    alike = [other for other in known if other.startswith(folder)]
    one_of(name, known, "experiment", alike or dict.fromkeys(f"{other.partition('/')[0]}/..." for other in known))
    return next(path for folder in (FOLDER, *_SHIPPED) if (path := folder / name / "definition.toml").is_file())


def from_table(name: str, table: Mapping[str, Any], where: str) -> Experiment:
    """An Experiment from a TOML table or the `definition` of a result."""
    table = {key: value for key, value in table.items() if key != "name"}
    sections = {"data": Data, "train": Train, "run": Run, **_OPTIONAL, "paper": Paper}
    ready: dict[str, Any] = {"name": name, "model": _model(table.pop("model", {}), where)}
    for key, kind in sections.items():
        if table.get(key) is not None or key not in (*_OPTIONAL, "paper"):
            ready[key] = record(kind, table.get(key, {}), f"{where}, [{key}]")
        table.pop(key, None)
    return record(Experiment, table, where, **ready)


def result_name(preset: str | None) -> str:
    """The file beside the definition that holds the result."""
    return "result.json" if preset is None else f"result-{preset}.json"


def recorded(name: str, preset: str | None = None) -> dict[str, Any] | None:
    """The result recorded beside the definition, if there is one."""
    path = definition(name).with_name(result_name(preset))
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def save(result: Mapping[str, Any], path: Path) -> None:
    """Write JSON whole and rename it into place, so that no reader meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no valid TOML: {error}") from error


def _presets(table: dict[str, Any], path: Path) -> dict[str, Any]:
    """Taken out of the table."""
    found = table.pop("presets", {})
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: presets is {found!r}, needed tables [presets.NAME.train]")
    for name in found:
        if not name.replace("-", "").isalnum():  # it becomes part of a file's name
            raise ValueError(f"{path}: preset {name!r}, needed letters, digits and hyphens")
    return dict(found)


def _put_in(table: dict[str, Any], preset: Any, where: str) -> None:
    """Entries of the preset take the place of the definition's, whose published number and note are not of it."""
    table.pop("paper", None)
    table.pop("note", None)
    if not isinstance(preset, Mapping):
        raise ValueError(f"{where}: found {preset!r}, needed a table")
    for section, entries in preset.items():
        one_of(section, (*_CHANGEABLE, "paper", "note"), f"section in {where}:")
        if section == "note":
            table["note"] = entries
        elif not isinstance(entries, Mapping):
            raise ValueError(f"{where}: {section} is {entries!r}, needed a table")
        else:
            table[section] = {**table.get(section, {}), **entries}


def _model(table: Any, where: str) -> Model:
    if not isinstance(table, Mapping) or "name" not in table:
        raise ValueError(f"{where}, [model]: the key 'name' is missing; there are {', '.join(MODELS)}")
    options = table.get("options", {})
    if not isinstance(options, Mapping):
        raise ValueError(f"{where}, [model]: options is {options!r}, needed a table")
    options = dict(options) | {k: v for k, v in table.items() if k not in ("name", "options")}
    builder = MODELS[one_of(table["name"], MODELS, f"model in {where}:")]
    hints = typing.get_type_hints(builder.__init__ if inspect.isclass(builder) else builder)
    taken = [p.name for p in inspect.signature(builder).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for key, value in options.items():
        one_of(key, taken, f"option of model {table['name']} in {where}:")
        options[key] = typed(value, hints[key], f"{where}, [model]: {key}")
        _check_range(key, options[key], f"{where}, [model]: {key}")
    return Model(table["name"], options)


def _check_range(key: str, value: Any, where: str) -> None:
    """Counts are at least 1, dropouts are probabilities."""
    if type(value) is int and value < 1:
        raise ValueError(f"{where} is {value}, needed at least 1")
    if key.endswith("dropout") and not 0 <= value <= 1:
        raise ValueError(f"{where} is {value}, needed a probability between 0 and 1")


def _override(table: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    section, dot, entry = key.strip().partition(".")
    if not sign or not dot:
        raise ValueError(f"--set {override!r}: needed SECTION.KEY=VALUE, for example train.lr=0.01")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word is a string
    one_of(section, _CHANGEABLE, f"section in --set {override!r}:")
    table.setdefault(section, {})[entry] = value
