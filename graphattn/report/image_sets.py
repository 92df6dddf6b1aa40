"""Recorded results on sets of images: test errors, of one set and of all sets side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphattn.data import manifest as manifests
from graphattn.experiment import Experiment
from graphattn.report.tables import mean_and_spread

Entry = tuple[Experiment, dict[str, Any] | None]  # a definition or one of its presets, and its record

_DIGITS = 2  # of a percentage: models differ by tenths
_NOT_RUN = "not run here"


def of_images(definition: Experiment) -> bool:
    """Whether its data are images."""
    name = definition.data.name
    return name in manifests.names() and manifests.read(name).of_images


def table(entries: Sequence[Entry]) -> list[str]:
    """The lines of one set's table: an experiment a row, each preset its own, after the definition as it stands."""
    heads = ("experiment", "test error", "of the best epoch", "paper", "difference", "seeds", "epochs", "parameters")
    lines = [f"| {' | '.join(heads)} | commit, date |", "|---" * (len(heads) + 1) + "|"]
    for definition, result in entries:
        paper = _published(definition)
        if result is None:
            lines.append(f"| {definition.label} | {_NOT_RUN} | | {paper} | | | | | |")
            continue
        errors, best = errors_of(result, "test"), errors_of(result, "best_test")
        difference = f"{_mean(errors) - (100 - definition.paper.mean):+.{_DIGITS}f}" if definition.paper else ""
        seeds, wanted = len(result["seeds"]), definition.run.seeds
        lines.append(
            f"| {definition.label} | {mean_and_spread(errors, _DIGITS)} | {mean_and_spread(best, _DIGITS)} | {paper} "
            f"| {difference} | {seeds if seeds >= wanted else f'{seeds} of {wanted}'} "
            f"| {result['result']['epochs']['mean']:.0f} | {result['parameters']:,} "
            f"| {result['commit'] or ''}, {result['date']} |"
        )
    return lines


def side_by_side(entries: Sequence[Entry]) -> list[str]:
    """The section that has a model a row and a set a column, or several, one for each preset; the paper's error in
    brackets. A model that was not run and has no published number is left out, and the section if that is all.
    """
    cells: dict[str, dict[str, str]] = {}
    for definition, result in entries:
        if result is None and definition.paper is None:
            continue
        data_set, _, model = definition.name.partition("/")
        column = definition.label.replace(definition.name, data_set)
        paper = f" ({_published(definition)})" if definition.paper else ""
        ours = mean_and_spread(errors_of(result, "test"), _DIGITS) if result else _NOT_RUN
        cells.setdefault(model, {})[column] = ours + paper
    if not cells:
        return []
    columns = sorted({column for row in cells.values() for column in row})
    lines = [
        "## Image sets, side by side\n",
        "Test error in percent, mean and unbiased standard deviation over the seeds; in brackets the paper's.\n",
        f"| model | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
        *(f"| {model} | {' | '.join(row.get(name, '') for name in columns)} |" for model, row in sorted(cells.items())),
    ]
    return ["\n".join(lines) + "\n"]


def errors_of(result: dict[str, Any], part: str) -> list[float]:
    """Of each seed, in percent: at the kept epoch (`test`), or the least of all epochs' (`best_test`)."""
    return [100 - row[f"{part}_accuracy"] for row in result["seeds"]]


def _published(definition: Experiment) -> str:
    paper = definition.paper
    if paper is None:
        return ""
    spread = "" if paper.std is None else f" ± {paper.std:.{_DIGITS}f}"
    return f"{100 - paper.mean:.{_DIGITS}f}{spread}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
