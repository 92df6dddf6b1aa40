"""ROUGE: how many words, pairs of words, and words in order a summary shares with its reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def rouge(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """rouge_1, rouge_2 and rouge_l in percent: means over the texts of F1 = 2 P R / (P + R).

    P and R are what is shared over what the text has, and over what the reference has: single words, pairs of
    neighbours, each as often as both have it, and of rouge_l the longest subsequence common to both. Words are what
    stands between spaces; two texts that both have none of what is counted, such as pairs, get 0.

    Lin, 'ROUGE: A Package for Automatic Evaluation of Summaries', 2004.

    Raises:
        ValueError: no texts, or not as many references.
    """
    if not texts or len(texts) != len(references):
        raise ValueError(f"{len(texts)} texts and {len(references)} references: needed as many, and one at least")
    totals = {"rouge_1": 0.0, "rouge_2": 0.0, "rouge_l": 0.0}
    for text, reference in zip(texts, references, strict=True):
        ours, theirs = text.split(), reference.split()
        for n in (1, 2):
            a, b = (Counter(zip(*(words[k:] for k in range(n)), strict=False)) for words in (ours, theirs))
            totals[f"rouge_{n}"] += _f1((a & b).total(), a.total(), b.total())
        totals["rouge_l"] += _f1(_common(ours, theirs), len(ours), len(theirs))
    return {name: round(100 * total / len(texts), 4) for name, total in totals.items()}


def _f1(shared: int, ours: int, theirs: int) -> float:
    return 2 * shared / (ours + theirs) if ours + theirs else 0.0


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    before = [0] * (len(b) + 1)
    for word in a:
        row = [0]
        for k, other in enumerate(b):
            row.append(before[k] + 1 if word == other else max(row[k], before[k + 1]))
        before = row
    return before[-1]
