"""experiments/RESULTS.md, written from the definitions, results and timings that lie in that folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from graphattn import experiment
from graphattn.experiment import Experiment
from graphattn.report import auxiliary_tasks, image_sets, speed
from graphattn.report.tables import SCORES, is_ogb, mean_and_spread, measured, parameters, published, score

_HEAD = """# Results

Written by `graphattn report` from the `result.json` files beside the definitions; do not edit. Test accuracy, F1,
ROC-AUC or average precision in percent: mean and unbiased standard deviation over the seeds, at the epoch chosen on
validation data or, on shapes, at the last; on images of one class the test error, at the last epoch or one chosen on
validation data, and beside it the least of all epochs', which nothing is chosen by; of translations BLEU, of summaries
ROUGE-L and of language models the perplexity, all of the last epochs' parameters. "Not run here" is a definition that
is ready to run and has no recorded result yet. A name after a comma is a preset of the definition, once it was run:
another protocol, such as fewer epochs.
"""


def write_results(folder: Path) -> Path:
    """Write `folder`/RESULTS.md, one table a data set and the speed recorded in `folder`/bench, and return its path.

    Raises:
        FileNotFoundError: no definition below `folder`.
    """
    names = sorted(path.parent.relative_to(folder).as_posix() for path in folder.rglob("definition.toml"))
    if not names:
        raise FileNotFoundError(f"no definition.toml below {folder}: run this in a checkout, or after `run --record`")
    parts = [_HEAD]
    images: list[image_sets.Entry] = []
    for data_set, group in groupby(names, key=lambda name: name.split("/")[0]):
        entries = [entry for name in group for entry in _entries(folder / name, name)]
        parts.append(_table(data_set, entries))
        images += entries if not _of_tasks(entries) and image_sets.of_images(entries[0][0]) else []
    parts += image_sets.side_by_side(images)
    parts += speed.section(folder / "bench")
    path = folder / "RESULTS.md"
    part = path.with_suffix(".md.part")
    part.write_text("\n".join(parts), encoding="utf-8")
    part.replace(path)
    return path


def _entries(folder: Path, name: str) -> list[image_sets.Entry]:
    """The definition, and those of its presets that were run. What is recorded is taken from its JSON alone."""
    found: list[image_sets.Entry] = []
    for preset in (None, *experiment.presets_of(folder / "definition.toml")):
        path = folder / experiment.result_name(preset)
        if path.exists():
            result = json.loads(path.read_text(encoding="utf-8"))
            found.append((experiment.from_table(name, result["definition"], str(path)), result))
        elif preset is None:
            found.append((experiment.read(name, folder / "definition.toml"), None))
    return found


def _table(data_set: str, entries: list[image_sets.Entry]) -> str:
    if _of_tasks(entries):
        rows = auxiliary_tasks.table(entries)
    else:
        rows = image_sets.table(entries) if image_sets.of_images(entries[0][0]) else _rows(entries)
    lines = [f"## {data_set}\n", *rows]
    notes = [f"- {definition.label}: {definition.note}" for definition, _ in entries if definition.note]
    sources = sorted({definition.paper.source for definition, _ in entries if definition.paper})
    if sources:
        lines.append(f"\nPaper's numbers: {'; '.join(sources)}.")
    machines = sorted({machine for _, result in entries if result for machine in result["machine"].split("; ")})
    if machines:
        lines.append(f"\nMeasured on: {'; '.join(machines)}.")
    signatures = {row.get("bleu_signature", "") for _, result in entries if result for row in result["seeds"]} - {""}
    if signatures:
        lines.append(f"\nBLEU as sacreBLEU has it: `{'`, `'.join(sorted(signatures))}`.")
    return "\n".join(lines + (["", *notes] if notes else [])) + "\n"


def _of_tasks(entries: list[image_sets.Entry]) -> bool:
    return all(auxiliary_tasks.of_tasks(definition) for definition, _ in entries)


def _rows(entries: list[image_sets.Entry]) -> list[str]:
    beside = _beside(entries)
    scores = {SCORES[score(result)] for _, result in entries if result} or {"score"}
    lines = [
        f"| experiment | test {' or '.join(sorted(scores))} | paper | difference | seeds | epochs | commit, date |"
        + "".join(f" {head} |" for head in beside),
        "|---|---|---|---|---|---|---|" + "---|" * len(beside),
    ]
    for definition, result in entries:
        paper = published(definition.paper)
        if result is None:
            lines.append(f"| {definition.label} | not run here | {paper} | | | | |" + " |" * len(beside))
        else:
            cells = "".join(f" {cell(result)} |" for cell in beside.values())
            lines.append(_row(definition, result, paper) + cells)
    return lines


def _beside(entries: list[image_sets.Entry]) -> dict[str, Callable[[dict[str, Any]], str]]:
    """The columns that a set has besides: what OGB's rules ask for; of objects in images, the masks' precision."""
    if any(is_ogb(definition) for definition, _ in entries):
        return {"validation": lambda result: _mean(result, f"val_{score(result)}"), "parameters": parameters}
    if any(result and "test_mask_ap" in result["seeds"][0] for _, result in entries):
        return {"mask AP": lambda result: _mean(result, "test_mask_ap"), "parameters": parameters}
    if any(result and score(result) in ("bleu", "rouge_l", "perplexity") for _, result in entries):
        return {"parameters": parameters}
    return {}


def _mean(result: dict[str, Any], measure: str) -> str:
    return mean_and_spread([row[measure] for row in result["seeds"]])


def _row(definition: Experiment, result: dict[str, Any], paper: str) -> str:
    spread = result["result"]
    mean = spread[f"test_{score(result)}"]["mean"]
    difference = f"{mean - definition.paper.mean:+.1f}" if definition.paper else ""
    seeds, wanted = len(result["seeds"]), definition.run.seeds
    return (
        f"| {definition.label} | {measured(result)} | {paper} | {difference} "
        f"| {seeds if seeds >= wanted else f'{seeds} of {wanted}'} "
        f"| {spread['epochs']['mean']:.0f} "
        f"| {result['commit'] or ''}, {result['date']} |"
    )
