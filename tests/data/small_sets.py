"""Small sets on disk in the official layouts, each with a manifest that pins what was written."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from graphattn.data.pinned import content_sha256

TINY = {
    # 8 nodes with text (3 train, 2 validate), 3 test nodes listed as 11, 8, 10; node 9 is in no file
    "allx": np.array(
        [
            [1, 0, 0, 0, 1],
            [0, 2, 0, 0, 0],
            [0, 0, 1, 1, 0],
            [0, 0, 0, 0, 0],
            [4, 0, 0, 0, 0],
            [0, 1, 0, 3, 0],
            [0, 0, 1, 0, 0],
            [0, 0, 0, 0, 1],
        ]
    ),
    "tx": np.array([[0, 0, 0, 0, 5], [1, 1, 0, 0, 0], [0, 0, 0, 2, 0]]),
    "ally": np.array([0, 1, 2, 0, 1, 2, 0, 1]),
    "ty": np.array([2, 0, 1]),
    "test.index": [11, 8, 10],
    # one direction only, both directions, a duplicate, a self-loop
    "graph": {0: [1, 1], 1: [0], 2: [2, 8], 3: [11], 9: [10], 11: [3]},
}


Writer = Callable[..., Path]


def pickled(value: Any) -> bytes:
    return pickle.dumps(value, protocol=2)


def one_hot(labels: Any, classes: int = 3) -> Any:
    return np.eye(classes, dtype=np.int32)[labels]


def tiny_parts() -> dict[str, bytes]:
    """The eight Planetoid files of TINY."""
    csr = {part: scipy.sparse.csr_matrix(TINY[part].astype(np.float32)) for part in ("allx", "tx")}
    return {
        "x": pickled(csr["allx"][:3]),
        "y": pickled(one_hot(TINY["ally"][:3])),
        "tx": pickled(csr["tx"]),
        "ty": pickled(one_hot(TINY["ty"])),
        "allx": pickled(csr["allx"]),
        "ally": pickled(one_hot(TINY["ally"])),
        "graph": pickled(defaultdict(list, TINY["graph"])),
        "test.index": "".join(f"{node}\n" for node in TINY["test.index"]).encode(),
    }


def tiny_table(parts: Mapping[str, bytes]) -> dict[str, Any]:
    """A manifest for Planetoid files, as nested dictionaries."""
    return {
        "title": "Tiny",
        "licence": "none",
        "citation": "none",
        "source": "none",
        "format": "planetoid",
        "sparse": True,
        "row_normalise": True,
        "default_split": "public",
        "sizes": {"nodes": 12, "edges": 8, "features": 5, "classes": 3},
        "splits": {"public": {"val": 2}, "random": {"train_per_class": 1, "val": 2, "test": 4}, "full": {}},
        "files": [
            {
                "name": f"ind.tiny.{part}",
                "url": f"https://example.org/ind.tiny.{part}",
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            for part, data in parts.items()
        ],
    }


def npz_table(format: str, file: str, arrays: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "title": "Tiny",
        "licence": "none",
        "citation": "none",
        "source": "none",
        "format": format,
        **more,
        "files": [
            {
                "name": file,
                "url": f"https://example.org/{file}",
                "arrays": list(arrays),
                "content_sha256": content_sha256(arrays),
            }
        ],
    }


def toml(table: Mapping[str, Any], head: str = "") -> str:
    """TOML of nested dictionaries whose scalars and lists JSON writes the same way."""
    scalars = {key: value for key, value in table.items() if not isinstance(value, dict) and key != "files"}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in scalars.items())
    for key, value in table.items():
        if isinstance(value, dict):
            text += f"\n[{head}{key}]\n" + toml(value, f"{head}{key}.")
    for file in table.get("files", []):
        text += "\n[[files]]\n" + toml(file)
    return text
