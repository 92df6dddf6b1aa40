"""Pictures: learning curves, the attention on a neighbourhood, hidden features in the plane, time over edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from graphattn.data import NodeData
from graphattn.report.tables import SCORES

COLOURS = [f"C{i}" for i in range(10)]  # matplotlib's own cycle, for classes and experiments
_MOST_NEIGHBOURS = 16  # more do not stay readable in one picture


def learning_curves(results: dict[str, dict[str, Any]]) -> Figure:
    """Loss and validation score over the epochs of each experiment's first seed; of one without validation data, the
    training loss and the test score; of one whose score is measured at the end alone, the losses. Beside them, of those
    that log it, the mean absolute gradient of the first layer.
    """
    names = {name for result in results.values() for name in result["curve"][0]}
    panels = 3 if "gradient" in names else 2
    figure = Figure(figsize=(4.5 * panels, 3.4), layout="constrained")
    losses, scores, *gradients = figure.subplots(1, panels)
    measures: list[str] = []
    for (name, result), colour in zip(results.items(), COLOURS * 5, strict=False):
        curve = result["curve"]
        validated = "val_loss" in curve[0]
        part = "val_" if validated else "test_"
        measure = next((name for name in curve[0] if name.startswith(part) and name != "val_loss"), None)
        epochs = [row["epoch"] for row in curve]
        losses.plot(epochs, [row["train_loss"] for row in curve], color=colour, alpha=0.45, lw=1)
        if validated:
            losses.plot(epochs, [row["val_loss"] for row in curve], color=colour, label=name)
        if measure is not None:
            measures.append(f"{'validation' if validated else 'test'} {SCORES[measure.removeprefix(part)]}")
            scores.plot(epochs, [row[measure] for row in curve], color=colour, label=name)
        if "gradient" in curve[0]:
            gradients[0].plot(epochs, [row["gradient"] for row in curve], color=colour)
    title = "validation loss (pale: training)" if "val_loss" in names else "training loss"
    losses.set(xlabel="epoch", ylabel="cross-entropy", title=title)
    for axes in gradients:
        axes.set(xlabel="epoch", ylabel="mean of |gradient|", title="gradient of the first layer, last step")
        if any(row.get("gradient", 0) > 0 for result in results.values() for row in result["curve"]):
            axes.set_yscale("log")  # which has no place for zeros alone
    unit = "" if any("perplexity" in measure for measure in measures) else "%"
    scores.set(xlabel="epoch", ylabel=unit, title=" and ".join(dict.fromkeys(measures)) or "no score of each epoch")
    if measures:
        scores.legend(fontsize=8, loc="lower right" if unit else "upper right")
    else:
        losses.legend(fontsize=8, loc="upper right")
    return figure


def neighbourhood(data: NodeData, edge_index: Tensor, weights: Tensor, node: int | None = None) -> Figure:
    """The weights [E, H] on the edges entering one node: width and label are the mean over heads, colour the class.

    Without `node`, the test node whose weights differ most among those with 6 to 16 senders is drawn.
    """
    mean = weights.mean(1)
    node = _telling_node(data, edge_index[1], mean) if node is None else node
    entering = (edge_index[1] == node).nonzero().flatten()
    entering = entering[mean[entering].argsort(descending=True)][:_MOST_NEIGHBOURS]
    senders = edge_index[0, entering].tolist()
    angles = np.linspace(np.pi / 2, 2.5 * np.pi, sum(s != node for s in senders), endpoint=False)
    places = dict(zip([s for s in senders if s != node], zip(np.cos(angles), np.sin(angles), strict=True), strict=True))
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for sender, weight in zip(senders, mean[entering].tolist(), strict=True):
        if sender == node:
            axes.text(0, -0.12, f"itself {weight:.2f}", ha="center", va="top", fontsize=8)
            continue
        x, y = places[sender]
        axes.plot([x, 0], [y, 0], color="0.5", lw=24 * weight, solid_capstyle="round", zorder=1)
        axes.text(0.62 * x, 0.62 * y, f"{weight:.2f}", ha="center", va="center", fontsize=8, backgroundcolor="white")
        axes.scatter(x, y, s=180, color=COLOURS[int(data.y[sender]) % 10], zorder=2)
    axes.scatter(0, 0, s=420, color=COLOURS[int(data.y[node]) % 10], edgecolor="black", zorder=3)
    axes.set(title=f"{data.name}: attention entering node {node}", xlim=(-1.25, 1.25), ylim=(-1.25, 1.25))
    axes.set_aspect("equal")
    axes.axis("off")
    return figure


def hidden_plane(data: NodeData, hidden: Tensor, edge_index: Tensor, weights: Tensor) -> Figure:
    """t-SNE of the hidden features [N, F], coloured by class; an edge is as dark as its attention summed over heads.

    As figure 2 of Velickovic et al., Graph Attention Networks, ICLR 2018.
    """
    from sklearn.manifold import TSNE

    plane = TSNE(n_components=2, random_state=0, perplexity=min(30, data.num_nodes // 4)).fit_transform(hidden.numpy())
    total = weights.sum(1)
    drawn = edge_index[0] != edge_index[1]
    shade = total[drawn].numpy()
    shade = shade / max(shade.max(initial=0), 1e-12)
    figure = Figure(figsize=(7, 7), layout="constrained")
    axes = figure.subplots()
    lines = plane[edge_index[:, drawn].t().numpy()]
    axes.add_collection(LineCollection(lines, colors=np.c_[np.zeros((len(shade), 3)), 0.35 * shade], lw=0.5))
    axes.scatter(plane[:, 0], plane[:, 1], c=[COLOURS[label % 10] for label in data.y.tolist()], s=9, zorder=2)
    axes.set_title(f"{data.name}: t-SNE of the first layer's features, edges by summed attention")
    axes.axis("off")
    return figure


def scaling(machines: dict[str, dict[str, list[tuple[int, float]]]]) -> Figure:
    """Milliseconds over edges, both logarithmic: of each machine the named curves, and a line that grows as E does."""
    figure = Figure(figsize=(6.4 * len(machines), 4.4), layout="constrained")
    columns = figure.subplots(1, len(machines), squeeze=False)[0]
    for axes, (machine, curves) in zip(columns, machines.items(), strict=True):
        for (name, points), marker in zip(curves.items(), "os^vDP*X<>" * 5, strict=False):
            edges, times = zip(*points, strict=True)
            axes.loglog(edges, times, marker=marker, ms=5, lw=1.2, label=name)
        (first, time), last = min(min(curves.values())), max(max(curves.values()))[0]
        axes.loglog([first, last], [time, time * last / first], color="0.6", ls=":", label="proportional to E")
        axes.set(xlabel="edges E", ylabel="ms a training step", title=machine)
        axes.legend(fontsize=8)
    return figure


def _telling_node(data: NodeData, receivers: Tensor, mean: Tensor) -> int:
    degree = torch.bincount(receivers, minlength=data.num_nodes)
    second = torch.zeros(data.num_nodes).index_add(0, receivers, mean**2)
    variance = second / degree.clamp(min=1) - 1 / degree.clamp(min=1) ** 2  # the weights of a node have mean 1 / degree
    readable = (degree >= 6) & (degree <= _MOST_NEIGHBOURS)
    candidates = data.test[readable[data.test]]
    if candidates.numel() == 0:
        return int(degree.argmax())
    return int(candidates[(variance[candidates] * degree[candidates]).argmax()])
