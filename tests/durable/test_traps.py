"""Traps 44 to 56: what others lost or did twice in durable runs, where no other test has it already."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

import penstock

SOURCE = Path(penstock.__file__).parent


def deliver(stream, table, **options):
    return asyncio.run(stream.to(table, run="r", **options))


def table_in(tmp_path):
    return penstock.SqliteTable(tmp_path / "t.db", "rows")


def test_trap_44_a_root_that_came_to_nothing_is_redone_for_ever(tmp_path):
    """Trap 44 (Ray Data, DataChain): what gave no row had no trace in the output, so that each run did it again."""
    calls = []

    def split(number):
        calls.append(number)
        return []

    stream = penstock.keyed(range(3), key=int).flat_map(split)
    first, second = deliver(stream, table_in(tmp_path)), deliver(stream, table_in(tmp_path))
    assert (first.delivered, second.already_done, calls) == (3, 3, [0, 1, 2])


def test_trap_45_a_file_that_exists_is_taken_for_done(tmp_path):
    """Trap 45 (Unstructured): what a kill has left half made counted as made."""
    program = f"""
import asyncio, os, penstock
def row(number):
    if number == 40:
        os.kill(os.getpid(), 9)
    return {{"n": number}}
stream = penstock.keyed(range(50), key=int).map(row)
asyncio.run(stream.to(penstock.SqliteTable({str(tmp_path / "t.db")!r}, "rows"), run="r"))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert (tmp_path / "t.db").exists()
    stream = penstock.keyed(range(50), key=int).map(lambda number: {"n": number})
    assert deliver(stream, table_in(tmp_path)).complete
    assert sorted(row["n"] for row in table_in(tmp_path).rows()) == list(range(50))


@pytest.mark.parametrize("on_error", ["raise", "collect"])
def test_trap_46_the_version_is_noted_before_the_work(tmp_path, on_error):
    """Trap 46 (LlamaIndex): the new hash was stored first, so that a version whose work failed was never done."""
    version, fails = "1", False

    def row(number):
        if fails:
            raise ValueError(number)
        return {"n": f"{number} of version {version}"}

    stream = penstock.keyed([1], key=int, version=lambda _: version).map(row, on_error=on_error)
    deliver(stream, table_in(tmp_path))
    version, fails = "2", True
    if on_error == "raise":
        with pytest.raises(ValueError, match="1"):
            deliver(stream, table_in(tmp_path))
    else:
        assert deliver(stream, table_in(tmp_path)).dead == 1
        penstock.durable.retry(table_in(tmp_path).path)
    fails = False
    assert deliver(stream, table_in(tmp_path)).delivered == 1
    assert [row["n"] for row in table_in(tmp_path).rows()] == ["1 of version 2"]


def test_trap_50_state_says_done_and_the_target_is_gone(tmp_path):
    """Trap 50 (cocoindex-code #210): state and rows lay in two places. Here, one file has both."""
    stream = penstock.keyed(range(3), key=int).map(lambda number: {"n": number})
    deliver(stream, table_in(tmp_path))
    for path in tmp_path.glob("t.db*"):
        path.unlink()
    assert deliver(stream, table_in(tmp_path)).delivered == 3
    assert len(list(table_in(tmp_path).rows())) == 3


@pytest.mark.parametrize("results", [1, 3])
def test_trap_52_rows_of_a_call_of_another_length_go_to_the_wrong_root(tmp_path, results):
    """Trap 52 (a prototype of ours): a call for two roots that gives one row, or three: whose are they?"""
    stream = penstock.keyed(range(2), key=int).map_batches(
        lambda items: [{"n": 0}] * (results if len(items) > 1 else 2), 2
    )
    with pytest.raises(penstock.ResultCountError):
        deliver(stream, table_in(tmp_path))
    assert list(table_in(tmp_path).rows()) == []


def test_trap_55_a_second_library_drops_the_locks_of_the_first():
    """Trap 55 (SQLite, how to corrupt a database): the close of one library drops the locks of the other."""
    importing = [
        path.name
        for path in SOURCE.rglob("*.py")
        if re.search(r"^\s*(import|from) sqlite3", path.read_text(), re.MULTILINE)
    ]
    assert importing == []


def test_trap_55_a_reader_that_closes_drops_the_lock_of_the_writer(tmp_path):
    """Trap 55 (SQLite, how to corrupt a database): readers in its process leave the writer its lock."""
    table = table_in(tmp_path)
    deliver(penstock.keyed(range(3), key=int).map(lambda number: {"n": number}), table)
    rival = f"""
import sqlite3
connection = sqlite3.connect({table.path!r}, timeout=0)
try:
    connection.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
"""
    store = table.open("process")
    try:
        with store.transaction():
            assert len(list(table.rows())) == 3
            told = subprocess.run([sys.executable, "-c", rival], capture_output=True, text=True, check=True).stdout
    finally:
        store.close()
    assert told == "database is locked\n"
