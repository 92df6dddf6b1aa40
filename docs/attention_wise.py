"""Writes docs/attention-wise.md, sizes and results of the Attention-Wise networks: `python docs/attention_wise.py`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from graphattn import data, experiment
from graphattn.models.attention_wise import AttentionWiseNetwork
from graphattn.models.vgg import ControlNetwork
from graphattn.report.tables import mean_and_spread

ROOT = Path(__file__).resolve().parent.parent
MERGED = 8  # heads that every merging convolution has in the paper's counts


@dataclass(frozen=True)
class Quoted:
    """A network of the paper and how many parameters it says that has.

    `scores_norm`: the norm of the scores has a scale and a shift in the count, once for all layers. `outputs`: of the
    last layer.
    """

    name: str
    heads: int
    layers: int
    batch_norm: bool
    count: int
    channels: int = 1
    size: int = 28
    scores_norm: bool = False
    outputs: int = 10

    @property
    def pixels(self) -> int:
        return self.channels * self.size**2

    def runs(self) -> int:
        """The parameters of the network that can run."""
        model = AttentionWiseNetwork(
            self.channels, 10, self.size, heads=self.heads, num_layers=self.layers, batch_norm=self.batch_norm
        )
        return sum(p.numel() for p in model.parameters())

    def terms(self) -> dict[str, int]:
        """The quoted count as a sum."""
        convolution = 9 * MERGED * self.channels**2 + self.channels
        found = {
            f"2 · {self.layers} · {self.heads} · {self.pixels}": 2 * self.layers * self.heads * self.pixels,
            f"{self.layers} · {convolution}": self.layers * convolution,
            f"({self.pixels} + 1) · {self.outputs}": (self.pixels + 1) * self.outputs,
        }
        if self.batch_norm:
            found[f"2 · {self.layers * self.channels}"] = 2 * self.layers * self.channels
        if self.scores_norm:
            found[f"2 · {self.heads * self.channels}"] = 2 * self.heads * self.channels
        return found

    def differences(self) -> dict[str, int]:
        """What the quoted count has more or less than the network that can run."""
        found = {
            f"convolutions of {MERGED} heads": 9 * self.layers * (MERGED - self.heads) * self.channels**2,
            f"{self.outputs} outputs": (self.pixels + 1) * (self.outputs - 10),
            "scale and shift of scores": 2 * self.heads * self.channels * self.scores_norm,
        }
        return {name: count for name, count in found.items() if count}


QUOTED = (
    Quoted("A", 8, 2, True, 33_104, scores_norm=True),
    Quoted("B", 8, 2, False, 33_084),
    Quoted("C", 16, 2, True, 58_208, scores_norm=True),
    Quoted("D", 16, 2, False, 58_172),
    Quoted("E", 8, 4, True, 58_342, scores_norm=True),
    Quoted("F", 8, 4, False, 58_318),
    Quoted("G", 16, 4, True, 108_534, scores_norm=True),
    Quoted("H", 16, 4, False, 108_494),
    Quoted("single head", 1, 2, False, 11_132),
    Quoted("CIFAR-10", 8, 4, False, 506_560, channels=3, size=32, scores_norm=True, outputs=100),
)
CONTROLS = {"control": (1, 28, 929_510), "control, CIFAR-10": (3, 32, 961_310)}

# Accuracy in percent and the sum of the batches' mean losses over the last epoch, of those of the paper's runs whose
# figures are known here.
PUBLISHED: dict[str, tuple[float, float | None]] = {
    "fashion-mnist/attention-wise-control": (88.29, 4.5083),
    "fashion-mnist/attention-wise-a": (9.99, 34.539),
    "fashion-mnist/attention-wise-b": (81.46, 7.5913),
    "fashion-mnist/attention-wise-c": (9.99, 34.539),
    "fashion-mnist/attention-wise-single": (80.09, None),
    "fashion-mnist/attention-wise-b-skip-free": (82.13, 7.4980),
    "cifar10/attention-wise-control": (67.12, 42.56),
    "cifar10/attention-wise": (41.81, 80.89),
    "cifar10/attention-wise-segregated": (43.10, None),
}

_SAME = ("drawn", "narrow", "centred", "standardised")  # presets that are what the paper's words allow
_DRAWN = tuple(f"fashion-mnist/attention-wise-{model}" for model in "aceg")  # the models with batch norm

_HEAD = """# Attention-Wise: sizes and results

Written by `python docs/attention_wise.py` from the models and from the records in `experiments/`; do not edit.

Bacochina and de Souza, Element-Wise Attention Layers: an option for optimization, arXiv:2302.05488. The layer is
`graphattn.grid.AttentionWise`, the network `attention-wise`, the convolutional network beside it `control`.

## Parameters

"Runs" counts the network as the text describes it: in each layer two weights for each head, channel and pixel, and a
3x3 convolution with bias from all heads to the channels; a scale and a shift of each `batch_norm`; a linear layer.
"Quoted" is the paper's count. All of them follow from one reading, written out in the last column: the convolution
merges 8 heads, however many there are, which no network of 1 or 16 heads can run; where there is a batch norm, and on
CIFAR-10, the norm of the scores has a scale and a shift, once for all layers; and the network for CIFAR-10 has 100
outputs. The paper says that the network of one head has batch norm, but counts none.
"""

_RESULTS = """
## Results

Accuracy in percent after the last epoch, mean and standard deviation over the seeds. The paper's losses are sums over
the batches of an epoch, and so are these; 34.54 is the loss of a network that knows nothing, 15 ln 10. The gradient is
the mean absolute one of the first layer in the last step; the paper does not say how it averages. An empty cell under
"paper": its figures of D to H and of the gradients are not known here.

The paper does not say how pixels are scaled. Pixels from 0 to 1 are what all runs have but `centred`, from -1 to 1, and
`standardised`, of mean 0 and variance 1 over the training images.

Presets `unshrunk` are not the paper's: the norm of the scores has an epsilon that does not outweigh the variance of
products of softmaxes, and uses means over all batches in evaluation.
"""

_COLLAPSE = """
## Whether batch norm makes it collapse

The paper's models of two layers with batch norm, A and C, stay at 9.99 %, and its models of four, E and G, learn. In
the preset `drawn` a norm's scale is drawn from N(0, 0.02) as all other weights, which the paper's words include, where
otherwise it begins at 1. That shrinks what a layer gives on a hundredfold: a likely cause, not a proven one.
"""


def page() -> str:
    return "\n".join([_HEAD, *_counts(), _RESULTS, *_results(), *_ratios(), _COLLAPSE, *_collapse()]) + "\n"


def _counts() -> list[str]:
    lines = [
        "| network | heads | layers | batch norm | runs | quoted | quoted less runs | quoted as |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for quoted in QUOTED:
        runs, norm = quoted.runs(), "yes" if quoted.batch_norm else ""
        gap = "; ".join(f"{count:+,} {name}" for name, count in quoted.differences().items())
        lines.append(
            f"| {quoted.name} | {quoted.heads} | {quoted.layers} | {norm} | {runs:,} | {quoted.count:,} "
            f"| {gap or 'none'} | {' + '.join(quoted.terms())} |"
        )
    for name, (channels, size, count) in CONTROLS.items():
        runs = sum(p.numel() for p in ControlNetwork(channels, 10, size).parameters())
        lines.append(f"| {name} | | | | {runs:,} | {count:,} | {'none' if runs == count else runs - count} | |")
    return lines


def _results() -> list[str]:
    lines = [
        "| experiment | accuracy | paper | loss | paper | gradient | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, preset in _names():
        accuracy, loss = PUBLISHED.get(name, (None, None)) if preset in (None, *_SAME) else (None, None)
        label = name if preset is None else f"{name}, {preset}"
        told = ["" if accuracy is None else f"{accuracy:.2f}", "" if loss is None else f"{loss:.2f}"]
        if (record := _record(name, preset)) is None:
            lines.append(f"| {label} | not run here | {told[0]} | | {told[1]} | | |")
            continue
        seeds = record["seeds"]
        accuracies = mean_and_spread([row["test_accuracy"] for row in seeds], 2)
        losses = mean_and_spread([row["train_loss"] * _batches(record) for row in seeds], 2)
        gradient = f"{fmean(row['gradient'] for row in seeds):.1e}"
        lines.append(f"| {label} | {accuracies} | {told[0]} | {losses} | {told[1]} | {gradient} | {len(seeds)} |")
    return lines


def _ratios() -> list[str]:
    """What the paper concludes, from these records: parameters and accuracy as parts of the control's."""
    lines = []
    for name, control, told in (
        ("fashion-mnist/attention-wise-b", "fashion-mnist/attention-wise-control", "97 % fewer, 92 % of the accuracy"),
        ("cifar10/attention-wise", "cifar10/attention-wise-control", "50 % fewer, 60 % of the accuracy"),
    ):
        own, other = _record(name, None), _record(control, None) or _record(control, "narrow")
        if own and other:
            fewer = 1 - own["parameters"] / other["parameters"]
            part = own["result"]["test_accuracy"]["mean"] / other["result"]["test_accuracy"]["mean"]
            lines.append(
                f"- {name} has {100 * fewer:.1f} % fewer parameters than its control and {100 * part:.1f} % of its "
                f"accuracy; the paper says {told}."
            )
    return ["", *lines] if lines else []


def _collapse() -> list[str]:
    """Of the models with batch norm the seeds' accuracies, and how the first seed came there."""
    lines = ["| experiment | seeds | the first seed after each epoch |", "|---|---|---|"]
    for name in _DRAWN:
        for preset in (None, "drawn"):
            label = name if preset is None else f"{name}, {preset}"
            if (record := _record(name, preset)) is None:
                lines.append(f"| {label} | not run here | |")
                continue
            seeds = ", ".join(f"{row['test_accuracy']:.1f}" for row in record["seeds"])
            epochs = ", ".join(f"{row['test_accuracy']:.1f}" for row in record["curve"])
            lines.append(f"| {label} | {seeds} | {epochs} |")
    return lines


def _names() -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for folder in ("fashion-mnist", "cifar10"):
        for path in sorted((ROOT / "experiments" / folder).glob("attention-wise*/definition.toml")):
            presets = experiment.presets_of(path)
            found += [(f"{folder}/{path.parent.name}", preset) for preset in (None, *presets)]
    return found


def _record(name: str, preset: str | None) -> dict[str, Any] | None:
    path = ROOT / "experiments" / name / experiment.result_name(preset)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _batches(record: dict[str, Any]) -> int:
    """Of an epoch: of all images that are not tested."""
    sizes = data.manifest.read(record["definition"]["data"]["name"]).sizes
    return math.ceil((sizes.images - sizes.tested) / record["definition"]["train"]["batch"])


if __name__ == "__main__":
    Path(__file__).with_name("attention-wise.md").write_text(page(), encoding="utf-8")
