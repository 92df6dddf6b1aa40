"""Tables for the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Column, Table

from graphattn.data import Manifest
from graphattn.experiment import Experiment, Paper, recorded

SCORES = {
    "accuracy": "accuracy",
    "f1": "micro-F1",
    "roc_auc": "ROC-AUC",
    "ap": "box AP",
    "bleu": "BLEU",
    "rouge_l": "ROUGE-L",
    "perplexity": "perplexity",
}  # measures by name, and what people call them
_DIGITS = {"perplexity": 2}  # no percentage, and models differ by hundredths


def overview(definitions: Iterable[Experiment], titles: bool = True) -> Table:
    """Every experiment, and every preset that was run, with the published test score and the recorded one."""
    what = ["what"] if titles else []
    table = Table(Column("experiment", no_wrap=True), *what, "paper, %", "recorded, % or perplexity", "seeds")
    for definition in definitions:
        result = recorded(definition.name, definition.preset)
        if definition.preset is not None and result is None:
            continue
        ours, seeds = (measured(result), str(len(result["seeds"]))) if result else ("not run here", "")
        what = [definition.title] if titles else []
        table.add_row(definition.label, *what, published(definition.paper), ours, seeds)
    return table


def comparison(results: Sequence[tuple[Experiment, dict[str, Any]]]) -> Table:
    """Test score of each experiment beside the paper's, validation score, epochs and seconds a seed (means)."""
    unit = "" if any(score(result) == "perplexity" for _, result in results) else ", %"
    heads = [f"{head}{unit}" for head in ("test", "paper", "val.")]
    table = Table(Column("experiment", no_wrap=True), *heads, "seeds", "epochs", "s/seed")
    counted = any(is_ogb(definition) for definition, _ in results)
    if counted:
        table.add_column("parameters")
    for definition, result in results:
        spread = result["result"]
        failed = f" ({len(result['failed'])} failed)" if result["failed"] else ""
        table.add_row(
            definition.label,
            measured(result),
            published(definition.paper),
            f"{spread[validation]['mean']:.{_digits(result)}f}"
            if (validation := f"val_{score(result)}") in spread
            else "",
            f"{len(result['seeds'])}{failed}",
            f"{spread['epochs']['mean']:.0f}",
            f"{spread['seconds']['mean']:.1f}",
            *([parameters(result)] if counted else []),
        )
    return table


def data_sets(manifests: Iterable[Manifest]) -> Table:
    """What each set is, its sizes, splits and licence."""
    table = Table("data set", "what", "nodes, images or texts", "edges", "features", "classes", "splits", "licence")
    for manifest in manifests:
        sizes = manifest.sizes
        edges = "" if sizes.edges is None else f"{sizes.edges:,}"
        splits = ", ".join(manifest.splits)
        count = sizes.sequences or sizes.images or sizes.nodes
        nodes = "" if count is None else f"{count:,}"
        row = (nodes, edges, f"{sizes.features:,}", str(sizes.classes), splits, manifest.licence)
        table.add_row(manifest.name, manifest.title, *row)
    return table


def score(result: dict[str, Any]) -> str:
    """Which of SCORES a result is measured by."""
    return _score(result["seeds"][0])


def is_ogb(definition: Experiment) -> bool:
    """Whether the data are a set of the Open Graph Benchmark, whose rules ask for the number of parameters."""
    return definition.data.name.startswith(("ogbn-", "ogbg-"))


def parameters(result: dict[str, Any]) -> str:
    """How many numbers the model learns."""
    count = result.get("parameters")
    return "" if count is None else f"{count:,}"


def measured(result: dict[str, Any]) -> str:
    """Mean and unbiased standard deviation of the test score over the seeds."""
    return mean_and_spread([row[f"test_{score(result)}"] for row in result["seeds"]], _digits(result))


def so_far(seeds: Sequence[dict[str, Any]]) -> str:
    """What a run's finished seeds have reached."""
    if not seeds:
        return ""
    found = _score(seeds[0])
    values = [row[f"test_{found}"] for row in seeds]
    return f"test {SCORES[found]} {mean_and_spread(values, _DIGITS.get(found, 1))}"


def published(paper: Paper | None) -> str:
    if paper is None:
        return ""
    return f"{paper.mean:.1f}" if paper.std is None else f"{paper.mean:.1f} ± {paper.std:.1f}"


def mean_and_spread(values: Sequence[float], digits: int = 1) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _digits(result: dict[str, Any]) -> int:
    return _DIGITS.get(score(result), 1)


def _score(measures: Iterable[str]) -> str:
    return next(name.removeprefix("test_") for name in measures if name.startswith("test_"))
