"""Tables from TOML and JSON, read strictly: unknown keys, missing keys and wrong types are clear errors."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal, TypeVar

_Record = TypeVar("_Record")


def record(kind: type[_Record], table: Any, where: str, **ready: Any) -> _Record:
    """The dataclass `kind` of the values in `table`; `ready` are fields the caller has made itself.

    Raises:
        ValueError: naming `where`, the key, the value found and what was needed.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"{where}: found {table!r}, needed a table")
    entries = {entry.name: entry for entry in fields(kind) if entry.name not in ready}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in table.items():
        one_of(key, entries, f"key in {where}:")
        values[key] = typed(value, hints[key], f"{where}: {key}")
    for name, entry in entries.items():
        if name not in values and entry.default is entry.default_factory is MISSING:
            raise ValueError(f"{where}: the key {name!r} is missing")
    try:
        return kind(**values, **ready)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def typed(value: Any, hint: Any, where: str) -> Any:
    """`value` if it is of the type `hint` (an int will do for a float, a list for a tuple; a table's keys are strings);
    else a ValueError.
    """
    origin = typing.get_origin(hint)
    if origin is Literal:
        return one_of(value, typing.get_args(hint), f"value for {where}:")
    if origin in (typing.Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        if value is None and len(kinds) < len(typing.get_args(hint)):
            return None
        if len(kinds) == 1:
            return typed(value, kinds[0], where)
    else:
        kinds = [hint]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} is {value!r}, needed a list")
        return tuple(typed(item, typing.get_args(hint)[0], where) for item in value)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} is {value!r}, needed a table")
        return {key: typed(item, typing.get_args(hint)[1], f"{where}.{key}") for key, item in value.items()}
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) not in kinds:
        raise ValueError(f"{where} is {value!r}, needed {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def one_of(value: Any, allowed: Iterable[Any], what: str, listed: Iterable[Any] | None = None) -> Any:
    """`value` if it is allowed; else a ValueError with the value, the nearest of those allowed, and all of them or what
    is `listed` in their place.
    """
    allowed = list(allowed)
    if value in allowed:
        return value
    near = difflib.get_close_matches(str(value), map(str, allowed), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown {what} {value!r}: {hint}there are {', '.join(map(str, listed or allowed))}")
