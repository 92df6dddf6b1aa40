"""Tokens and their places as vectors."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def sinusoids(
    start: int, length: int, channels: int, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Float[Tensor, "T d"]:
    """sin(t / 10000^(2 i / d)) in channel 2 i and its cosine in channel 2 i + 1, for t from `start` on.

    Vaswani et al., 'Attention Is All You Need', NeurIPS 2017.
    """
    steps = torch.arange(start, start + length, dtype=torch.float64, device=device).unsqueeze(1)
    rates = torch.exp(
        torch.arange(0, channels, 2, dtype=torch.float64, device=device) * (-math.log(10000.0) / channels)
    )
    angles = steps * rates
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :channels].to(dtype or torch.get_default_dtype())


class TokenEmbedding(nn.Module):
    """sqrt(d) E[token] + sinusoid of its place, after dropout: tokens [B, T] -> [B, T, d].

    E is drawn from N(0, 1 / d). The row of the padding token begins as zeros, and looking it up does not move it; a
    softmax that shares the table does. Places count from the first step of a sequence, so padding belongs on the right.
    """

    def __init__(self, tokens: int, channels: int, *, padding: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.table = nn.Embedding(tokens, channels, padding_idx=padding)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    @property
    def weight(self) -> Float[Tensor, "V d"]:
        return self.table.weight

    def reset_parameters(self) -> None:
        nn.init.normal_(self.table.weight, std=self.table.embedding_dim**-0.5)
        with torch.no_grad():
            self.table.weight[self.table.padding_idx] = 0.0

    def forward(self, tokens: Int[Tensor, "B T"], start: int = 0) -> Float[Tensor, "B T d"]:
        """`start` is the place of the first of these tokens."""
        vectors = self.table(tokens) * math.sqrt(self.table.embedding_dim)
        places = sinusoids(start, tokens.shape[1], vectors.shape[2], vectors.dtype, vectors.device)
        return self.dropout(vectors + places)
