"""The blocks of encoders and decoders: a mixer, in decoders attention to the encoder, and a feed-forward network.

Each of these branches F sits on a shortcut. Post-norm is x -> LayerNorm(x + drop(F(x))), as published; pre-norm is
x -> x + drop(F(LayerNorm(x))), after the last block of which a stack needs one more LayerNorm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from graphattn.sequence.attention import CrossAttention, KeyValues, SelfAttention
from graphattn.sequence.linear import linear
from graphattn.sequence.mixer import ConvolutionMixer
from graphattn.sequence.ring import Ring


class BlockState(NamedTuple):
    """What a block remembers between steps: its mixer's past and, in a decoder, the keys and values of the memory."""

    mixer: Ring | KeyValues
    memory: KeyValues | None

    def reorder(self, sequences: Int[Tensor, "B2"]) -> None:
        self.mixer.reorder(sequences)
        if self.memory is not None:
            self.memory.reorder(sequences)


class StackState(NamedTuple):
    """What a stack of blocks remembers between steps, for `beam_search`."""

    blocks: list[BlockState]

    @property
    def seen(self) -> int:
        """How many steps went by."""
        return self.blocks[0].mixer.seen

    def reorder(self, sequences: Int[Tensor, "B2"]) -> None:
        for block in self.blocks:
            block.reorder(sequences)


class FeedForward(nn.Sequential):
    """Linear d -> hidden, ReLU, dropout, linear hidden -> d."""

    def __init__(self, channels: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__(linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout), linear(hidden, channels))


class EncoderBlock(nn.Module):
    """mixer, then feed-forward network: [B, T, d] -> [B, T, d]. With a causal mixer, the block of a language model.

    `mixer` is any module (x, padding, state) -> x, such as `make_mixer` builds.
    """

    def __init__(
        self,
        mixer: ConvolutionMixer | SelfAttention,
        channels: int,
        hidden: int,
        *,
        dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        self.mixer, self.pre_norm = mixer, pre_norm
        self.feed_forward = FeedForward(channels, hidden, hidden_dropout)
        self.dropout = nn.Dropout(dropout)
        self.mixer_norm, self.feed_forward_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)

    def forward(
        self,
        x: Float[Tensor, "B T d"],
        padding: Bool[Tensor, "B T"] | None = None,
        state: BlockState | None = None,
    ) -> Float[Tensor, "B T d"]:
        x = self._mixed(x, padding, state)
        return self._around(self.feed_forward, self.feed_forward_norm, x)

    def state(self, batch: int, dtype: torch.dtype | None = None, device: torch.device | None = None) -> BlockState:
        """An empty memory for going through `batch` sequences step by step."""
        return BlockState(self.mixer.state(batch, dtype, device), None)

    def _mixed(
        self, x: Float[Tensor, "B T d"], padding: Bool[Tensor, "B T"] | None, state: BlockState | None
    ) -> Float[Tensor, "B T d"]:
        past = None if state is None else state.mixer
        return self._around(lambda y: self.mixer(y, padding, past), self.mixer_norm, x)

    def _around(
        self, branch: Callable[[Tensor], Tensor], norm: nn.LayerNorm, x: Float[Tensor, "B T d"]
    ) -> Float[Tensor, "B T d"]:
        if self.pre_norm:
            return x + self.dropout(branch(norm(x)))
        return norm(x + self.dropout(branch(x)))


class DecoderBlock(EncoderBlock):
    """mixer, attention to the encoder's output, feed-forward network: [B, T, d], memory [B, S, d] -> [B, T, d]."""

    def __init__(
        self,
        mixer: ConvolutionMixer | SelfAttention,
        cross: CrossAttention,
        channels: int,
        hidden: int,
        *,
        dropout: float = 0.0,
        hidden_dropout: float = 0.0,
        pre_norm: bool = False,
    ) -> None:
        super().__init__(mixer, channels, hidden, dropout=dropout, hidden_dropout=hidden_dropout, pre_norm=pre_norm)
        self.cross, self.cross_norm = cross, nn.LayerNorm(channels)

    def forward(  # type: ignore[override]  # hears a memory as well
        self,
        x: Float[Tensor, "B T d"],
        memory: Float[Tensor, "B S d"],
        memory_padding: Bool[Tensor, "B S"] | None = None,
        padding: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T d"]:
        x = self._mixed(x, padding, None)
        x = self._around(lambda y: self.cross(y, memory, memory_padding), self.cross_norm, x)
        return self._around(self.feed_forward, self.feed_forward_norm, x)

    def state(  # type: ignore[override]
        self, memory: Float[Tensor, "B S d"], memory_padding: Bool[Tensor, "B S"] | None = None
    ) -> BlockState:
        """The memory, and nothing seen yet of the sequences to decode; for `step`."""
        past = self.mixer.state(memory.shape[0], memory.dtype, memory.device)
        return BlockState(past, self.cross.state(memory, memory_padding))

    def step(self, x: Float[Tensor, "B T d"], state: BlockState) -> Float[Tensor, "B T d"]:
        """The steps that come next."""
        known = state.memory
        assert known is not None
        x = self._mixed(x, None, state)
        x = self._around(lambda y: self.cross.recall(y, known), self.cross_norm, x)
        return self._around(self.feed_forward, self.feed_forward_norm, x)
