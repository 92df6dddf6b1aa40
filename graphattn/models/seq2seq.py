"""Encoder and decoder over sequences of tokens: translation and summarisation."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from graphattn.sequence import CrossAttention, DecoderBlock, EncoderBlock, SelfAttention, TokenEmbedding, make_mixer
from graphattn.sequence.blocks import StackState
from graphattn.sequence.mixer import ConvolutionMixer, Mixer
from graphattn.sequence.taps import Norm

PADDING = 0


class Memory(NamedTuple):
    """What the encoder makes of the source, and where that is padding."""

    values: Float[Tensor, "B S d"]
    padding: Bool[Tensor, "B S"]


class Seq2Seq(nn.Module):
    """Source [B, S] and target so far [B, T], tokens with padding 0 on the right -> logits of the next [B, T, V].

    One argument says what mixes the steps: `mixer` is "light", "dynamic" or "self-attention", in encoder and decoder
    alike; the decoder hears the encoder through attention in each block. The lengths of the kernels say how many blocks
    there are. The defaults are the published base: 7 and 6 blocks. With `share_embeddings`, source and target have one
    vocabulary and one table; in any case the target's is the last map's weight as well. `hidden` is the width of the
    feed-forward networks; `glu`, `norm` and `input_dropout` are the convolutions'.

    Wu et al., 'Pay Less Attention with Lightweight and Dynamic Convolutions', ICLR 2019; self-attention as Vaswani et
    al., 'Attention Is All You Need', NeurIPS 2017.

    Raises:
        ValueError: one table for two vocabularies of different sizes, or no blocks.
    """

    def __init__(
        self,
        source_tokens: int,
        target_tokens: int,
        *,
        mixer: Mixer = "dynamic",
        channels: int = 512,
        hidden: int = 2048,
        heads: int = 8,
        encoder_kernels: tuple[int, ...] = (3, 7, 15, 31, 31, 31, 31),
        decoder_kernels: tuple[int, ...] = (3, 7, 15, 31, 31, 31),
        glu: bool = True,
        norm: Norm = "taps",
        pre_norm: bool = False,
        share_embeddings: bool = True,
        dropout: float = 0.1,
        weight_dropout: float = 0.1,
        input_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if share_embeddings and source_tokens != target_tokens:
            raise ValueError(
                f"{source_tokens} source and {target_tokens} target tokens cannot share one table: "
                f"use one vocabulary, or share_embeddings=False"
            )
        if not encoder_kernels or not decoder_kernels:
            raise ValueError("encoder and decoder need at least one kernel each: a block a kernel")
        self.source = TokenEmbedding(source_tokens, channels, padding=PADDING, dropout=dropout)
        self.target = self.source
        if not share_embeddings:
            self.target = TokenEmbedding(target_tokens, channels, padding=PADDING, dropout=dropout)

        def mix(kernel_size: int, causal: bool) -> ConvolutionMixer | SelfAttention:
            drops = {"weight_dropout": weight_dropout, "input_dropout": input_dropout}
            return make_mixer(mixer, channels, heads, kernel_size, causal=causal, glu=glu, norm=norm, **drops)

        def hear() -> CrossAttention:
            return CrossAttention(channels, heads, weight_dropout=weight_dropout)

        self.encoder = nn.ModuleList(
            EncoderBlock(mix(k, False), channels, hidden, dropout=dropout, pre_norm=pre_norm) for k in encoder_kernels
        )
        self.decoder = nn.ModuleList(
            DecoderBlock(mix(k, True), hear(), channels, hidden, dropout=dropout, pre_norm=pre_norm)
            for k in decoder_kernels
        )
        self.encoder_norm = nn.LayerNorm(channels) if pre_norm else nn.Identity()
        self.decoder_norm = nn.LayerNorm(channels) if pre_norm else nn.Identity()

    def forward(self, source: Int[Tensor, "B S"], target: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        return self.decode(target, self.encode(source))

    def encode(self, source: Int[Tensor, "B S"]) -> Memory:
        padding = source == PADDING
        x = self.source(source)
        for block in self.encoder:
            x = block(x, padding)
        return Memory(self.encoder_norm(x), padding)

    def decode(self, target: Int[Tensor, "B T"], memory: Memory) -> Float[Tensor, "B T V"]:
        """The target's own padding needs no mask: it is on the right, and no step looks there."""
        x = self.target(target)
        for block in self.decoder:
            x = block(x, memory.values, memory.padding)
        return self._scores(x)

    def start(self, source: Int[Tensor, "B S"]) -> StackState:
        """The source, encoded, and nothing decoded."""
        memory = self.encode(source)
        return StackState([block.state(*memory) for block in cast(list[DecoderBlock], self.decoder)])

    def step(self, tokens: Int[Tensor, "B"], state: StackState) -> Float[Tensor, "B V"]:
        """Logits of what follows these tokens."""
        x = self.target(tokens.unsqueeze(1), state.seen)
        for block, past in zip(cast(list[DecoderBlock], self.decoder), state.blocks, strict=True):
            x = block.step(x, past)
        return self._scores(x).squeeze(1)

    def _scores(self, x: Float[Tensor, "B T d"]) -> Float[Tensor, "B T V"]:
        return F.linear(self.decoder_norm(x), self.target.weight)
