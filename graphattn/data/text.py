"""Texts as tokens: pairs of them, from one of which the other is to be made, and texts of which each token is to come
from those before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from graphattn.data.digest import digest_of
from graphattn.data.vocabulary import BEGIN, END, PADDING, Vocabulary


@dataclass(frozen=True, eq=False)
class Pairs:
    """Tokens, padding on the right: sources [N, S] with their end, targets [N, T] with their beginning and end."""

    source: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.source)

    @cached_property
    def lengths(self) -> Tensor:
        """[N, 2], on the CPU: how many tokens each text has."""
        return torch.stack([lengths_of(tokens) for tokens in (self.source, self.target)], 1)

    def of(self, ids: Tensor) -> Pairs:
        """These pairs, no longer than the longest of them. With `ids` on the CPU nothing waits for a device."""
        wide = self.lengths[ids].amax(0).tolist() if len(ids) else (0, 0)
        ids = ids.to(self.source.device, non_blocking=True)
        return Pairs(self.source[:, : wide[0]][ids], self.target[:, : wide[1]][ids])


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs to train on, to choose by and to test on, with one vocabulary of `num_tokens` for both sides.

    `references` are the targets of the latter two as people read them, which `score` compares: BLEU of translations,
    ROUGE-L of summaries.
    """

    name: str
    train: Pairs
    val: Pairs
    test: Pairs
    references: dict[str, list[str]]
    num_tokens: int
    decode: Callable[[Sequence[int]], str]
    score: Literal["bleu", "rouge_l"]

    def to(self, device: torch.device | str) -> PairSet:
        """The same data on another device."""
        moved: dict[str, Any] = {
            part: Pairs(pairs.source.to(device), pairs.target.to(device)) for part, pairs in self._parts().items()
        }
        return replace(self, **moved)

    def digest(self) -> str:
        """Sixteen hex digits that change with anything in it."""
        return digest_of(tokens for pairs in self._parts().values() for tokens in (pairs.source, pairs.target))

    def summary(self) -> str:
        """Its sizes in a line."""
        counts = {part: len(pairs) for part, pairs in self._parts().items()}
        return (
            f"{sum(counts.values()):,} pairs of texts, {self.num_tokens:,} tokens; {counts['train']:,} train, "
            f"{counts['val']:,} validate, {counts['test']:,} are tested"
        )

    def _parts(self) -> dict[str, Pairs]:
        return {"train": self.train, "val": self.val, "test": self.test}


@dataclass(frozen=True, eq=False)
class TextSet:
    """Tokens to train on, to choose by and to test on: texts that run on, [N], or sentences [N, T] with beginning and
    end and padding on the right. The score is the perplexity of a token, a `unit`.
    """

    name: str
    train: Tensor
    val: Tensor
    test: Tensor
    num_tokens: int
    decode: Callable[[Sequence[int]], str]
    unit: Literal["character", "word", "symbol"]
    score: Literal["perplexity"] = "perplexity"

    @property
    def runs_on(self) -> bool:
        return self.train.dim() == 1

    def to(self, device: torch.device | str) -> TextSet:
        """The same data on another device."""
        moved: dict[str, Any] = {part: tokens.to(device) for part, tokens in self._parts().items()}
        return replace(self, **moved)

    def digest(self) -> str:
        """Sixteen hex digits that change with anything in it."""
        return digest_of(self._parts().values())

    def summary(self) -> str:
        """Its sizes in a line."""
        kind = f"{self.unit}s of text" if self.runs_on else "sentences"
        counts = {part: len(tokens) for part, tokens in self._parts().items()}
        return (
            f"{sum(counts.values()):,} {kind}, {self.num_tokens:,} tokens; {counts['train']:,} train, "
            f"{counts['val']:,} validate, {counts['test']:,} are tested"
        )

    def _parts(self) -> dict[str, Tensor]:
        return {"train": self.train, "val": self.val, "test": self.test}


def pairs_of(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> Pairs:
    """Of texts that are tokens already."""
    return Pairs(
        _padded([[*tokens, END] for tokens in sources]), _padded([[BEGIN, *tokens, END] for tokens in targets])
    )


def sentences_of(lines: Sequence[str], vocabulary: Vocabulary) -> Tensor:
    """[N, T], with beginning and end."""
    return _padded([[BEGIN, *vocabulary.encode(line), END] for line in lines])


def lengths_of(tokens: Tensor) -> Tensor:
    """[N], on the CPU: how many of each row's tokens are no padding."""
    return (tokens != PADDING).sum(1).cpu()


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    padded = torch.full((len(rows), max(map(len, rows), default=0)), PADDING)
    for k, row in enumerate(rows):
        padded[k, : len(row)] = torch.tensor(row)
    return padded
