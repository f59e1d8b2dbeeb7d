"""Where the database of a sink can be: said when the sink is built, before anything is made there."""

import asyncio
import os
from pathlib import Path

import pytest

import penstock
from penstock import Callback, OptionError, SqliteTable, SqliteVectors
from penstock.durable import StoreError
from penstock.sinks import SqliteStore

SINKS = {
    "table": (lambda path: SqliteTable(path, "t"), "path"),
    "vectors": (SqliteVectors, "path"),
    "callback": (lambda path: Callback(print, journal=path), "journal"),
}


@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize(
    ("path", "rule"),
    [
        (None, "must be a path, got None"),
        ("", "must be a path, got ''"),
        (3, "must be a path, got 3"),
        (b"x.db", "must be a path, got b'x.db'"),
        ("a\0b", r"must be a path without NUL, got 'a\\x00b'"),
        (Path(os.fsdecode(b"\xe9.db")), "must be a path that UTF-8 can hold, got PosixPath"),
        (":memory:", "must be the path of a file that the next run finds again, got ':memory:'"),
        (Path(":memory:"), "must be the path of a file that the next run finds again, got PosixPath"),
        ("file:x.db?mode=rwc", "must be the path of a file that the next run finds again, got 'file:x.db"),
    ],
    ids=ascii,
)
def test_what_is_no_path_of_a_database_is_refused(sink, path, rule):
    make, option = SINKS[sink]
    with pytest.raises(OptionError, match=f"^{option} {rule}"):
        make(path)


@pytest.mark.parametrize("sink", SINKS)
def test_a_path_is_a_str_or_a_path(sink):
    make, _ = SINKS[sink]
    assert (make("x.db").path, make(Path("x.db")).path, make("./file:x").path) == ("x.db", "x.db", "./file:x")


@pytest.mark.real_time
async def test_a_sink_of_ones_own_is_held_to_it_when_it_is_opened(tmp_path, monkeypatch):
    """SQLite would make a database in memory, and nothing would be left but the lock."""

    class Own:
        delivery = "exactly once"
        path = ":memory:"

        def open(self, durability):
            return SqliteStore(self.path, durability)

    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match="path must be the path of a file"):
        await penstock.keyed([1], key=int).to(Own(), run="r")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real_time
@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/dev/null", "not a regular file"),
        ("pipe", "not a regular file"),
        ("folder", "a directory, not a database"),
        ("folder/", "a directory, not a database"),
        ("nothing/", "a directory, not a database"),
        ("code.py", "not an SQLite database"),
        ("short", "not an SQLite database"),
    ],
)
def test_what_can_be_no_database_is_refused_and_nothing_is_left_beside_it(*, tmp_path, monkeypatch, sink, path, reason):
    make, _ = SINKS[sink]
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("code.py").write_text("print()\n" * 100)
    Path("short").write_text("x")
    before = sorted(tmp_path.iterdir())
    rows = penstock.keyed([1], key=int).map(lambda n: {"n": n})
    with pytest.raises(StoreError, match=f"^{path}: {reason}$"):
        asyncio.run(rows.to(make(path), run="r"))
    assert sorted(tmp_path.iterdir()) == before
    assert not Path(f"{path}.lock").exists()


@pytest.mark.real_time
async def test_an_empty_file_becomes_a_database(tmp_path):
    (tmp_path / "empty").touch()
    report = (
        await penstock.keyed([1], key=int).map(lambda n: {"n": n}).to(SqliteTable(tmp_path / "empty", "t"), run="r")
    )
    assert report.rows == 1
