"""Texts made from texts: translations, judged by BLEU, and summaries, judged by ROUGE."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, ClassVar, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphattn.data import Pairs, PairSet
from graphattn.data.vocabulary import BEGIN, END, PADDING
from graphattn.experiment import Decoding
from graphattn.sequence.decoding import State, beam_search
from graphattn.training.bleu import bleu
from graphattn.training.ranks import weighted
from graphattn.training.rouge import rouge
from graphattn.training.token_batches import TokenBatches

_AT_ONCE = 4096  # tokens of sources that are decoded, or validate, together


class _Decodes(Protocol):
    """A model whose output can be made step by step, such as `models.seq2seq`."""

    def start(self, source: Tensor) -> State: ...

    def step(self, tokens: Tensor, state: Any) -> Tensor: ...


class TextPairs:
    """Each step takes texts of `tokens` tokens, padding included. Epochs are measured by the validation loss alone;
    what the kept model makes of the texts is judged once, by `judged`.

    label_smoothing: the part of each label that is given to all tokens alike, in training.
    """

    whole: ClassVar[bool] = False

    def __init__(self, data: PairSet, tokens: int, decoding: Decoding, *, label_smoothing: float = 0.0) -> None:
        self.data, self.decoding, self.label_smoothing = data, decoding, label_smoothing
        self.score = data.score
        self._batches = TokenBatches(data.train.lengths, tokens)

    @property
    def steps(self) -> int:
        return len(self._batches)

    def batches(self) -> Iterator[Pairs]:
        """The training pairs, so many tokens at a time."""
        for ids in self._batches.shuffled():
            yield self.data.train.of(ids)

    def loss(self, model: nn.Module, batch: Pairs) -> Tensor:
        """Cross-entropy, averaged over the batch's target tokens."""
        tokens = (batch.target[:, 1:] != PADDING).sum()
        return weighted(_cross_entropy(model, batch, self.label_smoothing) / tokens, tokens)

    @torch.no_grad()
    def measures(self, model: nn.Module) -> dict[str, float]:
        """val_loss, of a token, of the model as it is (call eval() first)."""
        pairs = self.data.val
        total = torch.zeros((), dtype=torch.float64, device=pairs.source.device)
        for ids in TokenBatches(pairs.lengths, max(_AT_ONCE, int(pairs.lengths.max()))).in_order():
            total += _cross_entropy(model, pairs.of(ids))
        return {"val_loss": float(total / (pairs.target[:, 1:] != PADDING).sum())}

    def judged(self, model: nn.Module) -> dict[str, Any]:
        """test_<score> and val_<score> of what beam search finds, and how many texts of the test it makes a second,
        after those that validate. Of BLEU its signature, of ROUGE-L also ROUGE-1 and ROUGE-2.
        """
        model.eval()
        validated = self.texts(model, self.data.val)
        started = time.perf_counter()
        tested = self.texts(model, self.data.test)
        speed = len(tested) / (time.perf_counter() - started)
        found: dict[str, Any] = {}
        for part, texts in (("test", tested), ("val", validated)):
            if self.score == "bleu":
                found[f"{part}_bleu"], found["bleu_signature"] = bleu(texts, self.data.references[part])
            else:
                scores = rouge(texts, self.data.references[part])
                found |= {f"{part}_{name}": scores[name] for name in ("rouge_l", "rouge_1", "rouge_2")}
        return found | {"texts_a_second": round(speed, 2)}

    def texts(self, model: nn.Module, pairs: Pairs) -> list[str]:
        """What the model makes of each source, by beam search; no longer than half as long again and ten tokens."""
        decoder = cast(_Decodes, model)
        found = [""] * len(pairs)
        lengths = pairs.lengths[:, 0]
        for ids in TokenBatches(lengths, max(_AT_ONCE, int(lengths.max()))).in_order():
            source = pairs.of(ids).source
            with torch.no_grad():
                state = decoder.start(source)
            hypotheses = beam_search(
                decoder.step,
                state,
                len(source),
                start=BEGIN,
                end=END,
                max_length=source.shape[1] * 3 // 2 + 10,
                beams=self.decoding.beams,
                length_penalty=self.decoding.length_penalty,
                device=source.device,
            )
            for k, best in zip(ids.tolist(), hypotheses, strict=True):
                found[k] = self.data.decode(best[0].tokens)
        return found


def _cross_entropy(model: nn.Module, pairs: Pairs, label_smoothing: float = 0.0) -> Tensor:
    """Summed over the target's tokens."""
    logits = model(pairs.source, pairs.target[:, :-1]).float()
    targets = pairs.target[:, 1:].flatten()
    return F.cross_entropy(
        logits.flatten(0, 1), targets, ignore_index=PADDING, reduction="sum", label_smoothing=label_smoothing
    )
