"""Sets of texts, by name."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import torch

from graphattn.data import made_text
from graphattn.data import manifest as manifests
from graphattn.data.manifest import Manifest
from graphattn.data.text import PairSet, TextSet, pairs_of, sentences_of
from graphattn.data.vocabulary import Subwords, characters, words
from graphattn.record import one_of

_LEAST = 2  # a word that training has once is unknown


def load_texts(name: str | Path, *, split: str | None = None, folder: Path | None = None) -> PairSet | TextSet:
    """Load the set of texts called `name` (see `names()`), or the one that a manifest of your own (a .toml path)
    describes. Vocabularies are learnt from what trains alone.

    Args:
        split: what is tested, one of the manifest's splits; default: the manifest's.
        folder: where to look for the files first, laid out as FOLDER/NAME/<official file names>.

    Raises:
        ValueError: an unknown set or split; a truncated or altered file; sizes that are wrong.
        FileNotFoundError: a file of this split that is neither at hand nor downloadable.
        ImportError: subword tokens without the library for them.
    """
    manifest = manifests.read(name)
    split = manifest.default_split if split is None else split
    one_of(split, manifest.splits, f"split of {manifest.name}")
    read = READERS[one_of(manifest.format, READERS, f"format of sets of texts in {manifest.name}:")]
    loaded = read(manifest, split, folder)
    recipe = manifest.splits[split]
    needed = {"train": manifest.sizes.sequences, "val": recipe.val, "test": recipe.test}
    found = {part: len(getattr(loaded, part)) for part in needed}
    for what, count in {**found, "tokens": loaded.num_tokens}.items():
        if count != (wanted := needed.get(what, manifest.sizes.classes)):
            raise ValueError(f"{manifest.name}, split {split!r}: found {count} {what}, needed {wanted} (the manifest)")
    return loaded


def _translation(manifest: Manifest, split: str, folder: Path | None) -> PairSet:
    """Files train, val and the split's name, each with a language at its end; line k of one is that of the other."""
    here, there = manifest.languages
    texts = {
        (part, language): _lines(manifest, f"{part}.{language}.gz", folder)
        for part in ("train", "val", split)
        for language in (here, there)
    }
    for part in ("train", "val", split):
        ours, theirs = len(texts[part, here]), len(texts[part, there])
        if ours != theirs:
            raise ValueError(
                f"{manifest.name}: {part} has {ours} lines of {here} and {theirs} of {there}, needed as many"
            )
    vocabulary = Subwords(texts["train", here] + texts["train", there], manifest.sizes.classes)
    encoded = {key: [vocabulary.encode(line) for line in lines] for key, lines in texts.items()}
    train, val, test = (pairs_of(encoded[part, here], encoded[part, there]) for part in ("train", "val", split))
    references = {"val": texts["val", there], "test": texts[split, there]}
    return PairSet(manifest.name, train, val, test, references, vocabulary.size, vocabulary.decode, "bleu")


def _sentences(manifest: Manifest, split: str, folder: Path | None) -> TextSet:
    """Words between spaces, those that training has once being unknown."""
    (language,) = manifest.languages
    train, val, test = (_lines(manifest, f"{part}.{language}.gz", folder) for part in ("train", "val", split))
    vocabulary = words(train, _LEAST)
    first, second, third = (sentences_of(lines, vocabulary) for lines in (train, val, test))
    return TextSet(manifest.name, first, second, third, vocabulary.size, vocabulary.decode, "word")


def _characters(manifest: Manifest, split: str, folder: Path | None) -> TextSet:
    """One file; what is last is tested, what is before that validates."""
    (file,) = manifest.files
    text = file.read_bytes(manifests.locate_one(manifest, file, folder)).decode("utf-8")
    recipe = manifest.splits[split]
    val, test = recipe.val or 0, recipe.test or 0
    if not 0 < val + test < len(text):
        raise ValueError(f"{manifest.name}: {val} characters validate and {test} are tested of {len(text)}: none train")
    vocabulary = characters(text[: len(text) - val - test])
    tokens = torch.tensor(vocabulary.encode(text))
    first, second, third = tokens.split([len(text) - val - test, val, test])
    return TextSet(manifest.name, first, second, third, vocabulary.size, vocabulary.decode, "character")


def _lines(manifest: Manifest, name: str, folder: Path | None) -> list[str]:
    file = next((file for file in manifest.files if file.name == name), None)
    if file is None:
        raise ValueError(f"{manifest.name} has no file {name}: needed one [[files]] of that name")
    path = manifests.locate_one(manifest, file, folder)
    return gzip.decompress(file.read_bytes(path)).decode("utf-8").removesuffix("\n").split("\n")


READERS: dict[str, Callable[[Manifest, str, Path | None], PairSet | TextSet]] = {
    "translation": _translation,
    "sentences": _sentences,
    "characters": _characters,
    "chain": lambda manifest, split, folder: made_text.chain(),
    "extracts": lambda manifest, split, folder: made_text.extracts(),
}
