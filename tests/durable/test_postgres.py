"""Runs into PostgreSQL: what they hold, what they refuse, and what they do when the server or its network fails."""

import asyncio
import enum
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from time import sleep as time_passes
from uuid import UUID

import pytest
from tests.postgres import Cutting, needs_postgres, server

pytest.importorskip("psycopg")

import penstock
from penstock.durable import HeldError, StoreError, dead_roots, discard, forget, redo, runs
from penstock.durable.postgres.postgres_journal import PostgresJournal
from penstock.durable.postgres.postgres_tables import NUMBERS
from penstock.durable.postgres.writing_session import WritingSession
from penstock.durable.store_errors import LostTransactionError

from .postgres_killing import SERVER, Campaign

pytestmark = [pytest.mark.real_time, pytest.mark.slow, needs_postgres]


@pytest.fixture
def dsn(postgres):
    return postgres.new()


def table(dsn, name="rows", **options):
    return penstock.PostgresTable(dsn, name, **options)


async def put(sink, *rows, run="r", **options):
    """One root for each row, in a run that is new."""
    source = penstock.keyed(enumerate(rows), key=lambda pair: pair[0], name=f"{run} rows")
    return await source.map(lambda pair: pair[1]).to(sink, run=run, **options)


async def refused(sink, *rows, run="r"):
    """The errors of the rows that are refused."""
    await put(sink, *rows, run=run, on_error="collect")
    return [root.letters[0].error for root in dead_roots(sink, run=run)]


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    at: datetime


HELD = {
    "flag": True,
    "whole": 2**63 - 1,
    "large": 2**70,
    "part": 0.1,
    "nothing": float("inf"),
    "text": "Wörter 'und' \\ \n\t字",
    "raw": b"\0\xff\\",
    "day": date(2026, 2, 28),
    "time": time(1, 2, 3, 4),
    "naive": datetime(2026, 2, 28, 1, 2, 3, 4),  # noqa: DTZ001 -- that is the point
    "aware": datetime(2026, 2, 28, 1, 2, 3, 4, tzinfo=UTC),
    "long": timedelta(days=-1, microseconds=5),
    "exact": Decimal("1.10"),
    "id": UUID(int=5),
    "colour": Colour.RED,
    "path": Path("a/b"),
    "list": [1, {"a": None}, "x"],
    "point": Point(1, datetime(2026, 2, 28, tzinfo=UTC)),
}


async def test_values_come_back_with_their_types(dsn):
    sink = table(dsn)
    await put(sink, HELD)
    (row,) = sink.rows()
    assert row == HELD | {
        "large": Decimal(2**70),
        "colour": "red",
        "path": "a/b",
        "point": {"x": 1, "at": "2026-02-28T00:00:00+00:00"},
    }


async def test_columns_come_with_the_rows_and_whole_numbers_may_get_parts(dsn):
    sink = table(dsn)
    await put(sink, {"a": None, "b": 1}, {"a": "x"}, {"b": 2.5}, {"c": 5}, {"b": 7})
    assert list(sink.rows()) == [
        {"a": a, "b": b, "c": c} for a, b, c in [(None, 1, None), ("x", None, None), (None, 2.5, None), (None, None, 5)]
    ] + [{"a": None, "b": 7.0, "c": None}]


async def test_what_a_column_cannot_hold_is_the_failure_of_its_root(dsn):
    sink = table(dsn)
    errors = await refused(
        sink,
        {"n": 1, "t": "a", "raw": b"", "far": 2**60, "part": 0.5},
        {"t": 5},
        {"t": "a\0b"},
        {"n": "twelve"},
        {"raw": "text"},
        {"far": 0.5},
        {"part": 2**60 + 1},
        {"s": "\ud800"},
        {"o": object},
        {"penstock_root": 1},
        {"xmin": 1},
        {"ä" * 32: 1},
        {},
        "text",
        {"n": True},
    )
    for error, word in zip(
        errors,
        [
            "the column 't' is of type text, got 5; columns={'t': ...} declares another",
            "text without NUL",
            'invalid input syntax for type bigint: "twelve"',
            "the column 'raw' is of type bytea, got 'text'",
            "the column 'far' has whole numbers that no number with parts can be",
            "which cannot hold 1152921504606846977 exactly",
            "the column 's' must have None, a number, text that UTF-8 can hold",
            "the column 'o' must have",
            "a column must not be called 'penstock_root'",
            "a column must not be called 'xmin'",
            "a name must have 1 to 63 bytes",
            "a row must have a column",
            "a row must be a mapping",
            "the column 'n' is of type bigint, got True",
        ],
        strict=True,
    ):
        assert word in error
    assert len(list(sink.rows())) == 1


async def test_text_for_another_type_is_read_by_the_server(dsn):
    """As rows of a CSV file have nothing but text."""
    sink = table(
        dsn, columns={"n": "bigint NOT NULL", "at": "timestamptz", "tags": "text[]", "doc": "jsonb", "w": "varchar(3)"}
    )
    await put(sink, {"n": "12", "at": "2026-01-02T03:04:05Z", "tags": ["a", "b c"], "doc": "plain", "w": "abc"})
    (row,) = sink.rows()
    assert row == {
        "n": 12,
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "tags": ["a", "b c"],
        "doc": "plain",
        "w": "abc",
    }
    errors = await refused(sink, {"n": None}, {"n": 1, "w": "abcd"}, {"n": 1, "other": 2}, run="more")
    assert ["null value" in errors[0], "too long" in errors[1], "not among the columns" in errors[2]] == [True] * 3


async def test_names_with_percent_signs_are_names(dsn):
    """Trap: in a statement that comes with values they stand for one."""
    sink = table(dsn, "t%s", key="k%s")
    assert await refused(sink, {"k%s": 1, "50%": 1}, {"k%s": 1}, {"k%s": 2, "50%": 1.5}) == [
        "RowError: the key column 'k%s' must differ in every row, got 1, which a row of root 0 has"
    ]
    assert [row["50%"] for row in sink.rows()] == [1.0, 1.5]
    redo(sink, run="r", which="all")
    assert (await put(sink, {"k%s": 1}, {"k%s": 3}, {"k%s": 2}, run="r")).redone == 3


async def test_nothing_is_cut_to_fit_a_column(dsn):
    """Trap: the server drops the zone of a time, the hours of a date, the last digits of a number, and is silent."""
    day, hour = datetime(2026, 2, 28, 5), time(5)  # noqa: DTZ001 -- without a zone
    first = {"day": day.date(), "at": day, "hour": hour, "number": 1}
    sink = table(dsn)
    errors = await refused(
        sink,
        first,
        {"day": day},
        {"at": day.replace(tzinfo=UTC)},
        {"hour": hour.replace(tzinfo=UTC)},
        {"number": 1.5},
        {"number": 2**60 + 1},
        {"zoned": hour.replace(tzinfo=UTC)},
    )
    assert [error.partition(", ")[0] for error in errors] == [
        "RowError: the column 'day' is of type date",
        "RowError: the column 'at' is of type timestamp without time zone",
        "RowError: the column 'hour' is of type time without time zone",
        "RowError: the column 'number' is of type double precision",
    ]
    assert [row["zoned"] for row in sink.rows()][-1] == hour.replace(tzinfo=UTC)
    other = table(dsn, "other")
    await put(other, {"n": 1}, run="first")
    both = penstock.keyed([1], key=int, name="two").flat_map(lambda _: [{"n": 2**60 + 1}, {"n": 0.5}])
    assert (await both.to(other, run="second", on_error="collect")).dead == 1


async def test_what_no_row_can_have_is_the_failure_of_its_root(dsn):
    """Trap: it ended the run."""
    sink = table(dsn, columns={"n": "bigint", "list": "text[]"})
    plain = "RowError: the column 'list' is an array, and takes lists of plain values, got "
    rows = {"n": 1, "list": ["x"]}, {"list": {"a": 1}}, {"list": [[{"a": 1}]]}
    assert await refused(sink, *rows) == [plain + "{'a': 1}", plain + "[[{'a': 1}]]"]
    many = {f"c{number}": number for number in range(1_700)}
    assert await refused(table(dsn, "wide"), {"n": 1}, many, run="wide") == [
        "RefusedRowError: tables can have at most 1600 columns"
    ]


async def test_what_others_have_put_on_a_table_refuses_a_row_alone(postgres, dsn):
    """Trap: what a trigger raised, or a deferred constraint at COMMIT, ended the run, and blamed no root."""
    sink = table(dsn)
    await put(sink, {"n": 1})
    postgres.ask(
        dsn,
        "CREATE TABLE parents (id bigint PRIMARY KEY); INSERT INTO parents VALUES (1), (6);"
        "ALTER TABLE rows ADD CONSTRAINT parent FOREIGN KEY (n) REFERENCES parents DEFERRABLE INITIALLY DEFERRED;"
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no six'; END $$;"
        "CREATE TRIGGER refuses BEFORE INSERT ON rows FOR EACH ROW WHEN (NEW.n = 6) EXECUTE FUNCTION refuse()",
    )
    errors = await refused(sink, {"n": 1}, {"n": 5}, {"n": 6}, {"n": 1}, run="second")
    assert [error.split(";")[0] for error in errors] == [
        'RefusedRowError: insert or update on table "rows" violates foreign key constraint "parent"',
        "RefusedRowError: no six",
    ]
    assert list(sink.rows()) == [{"n": 1}] * 3


async def test_the_server_reads_numbers_for_a_type_of_its_own(postgres, dsn):
    """Trap: a whole number for a domain over them was refused, by words that told to declare what was declared."""
    postgres.ask(dsn, "CREATE DOMAIN positive AS int CHECK (value > 0); CREATE TYPE mood AS ENUM ('well')")
    sink = table(dsn, columns={"n": "positive", "mood": "mood"})
    errors = await refused(sink, {"n": 1}, {"n": "2"}, {"n": -1}, {"mood": "well"}, {"mood": 3}, {"n": True})
    assert [error.split(";")[0] for error in errors] == [
        'RefusedRowError: value for domain positive violates check constraint "positive_check"',
        'RefusedRowError: invalid input value for enum mood: "3"',
        "RowError: the column 'n' is of type positive, got True",
    ]
    assert [row["n"] for row in sink.rows()] == [1, 2, None]


async def test_a_value_that_python_cannot_have_is_told_with_its_database(dsn):
    sink = table(dsn, columns={"at": "timestamptz"})
    await put(sink, {"at": "infinity"})
    with pytest.raises(StoreError, match=r"^postgresql://.*: timestamp too large"):
        list(sink.rows())


async def test_what_is_too_large_for_the_server_is_the_failure_of_its_root(dsn, monkeypatch):
    """Trap: a text of 1 GB ended the connection, again and again, and with it the run."""
    monkeypatch.setattr("penstock.sinks.postgres_cells.LARGEST_VALUE", 1_000)
    rows = {"text": "x" * 1_000, "raw": b""}, {"text": "\u5b57" * 400, "raw": b""}, {"text": "", "raw": b"x" * 1_001}
    rule = "must have a value of at most 1,000 bytes, got a larger one"
    assert await refused(table(dsn), *rows) == [f"RowError: the column {name!r} {rule}" for name in ("text", "raw")]
    monkeypatch.setattr("penstock.durable.postgres.postgres_journal.LARGEST_PART", 1_000)
    monkeypatch.setattr("penstock.durable.delivery.HELD", 0)
    wide = penstock.keyed([9, 400], key=int, name="wide").map(lambda n: {f"c{i}": "x" * n for i in range(4)})
    assert (await wide.to(table(dsn, "wide"), run="wide", on_error="collect")).dead == 1
    (root,) = dead_roots(table(dsn, "wide"), run="wide")
    assert "a row has to wait in the database, which takes 1 GB at a time, got 1," in root.letters[0].error


async def test_names_are_as_they_are_given(postgres, dsn):
    postgres.ask(dsn, 'CREATE SCHEMA "Sales; DROP"')
    sink = table(dsn, 'Sales; DROP.Or"ders')
    await put(sink, {'a "b"': 1, "select": 2, "%s": 3, "{}": 4})
    assert list(sink.rows()) == [{'a "b"': 1, "select": 2, "%s": 3, "{}": 4}]
    with pytest.raises(StoreError, match="no schema 'nowhere'"):
        await put(table(dsn, "nowhere.rows"), {"n": 1})


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (("", "t"), "dsn must be a connection string"),
        ((5, "t"), "dsn must be a connection string, as .*, got int"),
        (("postgresql://u:hush@h/db?nonsense=1", "t"), "one that libpq cannot read"),
        (("postgresql://h/db", ""), "table must be"),
        (("postgresql://h/db", "a.b.c"), "table must be the name of a table, or schema.table, got 'a.b.c'"),
        (("postgresql://h/db", "x" * 64), "table: a name must have 1 to 63 bytes"),
        (("postgresql://h/db", "penstock_x"), "must not begin with penstock_"),
    ],
)
def test_arguments_that_break_their_rules(arguments, rule):
    with pytest.raises(penstock.OptionError, match=rule) as error:
        penstock.PostgresTable(*arguments)
    assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {"key": []},
        {"key": ["a", "a"]},
        {"key": "penstock_row"},
        {"columns": {"a": "text; DROP TABLE x"}},
        {"columns": "a"},
        {"columns": {"a": "text"}, "key": "b"},
        {"columns": []},
        {"columns": ["ctid"]},
        {"columns": {"a": "text) --"}},
    ],
)
def test_options_that_break_their_rules(options):
    with pytest.raises(penstock.OptionError):
        penstock.PostgresTable("postgresql://h/db", "t", **options)


async def test_a_password_is_in_no_message(postgres, dsn, caplog):
    secret = dsn.replace("penstock@", "penstock:hush%20hush@")
    sink = table(secret)
    caplog.set_level("DEBUG")
    report = await put(sink, {"n": 1})
    with pytest.raises(StoreError) as nobody:
        await put(table(secret.replace("penstock:", "nobody:")), {"n": 1})
    with pytest.raises(StoreError) as nowhere:
        runs(secret.replace(f":{postgres.port}", ":1"))
    said = [report, sink, runs(sink), nobody.value, nowhere.value, caplog.text, sink.journal.address]
    assert "hush" not in " ".join([*map(repr, said), *map(str, said)])
    assert "role" in str(nobody.value)


async def test_a_key_differs_in_every_row(dsn):
    sink = table(dsn, key="n")
    errors = await refused(
        sink, {"n": 1}, {"n": 2}, {"n": 1, "again": True}, {"again": True}, {"n": None}, {"n": 9, "again": True}
    )
    assert errors == [
        "RowError: the key column 'n' must differ in every row, got 1, which a row of root 0 has",
        "RowError: a row lacks the key column 'n', it has 'again'",
        "RowError: the key column 'n' must have a value in every row, got {'n': None}",
    ]
    two = penstock.keyed(["x"], key=str, name="two").flat_map(lambda _: [{"n": 7}, {"n": 7}], on_error="collect")
    await two.to(sink, run="two")
    assert "which another row of this root has" in dead_roots(sink, run="two")[0].letters[0].error
    with pytest.raises(StoreError, match=r"'again' cannot be the key of the table rows: .* have no value there"):
        table(dsn, key="again").open("process")
    with pytest.raises(StoreError, match="no column 'm', which is to be its key"):
        table(dsn, key="m").open("process")


async def test_rows_move_from_root_to_root_key_and_all(dsn):
    sink = table(dsn, key="n")

    async def run(*pairs, version):
        source = penstock.keyed(pairs, key=lambda pair: pair[0], version=lambda _: version, name="pairs")
        return await source.map(lambda pair: {"n": pair[1], "root": pair[0]}).to(sink, run="r")

    await run(("a", 1), ("b", 2), ("c", 3), version="1")
    report = await run(("a", 2), ("b", 3), ("c", 1), version="2")
    assert (report.redone, report.dead) == (3, 0)
    assert {row["root"]: row["n"] for row in sink.rows()} == {"a": 2, "b": 3, "c": 1}


async def test_a_root_with_more_rows_than_fit_in_memory_waits_in_the_database(dsn, monkeypatch):
    monkeypatch.setattr("penstock.durable.delivery.HELD", 500)
    sink = table(dsn)
    source = penstock.keyed(["a", "b"], key=str, name="big")
    report = await source.flat_map(lambda key: ({"key": key, "n": n} for n in range(5_000))).to(sink, run="r")
    assert report.rows == 10_000
    assert [(row["key"], row["n"]) for row in sink.rows()] == [(key, n) for key in "ab" for n in range(5_000)]


async def test_two_tables_of_one_schema_have_one_journal(postgres, dsn):
    await put(table(dsn, "one"), {"n": 1}, run="first")
    await put(table(dsn, "two"), {"n": 2}, run="second")
    assert [(run.name, run.sink) for run in runs(dsn)] == [("second", "table two"), ("first", "table one")]
    with pytest.raises(StoreError, match="the run 'first' is into table one, not into table two"):
        await put(table(dsn, "two"), {"n": 1}, run="first")
    assert forget(table(dsn, "one"), run="first", rows="remove").rows == 1
    postgres.ask(dsn, "CREATE TABLE theirs (n int)")
    with pytest.raises(StoreError, match="the table theirs was not made by a durable run"):
        await put(table(dsn, "theirs"), {"n": 1}, run="third")


async def test_rows_that_somebody_removed_are_told(postgres, dsn):
    sink = table(dsn)
    await put(sink, {"n": 1}, {"n": 2})
    postgres.ask(dsn, "DELETE FROM rows WHERE n = 1")
    assert redo(sink, run="r", which="missing rows").roots == 1
    assert (await put(sink, {"n": 1}, {"n": 2})).redone == 1
    postgres.ask(dsn, "DROP TABLE rows")
    with pytest.raises(StoreError, match="somebody has removed all rows of run 'r'"):
        await put(sink, {"n": 1}, {"n": 2})


async def test_letters_may_hold_what_postgres_cannot(dsn):
    async def spoil(pair):
        raise ValueError("a\0b")

    sink = table(dsn)
    source = penstock.keyed(["k\0ey", 5], key=lambda key: key, version=lambda _: "v\0", name="strange")
    await source.map(spoil, on_error="collect").to(sink, run="r")
    assert [(root.key, root.version, root.letters[0].error) for root in dead_roots(sink)] == [
        ("k\0ey", "v\0", "ValueError: a␀b"),
        (5, "v\0", "ValueError: a␀b"),
    ]
    assert len(discard(sink)) == 2


def numbers(count=200, *, gate=None, at=100):
    """A stream over numbers; at one of them `gate` is awaited."""

    async def row(number):
        if number == at and gate is not None:
            await gate()
        if number % 20 == 0:
            await asyncio.sleep(0.02)  # so that there are several commits
        return {"n": number}

    return penstock.keyed(range(count), key=int, name="numbers").map(row, concurrency=4, ordered=False)


def all_there(sink, count=200):
    assert sorted(row["n"] for row in sink.rows()) == list(range(count))


async def test_a_server_that_restarts_is_waited_for():
    with server() as own:
        sink = table(own.new())

        async def restart():
            await asyncio.to_thread(own.stop)
            await asyncio.to_thread(own.start)

        report = await numbers(gate=restart).to(sink, run="r")
        assert (report.delivered, report.dead) == (200, 0)
        all_there(sink)


async def test_a_server_that_does_not_come_back_ends_the_run_and_the_next_goes_on(monkeypatch):
    monkeypatch.setattr("penstock.durable.postgres.postgres_connection.PATIENCE", 0.3)
    with server() as own:
        sink = table(own.new())

        async def stop():
            await asyncio.to_thread(own.stop)

        with pytest.raises(StoreError, match=r"cannot connect: .* \(for 0 s\); the same run again goes on"):
            await numbers(gate=stop).to(sink, run="r")
        with pytest.raises(StoreError, match="cannot connect"):
            await numbers().to(sink, run="r")
        own.start()
        report = await numbers().to(sink, run="r")
        assert report.already_done + report.delivered == 200
        all_there(sink)


@pytest.mark.parametrize("cuts", [["before"], ["after"], ["before", "after"], ["", "after", "before"]], ids=str)
async def test_a_commit_whose_reply_is_lost_is_looked_up_before_anything_is_sent_again(dsn, cuts):
    """P10, trap of Postgres: the reply is lost, the rows are there; sent again blindly they stand twice."""
    with Cutting(dsn) as proxy:
        sink = table(proxy.dsn)

        async def cut():
            proxy.cuts = list(cuts)

        report = await numbers(gate=cut, at=20).to(sink, run="r")
        assert not proxy.cuts, "no COMMIT was cut"
        assert (report.delivered, report.dead) == (200, 0)
        all_there(table(dsn))


async def test_a_lost_commit_is_asked_about_until_there_is_an_answer(dsn, monkeypatch):
    """Trap: the connection is lost once more while it asks, and the transaction, which is committed, is done again."""
    come_back, failing = WritingSession._come_back, iter([True])

    def comes_back_later(session):
        if next(failing, False):
            raise LostTransactionError("lost once more")
        come_back(session)

    with Cutting(dsn) as proxy:

        async def cut():
            monkeypatch.setattr(WritingSession, "_come_back", comes_back_later)
            proxy.cuts = ["after"]

        report = await numbers(gate=cut, at=20).to(table(proxy.dsn), run="r")
        assert (report.delivered, report.dead, list(failing)) == (200, 0, [])
        all_there(table(dsn))


def test_a_server_that_crashed_gives_no_number_of_a_root_twice(postgres, dsn):
    """Trap: it forgets that a sequence went on, if that was not committed, and the writer still has the numbers."""
    with closing(table(dsn).open("process")) as store:
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.journal._numbers(1)
            raise ZeroDivisionError
        postgres.ask(dsn, "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory'")
        postgres.ask(dsn, "SELECT setval('penstock_numbers', 1, false)")  # as after a crash
        with store.transaction():
            (number,) = store.journal._numbers(1)
        ((others,),) = postgres.ask(dsn, "SELECT nextval('penstock_numbers')")
        assert number not in range(others, others + NUMBERS)


def test_savepoints_of_a_transaction_are_not_one_inside_the_other(dsn):
    """Trap: ten thousand of them took half a minute."""
    message = 'savepoint "penstock" does not exist'
    with closing(table(dsn).open("process")) as store, pytest.raises(StoreError, match=message), store.transaction():
        with store._session.savepoint():
            pass
        store._session.execute("ROLLBACK TO SAVEPOINT penstock")


def test_a_writer_that_was_taken_for_dead_commits_nothing_any_more(postgres, dsn):
    """Its session is gone, which it does not know yet, and another one has come and gone."""
    sink = table(dsn)
    with closing(sink.open("process")) as store:
        postgres.ask(dsn, "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory'")
        sink.open("process").close()
        with pytest.raises(HeldError, match="has taken it over"), store.transaction():
            pytest.fail("it may write")


def test_the_epoch_fences_a_writer_whose_session_is_alive(postgres, dsn):
    """A pooler may give two writers one session, and with it the lock."""
    with closing(table(dsn).open("process")) as store:
        postgres.ask(dsn, "UPDATE penstock_journal SET epoch = epoch + 1, holder = 'somebody'")
        with pytest.raises(HeldError, match="somebody has taken it over"), store.transaction():
            pytest.fail("it may write")


def test_a_database_that_has_gone_back_in_time_ends_the_run(postgres, dsn):
    """As one does whose standby took over without the last commits."""
    with closing(table(dsn).open("process")) as store:
        with store.transaction():
            pass
        postgres.ask(dsn, "UPDATE penstock_journal SET serial = serial - 1")
        with pytest.raises(StoreError, match="1 transactions that it had committed are not there"), store.transaction():
            pytest.fail("it may write")


async def test_a_second_run_is_told_who_holds_the_schema(dsn):
    sink = table(dsn)

    async def second():
        with pytest.raises(HeldError, match=rf"process {os.getpid()} on .* is writing to it, since 20"):
            await numbers().to(sink, run="other")

    await numbers(gate=second).to(sink, run="r")
    assert [run.name for run in runs(sink)] == ["r"]


PROGRAM = """
import asyncio, os, sys, time
import penstock
async def row(n):
    if n == 100:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        print("forked", flush=True)
        await asyncio.sleep(60)
    return {"n": n}
sink = penstock.PostgresTable(sys.argv[1], "rows")
source = penstock.keyed(range(200), key=int, name="numbers")
asyncio.run(source.map(row, concurrency=4, ordered=False).to(sink, run="r"))
"""


def test_a_child_of_a_killed_driver_does_not_keep_its_lock(dsn):
    driver = subprocess.Popen([sys.executable, "-c", PROGRAM, dsn], stdout=subprocess.PIPE, text=True)
    children = ""
    try:
        assert driver.stdout.readline() == "forked\n"
        children = "".join(each.read_text() for each in Path(f"/proc/{driver.pid}/task").glob("*/children"))
    finally:
        driver.kill()
        driver.wait()
        driver.stdout.close()
    try:
        report = asyncio.run(numbers().to(table(dsn), run="r", find_killers=False))
        assert report.already_done + report.delivered == 200
    finally:
        for child in children.split():
            os.kill(int(child), signal.SIGKILL)
    all_there(table(dsn))


async def test_the_loop_turns_while_the_server_is_slow(postgres, dsn):
    """A lock that somebody holds on the table keeps the writer, not the loop."""
    import psycopg  # noqa: PLC0415

    sink = table(dsn)
    await numbers(10).to(sink, run="before")
    locked, turns, free = threading.Event(), 0, threading.Event()

    def lock():
        with psycopg.connect(dsn) as other:
            other.execute("LOCK TABLE rows IN ACCESS EXCLUSIVE MODE")
            locked.set()
            free.wait(30)

    thread = threading.Thread(target=lock)
    thread.start()
    locked.wait(30)
    store_opened = asyncio.create_task(numbers(10).to(table(dsn, "others"), run="r"))
    while not store_opened.done():
        turns += 1
        await asyncio.sleep(0.001)
        if turns == 20:
            free.set()
    thread.join()
    assert (await store_opened).delivered == 10


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_a_run_has_each_row_once(seed):
    """P10, P11, a short form of `make kill-postgres`: seed 0 settles bundles of roots, seed 1 each root."""
    with server(SERVER) as own:
        made = Campaign(own, seed)
        made.run(6)
    assert (made.problems, made.lost, made.duplicated) == ([], 0, 0)
    assert made.kills + made.server_kills >= 6


def test_the_kills_find_a_run_that_notes_roots_as_done_before_it_has_their_rows(monkeypatch):
    """A wrong twin: the done keys are a transaction of their own."""

    def settle_before(self, *args, settle=PostgresJournal.settle):
        number = settle(self, *args)
        self._session.execute("COMMIT")
        self._session.execute("BEGIN")
        time_passes(0.02)
        return number

    monkeypatch.setattr(PostgresJournal, "settle", settle_before)
    with server(SERVER) as own:
        made = Campaign(own, 1)
        made.run(40)
    assert made.lost
