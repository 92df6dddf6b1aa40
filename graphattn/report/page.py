"""The pictures of named experiments, as files and together in one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import warnings
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import nn

from graphattn.data import Images, NodeData
from graphattn.depth import attention_map
from graphattn.experiment import Experiment
from graphattn.grid import AttentionWise
from graphattn.models.attention_wise import AttentionWiseNetwork
from graphattn.report import grid_pictures, layer_pictures, pictures
from graphattn.report.tables import SCORES, measured, published, score
from graphattn.training import Job, prepared

_BATCH = 256  # test images whose attention is drawn, in the mean
_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.3rem .9rem;text-align:left;border-bottom:1px solid #ddd}
img{max-width:100%}footer{color:#777;font-size:.85rem}"""


def write_page(definitions: Sequence[Experiment], runs: Path, out: Path, data_folder: Path | None) -> Path:
    """Draw the experiments' runs into `out` (PNG and SVG) and `out`/report.html; the path of the page.

    Raises:
        FileNotFoundError: an experiment that was not run here.
    """
    results = {definition.label: _result(definition, runs) for definition in definitions}
    figures: dict[str, Figure] = {}
    if any(result["curve"] for result in results.values()):
        figures["learning-curves"] = pictures.learning_curves({n: r for n, r in results.items() if r["curve"]})
    for definition in definitions:
        figures |= _drawn(definition, results[definition.label], runs, data_folder)
    out.mkdir(parents=True, exist_ok=True)
    images = [_image(name, figure, out) for name, figure in figures.items()]
    page = out / "report.html"
    part = page.with_suffix(".html.part")
    part.write_text(_html(definitions, results, images), encoding="utf-8")
    part.replace(page)
    return page


def _result(definition: Experiment, runs: Path) -> dict[str, Any]:
    path = runs / definition.name / definition.key() / "result.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{definition.name} has not been run here ({path} is not there): first `graphattn run {definition.name}`"
        )
    return json.loads(path.read_text(encoding="utf-8"))


@torch.no_grad()
def _drawn(definition: Experiment, result: dict[str, Any], runs: Path, data_folder: Path | None) -> dict[str, Figure]:
    """Pictures of what the first seed that has its best checkpoint here attends to."""
    folder = runs / definition.name / definition.key()
    here = [row["seed"] for row in result["seeds"] if (folder / f"seed-{row['seed']}" / "best.pt").exists()]
    if not here:  # all were taken from a record
        return {}
    seed = here[0]
    model, data, _ = prepared(Job(definition, seed, folder, data_folder, device="cpu"))
    best = torch.load(folder / f"seed-{seed}" / "best.pt", map_location="cpu", weights_only=True)
    model.load_state_dict(best["model"])
    model.eval()
    stem = definition.label.replace("/", "-").replace(", ", "-")
    if isinstance(data, Images) and isinstance(model, AttentionWiseNetwork):
        return _over_pixels(definition.label, stem, model, data)
    if isinstance(data, Images):
        return _over_layers(definition.label, stem, model, data)
    if isinstance(data, NodeData) and data.y.dim() == 1 and definition.labels is None:
        return _over_nodes(stem, model, data)
    return {}


def _over_nodes(stem: str, model: nn.Module, data: NodeData) -> dict[str, Figure]:
    """Of models on one graph that can be inspected."""
    inspect: Any = getattr(model, "inspect", None)
    if inspect is None:
        return {}
    outputs, attention = inspect(data.x, data.edge_index, data.edge_attr)
    edge_index, weights = attention[0]
    figures = {f"{stem}-neighbourhood": pictures.neighbourhood(data, edge_index, weights)}
    if find_spec("sklearn") is None:
        warnings.warn("no t-SNE picture: it needs scikit-learn (pip install scikit-learn)", stacklevel=2)
    else:
        figures[f"{stem}-features"] = pictures.hidden_plane(data, outputs[0], edge_index, weights)
    return figures


def _over_layers(label: str, stem: str, model: nn.Module, data: Images) -> dict[str, Figure]:
    """Of networks whose layers attend to layers with weights to show, in the mean over a test batch."""
    x = data.pixels(data.test[:_BATCH])
    try:
        found = attention_map(model, x)
    except ValueError:  # nothing to show
        return {}
    return {
        f"{stem}-layers": layer_pictures.layer_dag(found, f"{label}: attention over layers"),
        f"{stem}-layer-weights": layer_pictures.layer_heat_map(found, f"{label}: attention over layers"),
    }


def _over_pixels(label: str, stem: str, model: AttentionWiseNetwork, data: Images) -> dict[str, Figure]:
    """Of element-wise attention: the steps of each layer and the first one's heads on the first test image; weights."""
    x = data.pixels(data.test[:1])
    steps = model.inspect(x)
    layers = [layer for layer in model.layers if isinstance(layer, AttentionWise)]
    return {
        f"{stem}-steps": grid_pictures.attention_steps(x[0], steps, f"{label}: a test image"),
        f"{stem}-heads": grid_pictures.attention_heads(steps[0], f"{label}: before the convolution, layer 1"),
        f"{stem}-weights": grid_pictures.attention_weights(layers, f"{label}: weights"),
    }


def _image(name: str, figure: Figure, out: Path) -> str:
    figure.savefig(out / f"{name}.svg")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=150)
    (out / f"{name}.png").write_bytes(png.getvalue())
    title = escape(figure.get_suptitle() or figure.axes[0].get_title() or name)
    return f'<p><img alt="{title}" src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"></p>'


def _html(definitions: Sequence[Experiment], results: dict[str, dict[str, Any]], images: list[str]) -> str:
    rows = "".join(
        f"<tr><td>{escape(d.label)}</td><td>{escape(d.title)}</td><td>{measured(result)} {SCORES[score(result)]}</td>"
        f"<td>{published(d.paper)}</td><td>{len(result['seeds'])}</td></tr>"
        for d, result in ((d, results[d.label]) for d in definitions)
    )
    first = next(iter(results.values()))
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>graphattn report</title><style>{_STYLE}</style>'
        f"<h1>graphattn report</h1><table><tr><th>experiment</th><th>what</th><th>test, % or perplexity</th>"
        f"<th>paper, %</th><th>seeds</th></tr>{rows}</table>{''.join(images)}"
        f"<footer>{escape(versions)}; {escape(first['machine'])}; {escape(first['date'])}</footer></html>\n"
    )
