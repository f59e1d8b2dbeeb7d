"""JSON as values of a type, and values as JSON."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import pytest

from penstock import OptionError
from penstock.flow.json_reading import read_as, read_like
from penstock.flow.json_values import as_json


class Colour(Enum):
    RED = "red"
    BLUE = 2


class Pair(NamedTuple):
    left: int
    right: date


class Options(TypedDict, total=False):
    day: date


@dataclass(frozen=True)
class Draft:
    text: str
    day: date | None = None
    parts: "list[Draft]" = field(default_factory=list)


DAY = date(2030, 1, 2)


@pytest.mark.parametrize(
    ("document", "kind", "value"),
    [
        ({"a": [1]}, Any, {"a": [1]}),
        ({"a": 1}, dict, {"a": 1}),
        ([1, 2], list, [1, 2]),
        ({"text": "x", "parts": [{"text": "y", "day": "2030-01-02"}]}, Draft, Draft("x", None, [Draft("y", DAY)])),
        (["2030-01-02"], list[date], [DAY]),
        ([1, "2030-01-02"], tuple[int, date], (1, DAY)),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([1, 1], set[int], {1}),
        ({"1": "2030-01-02"}, dict[int, date], {1: DAY}),
        ({"left": 1, "right": "2030-01-02"}, Pair, Pair(1, DAY)),
        ([1, "2030-01-02"], Pair, Pair(1, DAY)),
        ({"day": "2030-01-02"}, Options, {"day": DAY}),
        ("red", Colour, Colour.RED),
        ("BLUE", Colour, Colour.BLUE),
        (2, Colour, Colour.BLUE),
        ("2030-01-02T03:04:05Z", datetime, datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (90, timedelta, timedelta(seconds=90)),
        ("1.50", Decimal, Decimal("1.50")),
        ("a/b", Path, Path("a/b")),
        ("12345678123456781234567812345678", UUID, UUID(int=0x12345678123456781234567812345678)),
        (3, float, 3.0),
        (None, int | None, None),
        ("x", int | str, "x"),
        (3, Annotated[int, "more"], 3),
        ("a", Literal["a", "b"], "a"),
    ],
)
def test_a_document_is_read_as_its_type(document, kind, value):
    read = read_as(document, kind)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("document", "kind", "message"),
    [
        ("5", int, "value must be a whole number, got '5'"),
        (True, int, "value must be a whole number, got True"),
        (5, str, "value must be a text, got 5"),
        (1, bool, "value must be true or false, got 1"),
        ({"a": 1}, list, "value must be a list, got"),
        ([1], tuple[int, int], "value must be a list of 2"),
        (["x"], list[int], r"value\[0\] must be a whole number"),
        ({"text": 1}, Draft, "value.text must be a text, got 1"),
        ({}, Draft, "value: missing a required argument: 'text'"),
        ({"text": "x", "da": 1}, Draft, "value has no field 'da': there are 'text', 'day', 'parts'"),
        ("soon", date, "value must be a date, got 'soon'"),
        ("green", Colour, "value must be one of 'red', 2, got 'green'"),
        ("c", Literal["a", "b"], "value must be 'a' or 'b', got 'c'"),
    ],
)
def test_what_is_none_is_refused_with_its_place(document, kind, message):
    with pytest.raises(OptionError, match=message):
        read_as(document, kind)


def test_what_replaces_a_value_is_read_like_it():
    assert read_like({"text": "x"}, Draft("old")) == Draft("x")
    assert read_like([{"text": "x"}], [Draft("old")]) == [Draft("x")]
    assert read_like({"a": "2030-01-02"}, {"b": DAY}) == {"a": DAY}
    assert read_like([1], (2, 3)) == (1,)
    assert read_like(1.5, 1) == 1.5
    assert read_like({"any": "thing"}, None) == {"any": "thing"}
    with pytest.raises(OptionError, match="value must be an object, got 'x'"):
        read_like("x", Draft("old"))


def test_values_are_written_as_json_has_them():
    assert as_json(Draft("x", DAY, [Draft("y")])) == {
        "text": "x",
        "day": "2030-01-02",
        "parts": [{"text": "y", "day": None, "parts": []}],
    }
    assert as_json([Colour.RED, Pair(1, DAY), {1: b"x"}, float("nan"), Path("a"), {2}, Decimal("1.0"), True]) == [
        "red", {"left": 1, "right": "2030-01-02"}, {"1": "b'x'"}, "nan", "a", [2], "1.0", True,
    ]  # fmt: skip
