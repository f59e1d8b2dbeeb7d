"""Roots of many rows: they wait in the database, readers see none of them before all are there, memory stays flat."""

import asyncio
import gc
import subprocess
import sys
import weakref
from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from random import Random
from uuid import UUID
from zoneinfo import ZoneInfo

import apsw
import numpy as np
import pytest

import penstock
from penstock import durable
from penstock.durable import delivery, staging
from penstock.durable.weights import weight
from penstock.durable.writer import Writer
from penstock.sinks.table import SqliteTable
from penstock.sources.keyed import keyed

pytestmark = [pytest.mark.real_time, pytest.mark.slow]


@pytest.fixture
def few(monkeypatch):
    """Ten rows are many."""
    monkeypatch.setattr(delivery, "HELD", 10)
    monkeypatch.setattr(staging, "_PART", 3)


def fan(sizes, **options):
    """Roots of so many rows."""
    return keyed(sizes, key=lambda size: size[0], version=lambda size: str(size[1])).flat_map(rows_of, **options)


async def rows_of(root):
    name, size = root
    for number in range(size):
        yield {"root": name, "number": number}


def ask(path, question):
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return connection.execute(question).fetchall()
    finally:
        connection.close()


def staged(path):
    return ask(path, "SELECT count(*) FROM penstock_staged")[0][0]


@pytest.mark.quick
async def test_a_root_of_more_rows_than_are_held_is_whole_and_in_order(few, tmp_path):
    table = SqliteTable(tmp_path / "t.db", "numbers")
    report = await fan([("a", 95), ("b", 3), ("c", 10)]).to(table, run="r")
    assert (report.delivered, report.rows, report.complete) == (3, 108, True)
    expected = [{"root": root, "number": n} for root, size in [("a", 95), ("b", 3), ("c", 10)] for n in range(size)]
    assert list(table.rows()) == expected
    assert ask(table.path, "SELECT key, rows FROM penstock_roots ORDER BY key") == [("a", 95), ("b", 3), ("c", 10)]
    assert staged(table.path) == 0


async def test_readers_see_no_part_of_a_root(few, tmp_path):
    """While a root waits in staging, the table has all of its rows of before, or none."""
    table = SqliteTable(tmp_path / "t.db", "numbers")
    await fan([("a", 4), ("b", 1)]).to(table, run="r")
    seen = []

    async def look(row):
        if row["number"] == 79:
            while not staged(table.path):  # noqa: ASYNC110 -- a database has nobody to tell
                await asyncio.sleep(0)
            seen.append(Counter(each["root"] for each in table.rows()))
        return row

    report = await fan([("a", 80), ("b", 1)]).map(look).to(table, run="r")
    assert seen == [{"a": 4, "b": 1}]
    assert (report.redone, report.already_done) == (1, 1)
    assert Counter(each["root"] for each in table.rows()) == {"a": 80, "b": 1}


@pytest.mark.grid
async def test_several_large_roots_at_once(few, tmp_path):
    table = SqliteTable(tmp_path / "t.db", "numbers")
    sizes = [(f"root {number}", 7 * number) for number in range(12)]
    report = await fan(sizes, concurrency=5, ordered=False).to(table, run="r")
    assert report.rows == sum(size for _, size in sizes)
    numbers = {name: [row["number"] for row in table.rows() if row["root"] == name] for name, _ in sizes}
    assert numbers == {name: list(range(size)) for name, size in sizes}
    assert staged(table.path) == 0


async def test_many_roots_of_one_row_each_share_the_memory(few, tmp_path, monkeypatch):
    """The bound is of all unfinished roots together: none of these is large."""
    held = []
    stage = delivery.Deliverer._stage
    monkeypatch.setattr(delivery.Deliverer, "_stage", lambda self: (stage(self), held.append(self._held)))
    table = SqliteTable(tmp_path / "t.db", "numbers")
    sizes = [(f"root {number}", 4) for number in range(40)]
    everyone = asyncio.Event()
    waiting = 0

    async def last_waits(row):
        nonlocal waiting
        if row["number"] == 3:
            waiting += 1
            if waiting == 40:
                everyone.set()
            await everyone.wait()
        return row

    options = {"concurrency": 40, "ordered": False}
    report = await fan(sizes, **options).map(last_waits, **options).to(table, run="r")
    assert report.rows == 160
    assert held
    assert max(held) <= 5
    assert Counter(row["root"] for row in table.rows()) == {name: 4 for name, _ in sizes}


async def test_the_greatest_roots_are_staged_and_small_ones_stay(few, tmp_path, monkeypatch):
    staged_sizes = []
    stage = Writer.stage
    monkeypatch.setattr(Writer, "stage", lambda self, root: (staged_sizes.append(len(root.rows)), stage(self, root)))
    table = SqliteTable(tmp_path / "t.db", "numbers")
    together = asyncio.Barrier(4)

    async def rows(root):
        name, size = root
        for number in range(size):
            if number == 1:
                await together.wait()  # of each root one row, then the rows of the greatest
            if name != "d" and number == 1:
                await greatest.wait()
            yield {"root": name, "number": number}
        greatest.set()

    greatest = asyncio.Event()
    sizes = [("a", 2), ("b", 2), ("c", 2), ("d", 20)]
    stream = keyed(sizes, key=lambda size: size[0]).flat_map(rows, concurrency=4, ordered=False)
    assert (await stream.to(table, run="r")).rows == 26
    assert staged_sizes == [8, 8]


async def test_rows_of_a_dead_root_are_dropped_not_staged(few, tmp_path):
    table = SqliteTable(tmp_path / "t.db", "numbers")
    seen = set()

    async def fail(row):
        if row["number"] == 1:
            raise ValueError(1)
        seen.add(staged(table.path))
        return row

    assert (await fan([("a", 200)]).map(fail, on_error="collect").to(table, run="r")).dead == 1
    assert seen == {0}


async def test_a_root_that_dies_leaves_nothing_in_staging(few, tmp_path):
    table = SqliteTable(tmp_path / "t.db", "numbers")

    async def fail(row):
        if row == {"root": "a", "number": 70}:
            raise ValueError(70)
        return row

    report = await fan([("a", 90), ("b", 2)]).map(fail, on_error="collect").to(table, run="r")
    assert (report.dead, report.rows) == (1, 2)
    assert [row["root"] for row in table.rows()] == ["b", "b"]
    assert staged(table.path) == 0


async def test_what_a_run_that_failed_left_in_staging_is_dropped_by_the_next(few, tmp_path):
    table = SqliteTable(tmp_path / "t.db", "numbers")

    async def fail(row):
        if row["number"] == 70:
            while not staged(table.path):  # noqa: ASYNC110 -- a database has nobody to tell
                await asyncio.sleep(0)
            raise ValueError(70)
        return row

    with pytest.raises(ValueError, match="70"):
        await fan([("a", 90)]).map(fail).to(table, run="r")
    assert staged(table.path) > 0
    seen = []

    async def look(row):
        seen.append(staged(table.path))
        return row

    assert (await fan([("b", 5)]).map(look).to(table, run="r")).rows == 5
    assert set(seen) == {0}
    await fan([("a", 90), ("b", 5)]).to(table, run="r")
    assert Counter(row["root"] for row in table.rows()) == {"a": 90, "b": 5}


async def test_an_attempt_whose_outputs_nobody_took_counts_for_nothing(few, tmp_path):
    table = SqliteTable(tmp_path / "t.db", "numbers")
    torn = asyncio.Event()

    async def rows(root):
        if root == "a":
            await torn.wait()
        for number in range(60):
            if number == 25 and root == "b" and not torn.is_set():
                torn.set()
                raise OSError("torn")
            yield {"root": root, "number": number}

    stream = keyed(["a", "b"], key=str).flat_map(
        rows, concurrency=2, buffer=100, retry=penstock.Retry(on=OSError, initial=0)
    )
    report = await stream.to(table, run="r")
    assert report.rows == 120
    assert [row["number"] for row in table.rows()] == [*range(60), *range(60)]


@pytest.mark.grid
async def test_the_sink_waits_and_the_source_goes_on(few, tmp_path, monkeypatch):
    """Rows that wait hold the sink's places only: batches over roots that are all larger than what is held end."""
    monkeypatch.setattr("penstock.durable.writer.WAITING", 5)
    table = SqliteTable(tmp_path / "t.db", "numbers")

    async def same(rows):
        return rows

    options = {"concurrency": 4, "ordered": False}
    report = await fan([(n, 50) for n in range(8)], **options).map_batches(same, 64).to(table, run="r")
    assert (report.delivered, report.rows) == (8, 400)


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_roots_become_the_table_has_it_and_nothing_is_held_after(few, tmp_path, monkeypatch, seed):
    """Random roots, fans, batches, filters and failures, with hardly any room."""
    random = Random(seed)
    sizes = [(number, random.choice([0, 1, 3, 9, 20, 70])) for number in range(random.randint(1, 12))]
    bad = {(number, random.randrange(size)) for number, size in sizes if size and random.random() < 0.2}
    monkeypatch.setattr("penstock.durable.writer.WAITING", random.choice([1, 10, 100]))
    held = []
    close = delivery.Deliverer.close

    async def note_held(self, *driven):
        await close(self, *driven)
        held.append(self._held)

    monkeypatch.setattr(delivery.Deliverer, "close", note_held)

    async def work(row):
        for _ in range(random.randrange(3)):
            await asyncio.sleep(0)
        if (row["root"], row["number"]) in bad:
            raise ValueError(row)
        return row

    async def same(rows):
        return rows

    options = {"concurrency": random.randint(1, 5), "ordered": random.random() < 0.5, "buffer": random.choice([0, 9])}
    stream = fan(sizes, **options).map(work, on_error="collect", **options)
    if random.random() < 0.5:
        stream = stream.map_batches(same, random.randint(1, 30), concurrency=2)
    stream = stream.filter(lambda row: row["number"] % 5)
    table = SqliteTable(tmp_path / "t.db", "numbers")
    report = await stream.to(table, run="r")
    dead = {root for root, _ in bad}
    expected = {(root, n) for root, size in sizes for n in range(size) if n % 5 and root not in dead}
    assert Counter((row["root"], row["number"]) for row in table.rows()) == Counter(expected) if expected else True
    assert (report.delivered, report.dead) == (len(sizes) - len(dead), len(dead))
    assert report.rows == len(expected)
    assert set(held) == {0}
    assert staged(table.path) == 0


@dataclass
class Page:
    text: str
    below: list


@dataclass(frozen=True, slots=True)
class Point:
    x: object
    y: object = None


class Colour(Enum):
    RED = 1


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def circular():
    value = []
    value.append(value)
    return value


VALUES = [
    *(None, True, 7, 2**70, -0.0, "text", "\ud800", b"bytes", 1 + 2j, [], (1, "a"), {1, 2}, {"a": {"b": (None,)}}),
    *(datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")), Decimal("1.50")),
    *(timedelta(1), UUID(int=1), Path("a"), Colour.RED, Page("x", [1]), Point(1, Point("y")), object(), len, Colour),
    *(OrderedDict(a=1), Counter("aab"), np.float32(0.5), np.int64(3)),
]


async def test_any_row_that_a_function_takes_survives_waiting_in_the_database(few, tmp_path):
    """What can be packed is; what cannot be, for its type or its depth, stays in memory: all comes back as it was."""
    rows = [*VALUES, VALUES, nested(5_000), circular(), Page(circular(), VALUES)]
    given = []
    sink = penstock.Callback(lambda some: given.extend(some), journal=tmp_path / "t.db")
    await keyed([1], key=int).flat_map(lambda _: iter(rows)).to(sink, run="r")
    assert len(given) == len(rows) > 10
    for row, back in zip(VALUES, given, strict=False):
        assert type(back.row) is type(row)
        assert repr(back.row) == repr(row)
    assert repr(given[len(VALUES)].row) == repr(VALUES)
    assert given[len(VALUES) + 1].row is rows[len(VALUES) + 1]
    assert given[len(VALUES) + 2].row is rows[len(VALUES) + 2]


async def test_vectors_wait_as_what_they_are(few, tmp_path):
    index = penstock.SqliteVectors(tmp_path / "t.db")

    def rows(_):
        return ({"text": f"t{n}", "vector": np.full(3, n + 1, np.float64 if n % 2 else np.float32)} for n in range(40))

    await keyed([1], key=int).flat_map(rows).to(index, run="r")
    assert [row["vector"].tolist() for row in index.rows()] == [[float(n + 1)] * 3 for n in range(40)]


async def test_nothing_that_cannot_be_packed_is_held_once_its_root_is_done(few, tmp_path):
    """Also where the first transaction is rolled back, and the rows are needed again."""
    alive = weakref.WeakSet()

    class Row:
        def __init__(self):
            alive.add(self)

    seen = []
    sink = penstock.Callback(lambda some: None, journal=tmp_path / "t.db")

    def rows(number):
        gc.collect()
        seen.append(len(alive))
        return (Row() for _ in range(50))

    await keyed(range(6), key=int).flat_map(rows).to(sink, run="r")
    assert max(seen) <= 250
    gc.collect()
    assert not alive


@pytest.mark.parametrize(
    ("row", "rows"),
    [
        ({"a": None, "b": 1, "c": 2.5, "d": True, "e": "x" * 600, "f": b"y" * 90}, 1),
        ({f"column {n}": "x" for n in range(100)}, 6),
        ({"text": "\N{PILE OF POO}" * 1_000}, 5),
        ({"meta": {"pages": [{"text": "x" * 10_000} for _ in range(10)]}}, 103),
        ({"meta": [["x" * 10_000]]}, 11),
        (Page("x" * 10_000, [Page("y" * 10_000, [])]), 21),
        (nested(100_000), 5801),
        (circular(), 1),
        ({"view": memoryview(bytes(5_000))}, 6),
        ({"part": np.zeros(100_000, np.int8)[::2]}, 51),
        ({"a": "x" * 900, "b": "y" * 200}, 2),
        ({"vector": [0.5] * 1536, "text": ""}, 50),
        ({"vector": np.zeros(1536, np.float32)}, 7),
        ("x" * 100_000, 101),
        (bytes(5_000), 6),
        (object(), 1),
        ({}, 1),
    ],
)
def test_what_a_row_weighs(row, rows):
    assert weight(row) == rows


async def test_large_rows_wait_in_the_database_although_they_are_few(tmp_path):
    table = SqliteTable(tmp_path / "t.db", "texts")
    most = 0

    async def texts(number):
        nonlocal most
        for each in range(number):
            yield {"each": each, "text": "x" * 1_000_000}
            most = max(most, staged(table.path))

    assert (await keyed([25], key=int).flat_map(texts).to(table, run="r")).rows == 25
    assert most > 0
    assert [row["each"] for row in table.rows()] == list(range(25))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one", "many"])
def test_memory_does_not_grow_with_large_rows(tmp_path, kind):
    """A source that is faster than the disk: rows of 100 kB each, of one root and of a root each."""
    program = """
import asyncio, resource, sys
from penstock.sinks.table import SqliteTable
from penstock.sources.keyed import keyed

async def text(number):
    return {"number": number, "text": f"{number:0100000}"}

async def texts(size):
    for number in range(size):
        yield await text(number)

async def main(path, kind, size):
    one = keyed([size], key=int).flat_map(texts)
    await (one if kind == "one" else keyed(range(size), key=int).map(text)).to(SqliteTable(path, "rows"), run="r")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""

    def peak(size):
        command = [sys.executable, "-c", program, tmp_path / f"{size}.db", kind, str(size)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    little, much = peak(10), peak(1_500)
    assert much - little < 80_000  # KiB; the rows are 150,000


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows_of_a_root(tmp_path):
    """Ten times the rows need no more memory than what the interpreter takes anyway."""
    program = """
import asyncio, resource, sys
from penstock.sinks.table import SqliteTable
from penstock.sources.keyed import keyed

async def rows(size):
    for number in range(size):
        yield {"number": number, "text": f"{number:0100}"}

async def main(path, size):
    await keyed([size], key=int).flat_map(rows).to(SqliteTable(path, "rows"), run="r")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""

    def peak(size):
        command = [sys.executable, "-c", program, tmp_path / f"{size}.db", str(size)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    small, large = peak(30_000), peak(100_000)
    assert large - small < 8_000  # KiB; the rows alone are 30,000


@pytest.mark.parametrize("on_error", ["collect", "raise"])
async def test_a_row_too_long_to_wait_fails_with_its_root_and_takes_no_other_with_it(tmp_path, monkeypatch, on_error):
    """Roots that are staged in the same transaction are staged again without it, whole."""
    monkeypatch.setattr(delivery, "HELD", 4)
    table = SqliteTable(tmp_path / "t.db", "numbers")
    opened = table.open("process")
    store = type(opened)
    opened.close()
    monkeypatch.setattr(Writer, "_next", slowly(Writer._next))
    prepare = store.prepare

    def with_a_limit(self):
        prepare(self)
        self.connection.limit(apsw.SQLITE_LIMIT_LENGTH, 20_000)

    monkeypatch.setattr(store, "prepare", with_a_limit)

    async def rows(root):
        for number in range(6):
            yield {"root": root, "number": number, "text": "x" * (30_000 if (root, number) == ("b", 2) else 900)}
            await asyncio.sleep(0)

    stream = keyed(["a", "b", "c"], key=str).flat_map(rows, concurrency=3, ordered=False)
    if on_error == "raise":
        with pytest.raises(durable.StoreError, match="bytes"):
            await stream.to(table, run="r")
        return
    report = await stream.to(table, run="r", on_error="collect")
    assert (report.delivered, report.dead, report.complete) == (2, 1, True)
    found = Counter(row["root"] for row in table.rows())
    assert found == {"a": 6, "c": 6}


def slowly(next_of):
    """Have the thread that writes find all that the loop gives in some passes at once."""

    def slow(self):
        with self._changed:
            self._changed.wait_for(lambda: len(self._entries) > 3 or self._closed or self.is_full, timeout=0.3)
        return next_of(self)

    return slow
