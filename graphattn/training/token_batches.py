"""Batches of texts of like length, of so many tokens each."""

from __future__ import annotations

import torch
from torch import Tensor

from graphattn.training.ranks import number


class TokenBatches:
    """Texts sorted by their lengths, cut so that a batch with its padding has at most `tokens` of the longer side.

    The batches are the same in each epoch; torch's generator draws their order anew. Of several ranks each gets its
    part of every batch.

    lengths: [N] or, of pairs, [N, 2].

    Raises:
        ValueError: a text that is longer than a batch; a batch that ranks cannot share.
    """

    def __init__(self, lengths: Tensor, tokens: int) -> None:
        self._rank, self._ranks = number()
        sizes = (lengths.unsqueeze(1) if lengths.dim() == 1 else lengths).cpu()
        if len(sizes) and int(sizes.max()) > tokens:
            raise ValueError(f"a text has {int(sizes.max())} tokens, train.batch takes {tokens}: needed a larger one")
        order = torch.arange(len(sizes))
        for side in range(sizes.shape[1]):  # by the last side first, then by those before
            order = order[sizes[order, side].argsort(stable=True)]
        widest = sizes.amax(1)[order].tolist()
        self._batches: list[Tensor] = []
        start, wide = 0, 0
        for k, width in enumerate(widest):
            if (k - start + 1) * max(wide, width) > tokens:
                self._batches.append(order[start:k])
                start, wide = k, 0
            wide = max(wide, width)
        if start < len(order):
            self._batches.append(order[start:])
        least = min(map(len, self._batches), default=self._ranks)
        if least < self._ranks:
            raise ValueError(f"a batch has {least} texts, which {self._ranks} ranks cannot share: raise train.batch")

    def __len__(self) -> int:
        return len(self._batches)

    def shuffled(self) -> list[Tensor]:
        """This epoch's batches, as positions of texts."""
        return [self._batches[k][self._rank :: self._ranks] for k in torch.randperm(len(self)).tolist()]

    def in_order(self) -> list[Tensor]:
        """All of them, whatever the rank, the shortest texts first."""
        return self._batches
