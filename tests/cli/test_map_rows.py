"""`penstock map` and `penstock export`: any function over every row, and what came of it in a file."""

import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from datetime import date

import pytest
from tests.postgres import needs_postgres

from penstock.core.errors import OptionError, SourceError
from penstock.durable import StoreError
from penstock.sinks import SqliteTable
from penstock.workflows import map_rows
from penstock.workflows.rates import rate_of
from penstock.workflows.rows.exporting import export
from penstock.workflows.rows.row_function import rows_by
from penstock.workflows.rows.row_sinks import open_out
from penstock.workflows.rows.row_sources import open_rows

pytestmark = pytest.mark.slow

JOBS = """
import asyncio, os, time

def measure(text, stars="none"):
    if text == "bad":
        raise ValueError("bad text")
    return {"length": len(text), "stars": stars}

async def two(row):
    return [{"n": 1}, {"n": 2}]

def value(row):
    return row["id"]

def nothing(row):
    return None

def every(**columns):
    return {"names": sorted(columns)}

def counted(id):
    with open("calls", "a") as calls:
        calls.write(f"{id}\\n")
    time.sleep(0.01)
    return {"id": id}

def words(text):
    return {"words": len(text.split())}

def both(a, c):
    return a + c

broken = 5
def without(): pass
"""


@pytest.fixture
def jobs(tmp_path):
    (tmp_path / "jobs.py").write_text(JOBS)
    (tmp_path / "r.csv").write_text('id,text,stars\n1,hello,5\n2,bad,1\n3,"a, b",2\n')
    (tmp_path / "r.jsonl").write_text('{"id": 1, "text": "x"}\n{"id": 2, "text": "bad"}\n')
    return tmp_path


def rows_in(path, table="rows"):
    """The rows of a table, as anybody may read them."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    found = [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY rowid")]
    connection.close()
    return [{name: value for name, value in row.items() if name != "penstock_root"} for row in found]


def test_a_function_gets_columns_by_name_and_each_row_is_done_once(jobs, penstock):
    done = penstock("map", "jobs:measure", "--over", "r.csv", "--to", "out.db", "--key", "id")
    assert done.code == 1
    assert "out.db: 2 rows done" in done.out
    assert "1 row failed: penstock dead out.db list" in done.out
    assert "ValueError: bad text" in done.out
    assert sorted(rows_in(jobs / "out.db"), key=lambda row: row["id"]) == [
        {"id": "1", "length": 5, "stars": "5"},
        {"id": "3", "length": 4, "stars": "2"},
    ]
    again = penstock("map", "jobs:measure", "--over", "r.csv", "--to", "out.db", "--key", "id")
    assert again.code == 1
    assert "0 rows done" in again.out
    assert "1 row failed before, passed over: penstock dead out.db retry" in again.out
    (jobs / "r.csv").write_text("id,text,stars\n1,hello,5\n2,good,1\n3,changed,2\n")
    after = penstock("map", "jobs:measure", "--over", "r.csv", "--to", "out.db", "--key", "id", "--json")
    assert (after.code, after.json["delivered"], after.json["already_done"]) == (0, 2, 1)


@pytest.mark.parametrize(
    ("function", "rows"),
    [
        ("two", [{"n": 1}, {"n": 2}] * 2),
        ("value", [{"value": 1}, {"value": 2}]),
        ("every", [{"names": '["id", "text"]'}] * 2),
        ("measure", [{"length": 1, "stars": "none"}]),
    ],
)
def test_what_it_returns_becomes_rows(jobs, penstock, function, rows):
    penstock("map", f"jobs:{function}", "--over", "r.jsonl", "--to", "out.db")
    assert sorted(map(str, rows_in(jobs / "out.db"))) == sorted(map(str, rows))


def test_none_is_no_row_and_the_row_is_done(jobs, penstock):
    done = penstock("map", "jobs:nothing", "--over", "r.jsonl", "--to", "out.db", "--json")
    assert (done.code, done.json["delivered"], done.json["rows"]) == (0, 2, 0)


def test_the_columns_of_the_row_can_be_kept(jobs, penstock):
    penstock("map", "jobs:value", "--over", "r.jsonl", "--to", "out.db", "--keep")
    assert {"id": 1, "text": "x", "value": 1} in rows_in(jobs / "out.db")


def test_a_dry_run_shows_three_rows_and_calls_nothing(jobs, penstock):
    (jobs / "many.jsonl").write_text("".join(f'{{"id": {n}}}\n' for n in range(9)))
    done = penstock("map", "jobs:counted", "--over", "many.jsonl", "--to", "out.db", "--dry-run")
    assert [json.loads(line) for line in done.out.splitlines()] == [{"id": n} for n in range(3)]
    assert "nothing was called: jobs:counted would be called for each row of many.jsonl, into out.db" in done.err
    assert not (jobs / "calls").exists()
    assert not (jobs / "out.db").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope:f", "--over", "r.csv", "--to", "o.db"], "there is no module 'nope'"),
        (["jobs:nope", "--over", "r.csv", "--to", "o.db"], "'jobs' has no 'nope', it has"),
        (["jobs", "--over", "r.csv", "--to", "o.db"], "MODULE:FUNCTION must be"),
        (["jobs:broken", "--over", "r.csv", "--to", "o.db"], "must be something to call, got int"),
        (["jobs:without", "--over", "r.csv", "--to", "o.db"], "must take a row, or its columns by name"),
        (["jobs:value", "--over", "r.txt", "--to", "o.db"], "--over must be a file that ends in"),
        (["jobs:value", "--over", "r.csv", "--to", "o.txt"], "--to must end in"),
        (["jobs:value", "--over", "r.db", "--to", "o.db"], "--query must say which rows"),
        (["jobs:value", "--over", "r.csv", "--to", "o.db", "--query", "SELECT 1"], "--query is for a database"),
        (["jobs:value", "--over", "r.csv", "--to", "o.db", "--glob", "*"], "--glob is for a directory"),
        (["jobs:value", "--over", "r.csv", "--to", "o.db", "--rate", "5"], "--rate must be calls in a time"),
        (["jobs:value", "--over", "r.csv", "--to", "o.db", "--concurrency", "0"], "--concurrency must be"),
        (["jobs:value", "--over", "r.csv", "--to", "o.db", "--engine", "gpu"], "--engine must be"),
        (["jobs:value", "--over", "r.csv", "--to", "o.db", "--limit", "0"], "--limit must be"),
        (
            ["jobs:value", "--over", "r.csv", "--to", "o.db", "--on-error", "return"],
            "--on-error must be one of 'collect', 'raise', 'skip', got 'return'",
        ),
        (["jobs:value", "--over", "r.csv", "--to", "o.db", "--key", "nr"], "key must name a column, got 'nr'"),
        (["jobs:value", "--over", "missing.csv", "--to", "o.db"], "no such file"),
        (["jobs:value", "--over", "r.db", "--to", "o.db", "--query", "SELECT 1"], "penstock: --key must name"),
        (["jobs:value", "--over", "r.csv", "--to", "o.db", "--retry", "0"], "penstock: --retry must be"),
    ],
)
def test_bad_input_is_one_line_that_names_the_option(jobs, penstock, arguments, said):
    done = penstock("map", *arguments)
    assert done.code in {2, 3}
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_a_file_that_is_missing_is_named_before_the_run_is_looked_at(jobs, penstock):
    """It is the mistake; that the run was over another file is none. Nothing is made."""
    assert penstock("map", "jobs:value", "--over", "r.csv", "--to", "o.db").code == 0
    done = penstock("map", "jobs:value", "--over", "s.csv", "--to", "o.db")
    assert (done.code, done.err) == (3, "penstock: s.csv: no such file or directory\n")
    penstock("map", "jobs:value", "--over", "s.csv", "--to", "new.db")
    assert not (jobs / "new.db").exists()


def test_a_column_that_the_row_has_not_fails_the_row_and_is_named(jobs, penstock):
    done = penstock("map", "jobs:measure", "--over", "r.csv", "--to", "o.db", "--on-error", "raise", "--table", "t")
    assert done.code == 1
    assert "jobs:measure raised ValueError('bad text') (stage 'call', item 1" in done.err
    (jobs / "other.jsonl").write_text('{"a": 1, "b": 2}\n')
    done = penstock("map", "jobs:both", "--over", "other.jsonl", "--to", "o2.db")
    assert "both needs the column 'c', which the row has not: it has 'a', 'b'" in done.out


def test_rows_that_were_dropped_are_told(jobs, penstock):
    done = penstock("map", "jobs:measure", "--over", "r.csv", "--to", "o.db", "--on-error", "skip")
    assert done.code == 0
    assert "\n  1 row of these failed and left nothing (--on-error skip)" in done.out


def test_rows_with_one_key_end_the_run_or_the_first_is_kept_as_the_message_says(jobs, penstock):
    (jobs / "twice.csv").write_text("id,text\n1,first\n2,other\n1,later\n")
    command = ("map", "jobs:measure", "--over", "twice.csv", "--to", "out.db", "--key", "id")
    refused = penstock(*command)
    assert (refused.code, "--on-duplicate first drops the later one" in refused.err) == (3, True)
    done = penstock(*command, "--on-duplicate", "first")
    assert (done.code, "1 row with the key of an earlier one dropped" in done.out) == (0, True)
    assert sorted((row["id"], row["length"]) for row in rows_in(jobs / "out.db")) == [("1", 5), ("2", 5)]
    wrong = penstock(*command, "--on-duplicate", "last")
    assert (wrong.code, "--on-duplicate must be one of 'refuse', 'first', got 'last'" in wrong.err) == (2, True)


def test_standard_input_is_known_by_place_and_content(jobs, penstock):
    lines = '{"id": 1}\n{"id": 2}\n'
    first = penstock("map", "jobs:value", "--over", "-", "--to", "o.db", "--json", input=lines)
    again = penstock("map", "jobs:value", "--over", "-", "--to", "o.db", "--json", input=lines + '{"id": 3}\n')
    assert (first.json["delivered"], again.json["delivered"], again.json["already_done"]) == (2, 1, 2)
    broken = penstock("map", "jobs:value", "--over", "-", "--to", "o.db", input='{"id": 1}\n{nonsense\n')
    assert "standard input, line 2: not JSON" in broken.err


def test_files_of_a_directory_are_rows_with_their_text_if_the_function_asks(jobs, penstock):
    (jobs / "docs").mkdir()
    (jobs / "docs" / "a.txt").write_text("one two")
    (jobs / "docs" / "b.bin").write_bytes(b"\xff\xfe\0")
    done = penstock("map", "jobs:words", "--over", "docs", "--glob", "*.txt", "--to", "o.db")
    assert done.code == 0
    assert [row["words"] for row in rows_in(jobs / "o.db")] == [2]


def test_a_query_is_a_source(jobs, penstock):
    penstock("map", "jobs:value", "--over", "r.jsonl", "--to", "first.db", "--keep")
    query = ["--query", "SELECT id, text FROM rows ORDER BY id", "--key", "id"]
    done = penstock("map", "jobs:words", "--over", "first.db", *query, "--to", "second.db")
    assert done.code == 0
    assert sorted(row["id"] for row in rows_in(jobs / "second.db")) == [1, 2]


@pytest.mark.parametrize("to", ["x.parquet", "x.csv", "x.jsonl"])
def test_a_table_is_exported_and_read_again(jobs, penstock, to):
    penstock("map", "jobs:value", "--over", "r.jsonl", "--to", "out.db", "--keep")
    done = penstock("export", "out.db", "--to", to)
    assert (done.code, done.out) == (0, f"{to}: 2 rows\n")
    again = penstock("map", "jobs:words", "--over", to, "--to", "again.db", "--key", "id", "--json")
    assert (again.code, again.json["delivered"]) == (0, 2)
    assert [path for path in jobs.iterdir() if path.suffix == ".part"] == []


def test_a_failed_export_leaves_the_file_that_was_there(jobs, penstock):
    (jobs / "x.csv").write_text("kept")
    done = penstock("export", "missing.db", "--to", "x.csv")
    assert done.code == 2
    assert (jobs / "x.csv").read_text() == "kept"
    assert penstock("export", "missing.db", "--to", "x.txt").code == 2
    penstock("map", "jobs:nothing", "--over", "r.csv", "--to", "o.db")
    done = penstock("export", "o.db", "--to", "x.csv", "--table", "row")
    assert done.code == 2
    assert "o.db: no run has written to table row; runs have written to: table rows" in done.err
    assert (jobs / "x.csv").read_text() == "kept"
    assert penstock("export", "o.db", "--to", "none/x.csv").err == (
        "penstock: --to must be in a directory that is there, got 'none/x.csv'\n"
    )
    assert penstock("export", "o.db", "--to", "x.csv").out == "x.csv: 0 rows\n"
    (jobs / "taken.csv").mkdir()
    done = penstock("export", "o.db", "--to", "taken.csv")
    assert (done.code, done.err) == (3, "penstock: taken.csv: is a directory\n")
    assert [path for path in jobs.iterdir() if path.suffix == ".part"] == []


def test_an_export_removes_what_a_killed_one_has_left_and_nothing_of_one_that_goes_on(jobs, penstock):
    penstock("map", "jobs:value", "--over", "r.jsonl", "--to", "o.db")
    dead, alive, of_another = (jobs / name for name in (".x.csv.dead.part", ".x.csv.alive.part", ".y.csv.dead.part"))
    for part in (dead, alive, of_another):
        part.write_text("half")
    with alive.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert penstock("export", "o.db", "--to", "x.csv").code == 0
    assert {path.name for path in jobs.iterdir() if path.suffix == ".part"} == {alive.name, of_another.name}


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_an_export_that_is_ended_leaves_the_file_that_was_there(jobs, penstock, by):
    """P10: the file is the old one or the new one, at any instant; the next export leaves nothing beside it."""
    penstock("map", "jobs:value", "--over", "r.jsonl", "--to", "o.db")
    (jobs / "x.csv").write_text("kept")
    child = os.fork()
    if not child:
        with suppress(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
            rows = SqliteTable.rows
            patch.setattr(SqliteTable, "rows", lambda table: (row for row in (*rows(table), *ended(jobs, by))))
            export(str(jobs / "o.db"), str(jobs / "x.csv"))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (-by if by is signal.SIGKILL else 0)
    assert (jobs / "x.csv").read_text() == "kept"
    assert len(list(jobs.glob(".x.csv.*.part"))) == (1 if by is signal.SIGKILL else 0)
    assert penstock("export", "o.db", "--to", "x.csv").code == 0
    assert len((jobs / "x.csv").read_text().splitlines()) == 3
    assert list(jobs.glob(".x.csv.*.part")) == []


def ended(folder, by):
    """Ends the process by a signal when the file is being written."""
    if list(folder.glob(".x.csv.*.part")):
        os.kill(os.getpid(), by)
    yield from ()


def test_killed_twice_each_row_is_there_once_and_at_most_what_was_in_flight_is_called_again(jobs, penstock):
    (jobs / "many.jsonl").write_text("".join(f'{{"id": {n}}}\n' for n in range(300)))
    command = ["map", "jobs:counted", "--over", "many.jsonl", "--to", "out.db", "--key", "id", "--concurrency", "4"]
    for at in (40, 120):
        running = subprocess.Popen(
            [sys.executable, "-m", "penstock", *command], cwd=jobs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while running.poll() is None and calls_in(jobs) < at:
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        running.communicate()
    done = penstock(*command)
    assert done.code == 0
    assert sorted(row["id"] for row in rows_in(jobs / "out.db")) == list(range(300))
    assert calls_in(jobs) < 300 + 2 * 60


def calls_in(folder):
    path = folder / "calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


@needs_postgres
def test_from_postgres_into_postgres(jobs, penstock, postgres):
    dsn = postgres.new()
    postgres.ask(dsn, "CREATE TABLE users AS SELECT n AS id, 'user ' || n AS text FROM generate_series(1, 5) AS n")
    query = ["--query", "SELECT * FROM users WHERE text LIKE 'user%' ORDER BY id", "--key", "id"]
    secret = dsn.replace("penstock@", "penstock:hush@")
    done = penstock("map", "jobs:words", "--over", secret, *query, "--to", secret, "--table", "out")
    assert done.code == 0
    assert "hush" not in done.out + done.err
    assert postgres.ask(dsn, "SELECT id, words FROM out ORDER BY id") == [(n, 2) for n in range(1, 6)]
    assert "jobs:words" in penstock("runs", secret).out
    export = penstock("export", secret, "--table", "out", "--to", "o.jsonl")
    assert export.code == 0
    assert sorted(json.loads(line)["id"] for line in (jobs / "o.jsonl").read_text().splitlines()) == [1, 2, 3, 4, 5]


def test_rates_and_places_that_break_their_rules(tmp_path):
    assert repr(rate_of("500/min")) == repr(rate_of(" 500/minute"))
    for text in ("0/s", "²/s", "-1/s", "5/day", "x/s", "5", "1" * 20 + "/s"):
        with pytest.raises(OptionError, match="rate must be"):
            rate_of(text)
    with pytest.raises(OptionError, match="key must name the column"):
        open_rows(str(tmp_path / "a.db"), query="SELECT 1")
    with pytest.raises(OptionError, match="key is for rows with columns"):
        open_rows(str(tmp_path), key="id")
    with pytest.raises(OptionError, match="table is for a database"):
        open_out("a.jsonl", table="t")


async def test_the_row_goes_to_whatever_can_be_called():
    class Scorer:
        async def __call__(self, row):
            return row["n"]

    class Several:
        async def __call__(self, row):
            yield {"n": row["n"]}

    assert await rows_by(Scorer(), key=None, keep=False)({"n": 1}) == [{"value": 1}]
    assert [row async for row in rows_by(Several(), key=None, keep=False)({"n": 1})] == [{"n": 1}]
    assert rows_by(len, key=None, keep=False)("abc") == [{"value": 3}]
    assert rows_by(lambda n: n + 1, key="k", keep=False)({"n": 1, "k": 5}) == [{"k": 5, "value": 2}]


@pytest.mark.real_time
async def test_from_python_a_function_is_an_argument(tmp_path):
    (tmp_path / "r.jsonl").write_text('{"id": 1, "n": 2}\n{"id": 2, "n": 3}\n')

    async def double(n):
        return {"double": 2 * n}

    to = str(tmp_path / "out.db")
    for delivered in (2, 0):
        report = await map_rows(double, str(tmp_path / "r.jsonl"), to, key="id")
        assert report.delivered == delivered
    assert sorted(row["double"] for row in rows_in(to)) == [4, 6]
    with pytest.raises(OptionError, match="function must be"):
        await map_rows(5, "r.jsonl", to)


def test_a_run_that_waits_for_a_line_of_standard_input_is_stopped_by_one_ctrl_c(jobs):
    """Trap: a thread that waits in a read cannot be stopped."""
    command = [sys.executable, "-m", "penstock", "map", "jobs:counted", "--over", "-", "--to", "o.db"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=jobs, **pipes) as running:
        running.stdin.write(b'{"id": 1}\n\n{"id"')
        running.stdin.flush()
        while running.poll() is None and calls_in(jobs) < 1:
            time.sleep(0.005)
        running.send_signal(signal.SIGINT)
        code = running.wait(30)
    assert code == 130
    assert [row["id"] for row in rows_in(jobs / "o.db")] == [1]


@pytest.mark.parametrize("to", ["x.parquet", "x.csv", "x.jsonl"])
def test_bytes_and_dates_are_exported(jobs, tmp_path, to):
    """Trap: lines of JSON ended at the first bytes, and text in Parquet stood in quotes."""

    class Table:
        def rows(self):
            return iter([{"raw": b"\0\xff", "on": date(2026, 2, 28), "any": 1}, {"any": b"a"}, {"any": "b"}])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.sinks.SqliteTable", lambda *_: Table())
        (jobs / "o.db").touch()
        assert export(str(jobs / "o.db"), str(tmp_path / to)) == 3
    if to == "x.parquet":
        found = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / to).to_pylist()
        assert found[0] == {"raw": b"\0\xff", "on": "2026-02-28", "any": "1"}
        assert [row["any"] for row in found] == ["1", "61", "b"]
    elif to == "x.csv":
        assert (tmp_path / to).read_text() == "raw,on,any\n00ff,2026-02-28,1\n,,61\n,,b\n"
    else:
        assert (
            tmp_path / to
        ).read_text() == '{"raw": "00ff", "on": "2026-02-28", "any": 1}\n{"any": "61"}\n{"any": "b"}\n'


def test_a_number_that_json_has_not_is_named_with_row_and_column(jobs):
    """Trap: a line with NaN is read by no other program."""

    class Table:
        def rows(self):
            return iter(
                [{"n": 1.5, "deep": None}, {"n": 2.5, "deep": [float("inf")]}, {"n": float("nan"), "deep": None}]
            )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.sinks.SqliteTable", lambda *_: Table())
        (jobs / "o.db").touch()
        with pytest.raises(StoreError, match=r"row 2: the column 'deep' has \[inf\], which JSON has not: export it to"):
            export(str(jobs / "o.db"), str(jobs / "x.jsonl"))
        assert export(str(jobs / "o.db"), str(jobs / "x.csv")) == 3
    assert not (jobs / "x.jsonl").exists()


def test_a_table_that_changes_while_it_is_exported_is_told(jobs):
    class Table:
        looks = 0

        def rows(self):
            self.looks += 1
            return iter([{"n": self.looks / 2}] if self.looks > 1 else [{"n": 1}])

    changing = Table()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penstock.sinks.SqliteTable", lambda *_: changing)
        (jobs / "o.db").touch()
        with pytest.raises(StoreError, match="the column 'n' has changed while the table was read"):
            export(str(jobs / "o.db"), str(jobs / "x.csv"))
    assert not (jobs / "x.csv").exists()


async def test_what_a_parquet_file_has_that_python_has_not_is_told_with_its_place(tmp_path):
    """Trap: the function was blamed for a time in nanoseconds. The first of two columns of one name was lost."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = str(tmp_path / "odd.parquet")
    parquet.write_table(arrow.table({"n": [1, 2], "at": arrow.array([1_000, 1], arrow.timestamp("ns"))}), path)
    with pytest.raises(SourceError, match=r"odd.parquet, row 2, column 'at': Nanosecond resolution"):
        await open_rows(path).to_list()
    parquet.write_table(arrow.Table.from_arrays([arrow.array([1]), arrow.array([2])], names=["n", "n"]), path)
    with pytest.raises(SourceError, match=r"odd.parquet: several columns have the name 'n'"):
        await open_rows(path).to_list()


async def test_a_file_that_cannot_be_read_is_what_on_error_says(tmp_path, monkeypatch):
    """Trap: it was always set aside."""
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)

    def read_text(file):
        if file.key == "a.txt":
            raise PermissionError("a.txt")
        return file.key

    monkeypatch.setattr("penstock.sources.files.File.read_text", read_text)
    found = await open_rows(str(tmp_path), texts=True, on_error="skip").to_list()
    assert [row["text"] for row in found] == ["b.txt"]
    with pytest.raises(PermissionError):
        await open_rows(str(tmp_path), texts=True, on_error="raise").to_list()


def test_a_module_that_cannot_be_imported_is_one_line(jobs, penstock):
    (jobs / "wrong.py").write_text("def x(:")
    done = penstock("map", "wrong:x", "--over", "r.jsonl", "--to", "o.db")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "the module 'wrong' cannot be imported: SyntaxError" in done.err


@needs_postgres
def test_a_dry_run_shows_no_password_wherever_it_stands(jobs, penstock):
    to = "postgresql://me:hush@127.0.0.1:1/shop?password=hush2"
    done = penstock("map", "jobs:value", "--over", "r.jsonl", "--to", to, "--dry-run")
    assert done.code == 0
    assert "into postgresql://me@127.0.0.1:1/shop\n" in done.err
    assert "hush" not in done.out + done.err


def test_standard_input_that_is_closed_is_told(jobs, penstock):
    command = f"{sys.executable} -m penstock map jobs:value --over - --to o.db <&-"
    done = subprocess.run(command, shell=True, cwd=jobs, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "penstock: --over is standard input, which is closed\n")
