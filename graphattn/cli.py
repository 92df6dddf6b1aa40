"""The command line: graphattn list | run | report | bench | data."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from graphattn import experiment
from graphattn.data import manifest as manifests
from graphattn.experiment import Experiment

if TYPE_CHECKING:
    from graphattn.training import Job, Launch

app = typer.Typer(
    help=(
        "Attention over graphs and layers: benchmarks, tables and pictures.\n\n"
        "A first run, with no data and no network:  graphattn run digits/gat --seeds 3\n\n"
        "The GAT paper's number on Cora:            graphattn run cora/gat"
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(
    help="The data sets: what they are, whether their files are here and whole.", no_args_is_help=True
)
app.add_typer(data_app, name="data")
# What is read by another program has lines of any length: whole ones, so that grep finds what belongs together.
console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200)

DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Folder to look for data in first, laid out as FOLDER/NAME/<official file names>."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change the definition, e.g. --set train.lr=0.01 --set model.heads=4."),
]
Preset = Annotated[
    str | None, typer.Option(help="One of the definition's presets, e.g. short: another protocol, with its own record.")
]
Runs = Annotated[Path, typer.Option(help="Folder for checkpoints, curves and results of the runs.")]


@app.command("list")
def list_experiments(
    part: Annotated[str, typer.Argument(help="Only those whose name contains this, e.g. cora/ or gatv2.")] = "",
) -> None:
    """The experiments there are, the published number and ours."""
    from graphattn import report

    with _clear_errors():
        names = [name for name in experiment.names() if part in name]
        if not names:
            raise ValueError(f"no experiment's name contains {part!r}: `graphattn list` shows all")
        console.print(report.overview(experiment.all_of(names), titles=console.width >= 120))


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="An experiment, such as cora/gat; see `graphattn list`.")],
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds, from 0; default: the definition's.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where there is one.")] = "auto",
    data: DataFolder = None,
    preset: Preset = None,
    set_: Overrides = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Seeds side by side, OMP_NUM_THREADS each at most; default: one a core or GPU."),
    ] = None,
    runs: Runs = Path("runs"),
    fresh: Annotated[bool, typer.Option(help="Forget earlier runs of this definition and begin again.")] = False,
    record: Annotated[bool, typer.Option(help="Write the result beside the definition in experiments/.")] = False,
    extend: Annotated[
        bool, typer.Option(help="Count the seeds recorded there as done: a record may grow over days and machines.")
    ] = False,
    cuda_graph: Annotated[
        bool,
        typer.Option(help="Replay loss and gradients as one CUDA graph: for small models on one graph, or on images."),
    ] = False,
    batch_seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Train so many seeds of a small GAT, GCN or MLP at once in one process, as one model so many times as "
            "wide, for example 10. Only the dropout masks differ from those of seeds by themselves.",
        ),
    ] = None,
    executor: Annotated[str, typer.Option(help="Where seeds run side by side: processes here, or ray.")] = "processes",
    ray_address: Annotated[
        str | None,
        typer.Option(help="A running Ray cluster, e.g. auto or ray://HOST:10001; default: one is started here."),
    ] = None,
) -> None:
    """Train an experiment over its seeds and print mean and spread next to the published number.

    Seeds that are done are not run again, and a run that was killed goes on where it was: repeat the command. Under
    torchrun, each seed is trained by all ranks together, which share every batch.
    """
    with _clear_errors():
        definition = experiment.load(name, set_ or [], preset)
        if (record or extend) and set_:
            raise ValueError("--record and --extend are for the definition as it stands: leave out --set, or change it")
        if extend and fresh:
            raise ValueError("--fresh forgets the seeds that --extend counts: give one of them")
        from graphattn.training import Launch

        launch = Launch(
            device=device,
            workers=workers,
            fresh=fresh,
            known=_recorded(definition) if extend else None,
            cuda_graph=cuda_graph,
            batch_seeds=batch_seeds,
            executor=executor,
            ray_address=ray_address,
        )
        jobs = launch.jobs(definition, definition.run.seeds if seeds is None else seeds, runs, data)
        result = _run(definition, jobs, launch)
        if record and _first_rank():
            _record(definition, result)
    if result["failed"]:
        raise typer.Exit(1)


@app.command()
def report(
    names: Annotated[list[str] | None, typer.Argument(help="Experiments to draw; default: only the tables.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for pictures and the HTML page.")] = Path("report"),
    data: DataFolder = None,
    preset: Preset = None,
    set_: Overrides = None,
    runs: Runs = Path("runs"),
) -> None:
    """Rebuild experiments/RESULTS.md from the recorded JSON; with names, also draw their runs.

    For each named experiment that has been run here: its table row, the learning curves and, for attention models,
    the attention on a neighbourhood and the t-SNE picture of the hidden features, or which layers read which, or what
    Attention-Wise makes of an image, as PNG and SVG and together in one self-contained page, report.html. Nothing is
    trained.
    """
    from graphattn import report as reports

    with _clear_errors():
        if not names:
            path = reports.write_results(experiment.FOLDER)
            console.print(f"wrote {path}")
            return
        definitions = [experiment.load(name, set_ or [], preset) for name in names]
        page = reports.write_page(definitions, runs, out, data)
        console.print(f"wrote {page}")


@app.command()
def bench(
    suite: Annotated[
        str, typer.Argument(help="layers, ops, scaling, scale, seeds, orders, depth, grid, sequence or gpu.")
    ] = "layers",
    case: Annotated[str, typer.Option(help="Only the cases whose name contains this.")] = "",
    repeats: Annotated[int, typer.Option(help="Timed rounds through all contestants of a case, at least 5.")] = 11,
    threads: Annotated[int | None, typer.Option(help="Threads for torch; default: as many as it takes.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    data: DataFolder = None,
    out: Annotated[Path | None, typer.Option(help="CSV to put the rows into, e.g. bench/layers.csv.")] = None,
) -> None:
    """Time ours against PyG eager, PyG compiled, torch-scatter, torch.sparse and DGL, those that are installed.

    layers: whole layers on graphs of the size of PPI, arxiv, Pubmed and Cora, and GAT's epoch on Cora and Citeseer if
    their files are there. ops: the operations by themselves, over the back ends. scaling: 10^4 to 10^7 edges, and a hub
    that 10^6 enter. scale: graphs that fill the memory, trained on whole and sampled. seeds: an epoch of several seeds
    of GAT on Cora and Citeseer, as `run --batch-seeds` trains them and one by one. orders: a layer on real graphs whose
    nodes are called by other names. depth: attention over the layers of a network. grid: Attention-Wise layers on
    images. sequence: mixers of up to 16,384 steps. gpu: what is for a GPU beside these, with --device cuda: 62 million
    edges, half precision.

    Contestants must agree in output and gradients, then take turns in one process; scale takes each in a process of its
    own, over three steps, uncompared. "x base" is the median of PyG eager (ops: of the back end `reference`; seeds: of
    one by one; orders: as it comes; depth: a concatenated cache; grid: torch eager) over theirs. A case that is timed
    again replaces its rows in the CSV.
    """
    from graphattn import bench as benches

    with _clear_errors():
        failed = False
        for rows in benches.run(suite, benches.chosen(suite, case, data), repeats, threads, device):
            console.print(benches.shown(rows))
            failed |= any(row["status"].startswith("failed") for row in rows)
            if out is not None:
                benches.record(rows, out)
        if out is not None:
            console.print(f"recorded in {out}", highlight=False)
    if failed:
        raise typer.Exit(1)


@data_app.command("list")
def data_list() -> None:
    """The data sets, their sizes, splits and licences."""
    from graphattn import report

    console.print(report.data_sets([manifests.read(name) for name in manifests.names()]))


@data_app.command("check")
def data_check(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets; default: all.")] = None,
    data: DataFolder = None,
) -> None:
    """Find each set's files (downloading what is nowhere), check their sums, load the set and check its sizes."""
    from graphattn.data import load

    wrong = 0
    for name in names or manifests.names():
        try:
            loaded = load(name, folder=data)
        except (ValueError, OSError, ImportError) as error:
            wrong += 1
            console.print(f"{name}: {error}", style="red", markup=False, highlight=False)
        else:
            console.print(f"{name}: {loaded.summary()}")
    if wrong:
        raise typer.Exit(1)


@data_app.command("pin")
def data_pin(name: Annotated[str, typer.Argument(help="A data set.")], data: DataFolder = None) -> None:
    """Print the sums of a set's files as they are here, to paste into its manifest once you trust them."""
    with _clear_errors():
        for file, digest in manifests.pins(name, data).items():
            console.print(f"{file}: {digest}", highlight=False)


def _run(definition: Experiment, jobs: list[Job], launch: Launch) -> dict[str, Any]:
    """Run the seeds with a progress bar, save the summary in their folder, print the table."""
    from graphattn import report
    from graphattn.training import summary

    console.quiet = not _first_rank()
    outcomes, finished = launch.start(jobs), []
    with _progress() as progress:
        bar = progress.add_task(definition.label, total=len(jobs), note="")
        for done in outcomes:
            finished.append(done)
            if done.error:
                progress.console.print(f"seed {done.seed} failed: {done.error}", style="red", markup=False)
            note = report.so_far([f.result for f in finished if f.result])
            progress.update(bar, advance=1, note=note)
    folder = jobs[0].folder
    result = summary(definition, finished, folder, launch.found_device)
    if _first_rank():
        experiment.save(result, folder / "result.json")
    console.print(report.comparison([(definition, result)]))
    console.print(f"runs in {folder}", highlight=False)
    return result


def _first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _recorded(definition: Experiment) -> dict[str, Any]:
    """The record of this very definition.

    Raises:
        ValueError: there is none, or the definition has changed since.
    """
    result = experiment.recorded(definition.name, definition.preset)
    if result is None:
        raise ValueError(f"--extend: {definition.label} has no record yet; leave it out")
    before = experiment.from_table(definition.name, result["definition"], f"the record of {definition.label}")
    if before.key() != definition.key():
        raise ValueError(
            f"--extend: the definition of {definition.label} has changed since it was recorded; leave it out"
        )
    return result


def _record(definition: Experiment, result: dict[str, Any]) -> None:
    from graphattn import report

    if result["failed"]:
        raise ValueError(f"not recorded: seeds {', '.join(result['failed'])} failed; repeat the command first")
    before = experiment.recorded(definition.name, definition.preset)
    if before and len(before["seeds"]) > len(result["seeds"]):
        raise ValueError(
            f"not recorded: the record has {len(before['seeds'])} seeds, this run {len(result['seeds'])}; run as "
            f"many, or remove the record first"
        )
    folder = experiment.FOLDER / definition.name
    source = experiment.definition(definition.name)
    if source.resolve() != (folder / "definition.toml").resolve():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "definition.toml").write_bytes(source.read_bytes())
    path = folder / experiment.result_name(definition.preset)
    experiment.save(result, path)
    console.print(f"recorded in {path}; {report.write_results(experiment.FOLDER)} is up to date")


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=console)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """What users can mend is one line on stderr and exit code 2; anything else keeps its traceback."""
    try:
        yield
    except KeyboardInterrupt as stop:
        print("\nstopped: repeat the command to go on from here", file=sys.stderr)
        raise typer.Exit(130) from stop
    except typer.Exit:
        raise
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        print(f"graphattn: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
