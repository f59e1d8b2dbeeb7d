"""`penstock redo` and `penstock forget`, on databases of real runs."""

import asyncio
import json
import os
import pty
import subprocess
import sys

import apsw
import pytest

from penstock.durable import runs
from penstock.sinks.callback import Callback
from penstock.sinks.table import SqliteTable
from penstock.sources.keyed import keyed

pytestmark = [pytest.mark.real_time, pytest.mark.slow]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.db"


def deliver(path, keys=(1, 2, 3), by="one", *, name="r", sink=None):
    async def make(key):
        if key == "bad":
            raise ValueError(key)
        return {"key": str(key), "by": by}

    stream = keyed(keys, key=lambda key: key, name="source").map(make, deps=by, on_error="collect")
    return asyncio.run(stream.to(sink or SqliteTable(path, "rows"), run=name))


def write(path, statement):
    connection = apsw.Connection(str(path))
    connection.execute(statement)
    connection.close()


def test_roots_are_done_again_by_the_next_run(penstock, path):
    deliver(path)
    done = penstock("redo", "out.db", "1", "3", "--run", "r")
    assert (done.code, done.out) == (0, "the next run of r does 2 roots again; 2 rows stay until then\n")
    assert deliver(path).delivered == 2
    assert penstock("redo", "out.db", "--all", "--json").json == {"run": "r", "roots": 3, "rows": 3}
    assert deliver(path).delivered == 3


def test_what_other_code_made_is_done_again(penstock, path):
    deliver(path)
    deliver(path, by="two")
    assert (
        "of these 3 by other code: penstock redo out.db --run r --made-by-other-code\n"
        in penstock("status", "out.db").out
    )
    assert penstock("redo", "out.db", "--made-by-other-code").code == 0
    assert deliver(path, by="two").delivered == 3
    done = penstock("redo", "out.db", "--made-by-other-code")
    assert (done.code, done.out) == (0, "run r: there is nothing to do again\n")


def test_dead_roots_and_roots_without_their_rows_are_done_again(penstock, path):
    deliver(path, (1, 2, "bad"))
    assert penstock("redo", "out.db", "--dead", "--json").json["roots"] == 1
    write(path, "DELETE FROM rows WHERE key = '2'")
    assert penstock("redo", "out.db", "--missing-rows", "--json").json == {"run": "r", "roots": 1, "rows": 0}
    assert deliver(path, (1, 2, "bad")).redone == 2


def test_an_index_is_embedded_again(penstock, tmp_path, docs, stored):
    assert penstock("embed", "docs", "--to", "index.db").code == 0
    before = stored()
    assert penstock("redo", "index.db", docs / "note.txt").code == 0
    assert stored() == before
    again = penstock("embed", "docs", "--to", "index.db", "--json").json
    assert (again["files"], again["unchanged"]) == (1, 2)
    write(tmp_path / "index.db", "DELETE FROM entries WHERE id = (SELECT min(id) FROM entries)")
    lacking = penstock("embed", "docs", "--to", "index.db")
    assert (
        "  1 file without all of their chunks, which others have removed: penstock redo " in lacking.out + lacking.err
    )
    assert penstock("redo", "index.db", "--missing-rows", "--json").json["roots"] == 1
    assert penstock("embed", "docs", "--to", "index.db", "--json").json["files"] == 1
    kept = penstock("forget", "index.db", "--run", "embed")
    assert kept.code == 2
    assert "cannot be kept: an index finds them by their roots" in kept.err
    assert penstock("forget", "index.db", "--run", "embed", "--rows", "remove").code == 0
    assert stored() == []
    assert penstock("embed", "docs", "--to", "index.db", "--json").json["files"] == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "either KEYs, or one of --all, --dead, --made-by-other-code, --missing-rows; got none"),
        (("1", "--all"), "got KEY, --all"),
        (("--dead", "--all"), "got --all, --dead"),
        (("9",), "out.db: no root '9' in run 'r', there are 3, 2, 1"),
        (("--all", "--run", "q"), "out.db: no run 'q', there are 'r'"),
    ],
)
def test_what_cannot_be_meant_is_named(penstock, path, arguments, said):
    deliver(path)
    done = penstock("redo", "out.db", *arguments)
    assert done.code == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("command", [("redo", "--all"), ("forget", "--run", "r"), ("runs",), ("status",), ("dead",)])
def test_bad_databases_are_named_in_one_line(penstock, tmp_path, command):
    (tmp_path / "text.db").write_text("no database\n" * 100)
    (tmp_path / "empty.db").touch()
    (tmp_path / "half.db").write_bytes(b"SQLite format 3\0" + bytes(2_000))
    write(tmp_path / "other.db", "CREATE TABLE mine (x)")
    for name in ("none.db", "none/none.db", ".", "text.db", "empty.db", "other.db", "half.db", "\x1b[31m.db", ""):
        done = penstock(command[0], name, *command[1:])
        assert done.code in {2, 3}, name
        assert len(done.err.splitlines()) == 1, name
        assert done.out == ""
        assert "\x1b" not in done.err
    assert not (tmp_path / "none.db").exists()


def test_a_run_is_named_where_there_are_several(penstock, path):
    deliver(path)
    deliver(path, name="s")
    done = penstock("redo", "out.db", "--all")
    assert (done.code, done.err) == (2, "penstock: out.db: say --run, there are 's', 'r'\n")
    assert penstock("redo", "out.db", "--all", "--run", "s").code == 0
    assert deliver(path).already_done == 3


def test_a_run_is_forgotten(penstock, path):
    deliver(path)
    done = penstock("forget", "out.db", "--run", "r")
    assert (done.code, done.out) == (
        0,
        "forgot run r: 3 roots; 3 rows left where they are, and belong to no run any more\n",
    )
    assert penstock("runs", "out.db").err == "penstock: no runs\n"
    assert deliver(path).delivered == 3
    done = penstock("forget", "out.db", "--run", "r", "--rows", "remove", "--json")
    assert done.json == {"run": "r", "roots": 3, "rows": 3, "removed": True}
    assert len(list(SqliteTable(path, "rows").rows())) == 3
    assert penstock("forget", "out.db", "--run", "r", "--rows", "some").code == 2


def test_rows_of_a_callback_are_out_of_reach(penstock, tmp_path):
    async def go():
        stream = keyed([1], key=int, name="source").map(lambda key: {"key": key})
        await stream.to(Callback(lambda rows: None, journal=tmp_path / "sent.db"), run="r")

    asyncio.run(go())
    for command in (("redo", "sent.db", "--missing-rows"), ("forget", "sent.db", "--run", "r", "--rows", "remove")):
        done = penstock(*command)
        assert done.code == 2
        assert "the rows of this run are where a function has brought them" in done.err
    assert penstock("redo", "sent.db", "1").code == 0
    assert penstock("forget", "sent.db", "--run", "r").code == 0


def test_while_a_run_is_under_way_nothing_is_changed(penstock, path):
    deliver(path)
    store = SqliteTable(path, "rows").open("process")
    try:
        for command in (
            ("redo", "out.db", "--all"),
            ("forget", "out.db", "--run", "r"),
            ("redo", "out.db", "--missing-rows"),
        ):
            done = penstock(*command)
            assert done.code == 3
            assert f"out.db: process {os.getpid()} on " in done.err
    finally:
        store.close()
    assert runs(str(path))[0].done == 3


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", 1), (b"y\n", 0)])
def test_on_a_terminal_it_asks_before_it_forgets(path, tmp_path, answer, left):
    deliver(path)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "penstock", "forget", "out.db", "--run", "r"]
    process = subprocess.Popen(command, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, answer)
    said = b""
    try:
        while part := os.read(ours, 1024):
            said += part
    except OSError:  # the other end is closed
        pass
    process.wait()
    os.close(ours)
    assert b"forget run r, 3 roots; its 3 rows stay: go on? [y/N]" in said
    assert len(runs(str(path))) == left
    assert (b"nothing was changed" in said) == bool(left)


def test_help_has_examples(penstock):
    for command in ("redo", "forget", "runs", "status", "dead", "embed", "search"):
        assert f"\n    penstock {command} " in penstock(command, "--help").out


def test_json_of_a_status_says_what_may_be_redone(penstock, path):
    deliver(path)
    deliver(path, (1, 2, 3, 4), by="two")
    (run,) = json.loads(penstock("runs", "out.db", "--json").out)
    assert (run["sink"], run["by_other_code"], run["retried"]) == ("table rows", 3, 0)
