"""The likeliest sequences of tokens, found step by step: beam search, and greedily with a beam of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor


class State(Protocol):
    """What a model remembers of B sequences; as many rows go on as are named."""

    def reorder(self, sequences: Int[Tensor, "B2"]) -> None: ...


S = TypeVar("S", bound=State)


class Hypothesis(NamedTuple):
    """Tokens without the first and the last, and the sum of their log probabilities over length^penalty.

    The length counts the end.
    """

    tokens: list[int]
    score: float


@torch.no_grad()
def beam_search(
    step: Callable[[Int[Tensor, "B"], S], Float[Tensor, "B V"]],
    state: S,
    batch: int,
    *,
    start: int,
    end: int,
    max_length: int,
    beams: int = 5,
    length_penalty: float = 1.0,
    device: torch.device | None = None,
) -> list[list[Hypothesis]]:
    """For each of `batch` sequences up to `beams` hypotheses, best first.

    `step(tokens, state)` gives the logits of what follows; `state` begins with a row a sequence. At each step every
    sequence keeps its `beams` likeliest prefixes. One that ends among the `beams` best continuations is a hypothesis,
    and a sequence is done when it has as many as beams, or when after `max_length` tokens all must end. So the search
    may miss the likeliest sequence, as beam search does; with beams=1 it is greedy.

    A score is divided by length^length_penalty: 0 compares sums, 1 means, and more favours long ones.

    Raises:
        ValueError: no beams, or no room for a token.
    """
    if beams < 1 or max_length < 1:
        raise ValueError(f"beams is {beams} and max_length {max_length}: needed at least 1 of each")
    finished: list[list[Hypothesis]] = [[] for _ in range(batch)]
    active = list(range(batch))  # the sequences still searched, each with `beams` rows
    state.reorder(torch.arange(batch, device=device).repeat_interleave(beams))
    scores = torch.full((batch, beams), -torch.inf, device=device)
    scores[:, 0] = 0.0  # all beams begin alike: let one of them go on
    prefixes = torch.full((batch, beams, 1), start, device=device)
    for length in range(1, max_length + 2):
        if not active:
            break
        following = step(prefixes[..., -1].flatten(), state).float().log_softmax(-1)
        if length > max_length:  # only the end may follow
            following = torch.full_like(following, -torch.inf).index_copy(
                1, torch.tensor([end], device=device), following[:, end : end + 1]
            )
        vocabulary = following.shape[-1]
        candidates = (scores.unsqueeze(2) + following.view(len(active), beams, vocabulary)).flatten(1)
        best, at = candidates.topk(min(2 * beams, candidates.shape[1]), 1)
        ends = at % vocabulary == end
        first = zip(*(found[:, :beams].tolist() for found in (best, at)), strict=True)
        for row, (sequence, continuations) in enumerate(zip(active, first, strict=True)):
            for score, place in zip(*continuations, strict=True):
                if place % vocabulary == end and score > -torch.inf and len(finished[sequence]) < beams:
                    tokens = prefixes[row, place // vocabulary, 1:].tolist()
                    finished[sequence].append(Hypothesis(tokens, score / length**length_penalty))
        best = best.masked_fill(ends, -torch.inf)
        scores, order = best.topk(min(beams, best.shape[1]), 1)
        at = at.gather(1, order)
        going = [row for row, sequence in enumerate(active) if len(finished[sequence]) < beams]
        rows = torch.tensor(going, dtype=torch.int64, device=device)
        scores, at, kept = scores[rows], at[rows], prefixes[rows]
        parents = at // vocabulary
        prefixes = torch.cat(
            [kept.gather(1, parents.unsqueeze(2).expand(-1, -1, kept.shape[2])), (at % vocabulary).unsqueeze(2)], 2
        )
        if beams > 1 or len(going) < len(active):  # else each row goes on as it is
            state.reorder((rows.unsqueeze(1) * beams + parents).flatten())
        active = [active[row] for row in going]
    return [sorted(found, key=lambda hypothesis: -hypothesis.score) for found in finished]
