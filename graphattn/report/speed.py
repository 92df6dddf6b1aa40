"""What `graphattn bench` recorded, as the Speed section of RESULTS.md and a plot. Nothing is timed here.

Read are the suites' files that are there, layers.csv, ops.csv and so on; `graphattn/bench/rows.py` says what their
columns mean.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import matplotlib

from graphattn.report import pictures

_SUITES = ("layers", "gpu", "ops", "scaling", "scale", "seeds", "orders", "depth", "grid", "sequence")
_SHOWN = ("graphattn", "pyg", "pyg compiled")

_TEXT = """## Speed

From the rows in `bench/`, which `graphattn bench SUITE --out experiments/bench/SUITE.csv` records. Times are medians
in milliseconds, of a training step or, on a data set, of a whole epoch; "forward" is without gradients, on a data set
the evaluation. The contestants of a case took turns in one run, short calls many to a turn. "× eager" and "×
compiled" are PyG's time over ours: below 1, PyG is faster. Peak is the memory of a step beyond weights and inputs;
kept is what is saved for backward, over the size of inputs and output. Three numbers with slashes are of graphattn,
PyG eager and PyG compiled.
"""
_OPERATIONS = """The operations by themselves. "Of the limit" is the least time in which a forward pass could move its
bytes at the machine's copy bandwidth, over the time it took; where rows fit into the cache it can pass 100 %.
"""
_SCALING = """GATConv with one head of 64 on graphs of ten edges a node, and on a hub that a million edges enter. The
edges are ordered once a graph. "Of the limit" is of the operation's forward pass.
"""
_SCALE = """GAT of three layers of 4 heads of 64 on graphs that fill the memory, 128 features a node, each contestant
in a process of its own, whose whole memory "peak" is. Recomputed: what lies inside a layer is computed again in the
backward pass (`train.recompute`); bf16: under autocast to bfloat16.
"""
_SAMPLED = """The same network on batches of 1,024 nodes with 15, 10 and 5 neighbours drawn hop by hop, features in a
memory-mapped file. "Sampling" is the loader alone, made ahead in threads.
"""
_SEEDS = """An epoch, a step and the evaluation, of several seeds of GAT: as one model (`run --batch-seeds`), and one
by one.
"""
_ORDERS = """GATConv on real graphs as they come and with their nodes in another order: reverse Cuthill-McKee
(`data.reorder`), or those of most edges first.
"""
_DEPTH = """Attention of every layer over those before it, as MRLA-base has it, in a stage of 6, 18 and 36 layers of 8
x 64 x 32 x 32: over a list of their values, and over a concatenated cache. SDPA takes all layers at once, which no
network can whose layers read what attention gave.
"""
_GRID = """Attention-Wise layers of 8 or 16 heads, for Fashion-MNIST on 4,096 images and on 16, for CIFAR-10 on 1,024;
and one of 16 channels and 4 heads on 64 images. The same layer in torch, eager and compiled.
"""
_SEQUENCE = """One causal sequence of 128 to 16,384 steps, 512 channels, 8 heads and 31 taps, mixed; "maps": with the
linear maps of a block's mixer. What the convolutions take grows with T, what self-attention takes with T^2, but for its
memory where SDPA is fused (graphattn); "unfolded" multiplies matrices in which each value stands once a tap.
"""
_DECODING = """32 sentences made token by token, by a model of each mixer with about as many parameters; how many
tokens is in the name. What a band remembers stays as long as the band, what self-attention remembers grows.
"""
_COMPARED = {"seeds": _SEEDS, "orders": _ORDERS, "depth": _DEPTH, "grid": _GRID, "sequence": _SEQUENCE}


class _Case:
    """The rows of one case on one machine."""

    def __init__(self, rows: Iterable[dict[str, str]]) -> None:
        self.rows = {(row["contestant"], row["direction"]): row for row in rows}
        first = next(iter(self.rows.values()))
        self.name, self.op, self.graph = first["case"], first["op"], first["graph"]
        self.num_nodes, self.num_edges = int(first["N"] or 0), int(first["E"] or 0)
        self.directions = {direction for _, direction in self.rows}
        names = list(dict.fromkeys(name for name, _ in self.rows))
        timed = {name for (name, _), row in self.rows.items() if row["p50_ms"]}
        self.ours = next((name for name in ("graphattn", "gpu", "cpu") if name in timed), "reference")
        self.peers = [name for name in names if not name.startswith(self.ours)]

    def number(self, contestant: str, direction: str, column: str = "p50_ms") -> float | None:
        """None where there is no such row, or no number in it."""
        text = self.rows.get((contestant, direction), {}).get(column, "")
        return float(text) if text else None

    def times(self, contestant: str, direction: str) -> float | None:
        """How many times as long as ours a peer takes."""
        theirs, ours = self.number(contestant, direction), self.number(self.ours, direction)
        return None if theirs is None or ours is None else theirs / ours


def section(folder: Path) -> list[str]:
    """The parts of the section, from the CSV files in `folder`: none if there is none. Draws `folder`/scaling.svg.

    `folder`/notes.md comes last: what falls short of what was aimed at, what was tried, and what bounds it.
    """
    rows = [row for suite in _SUITES for row in _read(folder / f"{suite}.csv")]
    parts = [_TEXT] if rows else []
    curves = {}
    for machine in dict.fromkeys(row["machine"] for row in rows):
        there = [row for row in rows if row["machine"] == machine]
        parts += _of_machine(there)
        curves[machine] = _curves(_cases(there, "scaling"))
    if curves := {machine: lines for machine, lines in curves.items() if lines}:
        with matplotlib.rc_context({"svg.hashsalt": "graphattn", "svg.fonttype": "none"}):  # same rows, same file
            pictures.scaling(curves).savefig(folder / "scaling.svg", metadata={"Date": None})
        parts.append(f"![Time of a training step over the number of edges]({folder.name}/scaling.svg)\n")
    notes = folder / "notes.md"
    return [*parts, notes.read_text(encoding="utf-8")] if parts and notes.exists() else parts


def _of_machine(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    last = max(rows, key=lambda row: row["date"])
    yield (
        f"### {last['machine']}\n\ntorch {last['torch']} with {last['threads']} threads, torch-geometric "
        f"{last['torch-geometric']}; copies {float(last['copy_gb_s']):.0f} GB/s; {last['commit']} {last['date']}.\n"
    )
    if layers := _cases(rows, "layers") + _cases(rows, "gpu"):
        heads = "case | N | E | graphattn, ms | PyG eager | PyG compiled | × eager | × compiled"
        yield _table(f"{heads} | forward: × eager | × compiled | peak, MiB | kept", map(_layer, layers))
    if operations := _cases(rows, "ops"):
        yield _OPERATIONS
        heads = "operation | ours | forward, ms | of the limit | step, ms | × reference | × scatter | × torch.sparse"
        yield _table(heads, map(_operation, operations))
    if scaling := _cases(rows, "scaling"):
        limits = {(case.graph, case.num_edges): case for case in scaling if case.ours != "graphattn"}
        yield _SCALING
        heads = "graph | E | step, ms | ns an edge | PyG eager, ms | × eager | ordering, ms | of the limit"
        layers = [case for case in scaling if case.ours == "graphattn"]
        yield _table(heads, (_scaled(case, limits.get((case.graph, case.num_edges))) for case in layers))
    scale = _cases(rows, "scale")
    if whole := [case for case in scale if not case.number("graphattn", "sampling")]:
        yield _SCALE
        yield _table("N | E | contestant | step, s | peak, GiB", (line for case in whole for line in _whole(case)))
    if sampled := [case for case in scale if case.number("graphattn", "sampling")]:
        yield _SAMPLED
        heads = "N | E | contestant | sampling, ms a batch | step, ms a batch | epoch, s | peak, GiB"
        yield _table(heads, (line for case in sampled for line in _batches(case)))
    for suite, text in _COMPARED.items():
        found = _cases(rows, suite)
        if cases := [case for case in found if case.directions != {"decoding"}]:
            yield text
            heads = "case | contestant | forward, ms | step, ms | epoch, ms | × the last | peak, MiB | kept | ordering"
            yield _filled(heads, [line for case in cases for line in _compared(case)])
        if cases := [case for case in found if case.directions == {"decoding"}]:
            yield _DECODING
            yield _table("case | contestant | ms | × the last", (line for case in cases for line in _decoded(case)))
    if slower := [line for suite in _SUITES for case in _cases(rows, suite) for line in _slower(case)]:
        yield "Where a peer is faster, in milliseconds:\n"
        yield "\n".join(slower) + "\n"


def _layer(case: _Case) -> list[str]:
    step = "epoch" if case.number(case.ours, "epoch") else "training step"
    times = [case.number(name, step) for name in _SHOWN]
    factors = [case.times(name, direction) for direction in (step, "forward") for name in _SHOWN[1:]]
    peaks = [case.number(name, "training step", "peak_mib") for name in _SHOWN]
    kept = []
    for name in _SHOWN if step != "epoch" else ():
        saved, size = (case.number(name, "training step", column) for column in ("kept_mib", "io_mib"))
        kept.append(None if saved is None or not size else saved / size)
    sizes = [f"{size:,}" if size else "" for size in (case.num_nodes, case.num_edges)]
    return [case.name, *sizes, *map(_short, times), *map(_short, factors), _slashed(peaks), _slashed(kept)]


def _operation(case: _Case) -> list[str]:
    forward, step = case.number(case.ours, "forward"), case.number(case.ours, "training step")
    factors = (case.times(name, "training step") for name in ("reference", "scatter", "torch.sparse"))
    return [case.name, case.ours, _short(forward), _of_limit(case), _short(step), *map(_short, factors)]


def _scaled(case: _Case, operation: _Case | None) -> list[str]:
    ours = case.number(case.ours, "training step")
    edge = None if ours is None else 1e6 * ours / case.num_edges
    peer = [case.number("pyg", "training step"), case.times("pyg", "training step")]
    numbers = [ours, edge, *peer, case.number(case.ours, "graph")]
    limit = "" if operation is None else _of_limit(operation)
    return [case.graph, f"{case.num_edges:,}", *map(_short, numbers), limit]


def _whole(case: _Case) -> Iterator[list[str]]:
    """A line a contestant: what it took, or why it did not run."""
    for (name, direction), row in case.rows.items():
        taken, peak = (case.number(name, direction, column) for column in ("p50_ms", "peak_mib"))
        numbers = [row["status"].partition(": ")[2], ""] if taken is None else [_short(taken / 1e3), _gibibytes(peak)]
        yield [f"{case.num_nodes:,}", f"{case.num_edges:,}", name, *numbers]


def _batches(case: _Case) -> Iterator[list[str]]:
    for name in dict.fromkeys(name for name, _ in case.rows):
        sampling, step, epoch = (case.number(name, d) for d in ("sampling", "training step", "epoch"))
        peak = case.number(name, "training step", "peak_mib")
        numbers = [_short(sampling), _short(step), _short(epoch and epoch / 1e3), _gibibytes(peak)]
        yield [f"{case.num_nodes:,}", f"{case.num_edges:,}", name, *numbers]


def _compared(case: _Case) -> Iterator[list[str]]:
    """A line a contestant; the last is what the others are compared to."""
    names = list(dict.fromkeys(name for name, _ in case.rows))
    whole = "epoch" if case.number(names[-1], "epoch") else "training step"
    for name in names:
        numbers = [case.number(name, direction) for direction in ("forward", "training step", "epoch")]
        ratio = case.number(name, whole, "ratio")
        held = [case.number(name, "training step", column) for column in ("peak_mib", "kept_mib")]
        cells = [*map(_short, [*numbers, ratio, *held, case.number(name, "graph")])]
        if not any(numbers):
            cells[0] = case.rows[name, next(iter(case.directions))]["status"]
        yield [case.name, name, *cells]


def _decoded(case: _Case) -> Iterator[list[str]]:
    """A line a contestant, compared to the last."""
    names = [name for name, _ in case.rows]
    last = case.number(names[-1], "decoding")
    for name in names:
        own = case.number(name, "decoding")
        yield [case.name, name, _short(own), _short(last / own if last and own else None)]


def _slower(case: _Case) -> Iterator[str]:
    for peer in case.peers:
        for direction in ("forward", "training step", "epoch"):
            if (factor := case.times(peer, direction)) is not None and factor < 1:
                theirs, ours = (_short(case.number(name, direction)) for name in (peer, case.ours))
                yield f"- {case.name}, {direction}: {peer} {theirs}, {case.ours} {ours}"


def _curves(cases: Sequence[_Case]) -> dict[str, list[tuple[int, float]]]:
    """(E, milliseconds of a training step) of each layer contestant on each kind of graph."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for case in cases:
        for name in _SHOWN:
            if (taken := case.number(name, "training step")) is not None:
                lines.setdefault(f"{name}, {case.graph}", []).append((case.num_edges, taken))
    return {label: sorted(points) for label, points in lines.items()}


def _cases(rows: Iterable[dict[str, str]], suite: str) -> list[_Case]:
    there = (row for row in rows if row["suite"] == suite)
    return [_Case(group) for _, group in groupby(there, key=lambda row: row["case"])]


def _table(heads: str, lines: Iterable[Sequence[str]]) -> str:
    rule = "|---" * len(heads.split(" | ")) + "|"
    return "\n".join([f"| {heads} |", rule, *(f"| {' | '.join(line)} |" for line in lines)]) + "\n"


def _filled(heads: str, lines: Sequence[Sequence[str]]) -> str:
    """As `_table`, less the columns in which nothing is."""
    kept = [k for k in range(len(lines[0])) if any(line[k] for line in lines)]
    names = heads.split(" | ")
    return _table(" | ".join(names[k] for k in kept), ([line[k] for k in kept] for line in lines))


def _slashed(values: Iterable[float | None]) -> str:
    return " / ".join(_short(value) or "–" for value in values)


def _of_limit(case: _Case) -> str:
    share = case.number(case.ours, "forward", "roofline")
    return "" if share is None else f"{100 * share:.0f} %"


def _gibibytes(mebibytes: float | None) -> str:
    return "" if mebibytes is None else _short(mebibytes / 1024)


def _short(value: float | None) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
