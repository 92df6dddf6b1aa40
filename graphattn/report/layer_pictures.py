"""Pictures of attention over layers: who reads whom, as a table of shades and as the layer DAG itself."""

from __future__ import annotations

import networkx
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from graphattn.depth import AttentionMap

_FAINT = 0.02  # of the largest weight: fainter edges are not drawn


def layer_heat_map(found: AttentionMap, title: str) -> Figure:
    """Readers in rows, sources in columns, the mean weight as shade; signed weights are red and blue about zero."""
    largest = max(float(found.weights.abs().max()), 1e-12)
    signed = bool((found.weights < 0).any())
    size = max(3.0, 0.28 * len(found.sources))
    figure = Figure(figsize=(size + 1.5, max(2.2, 0.28 * len(found.readers) + 1.5)), layout="constrained")
    axes = figure.subplots()
    shades = axes.imshow(
        found.weights.numpy(), cmap="RdBu_r" if signed else "Blues", vmin=-largest if signed else 0, vmax=largest
    )
    axes.set_xticks(range(len(found.sources)), found.sources, rotation=90, fontsize=7)
    axes.set_yticks(range(len(found.readers)), found.readers, fontsize=7)
    axes.set(xlabel="layer read", ylabel="layer that reads")
    axes.set_title(title, fontsize=8)
    figure.colorbar(shades, label="mean weight")
    return figure


def layer_dag(found: AttentionMap, title: str) -> Figure:
    """Layers in the order they run; an arc from a layer to one that reads it, as wide as the mean weight, red where
    that is negative; a ring round a layer that reads itself.
    """
    graph = as_networkx(found)
    place = {name: index for index, name in enumerate(found.sources)}
    largest = max((abs(w) for _, _, w in graph.edges(data="weight")), default=1.0)
    figure = Figure(figsize=(max(5.0, 0.5 * len(place)), 3.6), layout="constrained")
    axes = figure.subplots()
    for source, reader, weight in graph.edges(data="weight"):
        colour, share = ("C3" if weight < 0 else "C0"), abs(weight) / largest
        if source == reader:
            axes.scatter(place[reader], 0, s=160, facecolor="none", edgecolor=colour, lw=4 * share, zorder=2)
            continue
        arc = FancyArrowPatch(
            (place[source], 0),
            (place[reader], 0),
            connectionstyle="arc3,rad=-0.5",
            arrowstyle="-",
            lw=4 * share,
            color=colour,
            alpha=0.25 + 0.6 * share,
        )
        axes.add_patch(arc)
    axes.scatter(list(place.values()), [0] * len(place), s=60, color="0.2", zorder=3)
    axes.set_xticks(list(place.values()), list(place), rotation=90, fontsize=7)
    longest = max((place[reader] - place[source] for source, reader in graph.edges), default=0)
    axes.set_title(title, fontsize=10)
    axes.set(xlim=(-0.7, len(place) - 0.3), ylim=(-0.4, 0.3 * longest + 0.4), yticks=[])
    axes.spines[["left", "right", "top"]].set_visible(False)
    return figure


def as_networkx(found: AttentionMap) -> networkx.DiGraph:
    """The layers as nodes, in order; an edge from each layer to a reader with its mean weight, faint ones left out."""
    graph = networkx.DiGraph()
    graph.add_nodes_from(found.sources)
    least = _FAINT * float(found.weights.abs().max())
    for row, reader in enumerate(found.readers):
        for column, source in enumerate(found.sources):
            weight = float(found.weights[row, column])
            if abs(weight) > least:
                graph.add_edge(source, reader, weight=weight)
    return graph
