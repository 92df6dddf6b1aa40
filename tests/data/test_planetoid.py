"""The Planetoid format: what its files mean, and that their pickles can do nothing but hold arrays."""

from __future__ import annotations

import os
import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from small_sets import TINY, Writer, one_hot, pickled, tiny_parts

from graphattn.data import load, manifest
from graphattn.data.planetoid import unpickle


def test_every_part_is_put_in_its_place(write_planetoid: Writer) -> None:
    path = write_planetoid()
    data = load(path, folder=path.parent, row_normalise=False)
    expected = torch.zeros(12, 5)
    expected[:8] = torch.from_numpy(TINY["allx"])
    expected[[11, 8, 10]] = torch.from_numpy(TINY["tx"]).float()  # row i of tx is node test.index[i]
    assert torch.equal(data.x.to_dense(), expected)
    assert data.y.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 0, 0, 1, 2]
    assert data.edge_index.tolist() == [[0, 1, 2, 3, 8, 9, 10, 11], [1, 0, 8, 11, 2, 10, 9, 3]]
    assert (data.train.tolist(), data.val.tolist(), data.test.tolist()) == ([0, 1, 2], [3, 4], [8, 10, 11])
    assert (data.num_nodes, data.num_features, data.num_classes) == (12, 5, 3)


def test_node_in_no_file_is_zero_and_in_no_split(write_planetoid: Writer) -> None:
    path = write_planetoid()
    for seed, split in enumerate(["public", "full", "random", "random", "random"]):
        data = load(path, folder=path.parent, split=split, seed=seed)
        assert not data.x.to_dense()[9].any()
        assert 9 not in torch.cat([data.train, data.val, data.test])
    assert load(path, folder=path.parent, split="full").train.tolist() == [0, 1, 2, 5, 6, 7]


def test_node_without_label_among_the_others(write_planetoid: Writer) -> None:
    labels = one_hot(TINY["ally"])
    labels[6] = 0
    path = write_planetoid({"ally": pickled(labels)})
    assert load(path, folder=path.parent, split="full").train.tolist() == [0, 1, 2, 5, 7]


@pytest.mark.parametrize("old", [True, False])
def test_old_and_new_module_names_open_without_a_warning(
    write_planetoid: Writer, old: bool, recwarn: pytest.WarningsRecorder
) -> None:
    def rename(data: bytes) -> bytes:
        for new, former in ((b"numpy._core.", b"numpy.core."), (b"scipy.sparse._csr\n", b"scipy.sparse.csr\n")):
            data = data.replace(new, former) if old else data.replace(former, new)
        return data

    parts = {part: rename(data) for part, data in tiny_parts().items() if part != "test.index"}
    assert (b"numpy.core.multiarray" in parts["allx"]) == (b"scipy.sparse.csr\n" in parts["allx"]) == old
    path = write_planetoid(parts)
    assert load(path, folder=path.parent).num_features == 5
    assert not recwarn.list


class Evil:
    """Pickles to a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def evils(mark: Path) -> dict[str, Any]:
    return {
        "system": Evil(os.system, f"touch {mark}"),
        "eval": Evil(eval, f"open({str(mark)!r}, 'w')"),
        "open": Evil(open, str(mark), "w"),
        "getattr": Evil(getattr, "text", "upper"),
        "numpy": Evil(np.save, str(mark), np.zeros(1)),
        "inside": np.array([Evil(open, str(mark), "w")], dtype=object),
        "factory": defaultdict(open, {}),
    }


@pytest.mark.parametrize("kind", ["system", "eval", "open", "getattr", "numpy", "inside", "factory"])
@pytest.mark.parametrize("part", ["allx", "graph"])
def test_malicious_pickle_is_refused_though_pinned(
    write_planetoid: Writer, tmp_path: Path, kind: str, part: str
) -> None:
    path = write_planetoid({part: pickled(evils(tmp_path / "mark")[kind])})
    with pytest.raises(ValueError, match=rf"ind\.tiny\.{part} is a pickle that asks for .*: refused, it may run code"):
        load(path, folder=path.parent)
    assert not (tmp_path / "mark").exists()


def test_malicious_pickle_would_have_worked(tmp_path: Path) -> None:
    pickle.loads(pickled(evils(tmp_path / "mark")["open"])).close()
    assert (tmp_path / "mark").exists()


def test_unpinned_pickle_is_not_even_opened(
    write_planetoid: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_planetoid()
    (tmp_path / "tiny" / "ind.tiny.x").write_bytes(pickled(evils(tmp_path / "mark")["open"]))
    opened: list[str] = []
    monkeypatch.setattr("graphattn.data.planetoid.unpickle", lambda data, where: opened.append(where))
    with pytest.raises(ValueError, match="truncated or altered"):
        load(path, folder=path.parent)
    assert not opened


def test_only_latin1_bytes() -> None:
    assert unpickle(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x06\x00\x00\x00latin1\x86R.", "a file") == b"a"
    with pytest.raises(ValueError, match="codec 'rot13'"):
        unpickle(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.", "a file")


@pytest.mark.parametrize("data", [b"", b"\x80\x02", b"no pickle", tiny_parts()["allx"][:-40]])
def test_pinned_but_broken_pickle(write_planetoid: Writer, data: bytes) -> None:
    path = write_planetoid({"allx": data})
    with pytest.raises(ValueError, match=r"ind\.tiny\.allx is no readable pickle of arrays"):
        load(path, folder=path.parent)


CSR = scipy.sparse.csr_matrix(TINY["allx"].astype(np.float32))
OUTSIDE = CSR.copy()
OUTSIDE.indices[0] = 7
TWO_ONES = one_hot(TINY["ally"])
TWO_ONES[5] = 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"allx": pickled(TINY["allx"])}, "allx holds a ndarray, needed a sparse matrix"),
        ({"allx": pickled(CSR[:7])}, "features have 7 rows, labels 8"),
        ({"allx": pickled(scipy.sparse.csr_matrix(TINY["allx"][:, :4]))}, "same number of columns"),
        ({"allx": pickled(OUTSIDE)}, "columns of a sparse matrix run from 0 to 7, needed 0 to 4"),
        ({"ally": pickled(CSR)}, "ally holds a _PickledCsr, needed a 2-D array"),
        ({"ally": pickled(TWO_ONES)}, "ally has rows that are not one-hot"),
        ({"ally": pickled(2 * one_hot(TINY["ally"]))}, "ally has rows that are not one-hot"),
        ({"ally": pickled(one_hot(TINY["ally"], 4))}, "same number of columns"),
        ({"graph": pickled([[0, 1]])}, "graph holds a list, needed a dictionary"),
        ({"graph": pickled({0: ["a"]})}, "graph holds a dict, needed a dictionary from node"),
        ({"graph": pickled({0: [12]})}, "an edge ends at node 12, needed 0 to 11"),
        ({"graph": pickled({-1: [0]})}, "an edge ends at node -1, needed 0 to 11"),
        ({"test.index": b"11\n8\nten\n"}, "test.index must hold one node id a line"),
        ({"test.index": b"11\n8\n"}, "labels 3 and ids 2"),
        ({"test.index": b""}, "labels 3 and ids 0"),
        ({"test.index": b"11\n8\n8\n"}, "test.index must list different nodes from 8 on"),
        ({"test.index": b"11\n8\n7\n"}, "test.index must list different nodes from 8 on"),
    ],
)
def test_files_that_contradict_the_format(write_planetoid: Writer, changed: dict[str, bytes], message: str) -> None:
    path = write_planetoid(changed)
    with pytest.raises(ValueError, match=message):
        load(path, folder=path.parent)


def test_validation_nodes_must_have_text(write_planetoid: Writer) -> None:
    path = write_planetoid(splits={"public": {"val": 6}})
    with pytest.raises(ValueError, match=r"\[splits.public\] has val = 6: needed a number up to 5"):
        load(path, folder=path.parent)


def test_manifest_must_list_the_eight_parts(write_planetoid: Writer) -> None:
    path = write_planetoid({"more": b""})
    with pytest.raises(ValueError, match=r"the manifest lists the parts .*'more'"):
        load(path, folder=path.parent)


def test_a_nan_is_found(write_planetoid: Writer) -> None:
    features = CSR.copy()
    features.data[features.indptr[5]] = np.nan
    path = write_planetoid({"allx": pickled(features)})
    with pytest.raises(ValueError, match="1 feature values are NaN or infinite, the first at node 5"):
        load(path, folder=path.parent)


def test_official_files_hold_only_what_is_permitted(real: Path) -> None:
    for name in ("cora", "citeseer"):
        found = manifest.read(name)
        for file, path in manifest.files(found, real).items():
            if not file.endswith("test.index"):
                assert unpickle(path.read_bytes(), file) is not None
