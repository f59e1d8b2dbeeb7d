# ruff: noqa: ASYNC240 -- nothing else runs meanwhile
"""`JsonLines`: rows as lines of a file, exactly once."""

import asyncio
import errno
import json
import logging
import os
import shutil
import tempfile
from contextlib import closing
from datetime import date
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest

import penstock
from penstock.durable import HeldError, StoreError, StoreFullError, dead_roots, forget, redo, runs
from penstock.sinks import json_lines, sqlite_store

from ..durable.dying import life  # noqa: TID252 -- tests are no package to name
from .stepping_outside import Steps

pytestmark = pytest.mark.real_time


@pytest.fixture
def sink(tmp_path):
    return penstock.JsonLines(tmp_path / "out.jsonl")


def words(texts, *, each=2):
    """A stream of `each` rows for every key of a mapping to versions."""
    source = penstock.keyed(list(texts), key=str, version=lambda key: texts[key], name="words")
    return source.map(lambda key: [{"key": key, "text": texts[key], "at": at} for at in range(each)]).flatten()


def run(sink, texts, *, each=2, **options):
    return words(texts, each=each).to(sink, run="r", **options)


def lines(sink):
    return [(row["key"], row["text"], row["at"]) for row in map(json.loads, Path(sink.file).read_text().splitlines())]


def expected(texts, *, each=2):
    return [(key, text, at) for key, text in texts.items() for at in range(each)]


async def test_rows_are_lines_and_a_second_run_adds_none(sink):
    texts = {"a": "1", "b": "1"}
    report = await run(sink, texts)
    assert (report.delivered, report.rows, report.guarantee) == (2, 4, "exactly once")
    assert lines(sink) == expected(texts)
    assert (await run(sink, texts)).already_done == 2
    assert (await run(sink, texts | {"c": "1"})).delivered == 1
    assert lines(sink) == expected(texts | {"c": "1"})
    assert [(row["key"], row["at"]) for row in sink.rows()] == [(key, at) for key in "abc" for at in (0, 1)]
    assert [(each.name, each.done, each.rows) for each in runs(sink)] == [("r", 3, 6)]


async def test_whatever_json_has_is_a_row(sink):
    values = [None, True, -1, 1.5, "a\nb\u2028\x85\r\0\U0001f600", [1, [2]], {"a": {"b": []}}, {}, "", float("nan")]
    others = [{"day": date(2026, 1, 2), "price": Decimal("1.10")}, penstock.sinks.Found("k", 1.0, {})]
    await penstock.keyed(values + others, key=str).to(sink, run="r")
    told = [json.loads(line) for line in Path(sink.file).read_bytes().split(b"\n")[:-1]]
    assert told == list(sink.rows())
    assert told == [
        *values[:-1],
        None,
        {"day": "2026-01-02", "price": "1.10"},
        {"key": "k", "score": 1.0, "row": {}},
    ]


@pytest.mark.parametrize("row", [b"bytes", object(), "\ud800", {"a": {1: b""}}, float("inf"), [{1j}]])
async def test_what_json_cannot_hold_is_the_failure_of_its_root(sink, row):
    source = penstock.keyed(["a", "b"], key=str).map(lambda key: {"key": key} if key == "a" else row)
    assert (await source.to(sink, run="r", on_error="collect")).dead == 1
    assert list(sink.rows()) == [{"key": "a"}]
    assert dead_roots(sink)[0].letters[0].error.startswith("RowError: a row must be what JSON can hold, got ")


async def test_a_changed_root_replaces_its_lines_and_one_that_is_gone_loses_them(sink):
    await run(sink, {"a": "1", "b": "1", "c": "1", "d": "1"})
    os.chmod(sink.file, 0o640)  # noqa: PTH101 -- a path as the sink has it
    await run(sink, {"a": "1", "b": "22", "d": "1"}, on_missing="delete")
    assert lines(sink) == expected({"a": "1", "d": "1", "b": "22"})
    assert os.stat(sink.file).st_mode & 0o777 == 0o640  # noqa: PTH116 -- as above
    assert redo(sink, run="r", which="missing rows").roots == 0
    await run(sink, {"a": "", "b": "22", "d": "1"}, each=0)
    assert lines(sink) == expected({"d": "1", "b": "22"})


async def test_a_run_can_be_forgotten_with_its_lines_or_without(sink):
    await run(sink, {"a": "1"})
    await words({"b": "1"}).to(sink, run="s")
    forget(sink, run="r", rows="remove")
    assert lines(sink) == expected({"b": "1"})
    forget(sink, run="s", rows="keep")
    assert lines(sink) == expected({"b": "1"})
    await run(sink, {"c": "1"})
    assert lines(sink) == expected({"b": "1", "c": "1"})


async def test_a_large_root_needs_no_memory_of_its_size(sink, monkeypatch):
    """Its lines go to the journal in parts, and from there to the file."""
    monkeypatch.setattr(json_lines, "_PART", 1_000)
    await run(sink, {"a": "x" * 500, "b": "y" * 5_000}, each=20)
    assert lines(sink) == expected({"a": "x" * 500, "b": "y" * 5_000}, each=20)
    await run(sink, {"a": "z", "b": "y" * 5_000}, each=20)
    assert lines(sink) == expected({"b": "y" * 5_000, "a": "z"}, each=20)


async def test_the_file_and_its_journal_may_move_together(sink, tmp_path, monkeypatch):
    await run(sink, {"a": "1"})
    shutil.move(tmp_path, tmp_path.with_name("moved"))
    tmp_path.mkdir()
    monkeypatch.chdir(tmp_path.with_name("moved"))
    assert (await run(penstock.JsonLines("out.jsonl"), {"a": "1"})).already_done == 1
    other = penstock.JsonLines("out.jsonl", journal="sub.db")
    assert other.identity == penstock.JsonLines("./out.jsonl", journal="./sub.db").identity == "lines out.jsonl"
    with pytest.raises(StoreError, match="holds what no run has written: give the name of a new file"):
        await run(other, {"a": "1"})


def torn(path):
    with path.open("ab") as file:
        file.write(b'{"key": "half a li')


def appended(path):
    with path.open("ab") as file:
        file.write(b'{"key": "of others"}\n')


def appended_without_newline(path):
    with path.open("ab") as file:
        file.write(b'{"key": "of others"}')


def cut(path):
    os.truncate(path, path.stat().st_size - 3)


def edited(path):
    path.write_bytes(path.read_bytes().replace(b'"b"', b'"x"'))


def removed(path):
    path.unlink()


def linked(path):
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def named_twice(path):
    path.with_name("other").hardlink_to(path)


def piped(path):
    path.unlink()
    os.mkfifo(path)


async def test_half_a_line_at_the_end_is_cut_off_and_said(sink, caplog):
    await run(sink, {"a": "1"})
    torn(Path(sink.file))
    with caplog.at_level(logging.WARNING, "penstock"):
        await run(sink, {"a": "1", "b": "1"})
    assert "cut off half a line at its end, 18 bytes" in caplog.text
    assert lines(sink) == expected({"a": "1", "b": "1"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (appended, r"others have changed it: there are lines behind the \d+ bytes that were written; put it back, or"),
        (appended_without_newline, "there are lines behind"),
        (cut, r"it lacks 3 of its \d+ bytes"),
        (edited, "its last lines are not those that were written"),
        (removed, r"it lacks (\d+) of its \1 bytes"),
        (linked, "a symbolic link: give the file itself"),
        (named_twice, r"has 2 names \(hard links\): it must have one"),
        (piped, "not a regular file"),
    ],
)
async def test_a_file_that_others_have_changed_is_refused_and_stays_as_it_is(sink, change, message):
    path = Path(sink.file)
    await run(sink, {"a": "1", "b": "1"})
    change(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError, match=message):
        await run(sink, {"a": "1", "b": "2"})
    if before is not None:
        assert path.read_bytes() == before


async def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"out\.jsonl: its directory does not exist"):
        await run(penstock.JsonLines(tmp_path / "no" / "out.jsonl"), {"a": "1"})
    (tmp_path / "d").mkdir()
    with pytest.raises(StoreError, match="d: not a regular file"):
        await run(penstock.JsonLines(tmp_path / "d"), {"a": "1"})
    (tmp_path / "old.jsonl").write_text("{}\n")
    with pytest.raises(StoreError, match="holds what no run has written"):
        await run(penstock.JsonLines(tmp_path / "old.jsonl"), {"a": "1"})
    assert (tmp_path / "old.jsonl").read_text() == "{}\n"
    for bad in ({"path": 1}, {"path": "a\0b"}, {"path": "a", "journal": "./a"}, {"path": "a", "journal": ":memory:"}):
        with pytest.raises(penstock.OptionError):
            penstock.JsonLines(**bad)


async def test_one_run_at_a_time(sink):
    await run(sink, {"a": "1"})
    with closing(sink.open("process")), pytest.raises(HeldError):
        await run(penstock.JsonLines(sink.file), {"a": "1"})


async def test_somebody_who_writes_meanwhile_ends_the_run_and_keeps_what_he_wrote(sink):
    def write(key):
        if key == "b":
            appended(Path(sink.file))
        return {"key": key, "text": "", "at": 0}

    await run(sink, {"a": "1"})
    with pytest.raises(StoreError, match="others have changed it"):
        await penstock.keyed(["a", "b"], key=str, name="words").map(write).to(sink, run="r")
    assert b"of others" in Path(sink.file).read_bytes()


async def test_a_full_disk_ends_the_run_and_the_next_one_completes_it(sink, monkeypatch):
    """What is committed is brought to the file once there is room."""
    room = 150

    class Disk:
        def __getattr__(self, name):
            return getattr(os, name)

        def pwrite(self, file, data, place):
            if place + len(data) > room:
                if place >= room:
                    raise OSError(errno.ENOSPC, "No space left on device")
                data = data[: room - place]
            return os.pwrite(file, data, place)

    texts = dict.fromkeys("abcdef", "1")
    monkeypatch.setattr(json_lines, "os", Disk())
    with pytest.raises(StoreFullError, match=r"out\.jsonl: the disk is full"):
        await run(sink, texts)
    assert Path(sink.file).stat().st_size == room
    with pytest.raises(StoreFullError):
        await run(sink, texts)
    monkeypatch.undo()
    report = await run(sink, texts)
    assert report.already_done + report.delivered == 6
    assert lines(sink) == expected(texts)


async def test_zeros_where_a_power_failure_lost_blocks_are_written_again(sink, monkeypatch):
    """The system had noted the size of the file and not written its blocks."""
    monkeypatch.setattr(
        json_lines, "_write", lambda file, data, place: os.ftruncate(file, place + len(data) - 5) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        await run(sink, {"a": "1"}, durability="power")
    monkeypatch.undo()
    assert Path(sink.file).read_bytes().strip(b"\0") == b""
    await run(sink, {"a": "1"}, durability="power")
    assert lines(sink) == expected({"a": "1"})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_file_of_somebody_else_is_named():
    async def main():
        os.setgid(65534)
        os.setuid(65534)
        with pytest.raises(StoreError, match=r"out\.jsonl: permission denied"):
            await run(penstock.JsonLines(path), {"a": "1"})

    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # noqa: PTH101 -- for everybody
        path = Path(folder, "out.jsonl")
        path.touch(0o600)
        assert life(main) == 0


FIRST = {"a": "1", "b": "1", "c": "1", "d": "1"}
SECOND = {"a": "1", "b": "22", "d": "1", "e": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["process", "power"])
def test_killed_at_any_step_the_file_has_each_line_once(memory, durability):
    """P11: before a call of the system, in the middle of a write, before and after a commit; also twice in a row."""

    def live(sink, texts, dies_at):
        async def main():
            steps.watch()
            sqlite_store.LARGEST = 4  # some commits, not one
            await run(sink, texts, durability=durability, on_missing="delete")

        steps = Steps(dies_at)
        return life(main)

    deaths, each = ((1, 0), 1) if durability == "process" else ((1, 1, 0), 3)
    for n in count(1, each):
        sink = penstock.JsonLines(memory / f"{n}.jsonl")
        died = 0
        for texts in (FIRST, SECOND):
            for dies in deaths:
                code = live(sink, texts, n * dies)
                died += code != 0
                there = _whole_lines(sink)
                assert len(there) == len(set(there)), (n, texts)
                assert set(there) <= set(expected(FIRST) + expected(SECOND))
            assert sorted(lines(sink)) == sorted(expected(texts)), n
            assert [tuple(row.values()) for row in sink.rows()] == lines(sink)
        if not died:
            break
    assert n > 25


def _whole_lines(sink):
    path = Path(sink.file)
    data = path.read_bytes() if path.exists() else b""
    return [tuple(json.loads(line).values()) for line in data.split(b"\n")[:-1]]


def test_a_follower_sees_only_what_is_committed(tmp_path):
    """A line that was seen is never taken back, whenever the run is killed: it is committed before it is written."""
    sink = penstock.JsonLines(tmp_path / "out.jsonl")

    def die(*_):
        os.kill(os.getpid(), 9)

    async def main():
        json_lines._write = die
        await run(sink, {"a": "1"})

    assert life(main) == -9
    assert Path(sink.file).read_bytes() == b""
    assert [each.done for each in runs(sink)] == [1]
    assert asyncio.run(run(sink, {"a": "1"})).already_done == 1
    assert lines(sink) == expected({"a": "1"})
