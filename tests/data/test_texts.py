"""Sets of texts: vocabularies that give texts back, files read as they stand, generated ones of known optimum."""

from __future__ import annotations

import gzip
import hashlib
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from small_sets import Writer

from graphattn.data import PairSet, TextSet, load, load_texts, made_text
from graphattn.data.text import Pairs, pairs_of, sentences_of
from graphattn.data.vocabulary import BEGIN, END, PADDING, SPECIAL, UNKNOWN, Subwords, characters, words

LINES = ["Ein Mann, der läuft.", "Zwei Männer laufen (schnell).", "der Mann läuft nicht"]


def test_characters_and_words_come_back_and_what_is_new_is_unknown() -> None:
    letters = characters("banana\n")
    assert letters.pieces == (*SPECIAL, "\n", "a", "b", "n")
    assert letters.decode([BEGIN, *letters.encode("nab\n"), END, PADDING]) == "nab\n"
    assert letters.encode("bx") == [6, UNKNOWN]
    known = words(["a b a c", "b a d d"], least=2)
    assert known.pieces == (*SPECIAL, "a", "b", "d")  # by frequency, then by name
    assert known.encode(" d  a c") == [6, 4, UNKNOWN]
    assert known.decode([4, UNKNOWN, 5]) == "a <unknown> b"


def test_subwords_come_back_whatever_the_punctuation_and_the_rare_words() -> None:
    vocabulary = Subwords(LINES, 50)
    assert vocabulary.size == 50
    for line in [*LINES, "nicht schnell, Mann (läuft)."]:
        tokens = vocabulary.encode(line)
        assert min(tokens) > UNKNOWN and max(tokens) < 50
        assert vocabulary.decode([BEGIN, *tokens, END, PADDING]) == line
    assert UNKNOWN in vocabulary.encode("Ж")
    assert not {PADDING, BEGIN, END} & set(vocabulary.encode("Mann <end> <pad><begin>")), "text is text"
    assert len(vocabulary.encode("Mann")) < 4


def test_subwords_are_learnt_alike_each_time() -> None:
    first, second = Subwords(LINES * 3, 45), Subwords(LINES * 3, 45)
    assert [first.encode(line) for line in LINES] == [second.encode(line) for line in LINES]


def test_more_subwords_than_the_lines_give_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the lines give \d+ tokens, needed 500: ask for fewer"):
        Subwords(LINES, 500)


def test_pairs_are_padded_on_the_right_and_cut_to_the_longest_of_those_taken() -> None:
    pairs = pairs_of([[5, 6], [7]], [[8], [9, 9, 9]])
    assert pairs.source.tolist() == [[5, 6, END], [7, END, PADDING]]
    assert pairs.target.tolist() == [[BEGIN, 8, END, PADDING, PADDING], [BEGIN, 9, 9, 9, END]]
    first, last = pairs.of(torch.tensor([0])), pairs.of(torch.tensor([1]))
    assert first.target.tolist() == [[BEGIN, 8, END]]
    assert last.source.tolist() == [[7, END]]
    assert len(pairs.of(torch.tensor([1, 0, 1]))) == 3
    assert len(Pairs(pairs.source[:0], pairs.target[:0]).of(torch.tensor([], dtype=torch.int64))) == 0


TABLE: dict[str, Any] = {"title": "t", "licence": "l", "citation": "c", "source": "s"}
ENGLISH = [" a man , running .", "two men run", "men run , a man", "a a man"]
GERMAN = ["ein Mann läuft", "zwei Männer laufen", "Männer laufen", "ein Mann"]


def packed(lines: list[str]) -> bytes:
    return gzip.compress(("\n".join(lines) + "\n").encode())


def pinned(files: dict[str, bytes]) -> list[dict[str, str]]:
    return [{"name": n, "url": "", "sha256": hashlib.sha256(data).hexdigest()} for n, data in files.items()]


def write_translation(write: Writer, tokens: int = 40, **changed: bytes) -> Path:
    sides = {"de": GERMAN, "en": ENGLISH}
    files = {
        f"{part}.{language}.gz": packed(lines if part == "train" else lines[:count])
        for part, count in (("train", 4), ("val", 1), ("late", 2))
        for language, lines in sides.items()
    }
    files |= {name.replace("_", "."): data for name, data in changed.items()}
    table = {
        **TABLE,
        "format": "translation",
        "languages": ["de", "en"],
        "default_split": "late",
        "sizes": {"sequences": 4, "classes": tokens},
        "splits": {"late": {"val": 1, "test": 2}},
        "files": pinned(files),
    }
    return write(table, files)


def test_a_translation_is_read_line_by_line(write: Writer) -> None:
    path = write_translation(write)
    loaded = load(path, folder=path.parent)
    assert isinstance(loaded, PairSet)
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (4, 1, 2)
    assert loaded.references == {"val": ENGLISH[:1], "test": ENGLISH[:2]}
    assert loaded.score == "bleu" and loaded.num_tokens == 40
    for k in range(4):
        assert loaded.decode(loaded.train.source[k].tolist()) == GERMAN[k]
        assert loaded.decode(loaded.train.target[k].tolist()).strip() == ENGLISH[k].strip()
    assert "7 pairs of texts, 40 tokens; 4 train, 1 validate, 2 are tested" in loaded.summary()
    again = load(path, folder=path.parent)
    assert again.digest() == loaded.digest()


def test_what_does_not_fit_together_is_refused(write: Writer) -> None:
    path = write_translation(write, late_de_gz=packed(GERMAN[:3]))
    with pytest.raises(ValueError, match="late has 3 lines of de and 2 of en, needed as many"):
        load(path, folder=path.parent)
    path = write_translation(write, late_de_gz=packed(GERMAN[:3]), late_en_gz=packed(ENGLISH[:3]))
    with pytest.raises(ValueError, match="split 'late': found 3 test, needed 2"):
        load(path, folder=path.parent)
    path = write_translation(write)
    (path.parent / "tiny" / "val.en.gz").write_bytes(packed(["another line"]))
    with pytest.raises(ValueError, match="truncated or altered"):
        load(path, folder=path.parent)
    with pytest.raises(ValueError, match="leave out standardise"):
        load(path, folder=path.parent, standardise=True)
    with pytest.raises(ValueError, match="set of texts, which are handed out as they are: leave out dense"):
        load(path, folder=path.parent, dense=True)


def test_subwords_are_learnt_from_what_trains_and_a_line_ends_at_a_newline_alone(write: Writer) -> None:
    lines = ["ein Mann\u2028läuft", "Ж"]
    path = write_translation(write, late_de_gz=packed(lines), late_en_gz=packed(lines))
    loaded = load(path, folder=path.parent)
    assert isinstance(loaded, PairSet)
    assert loaded.references["test"] == lines
    assert all(UNKNOWN in tokens[1] for tokens in (loaded.test.source, loaded.test.target))


def test_a_file_that_a_manifest_does_not_name_is_refused(write: Writer) -> None:
    path = write_translation(write)
    path.write_text(path.read_text().replace('name = "val.en.gz"', 'name = "valid.en.gz"'))
    with pytest.raises(ValueError, match=r"has no file val\.en\.gz: needed one \[\[files\]\] of that name"):
        load(path, folder=path.parent)


def test_a_split_needs_its_own_files_alone(write: Writer) -> None:
    path = write_translation(write, early_de_gz=packed(GERMAN[:1]), early_en_gz=packed(ENGLISH[:1]))
    for language in ("de", "en"):
        (path.parent / "tiny" / f"early.{language}.gz").unlink()
    loaded = load(path, folder=path.parent)
    assert isinstance(loaded, PairSet) and len(loaded.test) == 2


def test_sentences_are_words_and_those_seen_once_are_unknown(write: Writer) -> None:
    files = {
        f"{part}.en.gz": packed(lines) for part, lines in (("train", ENGLISH), ("val", ENGLISH[:1]), ("t", ["a dog"]))
    }
    table = {
        **TABLE,
        "format": "sentences",
        "languages": ["en"],
        "default_split": "t",
        "sizes": {"sequences": 4, "classes": 9},
        "splits": {"t": {"val": 1, "test": 1}},
        "files": pinned(files),
    }
    path = write(table, files)
    loaded = load(path, folder=path.parent)
    assert isinstance(loaded, TextSet) and not loaded.runs_on and loaded.unit == "word"
    assert loaded.decode(loaded.test[0].tolist()) == "a <unknown>"
    assert loaded.test[0, 0] == BEGIN and loaded.test[0, -1] == END
    assert loaded.decode(loaded.train[1].tolist()) == "<unknown> men run"


def test_characters_are_cut_by_position_and_those_that_training_lacks_are_unknown(write: Writer) -> None:
    files = {"input.txt": b"abcabcabcab" + b"caXb"}
    table = {
        **TABLE,
        "format": "characters",
        "default_split": "position",
        "sizes": {"sequences": 11, "classes": 7},
        "splits": {"position": {"val": 2, "test": 2}, "none": {"val": 8, "test": 7}},
        "files": pinned(files),
    }
    path = write(table, files)
    loaded = load(path, folder=path.parent)
    assert isinstance(loaded, TextSet) and loaded.runs_on
    assert loaded.decode(loaded.train.tolist()) == "abcabcabcab"
    assert loaded.val.tolist() == [6, 4] and loaded.test.tolist() == [UNKNOWN, 5]
    assert "15 characters of text, 7 tokens" in loaded.summary()
    with pytest.raises(ValueError, match="none train"):
        load(path, folder=path.parent, split="none")


def test_the_chain_has_the_entropy_that_is_known_of_it() -> None:
    """A model that knows the transitions has this perplexity, on so many symbols within a percent or two."""
    loaded, table = load("chain"), made_text.transitions()
    assert isinstance(loaded, TextSet)
    text = (loaded.train - len(SPECIAL)).tolist()
    losses = [-math.log(table[a, b, c]) for a, b, c in zip(text, text[1:], text[2:], strict=False)]
    assert math.exp(sum(losses) / len(losses)) == pytest.approx(made_text.least_perplexity(), rel=0.01)
    counts = Counter(text)
    unigram = -sum(n / len(text) * math.log(n / len(text)) for n in counts.values())
    assert made_text.least_perplexity() < 0.75 * math.exp(unigram)  # there is something to learn
    assert torch.equal(load("chain").test, loaded.test)


def test_extracts_are_the_sentences_with_the_marker() -> None:
    loaded = load("extracts")
    assert isinstance(loaded, PairSet) and loaded.score == "rouge_l"
    for part, pairs in (("val", loaded.val), ("test", loaded.test)):
        for k in range(50):
            document, summary = (loaded.decode(tokens[k].tolist()) for tokens in (pairs.source, pairs.target))
            assert summary == loaded.references[part][k]
            sentences = document.removesuffix(" .").split(" . ")
            assert summary == " ".join(f"{s[2:]} ." for s in sentences if s.startswith("* "))
            assert summary
    assert UNKNOWN not in loaded.train.source


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown split of extracts 'all': there are fixed"):
        load_texts("extracts", split="all")
    with pytest.raises(ValueError, match="format of sets of texts in digits"):
        load_texts("digits")


@pytest.mark.parametrize("name", ["multi30k", "multi30k-english", "tiny-shakespeare"])
def test_the_official_files(real: Path, name: str) -> None:
    loaded = load(name)
    if isinstance(loaded, PairSet):
        for part, pairs in (("val", loaded.val), ("test", loaded.test)):
            same = [loaded.decode(t.tolist()) == r for t, r in zip(pairs.target, loaded.references[part], strict=True)]
            assert sum(same) > 0.98 * len(same)
        assert max((pairs.source == UNKNOWN).float().mean() for pairs in (loaded.val, loaded.test)) < 1e-3
    elif loaded.runs_on:
        assert loaded.decode(loaded.train[:14].tolist()) == "First Citizen:"
        assert UNKNOWN not in loaded.test
    else:
        assert 0.01 < (loaded.test == UNKNOWN).sum() / (loaded.test > END).sum() < 0.05


def test_sentences_have_a_beginning_and_an_end() -> None:
    made = sentences_of(["ab", ""], characters("ab"))
    assert made.tolist() == [[BEGIN, 4, 5, END], [BEGIN, END, PADDING, PADDING]]
