"""Beam search against enumeration, greedy choice, and a search that never forgets anything."""

import itertools

import pytest
import torch

from graphattn.sequence.decoding import Hypothesis, beam_search

START, END, VOCABULARY = 0, 1, 4


class Table:
    """A model of which every prefix has random logits of its own, and whose state is the prefixes themselves."""

    def __init__(self, seed, sequences):
        self.seed, self.prefixes = seed, [(sequence,) for sequence in range(sequences)]

    def reorder(self, sequences):
        self.prefixes = [self.prefixes[k] for k in sequences.tolist()]

    def logits(self, prefix):
        generator = torch.Generator().manual_seed(hash((self.seed, *prefix)) % 2**31)
        return torch.randn(VOCABULARY, generator=generator, dtype=torch.float64) * 2

    def step(self, tokens, state):
        assert state is self
        self.prefixes = [(*prefix, token) for prefix, token in zip(self.prefixes, tokens.tolist(), strict=True)]
        return torch.stack([self.logits(prefix) for prefix in self.prefixes])

    def log_probability(self, sequence, tokens):
        """Of these tokens and then the end."""
        total, prefix = 0.0, (sequence, START)
        for token in (*tokens, END):
            total += self.logits(prefix).float().log_softmax(0)[token].item()
            prefix = (*prefix, token)
        return total


def search(seed, sequences=1, **options):
    table = Table(seed, sequences)
    options = {"start": START, "end": END, "max_length": 4, **options}
    return beam_search(table.step, table, sequences, **options), Table(seed, sequences)


@pytest.mark.parametrize("penalty", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_with_beams_enough_the_best_of_all_sequences_is_found(seed, penalty):
    found, table = search(seed, beams=3 * 3 * 3 * 3 * 4, length_penalty=penalty, max_length=3)
    words = [token for token in range(VOCABULARY) if token != END]
    every = [tokens for length in range(4) for tokens in itertools.product(words, repeat=length)]
    scores = {tokens: table.log_probability(0, tokens) / (len(tokens) + 1) ** penalty for tokens in every}
    best = sorted(scores, key=scores.get, reverse=True)[:5]
    assert [tuple(hypothesis.tokens) for hypothesis in found[0][:5]] == best
    for hypothesis in found[0]:
        assert hypothesis.score == pytest.approx(scores[tuple(hypothesis.tokens)], rel=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_with_one_beam_each_token_is_the_likeliest_next(seed):
    found, table = search(seed, beams=1, max_length=6)
    tokens, prefix = [], (0, START)
    while len(tokens) < 6 and (token := int(table.logits(prefix).argmax())) != END:
        tokens, prefix = [*tokens, token], (*prefix, token)
    ((hypothesis,),) = found
    assert hypothesis.tokens == tokens


@pytest.mark.parametrize("beams", [1, 2, 5])
def test_a_sequence_is_searched_alike_alone_and_among_others_that_are_done_sooner(beams):
    together, _ = search(7, sequences=5, beams=beams, max_length=8)
    for sequence in range(5):
        table = Table(7, 5)
        table.reorder(torch.tensor([sequence]))
        (alone,) = beam_search(table.step, table, 1, start=START, end=END, max_length=8, beams=beams)
        assert together[sequence] == alone
        assert 1 <= len(alone) <= beams
    assert len({len(found[0].tokens) for found in together}) > 1


def test_scores_are_log_probabilities_over_a_power_of_the_length_best_first():
    found, table = search(3, sequences=2, beams=4, length_penalty=0.5)
    for sequence, hypotheses in enumerate(found):
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        for tokens, score in hypotheses:
            assert score == pytest.approx(table.log_probability(sequence, tokens) / (len(tokens) + 1) ** 0.5, rel=1e-5)


def test_a_single_beam_moves_its_state_only_when_a_sequence_is_done():
    class Counting(Table):
        moves = 0

        def reorder(self, sequences):
            self.moves += 1
            super().reorder(sequences)

    table = Counting(7, 5)
    found = beam_search(table.step, table, 5, start=START, end=END, max_length=8, beams=1)
    lengths = {len(hypotheses[0].tokens) for hypotheses in found}
    assert table.moves == 1 + len(lengths) < 1 + max(lengths)


def test_at_the_greatest_length_all_must_end():
    def never(tokens, state):
        return torch.tensor([0.0, -50.0, 1.0, 0.0]).expand(len(tokens), 4)

    table = Table(0, 1)
    ((first, *_),) = beam_search(never, table, 1, start=START, end=END, max_length=3, beams=2)
    assert first.tokens == [2, 2, 2]


def test_no_sequences_give_no_hypotheses():
    assert search(0, sequences=0)[0] == []


@pytest.mark.parametrize(("beams", "length"), [(0, 3), (2, 0)])
def test_no_beams_or_no_room_are_refused(beams, length):
    with pytest.raises(ValueError, match=f"beams is {beams} and max_length {length}"):
        search(0, beams=beams, max_length=length)


def test_a_hypothesis_is_its_tokens_and_its_score():
    assert Hypothesis([1, 2], -0.5)._asdict() == {"tokens": [1, 2], "score": -0.5}
