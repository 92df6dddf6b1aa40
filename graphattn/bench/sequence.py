"""What mixes the steps of a sequence as it grows: O(T K) for the convolutions, O(T^2) for self-attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from graphattn import ops
from graphattn.bench import memory
from graphattn.bench.case import Case, Entry
from graphattn.sequence import SelfAttention, dynamic_conv, lightweight_conv, make_mixer, multihead_attention
from graphattn.sequence.mixer import Mixer

_OTHERS = {"dynamic": ("reference", "unfolded"), "light": ("reference", "conv1d"), "self-attention": ("matrices",)}


@dataclass(frozen=True)
class SequenceCase(Case):
    """One causal sequence of so many steps, mixed; all arguments want their gradient.

    By itself this is a function of values and logits, or of q, k and v; with `maps` it is the mixer of a block, with
    the linear maps that make these. "graphattn" is what `sequence` has; "reference" the same on that back end, one
    pass a tap in plain PyTorch. Against them stand, as they are usually written, "unfolded": a product of matrices in
    which each value stands once a tap, and their gradients; "conv1d": torch's depthwise convolution; "matrices":
    softmax of a T x T matrix a head, where graphattn uses scaled_dot_product_attention.
    """

    name: str
    mixer: Mixer
    steps: int
    maps: bool = False
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

        def drawn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device)

        run, rows = self._function(contestant), (1, self.steps, self.channels)
        if not self.maps:
            shapes = {"q": rows, "k": rows, "v": rows}
            if self.mixer != "self-attention":
                per_step = (1, self.steps) if self.mixer == "dynamic" else ()
                shapes = {"x": rows, "logits": (*per_step, self.heads, self.kernel_size)}
            leaves = {name: drawn(*shape).requires_grad_() for name, shape in shapes.items()}
            return Entry(lambda _: run(*leaves.values()), lambda: None, leaves)
        mixer = make_mixer(self.mixer, self.channels, self.heads, self.kernel_size, causal=True).to(device)
        with torch.no_grad():
            for parameter in mixer.parameters():
                parameter.copy_(drawn(*parameter.shape) * self.channels**-0.5)
        x = drawn(*rows).requires_grad_()

        def compute(_: None) -> Tensor:
            if isinstance(mixer, SelfAttention):
                return mixer.output(run(mixer.query(x), mixer.key(x), mixer.value(x)))
            y = mixer.inward(x)
            return mixer.outward(run(y, mixer.convolution.logits(y)))

        return Entry(compute, lambda: None, {"x": x} | dict(mixer.named_parameters()), list(mixer.parameters()))

    def _function(self, contestant: str) -> Callable[..., Tensor]:
        if self.mixer == "self-attention":
            if contestant == "matrices":
                return partial(_matrices, heads=self.heads)
            return partial(multihead_attention, heads=self.heads, causal=True)
        if contestant in ("unfolded", "conv1d"):
            return _unfolded if contestant == "unfolded" else _conv1d
        convolve = dynamic_conv if self.mixer == "dynamic" else lightweight_conv
        run = partial(convolve, left=self.kernel_size - 1)
        return run if contestant == "graphattn" else partial(_on_reference, run)


def _on_reference(run: Callable[..., Tensor], x: Tensor, logits: Tensor) -> Tensor:
    with ops.use(backend="reference"):
        return run(x, logits)


def _unfolded(x: Tensor, logits: Tensor) -> Tensor:
    heads, taps = logits.shape[-2:]
    rows = F.pad(x, (0, 0, taps - 1, 0)).unfold(1, taps, 1).unflatten(2, (heads, -1))  # [B, T, H, D, K]
    return rows.matmul(logits.softmax(-1).unsqueeze(-1)).flatten(2)


def _conv1d(x: Tensor, logits: Tensor) -> Tensor:
    kernel = logits.softmax(-1).repeat_interleave(x.shape[2] // len(logits), 0).unsqueeze(1)
    rows = F.pad(x.transpose(1, 2), (logits.shape[1] - 1, 0))
    return F.conv1d(rows, kernel, groups=x.shape[2]).transpose(1, 2)


def _matrices(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (rows.unflatten(-1, (heads, -1)).transpose(1, 2) for rows in (q, k, v))
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    weights = logits.masked_fill(later, -torch.inf).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)
