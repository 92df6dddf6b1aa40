"""Draws docs/four_graphs.svg, the README's picture: `python docs/four_graphs.py`."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Place = tuple[float, float]
Panel = tuple[list[Place], list[tuple[int, int]], int, bool]


def draw(axes: Axes, title: str, places: list[Place], edges: list[tuple[int, int]], node: int, curved: bool) -> None:
    """Nodes as dots; the edges entering `node` dark, all others pale; long edges may curve round nodes between."""
    for sender, receiver in sorted(edges, key=lambda edge: edge[1] == node):
        dark = receiver == node
        far = math.dist(places[sender], places[receiver]) > 1.01
        curve = 0.4 if curved and far else 0.0
        axes.annotate(
            "",
            places[receiver],
            places[sender],
            arrowprops={
                "arrowstyle": "-|>",
                "color": "C0" if dark else "0.85",
                "lw": 1.6 if dark else 0.8,
                "shrinkA": 5,
                "shrinkB": 6,
                "connectionstyle": f"arc3,rad={curve}",
            },
        )
    colours = ["C3" if i == node else "0.3" for i in range(len(places))]
    axes.scatter([x for x, _ in places], [y for _, y in places], s=70, c=colours, zorder=3)
    axes.set_title(title, fontsize=11)
    centre = [(min(along) + max(along)) / 2 for along in zip(*places, strict=True)]
    reach = 0.62 * max(max(along) - min(along) for along in zip(*places, strict=True))
    axes.set(xlim=(centre[0] - reach, centre[0] + reach), ylim=(centre[1] - reach, centre[1] + reach), aspect="equal")
    axes.axis("off")


def general() -> Panel:
    places = [(0.0, 0.0)] + [(math.cos(a), math.sin(a)) for a in (0.3, 1.6, 2.7, 3.9, 5.2)]
    edges = [(1, 0), (2, 0), (3, 0), (5, 0), (1, 2), (2, 3), (4, 3), (4, 5), (5, 1)]
    return places, edges, 0, False


def layers() -> Panel:
    places = [(0.0, -float(i)) for i in range(5)]
    return places, [(j, i) for i in range(5) for j in range(i)], 4, True


def band() -> Panel:
    places = [(float(i), 0.0) for i in range(7)]
    return places, [(j, i) for i in range(7) for j in range(7) if 0 < abs(i - j) <= 2], 3, True


def pixels() -> Panel:
    places = [(float(x), float(y)) for y in range(4) for x in range(4)]
    node = 5
    edges = [(i, node) for i in range(16) if i != node and (i // 4 == node // 4 or i % 4 == node % 4)]
    return places, edges, node, True


if __name__ == "__main__":
    figure = Figure(figsize=(11, 3), layout="constrained")
    panels = {"a graph": general(), "layers of a network": layers(), "tokens": band(), "pixels": pixels()}
    for axes, (title, panel) in zip(figure.subplots(1, 4), panels.items(), strict=True):
        draw(axes, title, *panel)
    figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})
