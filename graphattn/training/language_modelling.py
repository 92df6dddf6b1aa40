"""The next token of a text, judged by perplexity."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from graphattn.data import TextSet
from graphattn.data.text import lengths_of
from graphattn.data.vocabulary import PADDING
from graphattn.training.ranks import Shares, weighted
from graphattn.training.token_batches import TokenBatches

Batch = tuple[Tensor, Tensor]  # tokens and what follows each, [B, T]

_AT_ONCE = 8192  # tokens that are measured together


class LanguageModelling:
    """Each step takes `tokens` tokens: whole sentences, or of a text that runs on pieces of `window` tokens, cut at
    places that are drawn anew each epoch.

    The perplexity is exp of the mean loss of a token. That of a text that runs on is measured with windows that
    overlap by half: but for the first half window, each token is judged after at least half a window of context.
    """

    whole: ClassVar[bool] = False

    def __init__(self, data: TextSet, tokens: int, window: int) -> None:
        self.data, self.window = data, window
        self.score = data.score
        if not data.runs_on:
            self._lengths = lengths_of(data.train) - 1  # of what is read, and of what is to come
            self._batches = TokenBatches(self._lengths, tokens)
            return
        self._pieces = (len(data.train) - 1) // window - 1  # wherever the first begins
        if self._pieces < 1 or tokens < window:
            raise ValueError(
                f"train.window is {window} of {len(data.train)} tokens, train.batch {tokens}: needed a window that "
                f"fits twice into the text and once into a batch"
            )
        self._shares = Shares(self._pieces, tokens // window)

    @property
    def steps(self) -> int:
        return len(self._shares if self.data.runs_on else self._batches)

    def batches(self) -> Iterator[Batch]:
        """Tokens and what follows them."""
        text, device = self.data.train, self.data.train.device
        if not self.data.runs_on:
            for ids in self._batches.shuffled():
                yield _of_sentences(text, self._lengths, ids)
            return
        first, reach = int(torch.randint(self.window, ())), torch.arange(self.window + 1, device=device)
        for pieces in self._shares:
            starts = first + self.window * torch.tensor(pieces).to(device, non_blocking=True)
            some = text[starts.unsqueeze(1) + reach]
            yield some[:, :-1], some[:, 1:]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean negative log-likelihood of the tokens."""
        count = (batch[1] != PADDING).sum()
        return weighted(_losses(model, batch).sum() / count, count)

    @torch.no_grad()
    def measures(self, model: nn.Module) -> dict[str, float]:
        """val_loss, test_perplexity and val_perplexity of the model as it is (call eval() first)."""
        losses = {
            part: self._mean_loss(model, tokens) for part, tokens in (("val", self.data.val), ("test", self.data.test))
        }
        perplexities = {f"{part}_perplexity": round(math.exp(min(loss, 700.0)), 4) for part, loss in losses.items()}
        return {"val_loss": losses["val"], **perplexities}

    def _mean_loss(self, model: nn.Module, tokens: Tensor) -> float:
        total, count = torch.zeros(2, dtype=torch.float64, device=tokens.device)
        for batch, judged in self._windows(tokens) if self.data.runs_on else self._sentences(tokens):
            total += _losses(model, batch).double().masked_fill(~judged, 0.0).sum()
            count += judged.sum()
        return float(total / count)

    def _sentences(self, tokens: Tensor) -> Iterator[tuple[Batch, Tensor]]:
        lengths = lengths_of(tokens) - 1
        for ids in TokenBatches(lengths, max(_AT_ONCE, int(lengths.max()))).in_order():
            batch = _of_sentences(tokens, lengths, ids)
            yield batch, batch[1] != PADDING

    def _windows(self, tokens: Tensor) -> Iterator[tuple[Batch, Tensor]]:
        """Windows that end half a window apart, and the tokens of each that none before had."""
        length = len(tokens) - 1
        window = min(self.window, length)
        ends = torch.tensor([*range(window, length, max(1, window // 2)), length], device=tokens.device)
        new = ends.diff(prepend=ends.new_zeros(1))
        reach = torch.arange(window, device=tokens.device)
        for some, fresh in zip(*(x.split(max(1, _AT_ONCE // window)) for x in (ends, new)), strict=True):
            at = some.unsqueeze(1) - window + reach
            yield (tokens[at], tokens[at + 1]), reach >= window - fresh.unsqueeze(1)


def _of_sentences(sentences: Tensor, lengths: Tensor, ids: Tensor) -> Batch:
    some = sentences[:, : int(lengths[ids].max()) + 1][ids.to(sentences.device, non_blocking=True)]
    return some[:, :-1], some[:, 1:]


def _losses(model: nn.Module, batch: Batch) -> Tensor:
    """[B, T], 0 at padding."""
    return -model(*batch).float().masked_fill(batch[1] == PADDING, 0.0)
