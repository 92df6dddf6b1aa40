"""Recorded results of models with auxiliary tasks: each beside the main task alone, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphattn.experiment import Experiment
from graphattn.report.tables import mean_and_spread, measured, score

Entry = tuple[Experiment, dict[str, Any] | None]  # a definition or one of its presets, and its record

ALONE = "-single"  # what the name of a set's experiment without auxiliaries ends in

_HEAD = """\
Less the main task alone, in percent: mean and unbiased standard deviation of the differences seed by seed, which have
the same labels and initial weights; and in how many seeds it is better. Cosine: of each auxiliary's gradient with the
main task's at the kept epoch, where it was logged; below 0 they are in conflict. Parameters are those that are trained,
of which the auxiliaries' heads are dropped afterwards.
"""


def of_tasks(definition: Experiment) -> bool:
    """Whether it is of several tasks, or of one that they are compared with."""
    return definition.multitask is not None


def table(entries: Sequence[Entry]) -> list[str]:
    """A row an experiment. A set is what stands before the first hyphen of a name: digits-hard is compared with
    digits-single, in the seeds that both have.
    """
    alone = {definition.name: result for definition, result in entries if definition.name.endswith(ALONE)}
    heads = ("experiment", "test accuracy", "less the main task alone", "better in", "cosine", "parameters", "seeds")
    lines = [
        _HEAD,
        f"| {' | '.join(heads)} | commit, date |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for definition, result in entries:
        if result is None:
            lines.append(f"| {definition.label} | not run here |" + " |" * (len(heads) - 1))
            continue
        base = alone.get(definition.name.split("-")[0] + ALONE)
        found = [] if base is result or base is None else differences(result, base)
        seeds, wanted = len(result["seeds"]), definition.run.seeds
        lines.append(
            f"| {definition.label} | {measured(result)} | {_signed(found)} "
            f"| {f'{sum(d > 0 for d in found)} of {len(found)}' if found else ''} | {_cosines(result)} "
            f"| {result['parameters']:,} | {seeds if seeds >= wanted else f'{seeds} of {wanted}'} "
            f"| {result['commit'] or ''}, {result['date']} |"
        )
    return lines


def differences(result: dict[str, Any], alone: dict[str, Any]) -> list[float]:
    """Of the test scores, by seed, in percent."""
    name = f"test_{score(result)}"
    before = {row["seed"]: row[name] for row in alone["seeds"]}
    return [row[name] - before[row["seed"]] for row in result["seeds"] if row["seed"] in before]


def _signed(values: list[float]) -> str:
    if not values:
        return ""
    text = mean_and_spread(values)
    return text if text.startswith("-") else f"+{text}"


def _cosines(result: dict[str, Any]) -> str:
    found = {name: spread["mean"] for name, spread in result["result"].items() if name.startswith("cosine_")}
    return ", ".join(f"{name.removeprefix('cosine_')} {value:+.2f}" for name, value in found.items())
