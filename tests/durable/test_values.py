"""Values as bytes: read back exactly, the same in every process, and nothing is run by reading them."""

import math
import subprocess
import sys
from collections import namedtuple
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePosixPath, PureWindowsPath
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.durable.values import PackError, UnpackError, digest, pack, pack_list, unpack

simple = st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text() | st.binary()
keys = st.booleans() | st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text())
values = st.recursive(
    simple | st.sets(keys) | st.frozensets(keys),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(keys, inner),
    max_leaves=20,
)


class Color(Enum):
    RED = 1
    GREEN = 2


@dataclass
class Chunk:
    text: str
    page: int


Point = namedtuple("Point", "x y")  # noqa: PYI024 -- what is read of a file of points


class Text(str):
    __slots__ = ()


def same(one, other):
    """Equal, of equal types all the way down, with NaN and the signs of zeros."""
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.mark.slow
@given(values)
def test_what_was_packed_is_read_back_exactly(value):
    back = unpack(pack(value))
    if not has_set(value):
        assert same(back, value)
    assert pack(back) == pack(value)


def has_set(value):
    if isinstance(value, set | frozenset):
        return True
    if isinstance(value, dict):
        return any(map(has_set, value.values()))
    return isinstance(value, list | tuple) and any(map(has_set, value))


@pytest.mark.slow
@given(values, values)
def test_values_have_one_digest_only_if_they_are_one(one, other):
    assert (digest(one) == digest(other)) == (canonical(one) == canonical(other))


def canonical(value):
    if isinstance(value, dict):
        return "dict", frozenset((canonical(key), canonical(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(map(canonical, value))
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(canonical, value))
    if isinstance(value, float | complex):
        return type(value), pack(value)
    return type(value), value


@pytest.mark.parametrize("value", [[0.5, math.nan, -0.0], (0.5, 1.5), [1.0], [0.5, 1], [True, 1.0], []])
def test_lists_of_floats_are_lists_of_floats(value):
    assert same(unpack(pack(value)), value)


@pytest.mark.parametrize(
    "value",
    [
        date(2024, 1, 2),
        time(1, 2, 3, 4),
        datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
        timedelta(days=-3, microseconds=1),
        timedelta.max,
        Decimal("1.50"),
        Decimal("sNaN12"),
        Decimal("-1e400000"),
        UUID(int=7),
        Path("a/b"),
        PurePosixPath("a\udcff"),
        PureWindowsPath("c:/x"),
    ],
)
def test_what_a_text_says_all_of_is_read_back_as_it_was(value):
    back = unpack(pack({"deep": [value]}))["deep"][0]
    assert (type(back), repr(back)) == (type(value), repr(value))


def test_a_list_is_packed_as_its_parts_are():
    assert unpack(pack_list([pack("a"), pack([1.0, 2.0])])) == ["a", [1.0, 2.0]]
    assert unpack(pack_list([])) == []


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array(5),
        np.zeros((0, 3), np.int8),
        np.array(["a", "bcd"]),
        np.array(["2024-01-02"], "M8[D]"),
    ],
)
def test_arrays_are_read_back_with_type_and_shape(array):
    back = unpack(pack(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert np.array_equal(back, array)
    assert back.flags.writeable
    assert digest(array) == digest(np.ascontiguousarray(array).reshape(array.shape))


@pytest.mark.parametrize("scalar", [np.float32(0.1), np.int64(-3), np.bool_(1), np.str_("abc")])
def test_scalars_of_numpy_stay_scalars_of_numpy(scalar):
    back = unpack(pack(scalar))
    assert type(back) is type(scalar)
    assert back == scalar


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Chunk("a", 1),
        Color.RED,
        datetime(2024, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")),
        time(1, 2, fold=1),
        Text("a"),
        Point(1, 2),
        np.array([object()]),
        np.zeros(2, [("a", "i4")]),
        len,
    ],
)
def test_what_could_not_be_read_back_exactly_is_refused(value):
    """A database from elsewhere must not run code, and a str must not come back for a subclass of it."""
    with pytest.raises(PackError) as caught:
        pack({"deep": [value]})
    assert caught.value.kind is type(value)


@given(values, st.data())
def test_bytes_that_are_cut_or_changed_are_an_error_or_a_value(value, data):
    packed = pack(value)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(UnpackError):
        unpack(packed[:cut])
    with pytest.raises(UnpackError, match="goes on behind its end"):
        unpack(packed + b"N")
    changed = packed[:cut] + data.draw(st.binary(min_size=1, max_size=1)) + packed[cut + 1 :]
    with suppress(UnpackError):
        unpack(changed)


@pytest.mark.parametrize("made", [b"", b"?", b"l" + b"\x01" + bytes(7), (b"l" + b"\x01" + bytes(7)) * 9_999 + b"N"])
def test_bytes_that_nobody_packed_are_an_error(made):
    with pytest.raises(UnpackError, match="not a packed value"):
        unpack(made)


def test_no_object_is_made_of_bytes():
    """What `numpy` would read as addresses is refused."""
    array = pack(np.arange(3))
    made = array.replace(pack(np.dtype(int).str), pack("|O"))
    assert made != array
    with pytest.raises(UnpackError):
        unpack(made)


def test_a_value_without_end_is_refused():
    endless = []
    endless.append(endless)
    with pytest.raises(PackError):
        pack(endless)
    with pytest.raises(PackError):
        digest(endless)


def test_an_input_may_be_more_than_can_be_kept():
    inputs = [
        Chunk("a", 1),
        Chunk("a", 2),
        Color.RED,
        Color.GREEN,
        Path("a"),
        Path("b"),
        "a",
        date(2024, 1, 2),
        datetime(2024, 1, 2, tzinfo=UTC),
        timedelta(1),
        Decimal("1.0"),
        Decimal("1.00"),
        Point(1, 2),
        (1, 2),
        {"text": "a", "page": 1},
        {"a": 1, "b": 2},
        ["a", 1],
    ]
    assert len({digest(value) for value in inputs}) == len(inputs)
    assert digest(Chunk("a", 1)) == digest(Chunk("a", 1))
    assert digest({"a": 1, "b": {2, 3}}) == digest({"b": {3, 2}, "a": 1})


def test_an_input_that_is_only_known_by_its_address_has_no_digest():
    with pytest.raises(PackError, match="object cannot be packed"):
        digest([object()])


def test_a_digest_is_the_same_in_every_process():
    code = "from penstock.durable.values import digest; print(digest({'b': {'x', 'y', 'z'}, 'a': [1, 2.5]}).hex())"
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in "123"
    }
    assert len(found) == 1
