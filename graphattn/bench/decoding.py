"""Sequences made step by step: what a step costs that remembers a band, or all steps before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from graphattn.bench import memory
from graphattn.bench.case import Alone
from graphattn.bench.timing import quantile, seconds
from graphattn.models.seq2seq import Seq2Seq
from graphattn.sequence import MIXERS, make_mixer
from graphattn.sequence.blocks import StackState
from graphattn.sequence.decoding import beam_search
from graphattn.sequence.mixer import Mixer

_TIMES = 5
_START, _END, _TOKENS = 1, 2, 6000


@dataclass(frozen=True)
class DecodingCase(Alone):
    """So many `sentences` at once of `steps` tokens each become as many of `steps` tokens, by beam search or greedily.

    The contestants are `Seq2Seq` with each mixer in encoder and decoder, of the size of experiments/multi30k: `hidden`
    is self-attention's, the others' feed-forward networks are as much wider as makes all have about as many parameters.
    They are untrained, and kept from ending early, so that all make as many steps; the encoder's pass is part of it.
    """

    directions: ClassVar[tuple[str, ...]] = ("decoding",)

    name: str
    beams: int
    sentences: int = 32
    steps: int = 32
    channels: int = 256
    hidden: int = 1024
    heads: int = 4
    kernels: tuple[int, ...] = (3, 7, 15, 31)

    def contestants(self, device: str) -> tuple[str, ...]:
        return MIXERS

    def obstacle(self, contestant: str, device: str) -> str | None:
        rows = self.sentences * self.beams
        return memory.lack(4.0 * rows * (4 * _TOKENS + 6 * len(self.kernels) * self.steps * self.channels), device)

    def about(self) -> dict[str, Any]:
        search = "greedy" if self.beams == 1 else f"beam {self.beams}"
        sizes = {"N": self.steps, "H": self.heads, "D": self.channels // self.heads}
        return {"op": search, "graph": f"{self.sentences} sentences", "dtype": "float32"} | sizes

    def model(self, mixer: Mixer) -> Seq2Seq:
        """Freshly initialised, in eval mode."""
        return Seq2Seq(
            _TOKENS,
            _TOKENS,
            mixer=mixer,
            channels=self.channels,
            hidden=self.hidden + self._spared(mixer) // (2 * self.channels + 1),
            heads=self.heads,
            encoder_kernels=self.kernels,
            decoder_kernels=self.kernels,
        ).eval()

    def measure(self, contestant: str, device: str) -> Iterator[dict[str, Any]]:
        torch.manual_seed(0)
        model = self.model(contestant).to(device)  # type: ignore[arg-type]
        source = torch.randint(4, _TOKENS, (self.sentences, self.steps)).to(device)
        times = [seconds(lambda: self.decoded(model, source), device) for _ in range(1 + _TIMES)][1:]
        yield {
            "direction": "decoding",
            **{f"p{100 * q:.0f}_ms": 1e3 * quantile(times, q) for q in (0.2, 0.5, 0.8)},
            "repeats": _TIMES,
        }

    @torch.no_grad()
    def decoded(self, model: Seq2Seq, source: Tensor) -> list[list[int]]:
        """The best hypothesis of each sentence."""

        def step(tokens: Tensor, state: StackState) -> Tensor:
            logits = model.step(tokens, state)
            logits[:, _END] -= 1e6  # last of all, until at the greatest length nothing else may follow
            return logits

        found = beam_search(
            step,
            model.start(source),
            len(source),
            start=_START,
            end=_END,
            max_length=self.steps,
            beams=self.beams,
            device=source.device,
        )
        return [hypotheses[0].tokens for hypotheses in found]

    def _spared(self, mixer: Mixer) -> int:
        """How many parameters fewer a block has than with self-attention, on average."""
        counts = dict.fromkeys(("self-attention", mixer), 0)
        with torch.device("meta"):
            for name in counts:
                for kernel in self.kernels:
                    made = make_mixer(name, self.channels, self.heads, kernel)
                    counts[name] += sum(p.numel() for p in made.parameters())
        return (counts["self-attention"] - counts[mixer]) // len(self.kernels)
