"""What a causal convolution remembers between steps: its last K - 1 inputs."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from graphattn.sequence.taps import Norm, by_head, tap_weights, without_padding


class Ring:
    """The last K - 1 inputs of each sequence, overwritten in turn: a step costs O(K d), however long the sequence.

    Nothing is moved when a step comes: it takes the place of the oldest, and the weights are rolled to where the inputs
    lie. Steps that never were count as missing, so the first ones follow the same rule at the border as a full pass.
    Written in place, so without gradients. `present` is bool [B, K - 1], false where a step is missing or padding.
    """

    def __init__(
        self,
        batch: int,
        kernel_size: int,
        channels: int,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.values = torch.zeros(batch, kernel_size - 1, channels, dtype=dtype, device=device)
        self.present = torch.zeros(batch, kernel_size - 1, dtype=torch.bool, device=device)
        self.seen = 0

    def reorder(self, sequences: Int[Tensor, "B2"]) -> None:
        """Goes on with these of the sequences, in this order; one may be named twice, as beams are, or dropped."""
        self.values = self.values.index_select(0, sequences)
        self.present = self.present.index_select(0, sequences)

    def push(self, x: Float[Tensor, "B T d"], padding: Bool[Tensor, "B T"] | None = None) -> None:
        """Remembers the last steps of x.

        Raises:
            ValueError: another number of sequences or channels than the ring's.
            RuntimeError: x needs a gradient, which would be lost.
        """
        slots, length = self.present.shape[1], x.shape[1]
        if x.shape[0] != self.values.shape[0] or x.shape[2] != self.values.shape[2]:
            batch, _, channels = self.values.shape
            raise ValueError(f"x has shape {list(x.shape)}: this ring needs [{batch}, T, {channels}]")
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("a ring keeps no gradients: decode under torch.no_grad(), train with full passes")
        if slots:
            kept = min(slots, length)
            at = torch.arange(self.seen + length - kept, self.seen + length, device=x.device) % slots
            self.values[:, at] = without_padding(x, padding)[:, length - kept :].to(self.values.dtype)
            self.present[:, at] = True if padding is None else ~padding[:, length - kept :]
        self.seen += length

    def step(
        self,
        x: Float[Tensor, "B 1 d"],
        logits: Float[Tensor, "H K"] | Float[Tensor, "B 1 H K"],
        norm: Norm,
        padding: Bool[Tensor, "B 1"] | None = None,
    ) -> Float[Tensor, "B 1 d"]:
        """The next output of the convolution with these logits, after which x is remembered."""
        slots = self.present.shape[1]
        turn = self.seen % slots if slots else 0  # the oldest input lies here
        logits = logits if logits.dim() == 2 else logits.squeeze(1)
        exist = None
        if norm == "edges":
            now = torch.ones_like(x[:, :, 0], dtype=torch.bool) if padding is None else ~padding
            exist = torch.cat([self.present.roll(-turn, 1), now], 1).unsqueeze(1)
        weights = tap_weights(logits, exist, norm).expand(x.shape[0], -1, -1)
        x = without_padding(x, padding)
        past = torch.einsum("bhk,bkhd->bhd", weights[..., :-1].roll(turn, -1), by_head(self.values, weights.shape[1]))
        out = past + weights[..., -1:] * by_head(x, weights.shape[1]).squeeze(1)
        self.push(x, padding)
        return out.flatten(1).unsqueeze(1)
