"""BLEU as sacreBLEU computes it, on whole texts, with the signature that says how."""

from __future__ import annotations

from collections.abc import Sequence


def bleu(texts: Sequence[str], references: Sequence[str]) -> tuple[float, str]:
    """Corpus BLEU in percent, one reference a text, and sacreBLEU's signature.

    Post, 'A Call for Clarity in Reporting BLEU Scores', WMT 2018.

    Raises:
        ImportError: sacreBLEU is missing.
        ValueError: not as many references as texts.
    """
    if len(texts) != len(references):
        raise ValueError(f"{len(texts)} texts and {len(references)} references: needed as many")
    try:
        from sacrebleu.metrics import BLEU
    except ImportError as missing:
        raise ImportError(f"BLEU needs sacreBLEU ({missing}): pip install graphattn[text]") from missing
    metric = BLEU()
    score = metric.corpus_score(list(texts), [list(references)]).score
    return round(score, 4), str(metric.get_signature())
