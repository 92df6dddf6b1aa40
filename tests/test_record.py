"""record(): what it takes, and that each refusal names the place, the value found and the value needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Optional, Union

import pytest

from graphattn.record import one_of, record, typed


@dataclass(frozen=True)
class Shelf:
    label: str
    height: float = 1.0
    boards: int = 3
    open: bool = False
    colour: Literal["red", "green"] = "red"
    depth: float | None = None
    sizes: tuple[int, ...] = ()
    mark: int | str = 0
    made: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.boards < 0:
            raise ValueError(f"boards is {self.boards}, needed at least 0")


def shelf(**table: Any) -> Shelf:
    return record(Shelf, {"label": "a"} | table, "shop.toml, [shelf]")


def test_values_and_defaults() -> None:
    assert shelf() == Shelf("a")
    table = {"height": 0.5, "boards": 2, "open": True, "colour": "green", "depth": 0.2, "sizes": [1, 2], "mark": "x"}
    assert shelf(**table) == Shelf("a", 0.5, 2, True, "green", 0.2, (1, 2), "x")


def test_fields_made_by_the_caller_are_not_keys() -> None:
    assert record(Shelf, {"label": "a"}, "here", made={"year": 1}).made == {"year": 1}
    with pytest.raises(ValueError, match="unknown key in here: 'made'"):
        record(Shelf, {"label": "a", "made": {}}, "here", made={})


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("height", 2, 2.0),  # an int will do for a float
        ("depth", 1, 1.0),
        ("depth", None, None),
        ("sizes", [], ()),
        ("sizes", (4, 5), (4, 5)),
        ("mark", 7, 7),
        ("made", {"a": 1}, {"a": 1}),
    ],
)
def test_a_value_becomes_its_type(key: str, value: Any, read: Any) -> None:
    found = getattr(shelf(**{key: value}), key)
    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("label", 3, "label is 3, needed str"),
        ("height", "tall", "height is 'tall', needed float"),
        ("height", True, "height is True, needed float"),  # a bool is no number
        ("boards", True, "boards is True, needed int"),
        ("boards", 2.0, "boards is 2.0, needed int"),
        ("boards", None, "boards is None, needed int"),
        ("open", 1, "open is 1, needed bool"),
        ("depth", "deep", "depth is 'deep', needed float"),
        ("made", 3, "made is 3, needed a table"),
        ("made", {"a": "b"}, "made.a is 'b', needed int"),
        ("sizes", 3, "sizes is 3, needed a list"),
        ("sizes", "12", "sizes is '12', needed a list"),
        ("sizes", [1, "2"], "sizes is '2', needed int"),
        ("mark", 1.5, "mark is 1.5, needed int or str"),
        ("mark", None, "mark is None, needed int or str"),
    ],
)
def test_a_wrong_type_names_place_value_and_need(key: str, value: Any, needed: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"shop.toml, [shelf]: {needed}") + "$"):
        shelf(**{key: value})


@pytest.mark.parametrize("hint", [Optional[float], Union[float, None], float | None])  # noqa: UP007, UP045 - all three
def test_every_spelling_of_optional(hint: Any) -> None:
    assert typed(None, hint, "x") is None
    assert typed(2, hint, "x") == 2.0
    with pytest.raises(ValueError, match="x is 'two', needed float"):
        typed("two", hint, "x")


def test_a_literal_lists_its_values() -> None:
    message = "unknown value for shop.toml, [shelf]: colour: 'gren': did you mean 'green'? there are red, green"
    with pytest.raises(ValueError, match=re.escape(message)):
        shelf(colour="gren")


def test_an_unknown_key_gives_the_nearest() -> None:
    message = "unknown key in shop.toml, [shelf]: 'hight': did you mean 'height'? there are label, height, boards"
    with pytest.raises(ValueError, match=re.escape(message)):
        shelf(hight=2.0)


def test_an_unknown_key_that_is_near_to_none_gives_all() -> None:
    with pytest.raises(ValueError, match=r"'zzz': there are label, height"):
        shelf(zzz=1)


def test_a_missing_key() -> None:
    with pytest.raises(ValueError, match=re.escape("shop.toml, [shelf]: the key 'label' is missing")):
        record(Shelf, {"boards": 1}, "shop.toml, [shelf]")


@pytest.mark.parametrize("table", [None, 3, "label", ["label"]])
def test_what_is_no_table(table: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"shop.toml: found {table!r}, needed a table")):
        record(Shelf, table, "shop.toml")


def test_what_the_record_itself_refuses_names_the_place() -> None:
    with pytest.raises(ValueError, match=re.escape("shop.toml, [shelf]: boards is -1, needed at least 0")):
        shelf(boards=-1)


def test_one_of() -> None:
    assert one_of("b", iter("abc"), "letter") == "b"
    with pytest.raises(ValueError, match=r"unknown number 123: did you mean '12'\? there are 12, 124"):
        one_of(123, (12, 124), "number")
