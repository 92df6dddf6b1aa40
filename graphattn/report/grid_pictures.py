"""Pictures of element-wise attention over pixels: what each layer makes of an image, and the weights of a head."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from graphattn.grid import AttentionWise, Steps


def attention_steps(image: Tensor, layers: Sequence[Steps], title: str, head: int = 0) -> Figure:
    """A row a layer, of the first image of the batch, `image` [C, h, w]: what enters; of one head the scores, these
    normalised, and the head, which is before the convolution; after it, of all heads; with what entered added, if it
    is, which is before the batch norm; after that, if there is one; the output. Shades are means over the channels,
    from the least of each picture, black, to the largest, white.

    After the figures of Bacochina and de Souza, Element-Wise Attention Layers, arXiv:2302.05488.
    """
    rows = []
    for steps in layers:
        row = {"input": image, "scores": steps.scores[0, head], "normalised": steps.normalised[0, head]}
        row |= {"before convolution": steps.heads[0, head], "after convolution": steps.merged[0]}
        normed = steps.normed is not steps.added
        if steps.added is not steps.merged:
            row["before norm" if normed else "input added"] = steps.added[0]
        if normed:
            row["after norm"] = steps.normed[0]
        image = steps.output[0]
        rows.append(row | {"output": image})
    figure = Figure(figsize=(1.4 * len(rows[0]), 1.5 * len(rows) + 0.4), layout="constrained")
    figure.suptitle(f"{title}, head {head + 1}", fontsize=10)
    for k, line in enumerate(figure.subplots(len(rows), len(rows[0]), squeeze=False)):
        for axes, (name, array) in zip(line, rows[k].items(), strict=True):
            _shade(axes, array)
            axes.set_title(name if k == 0 else "", fontsize=8)
        line[0].set_ylabel(f"layer {k + 1}", fontsize=8)
    return figure


def attention_heads(steps: Steps, title: str) -> Figure:
    """All heads of a layer before the convolution, of the first image of the batch, shaded alike: black is the least of
    all heads, white the largest. Means over the channels.
    """
    heads = steps.heads[0].detach().mean(1)
    columns = min(8, len(heads))
    lines = -(-len(heads) // columns)
    figure = Figure(figsize=(max(3.0, 1.4 * columns), 1.5 * lines + 0.4), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for k, axes in enumerate(figure.subplots(lines, columns, squeeze=False).flat):
        if k == len(heads):
            break
        _shade(axes, steps.heads[0, k], float(heads.min()), float(heads.max()))
        axes.set_title(f"head {k + 1}", fontsize=8)
    for axes in figure.axes[len(heads) :]:
        axes.remove()
    return figure


def attention_weights(layers: Sequence[AttentionWise], title: str, head: int = 0) -> Figure:
    """The weights along x and along y of a head of each layer, means over the channels: red above zero, blue below."""
    figure = Figure(figsize=(1.9 * len(layers) + 0.6, 4), layout="constrained")
    figure.suptitle(f"{title}, head {head + 1}", fontsize=10)
    grid = figure.subplots(2, len(layers), squeeze=False)
    for column, layer in enumerate(layers):
        for line, name, weight in ((grid[0], "x", layer.x_weight), (grid[1], "y", layer.y_weight)):
            values = weight.detach()[head].mean(0)
            largest = max(float(values.abs().max()), 1e-12)
            shades = line[column].imshow(values.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)
            line[column].set_title(f"layer {column + 1}, {name}", fontsize=8)
            line[column].axis("off")
            figure.colorbar(shades, ax=line[column], shrink=0.8).ax.tick_params(labelsize=6)
    return figure


def _shade(axes: Axes, array: Tensor, least: float | None = None, largest: float | None = None) -> None:
    """The mean over channels of `array` [C, h, w]."""
    axes.imshow(array.detach().mean(0).numpy(), cmap="gray", vmin=least, vmax=largest)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
