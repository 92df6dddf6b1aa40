"""Generated texts of which the best possible score is known; no download.

`chain` runs on: each symbol is drawn from a distribution that the two before it determine, so no model has a lower
perplexity than exp(entropy rate). `extracts` are documents of short sentences, of which a summary has those that begin
with the marker, in their order: a model that has understood reaches 100.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from graphattn.data.raw import Array
from graphattn.data.text import Pairs, PairSet, TextSet, pairs_of
from graphattn.data.vocabulary import SPECIAL, Pieces

_SYMBOLS, _SHARPNESS = 12, 1.5
_WORDS, _SENTENCES, _LONGEST, _MARKED = 40, (2, 5), (2, 4), 0.4


def chain(train: int = 60_000, val: int = 6_000, test: int = 6_000) -> TextSet:
    """So many symbols each, always the same ones."""
    table = transitions()
    first, second, third = (_walk(table, count, part) for part, count in enumerate((train, val, test)))
    letters = Pieces([chr(ord("a") + k) for k in range(_SYMBOLS)], "")
    return TextSet("chain", first, second, third, letters.size, letters.decode, "symbol")


def transitions() -> Array:
    """[S, S, S]: the distribution of what follows two symbols."""
    logits = _SHARPNESS * np.random.RandomState(0).standard_normal((_SYMBOLS,) * 3)
    weights = np.exp(logits)
    return weights / weights.sum(-1, keepdims=True)


def least_perplexity() -> float:
    """That of the model that knows `transitions`: exp of the chain's entropy rate, over its stationary pairs."""
    table = transitions()
    pairs = np.full((_SYMBOLS, _SYMBOLS), 1 / _SYMBOLS**2)
    for _ in range(1000):
        pairs = np.einsum("ab,abc->bc", pairs, table)
    return math.exp(-np.einsum("ab,abc,abc->", pairs, table, np.log(table)))


def extracts(train: int = 4_000, val: int = 300, test: int = 300) -> PairSet:
    """So many documents each, always the same ones."""
    pieces = Pieces(["*", ".", *(f"w{k}" for k in range(_WORDS))], " ")
    parts: list[Pairs] = []
    references: dict[str, list[str]] = {}
    for part, (name, count) in enumerate({"train": train, "val": val, "test": test}.items()):
        random = np.random.RandomState([1, part])
        made = [_document(random) for _ in range(count)]
        parts.append(pairs_of(*([pieces.encode(text) for text in side] for side in zip(*made, strict=True))))
        references[name] = [summary for _, summary in made]
    del references["train"]
    first, second, third = parts
    return PairSet("extracts", first, second, third, references, pieces.size, pieces.decode, "rouge_l")


def _walk(table: Array, count: int, part: int) -> torch.Tensor:
    drawn = np.random.RandomState([0, part]).random_sample(count + 100)
    cumulative = table.cumsum(-1)
    walked = [0, 0]
    for number in drawn:
        walked.append(min(int((cumulative[walked[-2], walked[-1]] < number).sum()), _SYMBOLS - 1))
    return torch.tensor(walked[-count:]) + len(SPECIAL)  # by then it has forgotten where it began


def _document(random: np.random.RandomState) -> tuple[str, str]:
    """A document and its summary, which is never empty."""
    sentences = []
    for _ in range(random.randint(_SENTENCES[0], _SENTENCES[1] + 1)):
        words = random.randint(_WORDS, size=random.randint(_LONGEST[0], _LONGEST[1] + 1))
        sentences.append((random.random_sample() < _MARKED, " ".join(f"w{k}" for k in words) + " ."))
    chosen = random.randint(len(sentences))
    sentences[chosen] = (True, sentences[chosen][1])
    document = " ".join(f"* {text}" if marked else text for marked, text in sentences)
    return document, " ".join(text for marked, text in sentences if marked)
