"""Language models: what comes next in a sequence of tokens, from those before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from graphattn.sequence import EncoderBlock, TokenEmbedding, make_mixer
from graphattn.sequence.blocks import StackState
from graphattn.sequence.mixer import Mixer
from graphattn.sequence.taps import Norm

PADDING = 0


class LanguageModel(nn.Module):
    """Tokens [B, T], with padding 0 on the right -> log probabilities of each next one [B, T, V].

    `mixer` is "light", "dynamic" or "self-attention"; a block for each of `kernels`, all causal. `softmax` is "tied",
    the table of the tokens being the last map's weight, or "adaptive": rarer tokens, those from `cutoffs` on, get
    narrower vectors and are scored only where they are targets, which is much cheaper than all; tokens must be numbered
    by falling frequency then. The other options are those of `Seq2Seq`.

    Wu et al., 'Pay Less Attention with Lightweight and Dynamic Convolutions', ICLR 2019; Grave et al., 'Efficient
    softmax approximation for GPUs', ICML 2017.

    Raises:
        ValueError: no blocks, another `softmax`, cutoffs that do not rise within the vocabulary.
    """

    def __init__(
        self,
        tokens: int,
        *,
        mixer: Mixer = "dynamic",
        channels: int = 512,
        hidden: int = 2048,
        heads: int = 8,
        kernels: tuple[int, ...] = (3, 7, 15, 31, 31, 31),
        glu: bool = True,
        norm: Norm = "taps",
        pre_norm: bool = False,
        softmax: Literal["tied", "adaptive"] = "tied",
        cutoffs: tuple[int, ...] = (),
        dropout: float = 0.1,
        weight_dropout: float = 0.1,
        input_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not kernels:
            raise ValueError("kernels is empty: needed at least one, a block a kernel")
        if softmax not in ("tied", "adaptive"):
            raise ValueError(f"softmax is {softmax!r}: needed 'tied' or 'adaptive'")
        if (softmax == "adaptive") != bool(cutoffs):
            raise ValueError(
                f"softmax is {softmax!r} with cutoffs {list(cutoffs)}: needed with 'adaptive', and only there"
            )
        if channels < 4 ** len(cutoffs):
            raise ValueError(f"{channels} channels with {len(cutoffs)} cutoffs: each takes a quarter of the one before")
        self.embedding = TokenEmbedding(tokens, channels, padding=PADDING, dropout=dropout)
        drops = {"weight_dropout": weight_dropout, "input_dropout": input_dropout}
        self.blocks = nn.ModuleList(
            EncoderBlock(
                make_mixer(mixer, channels, heads, kernel, causal=True, glu=glu, norm=norm, **drops),
                channels,
                hidden,
                dropout=dropout,
                pre_norm=pre_norm,
            )
            for kernel in kernels
        )
        self.last_norm = nn.LayerNorm(channels) if pre_norm else nn.Identity()
        self.adaptive = nn.AdaptiveLogSoftmaxWithLoss(channels, tokens, list(cutoffs)) if cutoffs else None

    def forward(
        self, tokens: Int[Tensor, "B T"], targets: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T V"] | Float[Tensor, "B T"]:
        """Of given targets the log probabilities alone, [B, T]; where they are padding, numbers to be left out."""
        hidden = self._hidden(tokens, None)
        if targets is None:
            return self._log_probabilities(hidden)
        if self.adaptive is None:
            loss = F.cross_entropy(self._scores(hidden).flatten(0, 1), targets.flatten(), reduction="none")
            return -loss.view_as(targets)
        with self._outside_autocast(hidden) as rows:
            return self.adaptive(rows, targets.flatten()).output.view_as(targets)

    def start(self, batch: int) -> StackState:
        """Nothing seen yet of `batch` sequences."""
        return StackState([block.state(batch) for block in cast(list[EncoderBlock], self.blocks)])

    def step(self, tokens: Int[Tensor, "B"], state: StackState) -> Float[Tensor, "B V"]:
        """Log probabilities of what follows these tokens."""
        return self._log_probabilities(self._hidden(tokens.unsqueeze(1), state)).squeeze(1)

    def _hidden(self, tokens: Int[Tensor, "B T"], state: StackState | None) -> Float[Tensor, "B T d"]:
        x = self.embedding(tokens, 0 if state is None else state.seen)
        for k, block in enumerate(self.blocks):
            x = block(x, state=None if state is None else state.blocks[k])
        return self.last_norm(x)

    def _log_probabilities(self, hidden: Float[Tensor, "B T d"]) -> Float[Tensor, "B T V"]:
        if self.adaptive is None:
            return self._scores(hidden).log_softmax(-1)
        with self._outside_autocast(hidden) as rows:
            return self.adaptive.log_prob(rows).unflatten(0, hidden.shape[:2])

    @contextmanager
    def _outside_autocast(self, hidden: Float[Tensor, "B T d"]) -> Iterator[Float[Tensor, "N d"]]:
        """torch's adaptive softmax writes what it computes into a tensor of its input's dtype, and in no other."""
        with torch.autocast(hidden.device.type, enabled=False):
            yield hidden.flatten(0, 1).to(self.embedding.weight.dtype)

    def _scores(self, hidden: Float[Tensor, "B T d"]) -> Float[Tensor, "B T V"]:
        return F.linear(hidden, self.embedding.weight)
