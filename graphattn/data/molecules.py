"""How many categories OGB's features of atoms and bonds have; the table is that of OGB's package."""

from __future__ import annotations

from typing import Literal

from graphattn.data.raw import Array


def category_counts(kind: Literal["atom", "bond"]) -> list[int]:
    """Of each feature of an atom or a bond.

    Raises:
        ImportError: OGB's package is missing.
    """
    try:
        from ogb.utils import features
    except ImportError as error:
        raise ImportError("OGB's molecules need its package: pip install 'graphattn[ogb]'") from error
    return features.get_atom_feature_dims() if kind == "atom" else features.get_bond_feature_dims()


def check_categories(features: Array, kind: Literal["atom", "bond"], where: str) -> None:
    """Raise ValueError unless each column holds whole numbers below its number of categories."""
    counts = category_counts(kind)
    if features.dtype.kind not in "iu" or features.shape[1] != len(counts):
        raise ValueError(
            f"{where}: {kind} features are {features.shape[1]} columns of {features.dtype}, needed {len(counts)} of "
            f"integers"
        )
    for column, count in enumerate(counts):
        found = features[:, column]
        if len(found) and (found.min() < 0 or found.max() >= count):
            wrong = found.min() if found.min() < 0 else found.max()
            raise ValueError(f"{where}: {kind} feature {column} is {wrong}, needed 0 to {count - 1}")
