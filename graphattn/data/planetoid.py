"""The Planetoid format: Cora, Citeseer and Pubmed as pickles of arrays (Yang et al. 2016, arXiv:1603.08861).

Eight files `ind.NAME.PART`. Parts `x`, `y`: features (sparse) and one-hot labels of the training nodes, which are the
first of `allx`, `ally`; `tx`, `ty`: those of the test nodes, whose ids `test.index` lists, row by row and unsorted;
`graph`: a dictionary from node to neighbours. Ids between the test ids that `test.index` skips (15 in Citeseer) are
nodes without features and labels: their feature rows are zero, and they are in no split.
"""

from __future__ import annotations

import io
import pickle
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from graphattn.data.manifest import Manifest
from graphattn.data.raw import Array, Csr, RawGraph
from graphattn.data.splits import Split

_PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")


def read(manifest: Manifest, paths: Mapping[str, Path]) -> RawGraph:
    """Read the eight files. In the public split, the `val` nodes after the training nodes validate."""
    data = _parts(manifest, paths)
    x, tx, allx = (_matrix(manifest.name, part, data[part]) for part in ("x", "tx", "allx"))
    y, ty, ally = (_one_hot(manifest.name, part, data[part]) for part in ("y", "ty", "ally"))
    neighbours = _neighbours(manifest.name, data["graph"])
    test = _ids(manifest.name, data["test.index"])
    for features, labels, rows in ((x, y, len(y)), (allx, ally, len(ally)), (tx, ty, len(test))):
        if not features.shape[0] == len(labels) == rows:
            raise ValueError(
                f"{manifest.name}: features have {features.shape[0]} rows, labels {len(labels)} and ids {rows}: "
                f"needed one number, for each of x/y, allx/ally and tx/ty/test.index"
            )
    if len(test) == 0 or test.min() < len(ally) or len(np.unique(test)) != len(test):
        raise ValueError(f"{manifest.name}: test.index must list different nodes from {len(ally)} on, the rows of allx")
    if len({x.shape[1], tx.shape[1], allx.shape[1]}) > 1 or len({y.shape[1], ty.shape[1], ally.shape[1]}) > 1:
        raise ValueError(f"{manifest.name}: x, tx, allx (and y, ty, ally) must have the same number of columns")

    num_nodes = int(test.max()) + 1
    features = Csr.from_entries(
        np.concatenate([allx.rows, test[tx.rows]]),
        np.concatenate([allx.columns, tx.columns]),
        np.concatenate([allx.values, tx.values]),
        (num_nodes, allx.shape[1]),
    )
    labels = np.full(num_nodes, -1, dtype=np.int64)
    labels[: len(ally)] = _classes(ally)
    labels[test] = _classes(ty)
    senders = np.repeat(list(neighbours), [len(others) for others in neighbours.values()]).astype(np.int64)
    receivers = np.array([node for others in neighbours.values() for node in others], dtype=np.int64)

    num_val = manifest.splits["public"].val if "public" in manifest.splits else None
    if num_val is None or len(y) + num_val > len(ally):
        raise ValueError(
            f"{manifest.name}: [splits.public] has val = {num_val}: needed a number up to {len(ally) - len(y)}, "
            f"the nodes of allx that do not train"
        )
    public = Split(torch.arange(len(y)), torch.arange(len(y), len(y) + num_val), torch.from_numpy(np.sort(test)))
    return RawGraph(features, senders, receivers, labels, {"public": (public,)})


def unpickle(data: bytes, where: str) -> Any:
    """Open a pickle of arrays, sparse matrices and dictionaries of lists; anything else in it is refused.

    Only for bytes that `PinnedFile.read_bytes` has compared with their pin. `where` names the file in errors.
    """
    try:
        return _ArraysOnly(data, where).load()
    except ValueError:
        raise
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"{where} is no readable pickle of arrays: {error}") from error


class _PickledCsr:
    """Stands in for scipy's csr_matrix: takes its fields, runs none of its code."""

    indptr: Any
    indices: Any
    data: Any
    _shape: Any


def _latin1(text: str, encoding: str) -> bytes:
    """Python 3 writes bytes into protocol-2 pickles as `_codecs.encode(text, "latin1")`."""
    if encoding != "latin1":
        raise ValueError(f"a pickle asks for the codec {encoding!r}: only latin1 is permitted")
    return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    # numpy moved its rebuilding function; asking an array for it works for every version and warns in none
    _PERMITTED: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("scipy.sparse.csr", "csr_matrix"): _PickledCsr,
        ("scipy.sparse._csr", "csr_matrix"): _PickledCsr,
        ("collections", "defaultdict"): defaultdict,
        ("__builtin__", "list"): list,
        ("builtins", "list"): list,
        ("_codecs", "encode"): _latin1,
    }

    def __init__(self, data: bytes, where: str) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._PERMITTED[module, name]
        except KeyError:
            allowed = ", ".join(sorted(".".join(pair) for pair in self._PERMITTED))
            raise ValueError(
                f"{self._where} is a pickle that asks for {module}.{name}: refused, it may run code. "
                f"Arrays need only {allowed}"
            ) from None


def _parts(manifest: Manifest, paths: Mapping[str, Path]) -> dict[str, Any]:
    files = {file.name.split(".", 2)[-1]: file for file in manifest.files}
    if set(files) != set(_PARTS):
        raise ValueError(f"{manifest.name}: the manifest lists the parts {sorted(files)}, needed {sorted(_PARTS)}")
    data: dict[str, Any] = {}
    for part, file in files.items():
        content = file.read_bytes(paths[file.name])
        data[part] = content if part == "test.index" else unpickle(content, str(paths[file.name]))
    return data


def _matrix(name: str, part: str, found: Any) -> Csr:
    if not isinstance(found, _PickledCsr):
        raise ValueError(f"{name}: {part} holds a {type(found).__name__}, needed a sparse matrix (scipy csr_matrix)")
    ptr, columns, values = (_numbers(name, part, vars(found).get(key)) for key in ("indptr", "indices", "data"))
    shape = vars(found).get("_shape")
    if not (isinstance(shape, tuple) and len(shape) == 2 and all(isinstance(size, int) for size in shape)):
        raise ValueError(f"{name}: the sparse matrix in {part} has shape {shape!r}, needed two numbers")
    return Csr(ptr.astype(np.int64), columns.astype(np.int64), values, shape)


def _numbers(name: str, part: str, found: Any) -> Array:
    if not (isinstance(found, np.ndarray) and found.ndim == 1 and found.dtype.kind in "iuf"):
        raise ValueError(
            f"{name}: the sparse matrix in {part} holds a {type(found).__name__}, needed arrays of numbers"
        )
    return found


def _one_hot(name: str, part: str, found: Any) -> Array:
    if not (isinstance(found, np.ndarray) and found.ndim == 2 and found.dtype.kind in "iufb"):
        raise ValueError(f"{name}: {part} holds a {type(found).__name__}, needed a 2-D array of one-hot labels")
    if not np.isin(found, (0, 1)).all() or (found.sum(1) > 1).any():
        raise ValueError(f"{name}: {part} has rows that are not one-hot: needed one 1 a row, or none")
    return found


def _classes(one_hot: Array) -> Array:
    return np.where(one_hot.sum(1) > 0, one_hot.argmax(1), -1)


def _neighbours(name: str, found: Any) -> dict[int, list[int]]:
    if not isinstance(found, dict) or not all(
        isinstance(node, int) and isinstance(others, list) and all(isinstance(other, int) for other in others)
        for node, others in found.items()
    ):
        raise ValueError(f"{name}: graph holds a {type(found).__name__}, needed a dictionary from node to neighbours")
    return found


def _ids(name: str, content: bytes) -> Array:
    try:
        return np.array([int(line) for line in content.split()], dtype=np.int64)
    except ValueError as error:
        raise ValueError(f"{name}: test.index must hold one node id a line ({error})") from error
