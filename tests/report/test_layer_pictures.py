"""Attention over layers, drawn."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from graphattn import experiment
from graphattn.depth import AttentionMap
from graphattn.report import write_page
from graphattn.report.layer_pictures import as_networkx, layer_dag, layer_heat_map
from graphattn.training import Finished, Job, run_seed, summary

MAP = AttentionMap(
    ["b", "c"], ["entry", "a", "b", "c"], torch.tensor([[0.5, 0.0, 0.5, 0.0], [0.001, 0.25, -0.75, 1.0]])
)
EDGES = {("entry", "b"): 0.5, ("b", "b"): 0.5, ("a", "c"): 0.25, ("b", "c"): -0.75, ("c", "c"): 1.0}


def test_as_networkx() -> None:
    graph = as_networkx(MAP)
    assert list(graph.nodes) == MAP.sources
    assert {(a, b): w for a, b, w in graph.edges(data="weight")} == EDGES


def test_arcs_are_as_wide_as_weights() -> None:
    axes = layer_dag(MAP, "a title").axes[0]
    arcs = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert sorted(arc.get_linewidth() for arc in arcs) == [1.0, 2.0, 3.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == MAP.sources
    assert axes.get_title() == "a title"


def test_shades_are_the_weights() -> None:
    axes = layer_heat_map(MAP, "a title").axes[0]
    (image,) = axes.images
    assert torch.equal(torch.tensor(image.get_array().tolist()), MAP.weights)
    assert image.get_clim() == (-1.0, 1.0), "signed weights: white is zero"
    unsigned = layer_heat_map(AttentionMap(MAP.readers, MAP.sources, MAP.weights.abs()), "").axes[0]
    assert unsigned.images[0].get_clim() == (0.0, 1.0)


@pytest.mark.parametrize("draw", [layer_dag, layer_heat_map])
@pytest.mark.parametrize("found", [MAP, AttentionMap(["a"], ["a"], torch.zeros(1, 1))])
def test_pictures_are_written(draw, found: AttentionMap) -> None:
    figure = draw(found, "title")
    assert isinstance(figure, Figure)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue()


@pytest.mark.parametrize(("model", "drawn"), [("resnet14-mrla-base", True), ("resnet8", False)])
def test_a_page_shows_what_layers_attend_to(
    model: str, drawn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = experiment.load(f"digits-images/{model}", ["train.epochs=1", "run.seeds=1"])
    monkeypatch.chdir(tmp_path)
    folder = Path("runs") / definition.name / definition.key()
    finished = [Finished(0, run_seed(Job(definition, 0, folder)))]
    experiment.save(summary(definition, finished, folder, "cpu"), folder / "result.json")
    write_page([definition], Path("runs"), tmp_path / "out", None)
    made = {file.name for file in (tmp_path / "out").glob("*.svg")} - {"learning-curves.svg"}
    stem = f"digits-images-{model}"
    assert made == ({f"{stem}-layers.svg", f"{stem}-layer-weights.svg"} if drawn else set())
