"""`penstock.jsonl`: lines of JSON, known by where they begin."""

import json
import logging
import os

import pytest

import penstock
from penstock.sinks.table import SqliteTable
from penstock.testing import FakeClient

pytestmark = pytest.mark.real_time


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


@pytest.fixture
def table(tmp_path):
    return SqliteTable(tmp_path / "out.db", "events")


def append(path, *lines, end=b"\n"):
    with path.open("ab") as file:
        file.write(end.join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + end)


def stored(table):
    return [row["value"] for row in table.rows()]


def run(path, table, **options):
    return penstock.jsonl(path, **options).map(lambda value: {"value": value}).to(table, run="r")


async def test_items_are_the_values_of_the_lines(path):
    append(path, {"a": 1}, [2], "three", 4.5, None, False, "\u2028\xe9")
    values = await penstock.jsonl(path).to_list()
    assert values == [{"a": 1}, [2], "three", 4.5, None, False, "\u2028\xe9"]


async def test_empty_lines_a_byte_order_mark_and_crlf_are_no_matter(path):
    path.write_bytes(b"\xef\xbb\xbf\r\n\r\n1\r\n  \t\n\n 2 \n")
    assert await penstock.jsonl(path).to_list() == [1, 2]
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    assert await penstock.jsonl(path).to_list() == [{"a": 1}]
    path.write_bytes(b"")
    assert await penstock.jsonl(path).to_list() == []


async def test_lines_that_are_appended_are_new(path, table):
    append(path, 1, 2)
    assert (await run(path, table)).delivered == 2
    append(path, 2, 1)
    report = await run(path, table)
    assert (report.delivered, report.already_done) == (2, 2)
    assert stored(table) == [1, 2, 2, 1]


async def test_an_edited_line_is_done_again(path, table):
    append(path, 11, 22, 33)
    await run(path, table)
    path.write_bytes(b"11\n99\n33\n")
    report = await run(path, table)
    assert (report.redone, report.already_done) == (1, 2)
    assert sorted(stored(table)) == [11, 33, 99]


@pytest.mark.parametrize(("on_missing", "rows"), [("keep", [1, 3, 22, 3]), ("delete", [1, 22, 3])])
async def test_behind_a_line_of_another_length_all_is_new(path, table, on_missing, rows):
    """Keys are offsets: rows under those of before stay, or go as missing; with `memo`, no call is made again."""
    client = FakeClient(delay=0, reply=lambda value: {"value": value})
    stream = penstock.jsonl(path).map(client, memo=True, deps="client")
    append(path, 1, 2, 3)
    await stream.to(table, run="r", on_missing=on_missing)
    path.write_bytes(b"1\n22\n3\n")
    report = await stream.to(table, run="r", on_missing=on_missing)
    assert (report.delivered, report.already_done, report.missing) == (2, 1, 1)
    assert (report.recalled, client.calls) == (1, [1, 2, 3, 22])
    assert stored(table) == rows


async def test_a_torn_last_line_waits_for_the_next_run(path, table, caplog):
    """It may be half of what it is going to be, also where it is JSON: `1` of `12`."""
    append(path, 7)
    with path.open("ab") as file:
        file.write(b"1")
    with caplog.at_level(logging.WARNING, "penstock"):
        await run(path, table)
    assert stored(table) == [7]
    assert f"{path}, line 2: has no newline yet: left for the next run" in caplog.text
    append(path, b"2")
    await run(path, table)
    assert stored(table) == [7, 12]


async def test_a_file_that_does_not_grow_may_end_without_a_newline(path, table):
    path.write_bytes(b"1\n2")
    assert (await run(path, table, growing=False)).delivered == 2
    append(path, b"")
    assert (await run(path, table)).already_done == 2  # the newline is no part of the line


async def test_a_line_that_was_done_and_is_torn_now_is_not_missing(path, table):
    path.write_bytes(b"1\n2")
    await run(path, table, growing=False)
    report = await penstock.jsonl(path).map(lambda value: {"value": value}).to(table, run="r", on_missing="delete")
    assert (report.missing, stored(table)) == (0, [1, 2])


@pytest.mark.parametrize("merged", [False, True])
async def test_what_lies_behind_a_torn_line_is_not_missing_and_nothing_else_is_spared(path, table, merged):
    """The file is being written anew: what lay behind may come again; keys of lines are no texts."""
    path.write_bytes(b"\n" * 5 + b"1\n\n\n" + b"2\n" * 100)

    def deliver(**options):
        lines = penstock.jsonl(path)
        lines = lines.merge(penstock.keyed([], key=str)) if merged else lines
        return lines.map(lambda value: {"value": value}).to(table, run="r", **options)

    assert (await deliver()).delivered == 101
    path.write_bytes(b"\n" * 50 + b"2")
    report = await deliver(on_missing="delete")
    assert (report.unread, report.missing, report.removed) == (1, 22, 22)
    assert stored(table) == [2] * 79


async def test_a_file_that_was_cut_has_missing_lines(path, table):
    append(path, 1, 2, 3)
    await run(path, table)
    path.write_bytes(b"1\n")
    assert (await run(path, table)).missing == 2


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1,}', r"column \d+: not JSON: "),
        (b"{'a': 1}", r"column 2: not JSON: expecting property name"),
        (b"1 2", r"column 3: not JSON: extra data"),
        (b'"caf\xe9"', r"column 5: not UTF-8"),
        (b"[" * 100_000, r"nested too deeply"),
        (b"1" * 5_000, r"Exceeds the limit"),
        (b"\xff\xfe1\x00", r"column 1: not UTF-8"),
    ],
)
async def test_a_line_that_is_no_json_is_named_with_its_file_and_column(path, line, reason):
    append(path, 1, b"", line, 2)
    with pytest.raises(penstock.SourceError, match=rf"events\.jsonl, line 3, {reason}"):
        await penstock.jsonl(path).drain()
    assert await penstock.jsonl(path, on_error="skip").to_list() == [1, 2]


async def test_a_bad_line_can_be_set_aside_and_is_done_when_it_was_mended(path, table):
    append(path, 1, b"{}}", 3)
    report = await run(path, table, on_error="collect")
    assert (report.delivered, report.dead) == (2, 1)
    report = await run(path, table, on_error="collect")
    assert (report.already_done, report.dead_before) == (2, 1)
    path.write_bytes(b"1\n222\n3\n")
    report = await run(path, table, on_error="collect")
    assert (report.redone, report.already_done, sorted(stored(table))) == (1, 2, [1, 3, 222])


async def test_a_line_longer_than_allowed_is_not_read(path):
    append(path, b"12345", b"123456")
    assert await penstock.jsonl(path, max_line=6).to_list() == [12345, 123456]
    with pytest.raises(penstock.SourceError, match=r"line 2: longer than 5 bytes \(max_line\)"):
        await penstock.jsonl(path, max_line=5).drain()


async def test_long_lines_are_not_read_far_ahead(path, peak):
    """A few megabytes of lines at most, however many lines that is."""
    line = json.dumps("x" * 1_000_000).encode()
    append(path, *[line] * 60)
    with peak() as grown:
        assert await penstock.jsonl(path).map(len).to_list() == [1_000_000] * 60
    assert grown() < 25_000_000


@pytest.fixture
def peak():
    """The most bytes that Python held in a block, beyond those at its beginning."""
    import tracemalloc  # noqa: PLC0415 -- it slows down whatever imports it for use
    from contextlib import contextmanager  # noqa: PLC0415

    @contextmanager
    def measured():
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        try:
            yield lambda: most - before
        finally:
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()

    return measured


async def test_a_missing_file_is_named(path):
    with pytest.raises(penstock.SourceError, match=r"events\.jsonl: no such file or directory"):
        await penstock.jsonl(path).drain()


@pytest.mark.parametrize("growing", [False, True])
async def test_lines_that_end_with_a_carriage_return_alone_are_refused(path, growing):
    """The file is one long line, which would be left for the next run, again and again."""
    path.write_bytes(b'{"a": 1}\r{"a": 2}\r')
    with pytest.raises(penstock.SourceError, match=r"line 1: lines end with a carriage return alone"):
        await penstock.jsonl(path, growing=growing).drain()


async def test_a_half_written_line_may_have_carriage_returns(path):
    path.write_bytes(b'{"a": 1}\r\n{"a":\r 2}\r')
    assert await penstock.jsonl(path).to_list() == [{"a": 1}]


async def test_a_file_may_have_a_name_that_is_no_utf_8(tmp_path, table):
    path = tmp_path / os.fsdecode(b"\xe9.jsonl")
    append(path, {"a": 1})
    assert (await penstock.jsonl(path).to(table, run="r")).complete


async def test_a_run_keeps_to_its_file(path, table, tmp_path):
    append(path, 1)
    await run(path, table)
    other = tmp_path / "other.jsonl"
    append(other, 1)
    with pytest.raises(penstock.PenstockError, match=r"is over jsonl .*events\.jsonl, not over jsonl .*other\.jsonl"):
        await run(other, table)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": None}, "path must be a path, got None"),
        ({"growing": 1}, "growing must be True or False, got 1"),
        ({"max_line": 0}, "max_line must be an int >= 1, got 0"),
        ({"on_error": "retry"}, "on_error must be one of"),
    ],
)
def test_options_are_checked_when_the_stream_is_made(options, message):
    with pytest.raises(penstock.OptionError, match=message):
        penstock.jsonl(**({"path": "events.jsonl"} | options))
