"""A data file and the digest that it must have: nothing of a file is used before its digest equals the manifest's.

Two kinds of pin. `sha256` is that of the file, byte for byte. `content_sha256` is that of the arrays inside an `.npz`
(see `content_sha256`), for files that exist in several zips with the same arrays; only the arrays listed are read, and
`allow_pickle` is always false. An empty pin means "not known yet", and such a file is refused.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphattn.data.raw import Array


@dataclass(frozen=True)
class PinnedFile:
    """One `[[files]]` table of a manifest: exactly one of the two pins, and `arrays` with the second.

    With `member`, the url is that of a zip or tar archive and the file is what it holds under that path. No url: there
    is no public address.
    """

    name: str
    url: str = ""
    member: str | None = None
    sha256: str | None = None
    content_sha256: str | None = None
    arrays: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(part in ("", ".", "..") for part in self.name.split("/")) or "\\" in self.name:
            raise ValueError(f"file name {self.name!r}: needed a plain name or path, such as raw/a.csv")
        if (self.sha256 is None) == (self.content_sha256 is None):
            raise ValueError(f"file {self.name!r}: needed one of sha256 (the file) and content_sha256 (its arrays)")
        if (self.content_sha256 is not None) != bool(self.arrays):
            raise ValueError(f"file {self.name!r}: `arrays` goes with content_sha256 and names what that covers")
        pin = self.pin
        if pin and (len(pin) != 64 or set(pin) - set("0123456789abcdef")):
            raise ValueError(f"file {self.name!r}: pin {pin!r}; needed 64 lower-case hexadecimal digits, or none")

    @property
    def pin(self) -> str:
        """The sum needed, whichever of the two; empty if it is not known yet."""
        return (self.sha256 if self.sha256 is not None else self.content_sha256) or ""

    def digest(self, path: Path) -> str:
        """What the pin would be for the file at `path`."""
        if self.arrays:
            return content_sha256(_arrays(path, self.arrays))
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def check(self, path: Path) -> None:
        """Raise ValueError unless the file at `path` has the pinned digest."""
        if self.arrays:
            self.read_arrays(path)
        else:
            self.read_bytes(path)

    def read_bytes(self, path: Path) -> bytes:
        """The file's bytes, after their SHA-256 was compared with the pin (the very bytes, so no race)."""
        if self.sha256 is None:
            raise ValueError(f"{path} is pinned by its arrays: read it with read_arrays")
        data = path.read_bytes()
        self._compare(path, hashlib.sha256(data).hexdigest(), f"SHA-256 ({len(data)} bytes)")
        return data

    def read_arrays(self, path: Path) -> dict[str, Array]:
        """The arrays listed, after their digest was compared with the pin."""
        arrays = _arrays(path, self.arrays)
        self._compare(path, content_sha256(arrays), f"content SHA-256 (arrays {', '.join(self.arrays)})")
        return arrays

    def _compare(self, path: Path, found: str, what: str) -> None:
        if not self.pin:
            raise ValueError(
                f"{path} is not pinned: the manifest has an empty sum for {self.name}, and no file is opened without "
                f"one. If you trust your copy, run `graphattn data pin NAME` and paste the lines into the manifest"
            )
        if found != self.pin:
            raise ValueError(
                f"{path} is truncated or altered: {what} found {found}, needed {self.pin}. "
                f"Delete it and take it again" + (f" from {self.url}" if self.url else "")
            )


def content_sha256(arrays: Mapping[str, Array]) -> str:
    """SHA-256 over name, dtype, shape and bytes (row-major) of each array, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except KeyError as error:
        raise ValueError(f"{path} has no array {error.args[0]!r}; needed {', '.join(names)}") from error
    except FileNotFoundError:
        raise
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is truncated or altered: cannot read the arrays {', '.join(names)} from it ({error}). "
            f"Delete it and take it again"
        ) from error
