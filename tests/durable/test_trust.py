"""What others may have written, or put where we write: it runs nothing, harms nothing, and is said by its name."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic

import apsw
import pytest

import penstock
from penstock.durable import dead_roots, discard, retry, runs
from penstock.durable.store_errors import StoreError
from penstock.sinks.callback import Callback
from penstock.testing import run_in_real_time as run

from .crafted import RUN, TABLE, change, index_job, job, made

pytestmark = pytest.mark.slow


EXTENSION = "SELECT load_extension('/nowhere')"
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"


def column_names(path, table):
    with apsw.Connection(str(path)) as connection:
        found = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    connection.close()
    return found


def tables(path):
    with apsw.Connection(str(path)) as connection:
        found = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    connection.close()
    return found


@pytest.fixture
def path(database, tmp_path):
    return Path(shutil.copy(database, tmp_path / "x.db"))


@pytest.fixture
def index_path(index, tmp_path):
    return Path(shutil.copy(index, tmp_path / "i.db"))


JOURNAL = [
    *("penstock_journal", "penstock_runs", "penstock_stages", "penstock_codes", "penstock_roots", "penstock_dead"),
    *("penstock_staged", "penstock_deaths", "penstock_dispatched", "penstock_memo"),
]


def entrances(path):
    """Everything that opens a database, by name."""
    return {
        "run": lambda: run(job(path)),
        "runs": lambda: runs(path),
        "dead": lambda: dead_roots(path),
        "retry": lambda: retry(path),
        "discard": lambda: discard(path),
    }


def refused_by_all(path, *, but=()):
    before = path.read_bytes()
    for name, entrance in entrances(str(path)).items():
        if name not in but:
            with pytest.raises(StoreError, match=r"x\.db") as caught:
                entrance()
            assert "Traceback" not in str(caught.value)
            assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("event", ["AFTER INSERT", "BEFORE DELETE", "AFTER UPDATE"])
@pytest.mark.parametrize("table", [*JOURNAL, TABLE])
def test_a_trigger_on_a_table_of_ours_is_refused_by_name(path, table, event):
    change(path, f"CREATE TRIGGER sly {event} ON {table.upper()} BEGIN SELECT 1; END")
    refused_by_all(path, but=() if table in JOURNAL else ("runs", "dead", "retry", "discard"))
    with pytest.raises(StoreError, match="'sly'"):
        run(job(path))


@pytest.mark.parametrize("table", [*JOURNAL, TABLE])
def test_a_view_in_the_place_of_a_table_is_refused(path, table):
    """A view computes what its author likes, for as long as he likes."""
    names = ", ".join(f"i AS {name}" for name in column_names(path, table))
    change(path, f"ALTER TABLE {table} RENAME TO other", f"CREATE VIEW {table} AS {ENDLESS} {names} FROM n")
    refused_by_all(path, but=() if table in JOURNAL else ("runs", "dead", "retry", "discard"))
    if table == TABLE:
        with pytest.raises(StoreError, match=TABLE):
            list(penstock.SqliteTable(path, TABLE).rows())


@pytest.mark.quick
@pytest.mark.parametrize(
    "more",
    [
        "more AS (zeroblob(900000000))",
        "more AS (length(name)) STORED",
        "more CHECK (length(zeroblob(900000000)) > 1)",
        "more DEFAULT (random())",
        "more COLLATE NOCASE",
        "more",
    ],
)
def test_a_table_of_ours_with_another_column_is_refused(path, more):
    names = column_names(path, "penstock_runs")
    change(
        path,
        "ALTER TABLE penstock_runs RENAME TO other",
        f"CREATE TABLE penstock_runs (id INTEGER PRIMARY KEY, {', '.join(names[1:])}, {more})",
        f"INSERT INTO penstock_runs ({', '.join(names)}) SELECT * FROM other",
        "DROP TABLE other",
    )
    refused_by_all(path)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX more ON penstock_roots (length(key))",
        "CREATE INDEX more ON penstock_roots (key) WHERE key > 'a'",
        "DROP INDEX penstock_dead_root",
        "UPDATE sqlite_schema SET sql = replace(sql, 'version TEXT NOT NULL', 'version') WHERE name = 'penstock_roots'",
        "UPDATE sqlite_schema SET sql = replace(sql, 'UNIQUE (run, key)', 'UNIQUE (run, key COLLATE NOCASE)')",
    ],
)
def test_another_text_of_the_schema_is_refused(path, statement):
    change(path, statement)
    refused_by_all(path)


def test_a_virtual_table_in_the_place_of_ours_is_refused(path):
    change(path, "DROP TABLE penstock_memo", "CREATE VIRTUAL TABLE penstock_memo USING fts5(stage, item, value)")
    refused_by_all(path)


@pytest.mark.parametrize("table", JOURNAL)
def test_a_table_that_is_gone_is_named(path, table):
    change(path, f"DROP TABLE {table}")
    but = ("run",) if table == "penstock_journal" else ()
    refused_by_all(path, but=but)


@pytest.mark.parametrize("number", [0, -1, 2**62, "'x'", "x'00'", "1.5"])
def test_a_format_of_another_kind_is_refused(path, number):
    change(path, f"UPDATE penstock_journal SET format = {number}")
    refused_by_all(path)


@pytest.mark.parametrize("rows", [0, 2])
def test_a_journal_of_none_or_two_formats_is_refused(path, rows):
    change(path, "DELETE FROM penstock_journal", *["INSERT INTO penstock_journal (format) VALUES (3)"] * rows)
    refused_by_all(path)


WRONG = ["x'ff'", "'text'", "CAST(x'fffe41' AS TEXT)", "1e300", "-9223372036854775808", "zeroblob(100000)", "''"]
CELLS = [
    *(("penstock_runs", name) for name in ("name", "source", "times", "clean", "owner", "began", "ended", "sink")),
    *(("penstock_roots", name) for name in ("run", "key", "version", "state", "position", "times", "rows")),
    *(("penstock_dead", name) for name in ("root", "stage", "attempts", "error", "traceback", "item", "at")),
    *(("penstock_stages", name) for name in ("name", "fingerprint")),
    *(("penstock_codes", name) for name in ("since", "code")),
    *(("penstock_memo", name) for name in ("stage", "item", "value")),
]


@pytest.mark.slow
@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize(("table", "column"), CELLS)
def test_a_cell_of_any_content_is_read_or_named(path, table, column, value):
    """Types of SQLite say what is preferred, not what is there."""
    last = "" if table in {"penstock_stages", "penstock_codes"} else f"WHERE id = (SELECT max(id) FROM {table})"
    change(path, f"UPDATE OR IGNORE {table} SET {column} = {value} {last}")
    said_or_right(path)


@pytest.mark.slow
@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("column", ["times", "key", "version", "state"])
def test_cells_of_any_content_in_all_roots_are_read_or_named(path, column, value):
    change(path, f"UPDATE OR IGNORE penstock_roots SET {column} = {value}")
    said_or_right(path)


def said_or_right(path):
    raised = []
    for entrance in entrances(str(path)).values():
        try:
            entrance()
        except penstock.PenstockError as error:
            raised.append(str(error))
    assert all("x.db" in said for said in raised), raised


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_a_database_in_another_encoding_is_refused_by_name(tmp_path, encoding):
    """Its keys come in another order than that in which they are passed over: rows of present roots were removed."""
    path = tmp_path / "x.db"
    change(path, f"PRAGMA encoding = '{encoding}'", "CREATE TABLE mine (x)")
    with pytest.raises(StoreError, match=rf"x\.db: a database in {encoding}, it must be in UTF-8"):
        run(job(path))
    assert tables(path) == ["mine"]
    with pytest.raises(StoreError, match="UTF-8"):
        list(penstock.SqliteTable(path, "mine").rows())
    assert len(read_rows(path, "SELECT count(*) AS n FROM mine", "n")) == 1  # as a source it is as good as any


def read_rows(path, sql, key):
    return run(penstock.rows(path, sql, key=key).to_list())


def test_a_source_may_have_views_and_two_names(tmp_path):
    change(
        tmp_path / "x.db", "CREATE TABLE mine (x)", "INSERT INTO mine VALUES (1)", "CREATE VIEW v AS SELECT x FROM mine"
    )
    os.link(tmp_path / "x.db", tmp_path / "y.db")
    assert read_rows(tmp_path / "y.db", "SELECT * FROM v", "x") == [{"x": 1}]


INDEX_VIEWS = {
    "vectors": f"{ENDLESS} i AS id, x'0000803f0000803f0000803f' AS vector FROM n",
    "entries": f"{ENDLESS} i AS id, 1 AS penstock_root, 'x' AS text FROM n",
    "made": f"{ENDLESS} 'e' AS embedder, 3 AS dimensions FROM n",
    "words": f"{ENDLESS} i AS title, i AS text FROM n",
    "words_docsize": f"{ENDLESS} i AS id, zeroblob(900000000) AS sz, 1 AS origin FROM n",
    "words_data": f"{ENDLESS} i AS id, zeroblob(900000000) AS block FROM n",
    "penstock_roots": f"{ENDLESS} i AS id, i AS key FROM n",
}


def searches(path):
    vectors = penstock.SqliteVectors(path)
    return {
        "made": vectors.made,
        "rows": lambda: list(vectors.rows()),
        "nearest": lambda: vectors.nearest([1.0, 1.0, 1.0]),
        "matching": lambda: vectors.matching("common"),
        "search": lambda: vectors.search([1.0, 1.0, 1.0], "common word3"),
        "run": lambda: run(index_job(path, 50)),
    }


@pytest.mark.parametrize("table", INDEX_VIEWS)
def test_a_view_in_the_place_of_a_table_of_an_index_is_refused(index_path, table):
    change(index_path, f"DROP TABLE IF EXISTS {table}")
    change(
        index_path, f"DELETE FROM sqlite_schema WHERE name = '{table}'", f"CREATE VIEW {table} AS {INDEX_VIEWS[table]}"
    )
    for name, search in searches(index_path).items():
        if table == "penstock_roots" and name in {"made", "rows"}:
            continue
        with pytest.raises(StoreError, match=r"i\.db"):
            search()


@pytest.mark.parametrize("rows", [0, 2])
def test_an_index_that_was_made_by_none_or_two_is_refused(index_path, rows):
    change(index_path, "DELETE FROM made", *["INSERT INTO made VALUES (NULL, 3)"] * rows)
    for search in searches(index_path).values():
        with pytest.raises(StoreError, match=r"i\.db: the database is damaged"):
            search()


@pytest.mark.slow
@pytest.mark.parametrize("value", [*WRONG, "NULL"])
@pytest.mark.parametrize(
    ("table", "column"),
    [
        *(
            ("made", "embedder"),
            ("made", "dimensions"),
            ("vectors", "vector"),
            ("entries", "text"),
            ("entries", "title"),
        ),
        *(("entries", "penstock_root"), ("penstock_roots", "key"), ("words_docsize", "sz"), ("words_data", "block")),
        *(("words_config", "v"), ("words_idx", "term")),
    ],
)
def test_a_cell_of_any_content_in_an_index_is_found_or_named(index_path, table, column, value):
    change(index_path, f"UPDATE OR IGNORE {table} SET {column} = {value}")
    for search in searches(index_path).values():
        with suppress(penstock.PenstockError):
            search()


@pytest.mark.slow
def test_pages_that_lead_to_each_other_have_an_end(index_path):
    """A page of a tree that names one child four hundred times, three times over: more rows than there are moments."""
    pages = bomb(index_path, "vectors")
    assert pages > 2
    for name in ("nearest", "search"):
        began = monotonic()
        with pytest.raises(StoreError, match=r"i\.db: the database is damaged"):
            searches(index_path)[name]()
        assert monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.parametrize("table", ["penstock_roots", "penstock_dead", "penstock_runs", "penstock_memo"])
def test_pages_of_a_journal_that_lead_to_each_other_have_an_end(path, table):
    bomb(path, table)
    said_or_right(path)


def bomb(path, table, depth=4):
    """Make a tree of a table in which each page above the leaves leads to the same one below, hundreds of times."""
    with apsw.Connection(str(path)) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,))
        size, count = connection.pragma("page_size"), connection.pragma("page_count")
    connection.close()
    content = bytearray(path.read_bytes())
    at = (root - 1) * size
    content += content[at : at + size]  # what was there, as the page at the bottom
    child = count + 1
    for level in range(depth):
        cells = min(300, (size - 12) // 12)
        page = bytearray(size)
        places = [size - 5 - 6 * number for number in range(cells)]
        page[0] = 5
        page[3:5] = cells.to_bytes(2, "big")
        page[5:7] = min(places).to_bytes(2, "big")
        page[8:12] = child.to_bytes(4, "big")
        for number, place in enumerate(places):
            page[12 + 2 * number : 14 + 2 * number] = place.to_bytes(2, "big")
            page[place : place + 5] = child.to_bytes(4, "big") + b"\x7f"
        if level == depth - 1:
            content[at : at + size] = page
        else:
            content += page
            child = len(content) // size
    content[28:32] = (len(content) // size).to_bytes(4, "big")
    content[92:96] = content[24:28]
    path.write_bytes(content)
    return len(content) // size - count


def test_a_value_larger_than_is_allowed_is_not_read(index_path):
    change(index_path, "UPDATE entries SET text = zeroblob(70000000) WHERE id = 1")
    with pytest.raises(StoreError, match=r"i\.db: a value has more bytes than is allowed"):
        list(penstock.SqliteVectors(index_path).rows())


def test_ctrl_c_ends_a_search_that_takes_long(tmp_path):
    """SQLite looks for signals between its steps: a question of an hour is left in a moment."""
    program = f"""
import signal, sys
from penstock.durable.sqlite.connection import connect_reader
connection = connect_reader({str(made(tmp_path / "x.db"))!r}, of_others=True)
signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    connection.execute({ENDLESS + " max(i) FROM n"!r}).fetchall()
except KeyboardInterrupt:
    sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 7


# --- files that are not ours ------------------------------------------------------------------------------------------


def job_into(path, name="a"):
    return penstock.keyed(range(3), key=int).map(lambda n: {"n": n}).to(penstock.SqliteTable(path, "t"), run=name)


def callback_into(path, name="a"):
    return (
        penstock.keyed(range(3), key=int)
        .map(lambda n: {"n": n})
        .to(Callback(lambda rows: None, journal=path), run=name)
    )


def vectors_into(path, name="a"):
    rows = penstock.keyed(range(3), key=int).map(lambda n: {"text": "t", "vector": [1.0, n]})
    return rows.to(penstock.SqliteVectors(path), run=name)


INTO = pytest.mark.parametrize("into", [job_into, callback_into, vectors_into])


CONTENTS = {
    "text": b"[[package]]\n",
    "almost a lock": b"process 7 on host, since yesterday\n",
    "long": b"process 7 on host, since 2024-01-02 03:04:05\n" + b"x" * 1000,
    "binary": bytes(range(256)),
}


def place(what, at, tmp_path):
    """Put something of somebody else at a path; what tells whether it is still as it was."""
    other = tmp_path / "other"
    if what in CONTENTS:
        at.write_bytes(CONTENTS[what])
    elif what == "directory":
        at.mkdir()
    elif what == "pipe":
        os.mkfifo(at)
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(os.fspath(at))
    elif what == "hard link":
        other.touch()
        os.link(other, at)
    else:
        other.write_text("ssh-ed25519 AAAA")
        at.symlink_to({"device": "/dev/zero", "link": other, "dangling link": tmp_path / "nowhere"}[what])
    return lambda: (stat.S_IFMT(at.lstat().st_mode), at.is_file() and at.read_bytes(), sorted(tmp_path.iterdir()))


WHAT = [
    "text",
    "almost a lock",
    "long",
    "binary",
    "directory",
    "pipe",
    "socket",
    "device",
    "link",
    "dangling link",
    "hard link",
]


@INTO
@pytest.mark.parametrize("what", WHAT)
def test_what_has_the_name_of_the_lock_stays_as_it_is(tmp_path, monkeypatch, what, into):
    monkeypatch.chdir(tmp_path)
    state = place(what, tmp_path / "poetry.lock", tmp_path)
    before = state()
    with pytest.raises(StoreError, match=r"poetry: .*poetry\.lock would be its lock, but is .*: choose another name"):
        run(into("poetry"))
    assert state() == before


@INTO
@pytest.mark.parametrize("what", [each for each in WHAT if each != "almost a lock"])
@pytest.mark.parametrize("end", ["-wal", "-journal", "-shm"])
def test_what_has_the_name_of_a_log_stays_as_it_is(tmp_path, monkeypatch, what, end, into):
    """SQLite writes over it, or removes it."""
    monkeypatch.chdir(tmp_path)
    state = place(what, tmp_path / f"diary{end}", tmp_path)
    before = state()
    with pytest.raises(StoreError, match=rf"diary: .*diary{end} stands where SQLite would write"):
        run(into("diary"))
    assert (before[0], before[1]) == state()[:2]


def test_a_lock_that_is_empty_or_of_an_earlier_run_is_taken(tmp_path):
    (tmp_path / "x.db.lock").touch()
    assert run(job_into(tmp_path / "x.db")).complete
    assert run(job_into(tmp_path / "x.db")).complete


def test_looking_does_not_wait_for_a_pipe(path):
    """Nobody writes to it: who only looks for the holder would wait for ever."""
    os.mkfifo(f"{path}.lock")
    assert runs(path)[0].name == RUN


@INTO
def test_two_names_of_one_database_are_one(tmp_path, into):
    """Locks and logs go by the name: two would write at once, and neither see what the other has committed."""
    run(into(tmp_path / "h1.db"))
    os.link(tmp_path / "h1.db", tmp_path / "h2.db")
    for name in ("h1.db", "h2.db"):
        with pytest.raises(StoreError, match=rf"{name}: has 2 names \(hard links\)"):
            run(into(tmp_path / name, "b"))
        with pytest.raises(StoreError, match="has 2 names"):
            runs(tmp_path / name)
    (tmp_path / "h2.db").unlink()
    assert run(into(tmp_path / "h1.db")).already_done == 3


@INTO
def test_two_links_to_one_database_are_one(tmp_path, into):
    run(into(tmp_path / "x.db"))
    (tmp_path / "l.db").symlink_to("x.db")
    assert run(into(tmp_path / "l.db")).already_done == 3


def test_a_link_that_leads_elsewhere_during_a_run_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("penstock.durable.sqlite.journal._LOOK", 0)
    run(job_into(tmp_path / "b.db"))
    link = tmp_path / "l.db"
    link.symlink_to(tmp_path / "a.db")

    def turn(number):
        if number == 5:
            link.unlink()
            link.symlink_to(tmp_path / "b.db")
        return {"n": number}

    stream = penstock.keyed(range(3000), key=int).map(turn)
    with pytest.raises(StoreError, match=r"l\.db: was removed or replaced"):
        run(stream.to(penstock.SqliteTable(link, "t"), run="a"))
    assert len(list(penstock.SqliteTable(tmp_path / "b.db", "t").rows())) == 3


@pytest.mark.parametrize("what", ["directory", "pipe", "socket", "device", "text", "binary"])
def test_what_is_no_database_stays_as_it_is(tmp_path, what):
    at = tmp_path / "x.db"
    state = place(what, at, tmp_path)
    before = state()
    for entrance in (lambda: run(job_into(at)), lambda: runs(at), lambda: dead_roots(at), lambda: retry(at)):
        with pytest.raises(StoreError, match=r"x\.db"):
            entrance()
    assert state() == before


@INTO
def test_a_new_database_is_for_its_owner_alone(tmp_path, into):
    """What it holds may come from private files; who wants others to read it says so."""
    mask = os.umask(0o022)
    try:
        run(into(tmp_path / "x.db"))
        assert stat.S_IMODE((tmp_path / "x.db").stat().st_mode) == 0o600
        (tmp_path / "x.db").chmod(0o640)
        run(into(tmp_path / "x.db", "b"))
        assert stat.S_IMODE((tmp_path / "x.db").stat().st_mode) == 0o640
    finally:
        os.umask(mask)
