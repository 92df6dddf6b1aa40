"""Sets of images: what the files say is what is handed out, and files that say something else are refused."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_sets import Writer

from graphattn.data import Images, load, manifest
from graphattn.data.images import READERS

SHAPE = (2, 3, 4)  # channels, rows, columns
IDX = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def images(count: int, shape: tuple[int, ...], seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


TRAIN, TEST = images(7, SHAPE, 0), images(3, SHAPE, 1)
LABELS, TEST_LABELS = [0, 1, 2, 0, 1, 2, 0], [2, 1, 0]


def binary(pixels: Any, labels: list[int], coarse: bool) -> bytes:
    rows = (bytes([9] * coarse) + bytes([label]) + image.tobytes() for image, label in zip(pixels, labels, strict=True))
    return b"".join(rows)


def idx(array: Any) -> bytes:
    array = np.asarray(array, dtype=np.uint8)
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def cifar_files(coarse: bool = False) -> dict[str, bytes]:
    """The training images in two files."""
    return {
        "data_1.bin": binary(TRAIN[:4], LABELS[:4], coarse),
        "data_2.bin": binary(TRAIN[4:], LABELS[4:], coarse),
        "test_batch.bin": binary(TEST, TEST_LABELS, coarse),
    }


def idx_files() -> dict[str, bytes]:
    contents = (TRAIN[:, 0], LABELS, TEST[:, 0], TEST_LABELS)
    return {f"{name}-ubyte.gz": gzip.compress(idx(content)) for name, content in zip(IDX, contents, strict=True)}


FILES: dict[str, Callable[[], dict[str, bytes]]] = {
    "cifar10": cifar_files,
    "cifar100": lambda: cifar_files(coarse=True),
    "idx": idx_files,
}


@pytest.fixture
def tiny(write: Writer) -> Callable[..., Path]:
    """Write a set of a format, some of its files and sizes changed; all is pinned as written."""

    def write_set(format: str, changed: Mapping[str, bytes] | None = None, **sizes: Any) -> Path:
        files = FILES[format]() | dict(changed or {})
        shape = SHAPE if format != "idx" else (1, *SHAPE[1:])
        table = dict.fromkeys(("title", "licence", "citation", "source"), "none") | {
            "format": format,
            "default_split": "all",
            "sizes": {"images": 10, "tested": 3, "shape": list(shape), "features": int(np.prod(shape)), "classes": 3}
            | sizes,
            "splits": {"all": {"val": 0}, "held-out": {"val": 2}, "too-many": {"val": 7}, "none-said": {}},
            "files": [
                {"name": name, "url": "https://example.org", "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in files.items()
            ],
        }
        return write(table, files)

    return write_set


def of(path: Path, **options: Any) -> Images:
    loaded = load(path, folder=path.parent, **options)
    assert isinstance(loaded, Images)
    return loaded


def test_each_format_has_its_reader() -> None:
    assert tuple(READERS) == manifest.IMAGE_FORMATS


@pytest.mark.parametrize("format", FILES)
def test_what_the_files_say(tiny: Callable[..., Path], format: str) -> None:
    found = of(tiny(format))
    channels = 1 if format == "idx" else 2
    assert torch.equal(found.train, torch.from_numpy(TRAIN[:, :channels]))
    assert torch.equal(found.test, torch.from_numpy(TEST[:, :channels]))
    assert (found.train_labels.tolist(), found.test_labels.tolist()) == (LABELS, TEST_LABELS)
    assert (found.in_channels, found.num_classes, found.score) == (channels, 3, "accuracy")
    assert found.val.shape == (0, channels, 3, 4)
    assert list(found.held_out()) == ["test"], "no validation is claimed"
    assert found.summary() == (f"10 images of {channels} x 3 x 4, 3 classes; 7 train, 0 validate, 3 are tested")


def test_bytes_become_0_to_1(tiny: Callable[..., Path]) -> None:
    found = of(tiny("cifar10"))
    pixels = found.pixels(found.test)
    assert torch.equal(pixels, torch.from_numpy(TEST).float() / 255)
    assert found.test.dtype == torch.uint8, "and the bytes stay bytes"


def test_bytes_become_minus_1_to_1(tiny: Callable[..., Path]) -> None:
    found = of(tiny("cifar10"), centre=True)
    torch.testing.assert_close(found.pixels(found.test), torch.from_numpy(TEST).float() / 127.5 - 1)
    with pytest.raises(ValueError, match="standardise and centre are both true, needed one"):
        of(tiny("cifar10"), centre=True, standardise=True)


def test_channels_are_standardised_by_the_training_images_alone(tiny: Callable[..., Path]) -> None:
    found = of(tiny("cifar10"), split="held-out", standardise=True)
    pixels = found.pixels(found.train)
    std, mean = torch.std_mean(pixels, (0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(std, torch.ones(2))
    (val, _), (test, _) = found.held_out().values()
    assert found.pixels(torch.cat([val, test])).mean((0, 2, 3)).abs().min() > 1e-4


def test_a_channel_that_never_changes_only_loses_its_mean(tiny: Callable[..., Path]) -> None:
    flat = TRAIN.copy()
    flat[:, 1] = 77
    files = {"data_1.bin": binary(flat[:4], LABELS[:4], False), "data_2.bin": binary(flat[4:], LABELS[4:], False)}
    found = of(tiny("cifar10", files), standardise=True)
    assert (found.offset[1].item(), found.scale[1].item()) == (77, 1)


def test_the_seed_says_which_are_held_out(tiny: Callable[..., Path]) -> None:
    path = tiny("cifar10")
    first, again, other = (of(path, split="held-out", seed=seed) for seed in (1, 1, 2))
    assert (len(first.train), len(first.val), len(first.test)) == (5, 2, 3)
    assert torch.equal(first.val, again.val) and first.digest() == again.digest()
    assert not torch.equal(first.val, other.val) and first.digest() != other.digest()
    everything = torch.cat([first.train, first.val]).flatten(1).tolist()
    assert sorted(everything) == sorted(TRAIN.reshape(7, -1).tolist()), "each image is in one part"
    for part, labels in ((first.train, first.train_labels), (first.val, first.val_labels)):
        where = [TRAIN.reshape(7, -1).tolist().index(image) for image in part.flatten(1).tolist()]
        assert labels.tolist() == [LABELS[k] for k in where]


@pytest.mark.parametrize(("split", "found"), [("too-many", "7"), ("none-said", "None")])
def test_a_part_that_cannot_be_held_out(tiny: Callable[..., Path], split: str, found: str) -> None:
    with pytest.raises(ValueError, match=f"tiny, split '{split}': val is {found}, needed how many of the 7 training"):
        of(tiny("cifar10"), split=split)


SHORT = binary(TRAIN[:4], LABELS[:4], False)
BROKEN = {
    "truncated": ("cifar10", {"data_1.bin": SHORT[:-1]}, "data_1.bin has 99 bytes, needed a multiple of 25"),
    "empty": ("cifar10", {"test_batch.bin": b""}, "test_batch.bin has 0 bytes, needed a multiple of 25"),
    "images missing": ("cifar10", {"data_1.bin": SHORT[:50]}, r"train images have shape \[5, 2, 3, 4\], needed \[7, 2"),
    "label too large": (
        "cifar10",
        {"data_2.bin": binary(TRAIN[4:], [1, 3, 0], False)},
        "the label of train image 5 is 3, needed 0 to 2",
    ),
    "label of the test": (
        "cifar10",
        {"test_batch.bin": binary(TEST, [0, 1, 200], False)},
        "the label of test image 2 is 200, needed 0 to 2",
    ),
    "one label of two": ("cifar100", {"data_1.bin": SHORT}, "has 100 bytes, needed a multiple of 26"),
    "cut gzip": (
        "idx",
        {"train-labels-idx1-ubyte.gz": gzip.compress(idx(LABELS))[:-9]},
        "train-labels-idx1-ubyte.gz is truncated or no gzip file",
    ),
    "no gzip": ("idx", {"train-labels-idx1-ubyte.gz": idx(LABELS)}, "is truncated or no gzip file: Not a gzipped"),
    "damaged gzip": (
        "idx",
        {"train-images-idx3-ubyte.gz": gzip.compress(idx(TRAIN[:, 0]))[:20] + b"x" * 40},
        "train-images-idx3-ubyte.gz is truncated or no gzip file",
    ),
    "labels for images": (
        "idx",
        {"t10k-images-idx3-ubyte.gz": gzip.compress(idx(TEST_LABELS))},
        "begins with 00 00 08 01, needed 00 00 08 03 and 3 sizes",
    ),
    "integers": (
        "idx",
        {"t10k-labels-idx1-ubyte.gz": gzip.compress(b"\0\0\x0c" + idx(TEST_LABELS)[3:])},
        "begins with 00 00 0c 01, needed 00 00 08 01",
    ),
    "nothing inside": ("idx", {"t10k-labels-idx1-ubyte.gz": gzip.compress(b"")}, "begins with nothing, needed"),
    "head only": ("idx", {"t10k-labels-idx1-ubyte.gz": gzip.compress(b"\0\0\x08\x01\0")}, "needed 00 00 08 01 and 1"),
    "numbers missing": (
        "idx",
        {"train-images-idx3-ubyte.gz": gzip.compress(idx(TRAIN[:, 0])[:-1])},
        "has 83 numbers, needed 7 x 3 x 4 as it says itself",
    ),
    "labels missing": (
        "idx",
        {"train-labels-idx1-ubyte.gz": gzip.compress(idx(LABELS[:-1]))},
        "6 train labels for 7 images, needed one each",
    ),
    "another set": (
        "idx",
        {"t10k-images-idx3-ubyte.gz": gzip.compress(idx(TEST[:, 0, :2]))},
        r"test images have shape \[3, 1, 2, 4\], needed \[3, 1, 3, 4\]",
    ),
}


@pytest.mark.parametrize(("format", "changed", "message"), BROKEN.values(), ids=BROKEN)
def test_files_that_cannot_be_right(
    tiny: Callable[..., Path], format: str, changed: dict[str, bytes], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        of(tiny(format, changed))


def test_a_file_whose_sum_is_another_is_not_read(tiny: Callable[..., Path]) -> None:
    path = tiny("cifar10")
    (path.parent / "tiny" / "data_1.bin").write_bytes(SHORT[:-1] + b"x")
    with pytest.raises(ValueError, match=r"data_1\.bin is truncated or altered: SHA-256"):
        of(path)


@pytest.mark.parametrize(
    ("format", "kept", "message"),
    [
        ("cifar10", ["data_1.bin"], "lists data_1.bin, needed at least one whose name begins with test"),
        ("cifar10", ["test_batch.bin"], "lists test_batch.bin, needed at least one to train on"),
        ("idx", ["t10k-labels-idx1-ubyte.gz"], "lists t10k-labels-idx1-ubyte.gz, needed train-images-idx3-ubyte.gz"),
    ],
)
def test_files_that_the_manifest_forgets(tiny: Callable[..., Path], format: str, kept: list[str], message: str) -> None:
    found = manifest.read(tiny(format))
    found = replace(found, files=tuple(file for file in found.files if file.name in kept))
    with pytest.raises(ValueError, match=message):
        READERS[format](found, manifest.locate(found, found.path.parent))


def test_options_of_graphs_are_not_those_of_images(tiny: Callable[..., Path]) -> None:
    path = tiny("cifar10")
    for option in ("row_normalise", "dense", "reorder"):
        with pytest.raises(ValueError, match=f"set of images, which are handed out as they are: leave out {option}"):
            of(path, **{option: True})
    for option in ("standardise", "centre"):
        with pytest.raises(ValueError, match="digits is no set of images, whose pixels are scaled: leave out standard"):
            load("digits", **{option: True})


def test_an_archive_is_unpacked_by_what_it_is(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file inside a .tar.gz; pooch says which processor it was given."""
    found = manifest.read(tiny("cifar10"))
    file = replace(found.files[0], url="https://example.org/cifar.tar.gz", member="folder/data_1.bin")
    asked = []

    def retrieve(url: str, processor: Any, **_: Any) -> list[str]:
        asked.append((url, type(processor).__name__, processor.members))
        return [str(tmp_path / "folder" / "data_1.bin")]

    monkeypatch.setattr("pooch.retrieve", retrieve)
    paths = manifest.locate(replace(found, files=(file,)), tmp_path / "elsewhere")
    assert paths == {"data_1.bin": tmp_path / "folder" / "data_1.bin"}
    assert asked == [("https://example.org/cifar.tar.gz", "Untar", ["folder/data_1.bin"])]


def test_digits_are_the_pixels_that_scikit_learn_has() -> None:
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    found = load("digits-images", split="all")
    assert isinstance(found, Images)
    assert (len(found.train), len(found.test), found.image_size) == (1438, 359, 8)
    order = [k * 997 % 1797 for k in range(1797)]
    shown = torch.cat([found.train, found.test]).view(1797, 64)
    assert torch.equal((shown.float() * 16 / 255).round(), torch.from_numpy(pixels[order]).float())
    assert torch.cat([found.train_labels, found.test_labels]).tolist() == target[order].tolist()
    assert int(torch.bincount(found.test_labels).min()) > 25, "every digit is tested"


def test_official_cifar10(real: Path) -> None:
    found = load("cifar10", folder=real, split="held-out", standardise=True)
    assert isinstance(found, Images)
    assert torch.bincount(found.test_labels).tolist() == [1000] * 10
    assert torch.bincount(torch.cat([found.train_labels, found.val_labels])).tolist() == [5000] * 10
    assert found.test_labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1], "cat, ship, ship, aeroplane, frog, ..."
    torch.testing.assert_close(
        found.offset.flatten() / 255, torch.tensor([0.4914, 0.4822, 0.4465]), atol=1e-3, rtol=0
    )  # of all 50,000, as is well known
    torch.testing.assert_close(found.scale.flatten() / 255, torch.tensor([0.2470, 0.2435, 0.2616]), atol=1e-3, rtol=0)


def test_official_fashion_mnist(real: Path) -> None:
    found = load("fashion-mnist", folder=real)
    assert isinstance(found, Images)
    assert torch.bincount(found.train_labels).tolist() == [6000] * 10
    assert torch.bincount(found.test_labels).tolist() == [1000] * 10
    assert found.test_labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]


def test_cifar100_waits_for_its_sums(tiny: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "cifar100").mkdir()
    for name in ("train.bin", "test.bin"):
        (tmp_path / "cifar100" / name).write_bytes(b"anything")
    with pytest.raises(ValueError, match=r"train\.bin is not pinned.*`graphattn data pin"):
        load("cifar100", folder=tmp_path)
