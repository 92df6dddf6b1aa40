"""Manifests: one TOML file a data set, in `datasets/`, read into frozen dataclasses; and the files they pin.

    title, licence, citation, source      for people
    format                                which reader: one of FORMATS
    folder                                where the files lie under a data folder (default: the set's name)
    score                                 what labels are judged by: accuracy (if absent), roc_auc of 2 classes or tasks
    tasks                                 labels are so many yes-or-no tasks as [sizes] says classes, judged by roc_auc
    molecules                             on sets of graphs: features are OGB's categories of atoms and bonds
    sparse, row_normalise, binary         how features are handed out: mostly zeros; rows scaled to sum 1; counts as 0/1
    standardise                           on sets of graphs: mean 0 and variance 1 over the training graphs' nodes
    languages                             of translations, from which into which; of sentences, theirs
    default_split, [splits.NAME]          the splits there are, with their numbers
    [sizes]                               graphs (1 if absent), nodes, directed edges after cleaning, features, classes,
                                          edge_features (0 if absent): checked on loading. Of images: features (numbers
                                          an image), shape (channels, rows, columns), images (those of the test too),
                                          tested, classes. Of texts: sequences (texts or characters that train),
                                          classes (tokens of the vocabulary)
    [[files]]                             name, url and a pin

Files are looked for in FOLDER/NAME/ for the folder given (`--data`), then for the environment variable GRAPHATTN_DATA,
and are else downloaded once into pooch's cache. Wherever a file comes from, it is used only if it has the pinned sum:

- `sha256`, of the file, for pickles: a pickle can run code, so nothing else is ever unpickled.
- `content_sha256`, for `.npz`: SHA-256 over name, dtype, shape and bytes of each array in `arrays`, names in order.
  The same arrays exist in several zips (repacked, other compression), whose bytes say nothing about the content.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from graphattn.data.pinned import PinnedFile
from graphattn.data.splits import SplitRecipe
from graphattn.record import one_of, record

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GRAPH_FORMATS = ("planetoid", "gnn-benchmark", "heterophilous", "digits", "ppi", "ppi-like", "tu", "ogbn", "ogbg")
IMAGE_FORMATS = ("cifar10", "cifar100", "idx", "digits-images")
SCENE_FORMATS = ("shapes",)
TEXT_FORMATS = ("translation", "sentences", "characters", "chain", "extracts")
FORMATS = (*GRAPH_FORMATS, *IMAGE_FORMATS, *SCENE_FORMATS, *TEXT_FORMATS)

Score = Literal["accuracy", "roc_auc"]

_PACKAGE = Path(__file__).resolve().parent.parent
_FOLDERS = (_PACKAGE / "_packed" / "datasets", _PACKAGE.parent / "datasets")  # an installed wheel, a checkout


@dataclass(frozen=True)
class Sizes:
    """What a set must have. `edges` counts directed edges, without duplicates and self-loops. `nodes` and `edges` are
    not checked where absent. `images`, those `tested` included, and their `shape` are of sets of images alone.
    `sequences`, of sets of texts, are those that train, or the characters, and `classes` the tokens of the vocabulary.
    """

    classes: int
    features: int = 0
    nodes: int | None = None
    edges: int | None = None
    graphs: int = 1
    edge_features: int = 0
    images: int = 0
    tested: int = 0
    shape: tuple[int, ...] = ()
    sequences: int = 0


@dataclass(frozen=True)
class Manifest:
    """One data set, as its TOML file describes it (keys: top of this file); `path` is that file."""

    name: str
    title: str
    licence: str
    citation: str
    source: str
    format: str
    default_split: str
    sizes: Sizes
    splits: Mapping[str, SplitRecipe]
    folder: str
    files: tuple[PinnedFile, ...] = ()
    score: Score = "accuracy"
    tasks: bool = False
    molecules: bool = False
    sparse: bool = False
    row_normalise: bool = False
    binary: bool = False
    standardise: bool = False
    languages: tuple[str, ...] = ()
    path: Path = field(default=Path(), compare=False)

    def check_size(self, what: str, found: int) -> None:
        """Raise ValueError unless `found` is the size called `what`, or that is not known."""
        needed = getattr(self.sizes, what)
        if needed not in (None, found):
            shown = "directed edges" if what == "edges" else what
            raise ValueError(f"{self.name}: found {found} {shown}, needed {needed} (the manifest's [sizes])")

    @property
    def of_images(self) -> bool:
        """Whether it is a set of images, each of one class."""
        return self.format in IMAGE_FORMATS

    @property
    def of_scenes(self) -> bool:
        """Whether it is a set of images with objects in them."""
        return self.format in SCENE_FORMATS

    @property
    def of_texts(self) -> bool:
        """Whether it is a set of texts. If none of these, it is one of graphs."""
        return self.format in TEXT_FORMATS


def names() -> list[str]:
    """The data sets there are, in alphabetical order."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def read(name: str | Path) -> Manifest:
    """The manifest called `name`; a path that ends in .toml reads a manifest of your own.

    Raises:
        ValueError: an unknown name, key or split, or a value of the wrong type.
    """
    if str(name).endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"there is no manifest {path}: needed a TOML file, or one of {', '.join(names())}")
    else:
        path = _folder() / f"{one_of(str(name), names(), 'data set')}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no valid TOML: {error}") from error
    return _manifest(table, path)


def files(manifest: Manifest, folder: Path | None = None) -> dict[str, Path]:
    """Where each file of the set is, found or downloaded, its sum checked.

    Raises:
        FileNotFoundError: a file is nowhere and cannot be downloaded.
        ValueError: a file is truncated, altered or not pinned.
    """
    paths = locate(manifest, folder)
    for file in manifest.files:
        file.check(paths[file.name])
    return paths


def locate(manifest: Manifest, folder: Path | None = None) -> dict[str, Path]:
    """As `files`, sums not yet checked: readers do that on what they read."""
    return {file.name: locate_one(manifest, file, folder) for file in manifest.files}


def locate_one(manifest: Manifest, file: PinnedFile, folder: Path | None = None) -> Path:
    """Where one file of the set is, found or downloaded, its sum not yet checked.

    Raises:
        FileNotFoundError: it is nowhere and cannot be downloaded.
    """
    looked = []
    for root, origin in ((folder, "--data"), (os.environ.get("GRAPHATTN_DATA"), "GRAPHATTN_DATA")):
        if root:
            path = Path(root) / manifest.folder / file.name
            if path.is_file():
                return path
            looked.append(f"{path} ({origin})")
    try:
        return _download(manifest, file)
    except (OSError, ImportError) as error:
        looked = looked or ["no folder (neither --data nor GRAPHATTN_DATA is set)"]
        raise FileNotFoundError(
            f"data set {manifest.name}: the file {file.name} is not here. Looked for {', '.join(looked)}; "
            f"downloading {file.url or 'it'} failed: {type(error).__name__}: {error}. Ways out: put the file into "
            f"FOLDER/{manifest.folder}/ and name FOLDER by --data or the environment variable GRAPHATTN_DATA; "
            f"connect to the network; or use the embedded set `digits`, which needs no file"
        ) from error
    except ValueError as error:
        raise ValueError(f"data set {manifest.name}, {file.url}: {error}") from error


def pins(name: str | Path, folder: Path | None = None) -> dict[str, str]:
    """The sums that the files at hand have, by file name: what to paste into the manifest if you trust these copies."""
    manifest = read(name)
    paths = locate(manifest, folder)
    return {file.name: file.digest(paths[file.name]) for file in manifest.files}


def _folder() -> Path:
    for folder in _FOLDERS:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"no folder with manifests: looked for {' and '.join(str(folder) for folder in _FOLDERS)}; reinstall graphattn"
    )


def _manifest(table: dict[str, Any], path: Path) -> Manifest:
    where = str(path)
    sizes = record(Sizes, table.pop("sizes", {}), f"{where}, [sizes]")
    listed = table.pop("splits", {})
    if not isinstance(listed, dict) or not listed:
        raise ValueError(f"{where}: needed at least one table [splits.NAME]")
    splits = {key: record(SplitRecipe, recipe, f"{where}, [splits.{key}]") for key, recipe in listed.items()}
    listed = table.pop("files", [])
    if not isinstance(listed, list):
        raise ValueError(f"{where}: `files` must be a list of tables [[files]]")
    pinned = tuple(record(PinnedFile, entry, f"{where}, [[files]]") for entry in listed)
    for key in ("name", "path"):
        if key in table:
            raise ValueError(f"{where}: unknown key {key!r}; a set is called after its file")
    manifest = record(
        Manifest,
        {"folder": path.stem, **table},
        where,
        name=path.stem,
        sizes=sizes,
        splits=splits,
        files=pinned,
        path=path,
    )
    if Path(manifest.folder).name != manifest.folder or manifest.folder in ("", ".", ".."):
        raise ValueError(f"{where}: folder {manifest.folder!r}; needed a plain name")
    one_of(manifest.format, FORMATS, f"format in {where}:")
    one_of(manifest.default_split, splits, f"default_split in {where}:")
    pictures = manifest.of_images or manifest.of_scenes
    if pictures and (len(sizes.shape) != 3 or math.prod(sizes.shape) != sizes.features or sizes.features < 1):
        raise ValueError(
            f"{where}, [sizes]: shape is {list(sizes.shape)} and features {sizes.features}, needed channels, rows and "
            f"columns of an image, and their product"
        )
    if not manifest.of_texts and sizes.features < 1:
        raise ValueError(f"{where}, [sizes]: features is {sizes.features}, needed how many a node or an image has")
    if len(manifest.languages) != (needed := {"translation": 2, "sentences": 1}.get(manifest.format, 0)):
        raise ValueError(
            f"{where}: languages is {list(manifest.languages)}, needed {needed} for the format {manifest.format!r}"
        )
    if manifest.of_texts and manifest.score != "accuracy":
        raise ValueError(f"{where}: score is {manifest.score!r}, and texts have one of their own: leave it out")
    if manifest.tasks and manifest.score != "roc_auc":
        raise ValueError(f"{where}: score is {manifest.score!r}, needed 'roc_auc' for yes-or-no tasks")
    if manifest.score == "roc_auc" and sizes.classes != 2 and not manifest.tasks:
        raise ValueError(f"{where}: score 'roc_auc' needs 2 classes, found {sizes.classes}; leave it out for accuracy")
    return manifest


def _download(manifest: Manifest, file: PinnedFile) -> Path:
    if not file.url:
        raise FileNotFoundError("it has no public address")
    import pooch

    cache = Path(pooch.os_cache("graphattn")) / manifest.folder
    if file.member is None:
        known = f"sha256:{file.sha256}" if file.sha256 else None
        return Path(pooch.retrieve(file.url, known_hash=known, fname=file.name, path=cache, progressbar=True))
    archive = Path(file.url).name
    unpack = (pooch.Unzip if archive.endswith(".zip") else pooch.Untar)(members=[file.member])
    found = pooch.retrieve(file.url, known_hash=None, fname=archive, path=cache, processor=unpack, progressbar=True)
    return next(Path(path) for path in found if Path(path).as_posix().endswith(f"/{file.member}"))
