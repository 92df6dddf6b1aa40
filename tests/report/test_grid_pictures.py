"""Pictures of element-wise attention: which arrays are drawn where, and that the page has them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from graphattn import experiment
from graphattn.experiment import Model
from graphattn.grid import AttentionWise
from graphattn.models.attention_wise import AttentionWiseNetwork
from graphattn.report import grid_pictures, write_page
from graphattn.training import Finished, Job, prepared, run_seed, summary


def drawn(figure: Figure) -> list[tuple[str, np.ndarray]]:
    """Title and numbers of each picture in it."""
    return [(axes.get_title(), axes.images[0].get_array()) for axes in figure.axes if axes.images]


def network(**options: Any) -> AttentionWiseNetwork:
    return AttentionWiseNetwork(2, 10, 7, heads=3, num_layers=2, **options).eval()


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_row_shows_the_steps_of_a_layer(batch_norm: bool, skip: bool) -> None:
    torch.manual_seed(0)
    model, x = network(batch_norm=batch_norm, skip=skip), torch.randn(4, 2, 7, 7)
    steps = model.inspect(x)
    figure = grid_pictures.attention_steps(x[0], steps, "B", head=1)
    last = steps[1]
    expected = {"input": steps[0].output[0], "scores": last.scores[0, 1], "normalised": last.normalised[0, 1]}
    expected |= {"before convolution": last.heads[0, 1], "after convolution": last.merged[0]}
    if skip:
        expected["before norm" if batch_norm else "input added"] = last.added[0]
    if batch_norm:
        expected["after norm"] = last.normed[0]
    expected["output"] = last.output[0]
    found = drawn(figure)
    assert [name for name, _ in found] == [*expected, *[""] * len(expected)]
    for (_, array), values in zip(found[len(expected) :], expected.values(), strict=True):
        np.testing.assert_array_equal(array, values.detach().mean(0).numpy())
    np.testing.assert_array_equal(found[0][1], x[0].mean(0).numpy())
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] == ["layer 1", "layer 2"]
    assert figure.get_suptitle() == "B, head 2"


@pytest.mark.parametrize("heads", [1, 8, 11])
def test_every_head_has_a_picture_and_the_same_shades(heads: int) -> None:
    model = AttentionWiseNetwork(2, 10, 5, heads=heads, num_layers=1).eval()
    (steps,) = model.inspect(torch.randn(2, 2, 5, 5))
    figure = grid_pictures.attention_heads(steps, "heads")
    found = drawn(figure)
    assert [name for name, _ in found] == [f"head {k + 1}" for k in range(heads)]
    assert len(figure.axes) == heads, "and no empty ones"
    means = steps.heads[0].detach().mean(1).numpy()
    for k, (_, array) in enumerate(found):
        np.testing.assert_array_equal(array, means[k])
    assert {axes.images[0].get_clim() for axes in figure.axes} == {(means.min(), means.max())}


def test_weights_are_shown_about_zero() -> None:
    layers = [layer for layer in network().layers if isinstance(layer, AttentionWise)]
    figure = grid_pictures.attention_weights(layers, "weights", head=2)
    pictures = {axes.get_title(): axes.images[0] for axes in figure.axes if axes.images}
    assert set(pictures) == {"layer 1, x", "layer 2, x", "layer 1, y", "layer 2, y"}
    for k, layer in enumerate(layers):
        for name, weight in (("x", layer.x_weight), ("y", layer.y_weight)):
            picture, values = pictures[f"layer {k + 1}, {name}"], weight.detach()[2].mean(0)
            np.testing.assert_array_equal(picture.get_array(), values.numpy())
            low, high = picture.get_clim()
            assert -low == high == float(values.abs().max())


def test_a_page_shows_a_test_image_and_the_trained_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"heads": 3, "num_layers": 2, "batch_norm": True}
    definition = experiment.load("digits-images/resnet8", ["train.epochs=2", "train.log_gradient=true"])
    definition = replace(definition, name="digits-images/grid", model=Model("attention-wise", options))
    folder = tmp_path / "runs" / definition.name / definition.key()
    finished = [Finished(0, run_seed(Job(definition, 0, folder)))]
    experiment.save(summary(definition, finished, folder, "cpu"), folder / "result.json")
    figures: dict[str, Figure] = {}
    for name in ("attention_steps", "attention_heads", "attention_weights"):
        draw = getattr(grid_pictures, name)
        monkeypatch.setattr(
            grid_pictures, name, lambda *args, draw=draw, name=name: figures.setdefault(name, draw(*args))
        )
    page = write_page([definition], tmp_path / "runs", tmp_path / "out", None)
    stems = ["learning-curves", *(f"digits-images-grid-{part}" for part in ("steps", "heads", "weights"))]
    assert {file.name for file in page.parent.glob("*.svg")} == {f"{stem}.svg" for stem in stems}
    assert all((page.parent / f"{stem}.png").stat().st_size < 300_000 for stem in stems)
    titles = re.findall(r'<img alt="([^"]*)"', page.read_text())
    assert titles[1:] == [
        "digits-images/grid: a test image, head 1",
        "digits-images/grid: before the convolution, layer 1",
        "digits-images/grid: weights, head 1",
    ]
    model, data, _ = prepared(Job(definition, 0, folder))
    best = torch.load(folder / "seed-0" / "best.pt", weights_only=True)["model"]
    model.load_state_dict(best)
    steps = model.eval().inspect(data.pixels(data.test[:1]))  # type: ignore[operator, union-attr]
    found = dict(drawn(figures["attention_weights"]))
    np.testing.assert_array_equal(found["layer 2, y"], best["layers.1.y_weight"][0].mean(0).numpy())
    np.testing.assert_array_equal(drawn(figures["attention_steps"])[-1][1], steps[1].output[0].detach().mean(0).numpy())
    np.testing.assert_array_equal(drawn(figures["attention_heads"])[2][1], steps[0].heads[0, 2, 0].detach().numpy())
