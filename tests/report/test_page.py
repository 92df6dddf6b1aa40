"""The page and its pictures: what is drawn, from a run's files, and that the page needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from torch import Tensor

from graphattn import data, experiment
from graphattn.data import NodeData
from graphattn.experiment import Experiment, Model, Paper
from graphattn.models import MODELS
from graphattn.report import pictures, write_page
from graphattn.training import Finished, Job, run_seed, summary

PNG = b"\x89PNG\r\n\x1a\n"


def star(*fans: int, test: list[int]) -> tuple[NodeData, Tensor]:
    """Node k is entered by the `fans[k]` nodes after the first ones, and by itself; gives the edges too."""
    num_nodes = len(fans) + max(fans, default=0)
    pairs = [(len(fans) + j, k) for k, fan in enumerate(fans) for j in range(fan)] + [(n, n) for n in range(num_nodes)]
    edge_index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).t()
    y = torch.arange(num_nodes) % 3
    none = torch.zeros(0, dtype=torch.int64)
    return NodeData("star", torch.eye(num_nodes), edge_index, y, none, none, torch.tensor(test), 3), edge_index


def weights(edge_index: Tensor, **peaked: float) -> Tensor:
    """[E, 1], equal for each receiver; those named n0, n1, ... give so much to their first sender."""
    receivers = edge_index[1]
    found = 1 / torch.bincount(receivers)[receivers].float()
    for name, first in peaked.items():
        entering = (receivers == int(name[1:])).nonzero().flatten()
        found[entering] = (1 - first) / (len(entering) - 1)
        found[entering[0]] = first
    return found.unsqueeze(1)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_neighbourhood_drawn_is_the_one_that_tells_most() -> None:
    graph, edges = star(6, 6, 20, 7, 3, test=[0, 1, 2, 4])
    # node 1 differs; node 2 has too many senders, node 3 is not tested, node 4 has too few
    attention = weights(edges, n1=0.5, n2=0.9, n3=0.9, n4=0.9)
    assert pictures.neighbourhood(graph, edges, attention).axes[0].get_title() == "star: attention entering node 1"


def test_without_a_good_candidate_the_node_with_most_senders_is_drawn() -> None:
    graph, edges = star(3, 4, 2, test=[0, 1, 2])
    title = pictures.neighbourhood(graph, edges, weights(edges)).axes[0].get_title()
    assert title == "star: attention entering node 1"


def test_a_neighbourhood_shows_each_weight() -> None:
    graph, edges = star(4, test=[0])
    attention = torch.cat([weights(edges, n0=0.4), weights(edges, n0=0.6)], 1)  # two heads: their mean is drawn
    figure = pictures.neighbourhood(graph, edges, attention, node=0)
    assert sorted(texts(figure)) == ["0.12", "0.12", "0.12", "0.50", "itself 0.12"]
    lines = figure.axes[0].lines
    assert sorted(line.get_linewidth() for line in lines) == pytest.approx([3.0, 3.0, 3.0, 12.0])
    dots = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    colours = colormaps["tab10"].colors
    drawn = sorted(tuple(dot.get_facecolor()[0, :3]) for dot in dots)
    assert drawn == sorted(colours[int(label)] for label in graph.y), "coloured by class"
    places = {tuple(dot.get_offsets()[0]) for dot in dots}
    assert len(places) == 5, "no two on one place"


def test_of_many_senders_the_strongest_are_drawn() -> None:
    graph, edges = star(30, test=[0])
    attention = torch.arange(len(edges[0])).float().unsqueeze(1) / 100
    figure = pictures.neighbourhood(graph, edges, attention, node=0)
    shown = sorted(float(text.removeprefix("itself ")) for text in texts(figure))
    assert shown == pytest.approx([weight / 100 for weight in range(15, 31)])


@pytest.mark.parametrize("loops", [True, False])
def test_a_node_without_senders_can_be_drawn(loops: bool) -> None:
    graph, edges = star(0, 0, test=[0])
    edges = edges if loops else edges[:, :0]
    figure = pictures.neighbourhood(graph, edges, torch.ones(edges.shape[1], 1))
    assert texts(figure) == (["itself 1.00"] if loops else [])


def test_hidden_plane_darkens_edges_by_attention() -> None:
    graph, edges = star(3, 8, test=[0])
    attention = torch.cat([weights(edges, n1=0.8)] * 2, 1)
    hidden = torch.rand(graph.num_nodes, 5, generator=torch.Generator().manual_seed(0))
    axes = pictures.hidden_plane(graph, hidden, edges, attention).axes[0]
    (lines,) = [c for c in axes.collections if isinstance(c, LineCollection)]
    (points,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    drawn = (edges[0] != edges[1]).nonzero().flatten()
    total = attention.sum(1)[drawn]
    assert np.allclose(lines.get_colors()[:, 3], 0.35 * total / total.max())
    plane = points.get_offsets()
    assert plane.shape == (graph.num_nodes, 2) and np.isfinite(plane).all()
    ends = np.stack([plane[edges[0, drawn]], plane[edges[1, drawn]]], 1)
    assert np.allclose(np.stack(lines.get_segments()), ends)
    colours = colormaps["tab10"].colors
    assert np.allclose(points.get_facecolor()[:, :3], [colours[label] for label in graph.y.tolist()])


def test_hidden_plane_without_edges() -> None:
    graph, edges = star(0, 0, 0, 0, 0, 0, 0, 0, test=[0])
    hidden = torch.rand(graph.num_nodes, 5, generator=torch.Generator().manual_seed(0))
    figure = pictures.hidden_plane(graph, hidden, edges, torch.ones(edges.shape[1], 1))
    assert len(figure.axes[0].collections) == 2


def test_learning_curves() -> None:
    curve = [{"epoch": 5 * k, "train_loss": 2.0 - k, "val_loss": 3.0 - k, "val_accuracy": 10.0 * k} for k in range(3)]
    losses, accuracies = pictures.learning_curves({"digits/a": {"curve": curve}, "digits/b": {"curve": curve[:2]}}).axes
    assert losses.get_title() == "validation loss (pale: training)"
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in losses.lines]
    assert lines[:2] == [([0, 5, 10], [2.0, 1.0, 0.0]), ([0, 5, 10], [3.0, 2.0, 1.0])], "training, validation"
    assert list(accuracies.lines[0].get_ydata()) == [0.0, 10.0, 20.0]
    assert [text.get_text() for text in accuracies.get_legend().get_texts()] == ["digits/a", "digits/b"]
    assert losses.lines[0].get_color() == losses.lines[1].get_color() != losses.lines[2].get_color()


def test_losses_alone_where_no_epoch_has_a_score() -> None:
    curve = [{"epoch": k, "train_loss": 2.0 - k, "val_loss": 3.0 - k} for k in range(3)]
    losses, scores = pictures.learning_curves({"german/a": {"curve": curve}}).axes
    assert [list(line.get_ydata()) for line in losses.lines] == [[2.0, 1.0, 0.0], [3.0, 2.0, 1.0]]
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["german/a"]
    assert not scores.lines and scores.get_legend() is None


def test_a_perplexity_is_no_percentage() -> None:
    curve = [{"epoch": k, "train_loss": 1.0, "val_loss": 1.0, "val_perplexity": 9.0 - k} for k in range(3)]
    _, scores = pictures.learning_curves({"words/a": {"curve": curve}}).axes
    assert list(scores.lines[0].get_ydata()) == [9.0, 8.0, 7.0]
    assert (scores.get_ylabel(), scores.get_title()) == ("", "validation perplexity")


@pytest.mark.parametrize("gradients", [[8e-5, 2e-5], [0.0, 0.0], [float("nan"), 1e-5]])
def test_learning_curves_with_a_gradient(gradients: list[float]) -> None:
    curve = [
        {"epoch": k, "train_loss": 2.0 - k, "test_accuracy": 10.0 * k, "gradient": gradient}
        for k, gradient in enumerate(gradients)
    ]
    without = [{name: value for name, value in row.items() if name != "gradient"} for row in curve]
    figure = pictures.learning_curves({"a": {"curve": without}, "b": {"curve": curve}})
    losses, scores, gradient = figure.axes
    assert losses.get_title() == "training loss" and len(losses.lines) == len(scores.lines) == 2
    (line,) = gradient.lines
    np.testing.assert_array_equal(line.get_ydata(), gradients)
    assert line.get_color() == scores.lines[1].get_color()
    assert gradient.get_yscale() == ("log" if max(gradients) != 0 else "linear")
    figure.savefig(io.BytesIO())


def test_more_experiments_than_colours() -> None:
    curve = [{"epoch": 0, "train_loss": 2.0, "val_loss": 3.0, "val_accuracy": 10.0}]
    figure = pictures.learning_curves({f"digits/{k}": {"curve": curve} for k in range(23)})
    assert len(figure.axes[1].lines) == 23


class Sources(HTMLParser):
    """All that a page points to, its text, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data")]
        if tag == "tr":
            self.cells.append([])
        elif tag == "td":
            self.cells[-1].append("")

    def handle_data(self, text: str) -> None:
        if self.cells and self.cells[-1] and "footer" not in self.tags:
            self.cells[-1][-1] += text


def recorded(definition: Experiment) -> dict[str, Any]:
    return json.loads(Path("runs", definition.name, definition.key(), "result.json").read_text())


Ran = Callable[..., Experiment]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Run two seeds of a model on a small graph into ./runs; gives the definition."""
    generator = torch.Generator().manual_seed(0)
    nodes = torch.arange(40)
    ends = torch.cat([torch.stack([nodes, (nodes + step) % 40]) for step in (1, 3, 7)], 1)
    edge_index = torch.cat([ends, ends.flip(0)], 1)
    x = torch.rand(40, 6, generator=generator)
    small = NodeData("small", x, edge_index, nodes % 3, nodes[:12], nodes[12:24], nodes[24:], 3)
    monkeypatch.setattr(data, "load", lambda *_, **__: small)
    monkeypatch.chdir(tmp_path)

    def run(model: str, title: str = "Small", **options: Any) -> Experiment:
        definition = experiment.load(f"digits/{model}", ["train.epochs=3"])
        definition = replace(
            definition, model=Model(model, options), title=title, paper=Paper(83.0, "x", 0.7), name=f"small/{model}"
        )
        folder = Path("runs") / definition.name / definition.key()
        finished = [Finished(seed, run_seed(Job(definition, seed, folder))) for seed in range(2)]
        experiment.save(summary(definition, finished, folder, "cpu"), folder / "result.json")
        return definition

    return run


def test_page(ran: Ran, tmp_path: Path) -> None:
    definitions = [ran("gat", hidden=4, heads=2, title="<b>GAT</b> & more"), ran("mlp")]
    out = tmp_path / "new" / "report"
    path = write_page(definitions, Path("runs"), out, None)
    names = ["learning-curves", "small-gat-neighbourhood", "small-gat-features"]
    files = {f"{name}.{end}" for name in names for end in ("png", "svg")}
    assert {file.name for file in out.iterdir()} == files | {"report.html"}, (
        "attention is drawn only where there is any"
    )
    for name in names:
        assert (out / f"{name}.png").read_bytes().startswith(PNG)
        assert ET.parse(out / f"{name}.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert path == out / "report.html"
    page = path.read_text(encoding="utf-8")
    found = Sources(page)
    embedded = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in found.sources]
    assert embedded == [(out / f"{name}.png").read_bytes() for name in names], "and it points to nothing else"
    assert not {"script", "link", "iframe", "b"} & set(found.tags)
    assert "url(" not in page and "@import" not in page
    gat, mlp = (row for row in found.cells if row)
    result = recorded(definitions[0])
    assert gat[:2] == ["small/gat", "<b>GAT</b> & more"] and gat[3:] == ["83.0 ± 0.7", "2"]
    assert (
        gat[2]
        == f"{result['result']['test_accuracy']['mean']:.1f} ± {result['result']['test_accuracy']['std']:.1f} accuracy"
    )
    assert mlp[:2] == ["small/mlp", "Small"]
    assert all(part in page for part in (torch.__version__, result["date"]))


def test_the_attention_is_that_of_the_best_checkpoint(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = ran("gat", hidden=4, heads=2)
    drawn = []

    def watched(data: NodeData, hidden: Tensor, *_: Tensor) -> Figure:
        drawn.append(hidden)
        return Figure().add_subplot().figure

    monkeypatch.setattr(pictures, "hidden_plane", watched)
    best = tmp_path / "runs/small/gat" / definition.key() / "seed-0" / "best.pt"
    small = data.load("small")
    model = MODELS["gat"](small.num_features, small.num_classes, hidden=4, heads=2).eval()
    model.load_state_dict(torch.load(best, weights_only=True)["model"])
    write_page([definition], Path("runs"), tmp_path / "report", None)
    outputs, _ = model.inspect(small.x, small.edge_index)
    assert torch.allclose(drawn[0], outputs[0]), "and drawn without dropout"


def test_a_page_of_a_model_that_learns_nothing_has_no_pictures(ran: Ran, tmp_path: Path) -> None:
    definition = ran("mlp")
    folder = Path("runs") / definition.name / definition.key()
    experiment.save(recorded(definition) | {"curve": []}, folder / "result.json")
    page = write_page([definition], Path("runs"), tmp_path / "report", None)
    assert not Sources(page.read_text(encoding="utf-8")).sources
    assert [file.name for file in page.parent.iterdir()] == ["report.html"]


def test_an_experiment_that_was_not_run_names_the_command(tmp_path: Path) -> None:
    definition = experiment.load("digits/gat")
    with pytest.raises(FileNotFoundError, match=r"digits/gat has not been run here .*first `graphattn run digits/gat`"):
        write_page([definition], tmp_path / "runs", tmp_path / "report", None)
    assert not (tmp_path / "report").exists()


def test_seeds_taken_from_a_record_have_curves_and_no_attention(ran: Ran, tmp_path: Path) -> None:
    definition = ran("gat", hidden=4, heads=2)
    folder = tmp_path / "runs" / definition.name / definition.key()
    kept = sorted(folder.glob("seed-*/best.pt"))
    assert kept
    for path in kept:
        path.unlink()
    page = write_page([definition], Path("runs"), tmp_path / "report", None)
    names = {file.name for file in page.parent.iterdir()}
    assert "report.html" in names and not any("neighbourhood" in name or "features" in name for name in names)
