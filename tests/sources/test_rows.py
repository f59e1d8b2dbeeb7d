"""`penstock.rows`: rows of an SQLite database, which may be that of the sink."""

import importlib.util
import os
import subprocess
import sys

import apsw
import pytest

import penstock
from penstock import OptionError
from penstock.durable.store_errors import StoreError
from penstock.sinks.table import SqliteTable

pytestmark = pytest.mark.real_time

USERS = "SELECT id, name FROM users ORDER BY id"
MORE = (
    "WITH RECURSIVE n(i) AS (SELECT 6 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
    "INSERT INTO users SELECT i, 'x', 0 FROM n"
)


@pytest.fixture
def database(tmp_path):
    return str(tmp_path / "app.db")


@pytest.fixture
def table(tmp_path):
    return SqliteTable(tmp_path / "out.db", "users")


def execute(database, sql, *parameters):
    connection = apsw.Connection(database)
    try:
        return list(connection.execute(sql, parameters))
    finally:
        connection.close()


@pytest.fixture
def users(database):
    execute(database, "CREATE TABLE users (id INTEGER PRIMARY KEY, name, seen)")
    for number, name in enumerate(["ada", None, 3.5, b"\x00\xff", "007"], 1):
        execute(database, "INSERT INTO users VALUES (?, ?, 0)", number, name)
    return database


def copy(stream, table, **options):
    return stream.map(lambda row: {"id": row["id"], "name": row["name"]}).to(table, run="copy", **options)


async def test_items_are_rows_as_dicts_with_their_values_as_they_are(users):
    rows = await penstock.rows(users, USERS, key="id").to_list()
    assert rows == [
        {"id": 1, "name": "ada"},
        {"id": 2, "name": None},
        {"id": 3, "name": 3.5},
        {"id": 4, "name": b"\x00\xff"},
        {"id": 5, "name": "007"},
    ]


async def test_a_table_of_a_run_gives_the_rows_as_they_were_stored(users, table, tmp_path):
    """Without the column that says which root they came from: it is none of theirs, and no row can have it."""
    await copy(penstock.rows(users, USERS, key="id"), table)
    stored = penstock.rows(tmp_path / "out.db", "SELECT * FROM users ORDER BY id", key="id")
    assert [[*row] for row in await stored.to_list()] == [["id", "name"]] * 5
    report = await stored.to(SqliteTable(tmp_path / "again.db", "users"), run="again")
    assert report.rows == 5
    with pytest.raises(OptionError, match="key must name a column of the query, got 'penstock_root': it has id, name"):
        await penstock.rows(tmp_path / "out.db", "SELECT * FROM users", key="penstock_root").to_list()


async def test_no_value_is_made_another_one_on_its_way(database):
    """The text 007 is no number, whatever column it comes from and is put aside in."""
    execute(database, "CREATE TABLE codes (code ANY) STRICT")
    execute(database, "INSERT INTO codes VALUES ('007')")
    assert await penstock.rows(database, "SELECT code FROM codes", key="code").to_list() == [{"code": "007"}]


async def test_parameters_stand_for_places(users):
    rows = penstock.rows(users, "SELECT id FROM users WHERE id > ?;", key="id", parameters=(3,))
    assert await rows.to_list() == [{"id": 4}, {"id": 5}]
    named = penstock.rows(
        users, "WITH few AS (SELECT * FROM users WHERE id < :most) SELECT id FROM few", key="id", parameters={"most": 3}
    )
    assert await named.to_list() == [{"id": 1}, {"id": 2}]


async def test_a_changed_row_is_done_again(users, table):
    stream = penstock.rows(users, USERS, key="id")
    assert (await copy(stream, table)).delivered == 5
    execute(users, "UPDATE users SET name = 'bea' WHERE id = 2")
    execute(users, "INSERT INTO users VALUES (6, 'cy', 0)")
    execute(users, "DELETE FROM users WHERE id = 1")
    report = await copy(stream, table, on_missing="delete")
    assert (report.delivered, report.redone, report.already_done, report.removed) == (2, 1, 3, 1)
    assert {row["id"]: row["name"] for row in table.rows()} == {2: "bea", 3: 3.5, 4: b"\x00\xff", 5: "007", 6: "cy"}


async def test_a_database_may_have_a_name_that_is_no_utf_8(users, table, tmp_path):
    odd = tmp_path / os.fsdecode(b"\xe9.db")
    os.rename(users, odd)  # noqa: PTH104 -- one call
    assert (await copy(penstock.rows(odd, USERS, key="id"), table)).delivered == 5


async def test_a_column_can_be_the_version(users, table):
    stream = penstock.rows(users, "SELECT * FROM users", key="id", version="seen")
    await copy(stream, table)
    execute(users, "UPDATE users SET name = 'changed'")
    execute(users, "UPDATE users SET seen = NULL WHERE id = 3")
    execute(users, "UPDATE users SET seen = x'00' WHERE id = 4")
    report = await copy(stream, table)
    assert (report.redone, report.already_done) == (2, 3)


async def test_the_source_may_be_the_database_of_the_sink(users):
    """Also in the middle of the run: nothing that is read keeps a lock, so the log can be folded into the database."""
    out = SqliteTable(users, "names")
    left = []

    async def row(user):
        writer = apsw.Connection(users)
        try:
            if user["id"] > 1 and user["id"] < 300:  # the first commit is behind us, the last is not
                left.append(writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE))
        finally:
            writer.close()
        return {"id": user["id"]}

    execute(users, MORE, 600)
    stream = penstock.rows(users, USERS, key="id").map(row)
    assert (await stream.to(out, run="r")).delivered == 600
    assert (await stream.to(out, run="r")).already_done == 600
    assert left
    assert all(folded == pages for pages, folded in left)


async def test_rows_are_of_one_moment_and_keep_no_lock(users):
    """A database that keeps a rollback journal can be written while a run goes on; the run sees what was there."""
    execute(users, MORE, 3000)
    async with penstock.rows(users, USERS, key="id").open() as items:
        await anext(items)
        execute(users, "DELETE FROM users")
        assert len([row async for row in items]) == 2999


async def test_a_database_that_is_only_there_to_be_read_is_not_changed(users, tmp_path):
    before = sorted(tmp_path.iterdir()), (tmp_path / "app.db").read_bytes()
    await penstock.rows(users, USERS, key="id").drain()
    assert (sorted(tmp_path.iterdir()), (tmp_path / "app.db").read_bytes()) == before


@pytest.mark.parametrize(
    ("sql", "key", "error", "message"),
    [
        (USERS, "uid", penstock.OptionError, "key must name a column of the query, got 'uid': it has id, name"),
        ("SELECT id, name AS id FROM users", "id", penstock.OptionError, "a name of its own, got 'id' twice"),
        ("SELECT id FROM users; DELETE FROM users", "id", penstock.OptionError, "sql must be one query"),
        ("DELETE FROM users", "id", penstock.OptionError, "sql must be one query"),
        ("DELETE FROM users RETURNING id", "id", StoreError, r"app\.db: near \"DELETE\""),
        ("SELECT id FROM people", "id", StoreError, r"app\.db: no such table: people"),
        ("SELECT id FROM users WHERE id = ?", "id", StoreError, r"app\.db: .*bindings"),
    ],
)
async def test_a_wrong_query_is_named(users, sql, key, error, message):
    with pytest.raises(error, match=message):
        await penstock.rows(users, sql, key=key).drain()
    assert execute(users, "SELECT count(*) FROM users") == [(5,)]


async def test_a_missing_version_column_and_a_missing_database_are_named(users, tmp_path):
    with pytest.raises(penstock.OptionError, match="version must name a column of the query, got 'at'"):
        await penstock.rows(users, USERS, key="id", version="at").drain()
    with pytest.raises(StoreError, match=r"no\.db: cannot be opened"):
        await penstock.rows(tmp_path / "no.db", USERS, key="id").drain()
    assert not (tmp_path / "no.db").exists()


async def test_a_key_must_be_text_or_a_number_and_stand_once(users, table):
    with pytest.raises(penstock.OptionError, match="key must give a str or an int, got None for item 1"):
        await penstock.rows(users, USERS, key="name").to(table, run="r")
    with pytest.raises(
        penstock.DuplicateKeyError, match="the key 0 stands twice in the source: at item 0 and at item 1"
    ):
        await penstock.rows(users, "SELECT seen FROM users", key="seen").to(table, run="twice")


async def test_a_run_keeps_to_its_query(users, table):
    await copy(penstock.rows(users, USERS, key="id"), table)
    commented = USERS.replace(", ", ",/* ; */ ")
    for same in (USERS.replace(" ", "\n  "), f"-- all of them\n{commented} ; -- by id", f"{USERS}-- x"):
        assert (await copy(penstock.rows(users, same, key="id"), table)).already_done == 5
    with pytest.raises(penstock.PenstockError, match=r"is over rows of .*app\.db: SELECT id, name FROM users"):
        await copy(penstock.rows(users, "SELECT id, name FROM users", key="id"), table)


async def test_what_is_quoted_is_part_of_the_query_as_it_is(users, table):
    """Two spaces in a text are no one space, and `--` in a text is no comment."""
    query = "SELECT id, 'a  b -- c' AS [x  y], ';' AS \"--\", `name` FROM users /* to the end"
    found = await penstock.rows(users, query, key="id").first()
    assert found == {"id": 1, "x  y": "a  b -- c", "--": ";", "name": "ada"}
    await copy(penstock.rows(users, query, key="id"), table)
    with pytest.raises(penstock.PenstockError, match="give this one another name"):
        await copy(penstock.rows(users, query.replace("a  b", "a b"), key="id"), table)


async def test_text_that_is_not_utf_8_is_named(users):
    execute(users, "UPDATE users SET name = CAST(x'e9' AS TEXT) WHERE id = 3")
    stream = penstock.rows(users, USERS, key="id")
    with pytest.raises(penstock.SourceError, match=r"app\.db: the column 'name' of row 3 holds text that is not UTF-8"):
        await stream.drain()
    read = await penstock.rows(users, USERS.replace("name", "CAST(name AS BLOB) AS name"), key="id").to_list()
    assert read[2]["name"] == b"\xe9"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"database": 1}, "database must be a path, got 1"),
        ({"sql": ""}, "sql must be a non-empty str, got ''"),
        ({"key": 0}, "key must be a non-empty str, got 0"),
        ({"version": ""}, "version must be a non-empty str, got ''"),
    ],
)
def test_options_are_checked_when_the_stream_is_made(options, message):
    with pytest.raises(penstock.OptionError, match=message):
        penstock.rows(**({"database": "app.db", "sql": USERS, "key": "id"} | options))


def test_a_missing_library_is_named_with_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("penstock.sources.rows.find_spec", lambda name: None if name == "apsw" else find(name))
    with pytest.raises(ModuleNotFoundError, match=r"penstock\.rows needs apsw: pip install 'penstock\[durable\]'"):
        penstock.rows("app.db", USERS, key="id")


def test_sources_need_nothing_but_python_until_they_are_used():
    code = (
        "import sys, penstock; penstock.files('.'), penstock.jsonl('a'), penstock.keyed([], key=id), penstock.rows;"
        "print({'apsw', 'sqlite_vec'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
