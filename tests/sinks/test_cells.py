"""What values of Python become in columns of SQLite, and which are the failure of their root."""

import collections
import dataclasses
import datetime as dt
import enum
import fractions
import ipaddress
import json
import math
import pathlib
import types
import uuid
from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import pytest

import penstock
from penstock import SqliteTable, SqliteVectors, durable
from penstock.sinks import RowError
from penstock.sinks.cells import cell, mapping

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

UTC = dt.UTC
EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, "x")


class Size(enum.IntEnum):
    LARGE = 3


class Word(enum.StrEnum):
    A = "a"


class Bit(enum.Flag):
    ONE = 1
    TWO = 2


@dataclasses.dataclass
class Point:
    x: int
    at: dt.date


@dataclasses.dataclass(slots=True, frozen=True)
class Line:
    points: list[Point]
    name: str | None = None


Pair = collections.namedtuple("Pair", ["left", "right"])  # noqa: PYI024 -- the old way must do, too


class Text(str):
    __slots__ = ()

    def __str__(self):
        return "something else"


WRITTEN = [
    (dt.datetime(2024, 2, 29, 12, 30, 5, 7), "2024-02-29T12:30:05.000007"),  # noqa: DTZ001 -- as many are
    (dt.datetime(2024, 2, 29, 12, tzinfo=UTC), "2024-02-29T12:00:00+00:00"),
    (dt.datetime(2024, 2, 29, 12, tzinfo=EAST), "2024-02-29T12:00:00+05:30"),
    (dt.date(1, 1, 1), "0001-01-01"),
    (dt.time(23, 59, 59, tzinfo=UTC), "23:59:59+00:00"),
    (dt.time(1, 2), "01:02:00"),
    (dt.timedelta(days=1, hours=2, seconds=3.5), "PT93603.5S"),
    (dt.timedelta(0), "PT0S"),
    (-dt.timedelta(microseconds=1), "-PT0.000001S"),
    (dt.timedelta.max, "PT86399999999999.999999S"),
    (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (Decimal("1.10"), "1.10"),
    (Decimal("1E+400"), "1E+400"),
    (Decimal("NaN"), "NaN"),
    (fractions.Fraction(1, 3), "1/3"),
    (pathlib.PurePosixPath("a/ø"), "a/ø"),
    (pathlib.Path("b"), "b"),
    (ipaddress.ip_address("::1"), "::1"),
    (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
    (Colour.RED, "red"),
    (Size.LARGE, 3),
    (Word.A, "a"),
    (Bit.ONE | Bit.TWO, 3),
    (Colour.PAIR, '[1, "x"]'),
    (Text("ä"), "ä"),
    (["ø", "日本"], '["ø", "日本"]'),
    (
        [dt.date(2020, 1, 2), Decimal("1.0"), uuid.UUID(int=2)],
        '["2020-01-02", "1.0", "00000000-0000-0000-0000-000000000002"]',
    ),
    ({"a": {"b": [dt.time(1), Size.LARGE, Colour.RED]}}, '{"a": {"b": ["01:00:00", 3, "red"]}}'),
    ({dt.date(2020, 1, 2): 1, 3: None, Colour.RED: 2}, '{"2020-01-02": 1, "3": null, "red": 2}'),
    ([math.nan, 0.5], "[null, 0.5]"),
    ({"m": [np.float32(0.5), np.int64(3), np.bool_(True), np.float32("nan")]}, '{"m": [0.5, 3, true, null]}'),
    ({3, 1, 2}, "[1, 2, 3]"),
    (frozenset({"b", "a"}), '["a", "b"]'),
    (types.MappingProxyType({"a": 1}), '{"a": 1}'),
    ((1, (2, [])), "[1, [2, []]]"),
    ([10**30], f"[{10**30}]"),
    (Point(1, dt.date(2020, 1, 2)), '{"x": 1, "at": "2020-01-02"}'),
    (Line([Point(1, dt.date(2020, 1, 2))]), '{"points": [{"x": 1, "at": "2020-01-02"}], "name": null}'),
    (Pair(1, "ü"), '[1, "ü"]'),
    (memoryview(b"abcd")[::2], b"ac"),
    (np.str_("x"), "x"),
    (math.inf, math.inf),
]


@pytest.mark.quick
@pytest.mark.parametrize(("given", "found"), WRITTEN, ids=lambda value: type(value).__name__)
def test_a_value_is_written_as_the_page_says(given, found):
    written = cell(given)
    assert (written, type(written)) == (found, type(found))
    if isinstance(found, str) and found[:1] in "[{":
        json.loads(found)


def released():
    view = memoryview(b"x")
    view.release()
    return view


def deep():
    found = []
    for _ in range(100_000):
        found = [found]
    return found


def circular():
    found = {}
    found["self"] = found
    return found


class Rude:
    def __repr__(self):
        raise RuntimeError("no")


@dataclasses.dataclass
class Lazy:
    @property
    def x(self):
        raise RuntimeError("not loaded")


Lazy.__dataclass_fields__ = {"x": dataclasses.field()}
Lazy.__dataclass_fields__["x"].name = "x"
Lazy.__dataclass_fields__["x"]._field_type = dataclasses._FIELD


UNHOLDABLE = [
    "\ud83d",
    2**63,
    -(2**63) - 1,
    object(),
    Rude(),
    1j,
    np.complex64(1),
    np.array([1.5]),
    np.array([math.nan]),
    np.zeros((2, 2)),
    np.longdouble(1),
    np.datetime64(1, "ns"),
    np.uint64(2**63),
    np.void(b"xy"),
    [object],
    ["\ud83d"],
    {"\ud83d": 1},
    {"a": {"b": b"bytes"}},
    [math.inf],
    {"a": [-math.inf, math.nan]},
    {(1, 2): 3},
    deep(),
    circular(),
    released(),
    range(3),
    (each for each in "ab"),
    lambda: 1,
    int,
    Point,
    ValueError("x"),
    pathlib.PurePosixPath("\udce9"),
    [10**5000],
    Lazy(),
]


def some_id(value):
    return type(value).__name__


@pytest.mark.parametrize("value", UNHOLDABLE, ids=some_id)
@pytest.mark.parametrize("kind", ["table", "vectors"])
async def test_a_value_that_no_column_can_hold_is_the_failure_of_its_root_alone(tmp_path, value, kind):
    """By `on_error="collect"` of any stage: its row is a dead letter of the sink, and all others are there."""
    sink = SqliteTable(tmp_path / "t.db", "t") if kind == "table" else SqliteVectors(tmp_path / "t.db")

    more = {} if kind == "table" else {"text": "x", "vector": [1]}
    items = [(number, value if number == 3 else number) for number in range(8)]
    source = penstock.keyed(items, key=lambda item: item[0])
    rows = source.map(lambda item: {"v": item[1]} | more, on_error="collect").map(dict, concurrency=2, engine="inline")
    report = await rows.to(sink, run="r")
    assert (report.delivered, report.dead, report.complete, report.rows) == (7, 1, True, 7)
    assert sorted(row["v"] for row in sink.rows()) == [0, 1, 2, 4, 5, 6, 7]
    (root,) = durable.dead_roots(sink.path)
    (letter,) = root.letters
    assert (root.key, letter.stage, letter.attempts) == (3, type(sink).__name__, 1)
    assert letter.error.startswith("RowError: the column 'v' must have ")
    (failed,) = report.failures
    assert (failed.stage, failed.root, failed.index) == (type(sink).__name__, 3, 3)
    again = await rows.to(sink, run="r")
    assert (again.already_done, again.dead_before, again.complete) == (7, 1, True)


@pytest.mark.parametrize("value", [{"1": 0, 1: 1}, [{"a": {None: 0, "null": 1}}], {True: 0, "true": [1]}])
@pytest.mark.parametrize("sink", ["o.db", "o.jsonl"])
async def test_a_mapping_with_two_keys_of_one_name_is_refused(tmp_path, value, sink):
    """JSON would have the name twice, and who reads it get one of the values."""
    to = SqliteTable(tmp_path / sink, "t") if sink == "o.db" else penstock.JsonLines(tmp_path / sink)
    rows = penstock.keyed([1], key=int).map(lambda _: {"v": value})
    with pytest.raises(RowError, match="has several keys that are the name"):
        await rows.to(to, run="r", on_error="raise")


async def test_a_mapping_that_holds_itself_is_refused(tmp_path):
    endless = {1: 0}
    endless[2] = endless
    rows = penstock.keyed([1], key=int).map(lambda _: {"v": endless})
    with pytest.raises(RowError):
        await rows.to(SqliteTable(tmp_path / "o.db", "t"), run="r", on_error="raise")


@pytest.mark.parametrize("value", UNHOLDABLE[:4], ids=some_id)
async def test_it_ends_the_run_by_name_where_nothing_is_collected(tmp_path, value):
    table = SqliteTable(tmp_path / "t.db", "t")
    rows = penstock.keyed(range(8), key=int).map(lambda number: {"v": value if number == 3 else number})
    with pytest.raises(RowError, match=r"^row 0 of 3: the column 'v' must have ") as raised:
        await rows.to(table, run="r")
    assert {"penstock: stage 'SqliteTable', item 3", "penstock: root 3"} <= set(raised.value.__notes__)
    assert [row["v"] for row in table.rows()] == [0, 1, 2]


@pytest.mark.parametrize(
    ("on_error", "stages", "dead"),
    [
        (None, {"on_error": "collect"}, True),
        (None, {"on_error": "skip"}, True),
        (None, {}, False),
        ("raise", {"on_error": "collect"}, False),
        ("collect", {}, True),
        ("collect", {"on_error": "collect", "max_failures": 0}, True),
        (None, {"on_error": "collect", "max_failures": 1}, False),
        (None, {"on_error": "collect", "max_failures": 2}, True),
        (None, {"on_error": "collect", "max_failure_rate": 0.25}, False),
        (None, {"on_error": "collect", "max_failure_rate": 0.7}, True),
    ],
)
async def test_who_decides_what_becomes_of_it(tmp_path, on_error, stages, dead):
    """Two of four rows cannot be stored; the failures of the stage itself do not count for the sink."""
    table = SqliteTable(tmp_path / "t.db", "t")
    rows = penstock.keyed(range(4), key=int).map(lambda n: {"v": 2j if n in {1, 2} else n}, **stages)
    if not dead:
        with pytest.raises(RowError):
            await rows.filter(bool).to(table, run="r", on_error=on_error)
        return
    report = await rows.filter(bool).to(table, run="r", on_error=on_error)
    assert (report.delivered, report.dead, report.complete) == (2, 2, True)


async def test_bad_options_are_options_still(tmp_path):
    table = SqliteTable(tmp_path / "t.db", "t")
    rows = penstock.keyed(range(4), key=int).map(lambda n: {"v": n}, on_error="collect")
    for options, message in (
        ({"on_error": "skip"}, "on_error must be one of 'raise', 'collect', None, got 'skip'"),
        ({"on_dead": "drop"}, "on_dead must be one of 'keep', 'remove', got 'drop'"),
    ):
        with pytest.raises(penstock.OptionError, match=message):
            await rows.to(table, run="r", **options)
    with pytest.raises(penstock.OptionError, match="on_dead='remove' needs a sink that can remove rows"):
        await rows.to(penstock.Callback(print, journal=tmp_path / "j.db"), run="r", on_dead="remove")


class Keys:
    """As rows of `sqlite3` are."""

    def keys(self):
        return ["a"]

    def __getitem__(self, name):
        return {"a": 1}[name]


class Model:
    """As models of pydantic are."""

    model_fields: Mapping[str, object] = {"when": None}

    def model_dump(self):
        return {"when": dt.date(2020, 1, 2)}


class Attrs:
    """As classes of attrs are."""

    __attrs_attrs__ = (types.SimpleNamespace(name="y"),)
    y = 2


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (Point(1, dt.date(2020, 1, 2)), {"x": 1, "at": "2020-01-02"}),
        (Pair(1, [2]), {"left": 1, "right": "[2]"}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (collections.ChainMap({"a": 1}), {"a": 1}),
        (Keys(), {"a": 1}),
        (Model(), {"when": "2020-01-02"}),
        (Attrs(), {"y": 2}),
    ],
    ids=some_id,
)
async def test_a_row_is_what_has_named_fields(tmp_path, row, found):
    table = SqliteTable(tmp_path / "t.db", "t")
    assert dict(mapping(row)).keys() == found.keys()
    await penstock.keyed([1], key=int).map(lambda _: row).to(table, run="r")
    assert list(table.rows()) == [found]


@pytest.mark.parametrize("row", [3, "text", b"x", None, [1], ("a", 1), Point, object(), 1.5, {1}], ids=some_id)
async def test_a_row_without_names_is_the_failure_of_its_root(tmp_path, row):
    table = SqliteTable(tmp_path / "t.db", "t")
    rows = penstock.keyed([1, 2], key=int).map(lambda n: row if n == 1 else {"a": 1}, on_error="collect")
    report = await rows.to(table, run="r")
    assert (report.delivered, report.dead) == (1, 1)
    assert "a row must be a mapping of columns to values, got" in durable.dead_roots(table.path)[0].letters[0].error


async def test_a_row_is_stored_as_it_was_when_it_was_handed_on(tmp_path):
    """Who uses one dict for all rows has them all stored."""
    table = SqliteTable(tmp_path / "t.db", "t")
    row = {"n": 0, "list": []}

    def rows(_):
        for number in range(3):
            row["n"] = number
            row["list"].append(number)
            yield row

    await penstock.keyed([1], key=int).flat_map(rows).to(table, run="r")
    assert list(table.rows()) == [{"n": n, "list": json.dumps([*range(n + 1)])} for n in range(3)]


async def test_staged_rows_keep_all_kinds(tmp_path, monkeypatch):
    """Rows that wait in the database are those that come back."""
    monkeypatch.setattr(durable.delivery, "HELD", 3)
    table = SqliteTable(tmp_path / "t.db", "t")
    rows = [{"v": given, "n": n} for n, (given, _) in enumerate(WRITTEN)]
    await penstock.keyed([1], key=int).flat_map(lambda _: rows).to(table, run="r")
    assert [row["v"] for row in table.rows()] == [found for _, found in WRITTEN]
