"""Mixers of a sequence as it grows: O(T K) for the convolutions, O(T^2) for self-attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphattn import ops
from graphattn.bench import memory
from graphattn.bench.case import Case, Entry
from graphattn.sequence import SelfAttention, make_mixer
from graphattn.sequence.mixer import ConvolutionMixer, Mixer

_OTHERS = {"dynamic": ("reference", "unfolded"), "light": ("reference", "conv1d"), "self-attention": ("matrices",)}


@dataclass(frozen=True)
class SequenceCase(Case):
    """A mixer, with its linear maps, on one causal sequence of so many steps; all weights want their gradient.

    "graphattn" is the mixer of `sequence`; "reference" the same on that back end, one pass a tap in plain PyTorch.
    Against them stand, as they are usually written, "unfolded": a product of matrices in which each value stands once
    a tap, and their gradients; "conv1d": torch's depthwise convolution; "matrices": softmax of a T x T matrix a head,
    where graphattn uses scaled_dot_product_attention.
    """

    name: str
    mixer: Mixer
    steps: int
    channels: int = 512
    heads: int = 8
    kernel_size: int = 31

    @property
    def baseline(self) -> str:  # type: ignore[override]  # not the same for all
        return _OTHERS[self.mixer][-1]

    def contestants(self, device: str) -> tuple[str, ...]:
        return ("graphattn", *_OTHERS[self.mixer])

    def obstacle(self, contestant: str, device: str) -> str | None:
        if contestant == "unfolded":  # the product copies them, and makes their gradient
            return memory.lack(4 * 3 * self.steps * self.channels * self.kernel_size, device)
        if contestant == "matrices":  # kept before and after the softmax, and two gradients
            return memory.lack(4 * 4 * self.heads * self.steps**2, device)
        return None

    def about(self) -> dict[str, Any]:
        left = self.steps if self.mixer == "self-attention" else self.kernel_size
        edges = sum(min(t, left) for t in range(1, self.steps + 1))
        sizes = {"N": self.steps, "E": edges, "H": self.heads, "D": self.channels // self.heads}
        return {"op": self.mixer, "graph": "band", "dtype": "float32"} | sizes

    def build(self, contestant: str, device: str) -> Entry:
        generator = torch.Generator().manual_seed(0)
        mixer = make_mixer(self.mixer, self.channels, self.heads, self.kernel_size, causal=True).to(device)
        with torch.no_grad():
            for parameter in mixer.parameters():
                drawn = torch.randn(parameter.shape, generator=generator) * self.channels**-0.5
                parameter.copy_(drawn)
        x = torch.randn(1, self.steps, self.channels, generator=generator).to(device).requires_grad_()
        leaves = {"x": x} | dict(mixer.named_parameters())

        def compute(_: None) -> Tensor:
            if contestant == "reference":
                with ops.use(backend="reference"):
                    return mixer(x)
            return mixer(x) if contestant == "graphattn" else _WRITTEN[contestant](mixer, x)

        return Entry(compute, lambda: None, leaves, list(mixer.parameters()))


def _unfolded(mixer: ConvolutionMixer, x: Tensor) -> Tensor:
    convolution = mixer.convolution
    y = mixer.inward(x)
    weights = convolution.logits(y).softmax(-1)  # [B, T, H, K]
    taps = F.pad(y, (0, 0, convolution.left, 0)).unfold(1, convolution.kernel_size, 1)  # [B, T, d, K]
    out = taps.unflatten(2, (convolution.heads, -1)).matmul(weights.unsqueeze(-1))
    return mixer.outward(out.flatten(2))


def _conv1d(mixer: ConvolutionMixer, x: Tensor) -> Tensor:
    convolution = mixer.convolution
    kernel = convolution.logits(x).softmax(-1).repeat_interleave(convolution.channels // convolution.heads, 0)
    rows = F.pad(mixer.inward(x).transpose(1, 2), (convolution.left, 0))
    return mixer.outward(F.conv1d(rows, kernel.unsqueeze(1), groups=convolution.channels).transpose(1, 2))


def _matrices(mixer: SelfAttention, x: Tensor) -> Tensor:
    q, k, v = (
        part(x).unflatten(-1, (mixer.heads, -1)).transpose(1, 2) for part in (mixer.query, mixer.key, mixer.value)
    )
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
    weights = logits.masked_fill(later, -torch.inf).softmax(-1)
    return mixer.output((weights @ v).transpose(1, 2).flatten(2))


_WRITTEN: dict[str, Callable[..., Tensor]] = {"unfolded": _unfolded, "conv1d": _conv1d, "matrices": _matrices}
