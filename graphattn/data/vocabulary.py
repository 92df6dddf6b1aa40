"""Text as numbers and back: characters, words, or parts of words that a tokenizer has learnt.

In all of them 0 is padding, 1 the beginning, 2 the end, 3 what is unknown; the pieces follow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

PADDING, BEGIN, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<begin>", "<end>", "<unknown>")


class Vocabulary(Protocol):
    """`size` counts the four special tokens."""

    @property
    def size(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Without beginning and end."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Special tokens, but for what is unknown, are left out."""
        ...


class Pieces:
    """Characters or words: what a text is cut into, and joined with."""

    def __init__(self, pieces: Sequence[str], separator: str) -> None:
        self.pieces, self.separator = (*SPECIAL, *pieces), separator
        self._number = {piece: k for k, piece in enumerate(self.pieces)}

    @property
    def size(self) -> int:
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        cut = text.split() if self.separator else text
        return [self._number.get(piece, UNKNOWN) for piece in cut]

    def decode(self, tokens: Sequence[int]) -> str:
        return self.separator.join(self.pieces[token] for token in tokens if token >= UNKNOWN)


def characters(text: str) -> Pieces:
    """All that occur, in the order of their code points."""
    return Pieces(sorted(set(text)), "")


def words(lines: Iterable[str], least: int) -> Pieces:
    """What stands between spaces at least so often, the most frequent first, as an adaptive softmax wants it."""
    counts = Counter(word for line in lines for word in line.split())
    kept = [word for word, count in counts.items() if count >= least]
    return Pieces(sorted(kept, key=lambda word: (-counts[word], word)), " ")


class Subwords:
    """Byte-pair encoding by the library `tokenizers`, learnt on `lines`: `size` tokens, the special ones included.

    Words are cut at spaces and around punctuation before pairs are merged; a space is part of the word that it stands
    before, so that texts come back as they were.

    Sennrich et al., 'Neural Machine Translation of Rare Words with Subword Units', ACL 2016.

    Raises:
        ImportError: the library is missing.
        ValueError: the lines do not give so many tokens.
    """

    def __init__(self, lines: Iterable[str], size: int) -> None:
        made = _tokenizers()
        self._tokenizer = made.Tokenizer(made.models.BPE(unk_token=SPECIAL[UNKNOWN]))
        self._tokenizer.normalizer = made.normalizers.NFC()
        self._tokenizer.pre_tokenizer = made.pre_tokenizers.Sequence(
            [made.pre_tokenizers.Metaspace(), made.pre_tokenizers.Punctuation()]
        )
        self._tokenizer.decoder = made.decoders.Metaspace()
        trainer = made.trainers.BpeTrainer(vocab_size=size, special_tokens=list(SPECIAL), show_progress=False)
        self._tokenizer.train_from_iterator(lines, trainer)
        self._tokenizer.encode_special_tokens = True  # in a text their names are text
        if self.size != size:
            raise ValueError(f"the lines give {self.size} tokens, needed {size}: ask for fewer, or for more lines")

    @property
    def size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text).ids

    def decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode([token for token in tokens if token >= UNKNOWN], skip_special_tokens=False)


def _tokenizers() -> Any:
    try:
        import tokenizers
        from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers  # noqa: F401
    except ImportError as missing:
        raise ImportError(
            f"subword tokens need the library tokenizers ({missing}): pip install graphattn[text]"
        ) from missing
    return tokenizers
