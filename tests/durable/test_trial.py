"""Ends of durable runs: a limit, doubled keys, a source that gave nothing, why roots died."""

import asyncio
import logging
import signal
import subprocess
import sys

import pytest

import penstock
from penstock import SqliteTable, durable
from penstock.durable.causes import Causes

pytestmark = [pytest.mark.real_time, pytest.mark.slow]


@pytest.fixture
def table(tmp_path):
    return SqliteTable(tmp_path / "t.db", "t")


def numbers(count, made=None, **options):
    def row(number):
        if made is not None:
            made.append(number)
        return {"n": number}

    return penstock.keyed(range(count), key=int).map(row, name="row", **options)


def stored(table):
    return sorted(row["n"] for row in table.rows())


# limit


@pytest.mark.quick
@pytest.mark.parametrize("options", [{}, {"concurrency": 3}, {"concurrency": 4, "ordered": False}], ids=str)
async def test_a_limited_run_does_so_many_and_the_next_goes_on(table, options):
    made = []
    stream = numbers(10, made, engine="inline", **options)
    report = await stream.to(table, run="r", limit=4)
    assert (report.delivered, report.already_done, report.limited, report.complete) == (4, 0, True, False)
    assert (stored(table), made) == ([0, 1, 2, 3], [0, 1, 2, 3])
    assert str(report).endswith("(ended by its limit: run it again to go on)")
    assert durable.runs(table.path)[0].state == "stopped"
    report = await stream.to(table, run="r", limit=4)
    assert (report.delivered, report.already_done, report.limited) == (4, 4, True)
    report = await stream.to(table, run="r", limit=4)
    assert (report.delivered, report.already_done, report.limited, report.complete) == (2, 8, False, True)
    assert made == [*range(10)]


async def test_the_source_is_read_no_further_than_the_limit(table):
    read = []

    async def source():
        for number in range(100):
            read.append(number)
            yield number

    report = await penstock.keyed(source, key=int).map(lambda n: {"n": n}, concurrency=8).to(table, run="r", limit=5)
    assert (report.delivered, read) == (5, [0, 1, 2, 3, 4])


async def test_a_limit_counts_roots_that_die_and_those_without_rows(table):
    def rows(number):
        if number == 1:
            raise ValueError(number)
        return [{"n": number}] * (number % 3)

    stream = penstock.keyed(range(9), key=int).flat_map(rows, on_error="collect")
    report = await stream.to(table, run="r", limit=4)
    assert (report.delivered, report.dead, report.limited) == (3, 1, True)
    report = await stream.to(table, run="r", limit=4)
    assert (report.delivered, report.dead, report.dead_before) == (4, 0, 1)


async def test_a_limit_ends_sources_that_wait(table):
    """Two sources share it; one of them would wait for ever."""

    async def silent():
        await asyncio.Event().wait()
        yield 0

    both = penstock.keyed(range(9), key=int).merge(penstock.keyed(silent, key=int, name="silent"))
    report = await both.map(lambda n: {"n": n}).to(table, run="r", limit=3)
    assert (report.delivered, report.limited) == (3, True)


async def test_a_limited_run_removes_nothing_and_drops_no_memo(table):
    calls = []

    def row(number):
        calls.append(number)
        return {"n": number}

    stream = numbers(6).map(dict, memo=True, name="kept")
    await stream.to(table, run="r")
    report = await penstock.keyed([9, 10], key=int).map(row).to(table, run="r", limit=1, on_missing="delete_all")
    assert (report.missing, report.removed, stored(table)) == (0, 0, [0, 1, 2, 3, 4, 5, 9])


async def test_changed_roots_count_for_a_limit(table):
    await numbers(3).to(table, run="r")
    changed = penstock.keyed(range(5), key=int, version=lambda _: "2").map(lambda n: {"n": -n}, name="row")
    report = await changed.to(table, run="r", limit=2)
    assert (report.redone, report.delivered, stored(table)) == (2, 2, [-1, 0, 2])


async def test_a_root_that_waits_for_one_beyond_the_limit_is_named(tmp_path, caplog):
    """Two swap their keys: either waits for the other, so that a run of one root comes nowhere, and says so."""
    table = SqliteTable(tmp_path / "t.db", "t", key="n")

    def swapped(version, **options):
        source = penstock.keyed([0, 1], key=int, version=lambda _: str(version))
        return source.map(lambda key: {"n": (key + version) % 2}, name="row").to(table, run="r", **options)

    await swapped(0)
    with caplog.at_level(logging.WARNING, "penstock"):
        report = await swapped(1, limit=1)
    assert (report.delivered, report.limited, stored(table)) == (0, True, [0, 1])
    assert (
        "1 root with the keys of rows that roots beyond the limit have, root 0 among them, are not done" in caplog.text
    )
    report = await swapped(1, limit=2)
    assert (report.delivered, report.limited, stored(table)) == (2, True, [0, 1])
    assert (await swapped(1)).complete


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "3"])
async def test_a_bad_limit_is_refused(table, limit):
    with pytest.raises(penstock.OptionError, match="limit must be an int >= 1, got"):
        await numbers(3).to(table, run="r", limit=limit)


PROGRAM = """
import asyncio, os, sys
import penstock

def row(number):
    if number in {7, 23} and not os.path.exists(f"{sys.argv[1]}.{number}"):
        open(f"{sys.argv[1]}.{number}", "w").close()
        os.kill(os.getpid(), 9)
    return [{"n": number, f"c{number % 5}": number}] * 2

async def main():
    stream = penstock.keyed([*range(40), 3, 23], key=int).flat_map(row, concurrency=int(sys.argv[2]), engine="inline")
    report = await stream.to(penstock.SqliteTable(sys.argv[1], "t"), run="r", limit=6, on_duplicate="first")
    print(report.delivered, report.complete)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 4])
def test_limited_runs_that_are_killed_come_to_the_end(tmp_path, concurrency):
    """Limit, kill, doubled keys and new columns together: each row is there once, whatever was cut off."""
    path, codes = tmp_path / "t.db", []
    for _ in range(20):
        command = [sys.executable, "-c", PROGRAM, str(path), str(concurrency)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        codes.append(done.returncode)
        if done.stdout.endswith("True\n"):
            break
        assert done.returncode in {0, -signal.SIGKILL}, done.stderr
        if not done.returncode:
            assert done.stdout == "6 False\n"
    assert codes.count(-signal.SIGKILL) == 2
    assert codes[-1] == 0
    rows = list(SqliteTable(path, "t").rows())
    assert sorted(row["n"] for row in rows) == sorted([*range(40)] * 2)
    assert all(row[f"c{row['n'] % 5}"] == row["n"] for row in rows)


# on_duplicate


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_of_items_with_one_key_the_first_may_stand(table, concurrency):
    items = [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5), ("a", 6)]
    source = penstock.keyed(items, key=lambda item: item[0], version=lambda item: str(item[1]))
    stream = source.map(lambda item: {"n": item[1]}, concurrency=concurrency, engine="inline")
    with pytest.raises(penstock.DuplicateKeyError):
        await stream.to(table, run="r")
    for already in (False, True):
        report = await stream.to(table, run="r", on_duplicate="first")
        assert (report.complete, report.duplicates, stored(table)) == (True, 3, [1, 2, 4])
        assert (report.delivered == 0) == already
        assert "3 duplicates dropped" in str(report)


async def test_a_doubled_key_of_a_root_that_is_committed_or_dead_is_one_too(table):
    async def source():
        yield 1
        while not durable.runs(table.path)[0].dead:  # noqa: ASYNC110 -- a database has nobody to tell
            await asyncio.sleep(0)
        yield 1
        yield 2

    def row(number):
        if number == 1:
            raise ValueError
        return {"n": number}

    stream = penstock.keyed(source, key=int).map(row, on_error="collect")
    report = await stream.to(table, run="r", on_duplicate="first")
    assert (report.delivered, report.dead, report.duplicates) == (1, 1, 1)


async def test_keys_of_merged_sources_are_not_the_same(table):
    one, two = (penstock.keyed([1, 2, 1], key=int, name=name) for name in "ab")
    report = await one.merge(two).map(lambda n: {"n": n}).to(table, run="r", on_duplicate="first")
    assert (report.delivered, report.duplicates, stored(table)) == (4, 2, [1, 1, 2, 2])


async def test_duplicates_do_not_count_for_a_limit(table):
    stream = penstock.keyed([1, 1, 1, 2, 1, 3], key=int).map(lambda n: {"n": n})
    report = await stream.to(table, run="r", on_duplicate="first", limit=2)
    assert (report.delivered, report.duplicates, report.limited) == (2, 2, True)
    report = await stream.to(table, run="r", on_duplicate="first", limit=2)
    assert (report.delivered, report.duplicates, report.complete) == (1, 3, True)


async def test_bad_words_for_duplicates_are_refused(table):
    with pytest.raises(penstock.OptionError, match="on_duplicate must be one of 'refuse', 'first', got 'last'"):
        await numbers(3).to(table, run="r", on_duplicate="last")


# on_missing of a source that gave nothing


async def test_a_source_that_gave_nothing_removes_nothing_unless_told(table, caplog):
    await numbers(3).to(table, run="r")
    with caplog.at_level(logging.WARNING, "penstock"):
        report = await numbers(0).to(table, run="r", on_missing="delete")
    assert (report.removed, report.missing, report.unread, stored(table)) == (0, 0, 1, [0, 1, 2])
    assert 'gave nothing at all, so its rows are kept; on_missing="delete_all" removes' in caplog.text
    report = await numbers(0).to(table, run="r")
    assert (report.missing, report.removed) == (3, 0)
    report = await numbers(0).to(table, run="r", on_missing="delete_all")
    assert (report.removed, report.complete, stored(table)) == (3, True, [])
    caplog.clear()
    report = await numbers(0).to(table, run="r", on_missing="delete")
    assert (report.unread, caplog.text) == (0, "")


@pytest.mark.parametrize("kind", ["jsonl", "rows", "generator"])
async def test_so_does_one_of_any_kind(tmp_path, table, kind):
    path = tmp_path / "in.jsonl"
    path.write_text('{"n": 1}\n{"n": 2}\n')
    given = [1, 2]

    def source():
        return iter(given)

    def stream():
        if kind == "jsonl":
            return penstock.jsonl(path)
        if kind == "rows":
            return penstock.rows(SqliteTable(tmp_path / "in.db", "t").path, "SELECT n FROM t", key="n")
        return penstock.keyed(source, key=int).map(lambda n: {"n": n})

    inner = SqliteTable(tmp_path / "in.db", "t")
    await penstock.keyed([1, 2], key=int).map(lambda n: {"n": n}).to(inner, run="in")
    await stream().map(lambda row: {"n": row["n"]}, name="row").to(table, run="r")
    path.write_text("")
    given.clear()
    await penstock.keyed([], key=int).map(lambda n: {"n": n}).to(inner, run="in", on_missing="delete_all")
    report = await stream().map(lambda row: {"n": row["n"]}, name="row").to(table, run="r", on_missing="delete")
    assert (report.removed, stored(table)) == (0, [1, 2])


async def test_one_of_merged_sources_that_gave_nothing_keeps_its_own(table):
    def both(one, two):
        sources = [penstock.keyed(keys, key=int, name=name) for keys, name in ((one, "a"), (two, "b"))]
        return sources[0].merge(sources[1]).map(lambda n: {"n": n})

    await both([1, 2], [3, 4]).to(table, run="r")
    report = await both([1], []).to(table, run="r", on_missing="delete")
    assert (report.missing, report.removed, report.unread, stored(table)) == (1, 1, 1, [1, 3, 4])
    report = await both([1], []).to(table, run="r", on_missing="delete_all")
    assert (report.removed, stored(table)) == (2, [1])


# Why roots died


async def test_the_report_says_why_roots_died(table):
    async def row(number):
        if number % 2:
            raise ConnectionError(f"host {number}.example: timed out after {number * 1000} ms")
        if number in {4, 8}:
            raise ValueError(f"no {number!r} in 'list {number}'")
        return {"n": 2j if number == 6 else number}

    stream = penstock.keyed(range(10), key=int).map(row, name="fetch", on_error="collect", concurrency=3)
    report = await stream.to(table, run="r")
    assert report.dead == 8
    counts = [(cause.count, cause.stage, cause.key) for cause in report.causes]
    assert counts == [(5, "fetch", 1), (2, "fetch", 4), (1, "SqliteTable", 6)]
    assert report.causes[0].error == "ConnectionError: host 1.example: timed out after 1000 ms"
    assert "5 x ConnectionError: host 1.example: timed out after 1000 ms (stage 'fetch', as in 1); 2 x " in str(report)
    again = await stream.to(table, run="r")
    assert (again.dead_before, again.causes) == (8, ())


def test_errors_are_alike_that_differ_in_what_varies():
    for one, two, alike in (
        ("ValueError: item 12", "ValueError: item 13", True),
        ("ValueError: 'a' is bad", "ValueError: 'b c' is bad", True),
        ('KeyError: "x"', 'KeyError: "y"', True),
        ("E: GET https://a.example/x?y=1 failed", "E: GET http://b.example failed", True),
        ("E: 404 Not Found", "E: 500 Server Error", False),
        ("E: status 404", "E: status 500", False),
        ("E: one", "F: one", False),
        ("E: one\ntwo", "E: one\nthree", True),
        ("E: one", "E: two", False),
    ):
        causes = Causes()
        causes.add(one, "s", 1)
        causes.add(two, "s", 2)
        assert (len(causes.commonest()) == 1) == alike, (one, two)


def test_causes_take_bounded_memory():
    causes = Causes()
    words = ["".join("abcdefghij"[int(digit)] for digit in str(number)) for number in range(5_000)]
    for number, word in enumerate(words):
        causes.add(f"ValueError: {word} " + "x" * 10_000, "s", number)
    found = causes.commonest(10_000)
    assert len(found) <= 1_001
    assert sum(cause.count for cause in found) == 5_000
    assert found[0].count >= 3_999
    assert all(len(cause.error) <= 300 for cause in found)
    assert len(causes.commonest()) == 10


async def test_an_error_that_cannot_be_told_is_a_cause_too(table):
    class Rude(Exception):
        def __str__(self):
            raise RuntimeError

    def row(number):
        raise Rude(number)

    report = await penstock.keyed([1, 2], key=int).map(row, on_error="collect").to(table, run="r")
    assert [(cause.error, cause.count) for cause in report.causes] == [
        ("Rude: <Rude, whose str raised RuntimeError>", 2)
    ]
