"""Damage is said by name: whatever bit has flipped, what is read is right or is an error that names the database.

`PENSTOCK_FLIPS=500` flips so many bits of each database, and changes every column; `make test` some of them.
"""

import os
import random
import shutil
import sys
from pathlib import Path

import apsw
import pytest

import penstock
from penstock import cli as commands
from penstock.testing import run_in_real_time as run
from penstock.workflows import embed

from .crafted import RUN, TABLE, change, index_job, job

FLIPS = int(os.environ.get("PENSTOCK_FLIPS", "40"))
PARTS = 8
STEP = 1 if "PENSTOCK_FLIPS" in os.environ else 6  # every sixth column

pytestmark = pytest.mark.slow


@pytest.fixture
def cli(monkeypatch, capsys):
    """Runs a command in this process; its exit code, and what it printed to stderr."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["penstock", *map(str, arguments)])
        try:
            commands.main()
        except SystemExit as end:
            return end.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return command


def flipped(source, target, seed):
    """A copy of a database with a bit or a few that are not what they were; seldom a page, or the end."""
    chance = random.Random(seed)
    content = bytearray(source.read_bytes())
    kind = chance.random()
    if kind < 0.1:
        at = chance.randrange(len(content) // 4096) * 4096
        content[at : at + 4096] = bytes(4096)
    elif kind < 0.15:
        del content[chance.randrange(100, len(content)) :]
    else:
        for _ in range(chance.choice([1, 1, 1, 3, 20])):
            at = chance.randrange(len(content))
            if chance.random() < 0.5:  # the heads of pages matter most
                at = at // 4096 * 4096 + chance.randrange(120)
            content[at % len(content)] ^= 1 << chance.randrange(8)
    for end in ("-wal", "-shm", "-journal", ".lock"):
        Path(f"{target}{end}").unlink(missing_ok=True)
    target.write_bytes(content)
    return target


def right_or_named(path, calls):
    """What was raised: errors of ours only, in one line with the name of the database."""
    raised = []
    for call in calls:
        try:
            call()
        except penstock.PenstockError as error:
            raised.append(str(error))
    for said in raised:
        assert path.name in said
        assert "\n" not in said
    return raised


@pytest.mark.parametrize("part", range(PARTS))
def test_flipped_bits_in_a_database_of_a_run(database, memory, cli, part):
    path, raised = memory / "x.db", []
    for seed in range(part, FLIPS, PARTS):
        flipped(database, path, seed)
        commands = (["runs", path], ["status", path], ["dead", path], ["dead", path, "export"])
        for arguments in commands:
            code, said = cli(*arguments)
            assert code in {0, 2, 3}, (seed, arguments)
            assert code == 0 or "x.db" in said, (seed, arguments, said)
            assert "Traceback" not in said
        calls = [
            lambda: list(penstock.SqliteTable(path, TABLE).rows()),
            lambda: run(job(path)),
            lambda: run(job(path, 50)),
        ]
        raised += right_or_named(path, calls)
    assert raised


@pytest.mark.parametrize("part", range(PARTS))
def test_flipped_bits_in_an_index(index, memory, cli, part):
    path = memory / "x.db"
    vectors = penstock.SqliteVectors(path)
    raised = []
    for seed in range(part, FLIPS, PARTS):
        flipped(index, path, 10_000 + seed)
        code, said = cli("search", path, "common word3")
        assert code in {0, 2, 3}, seed
        assert code == 0 or "x.db" in said, (seed, said)
        calls = [
            lambda: list(vectors.rows()),
            lambda: vectors.search([1.0, 1.0, 1.0], "common word3"),
            lambda: vectors.matching("title"),
            lambda: run(index_job(path, 50)),
        ]
        raised += right_or_named(path, calls)
    assert raised


@pytest.mark.parametrize("of", [job, index_job])
def test_each_table_that_is_gone_and_each_column_of_another_type(database, index, memory, cli, of):
    source, path = (database if of is job else index), memory / "x.db"
    with apsw.Connection(str(source)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        columns = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in tables}
    connection.close()
    changes = [f"DELETE FROM sqlite_schema WHERE tbl_name = '{table}'" for table in tables]
    for table, name in [(table, name) for table, names in columns.items() for name in names][::STEP]:
        changes.append(f"UPDATE sqlite_schema SET sql = replace(sql, '{name}', 'more') WHERE name = '{table}'")
        changes.append(
            f"UPDATE sqlite_schema SET sql = replace(sql, ' {name} ', ' {name} BLOB ') WHERE name = '{table}'"
        )
    vectors = penstock.SqliteVectors(path)
    calls = [lambda: vectors.matching("common"), lambda: list(vectors.rows()), lambda: run(of(path))]
    for statement in changes:
        shutil.copy(source, path)
        change(path, statement)
        for arguments in (["runs", path], ["status", path], ["dead", path], ["search", path, "common"]):
            code, said = cli(*arguments)
            assert code in {0, 2, 3}, (statement, arguments)
            assert code == 0 or "x.db" in said, (statement, arguments, said)
        right_or_named(path, calls)
        for end in ("-wal", "-shm", ".lock"):
            Path(f"{path}{end}").unlink(missing_ok=True)


def test_a_run_that_is_damaged_is_told_by_the_command_line_as_one_to_look_at(database, memory, cli):
    """3: not what was asked for is wrong, but what is there."""
    path = Path(shutil.copy(database, memory / "x.db"))
    change(path, "CREATE TRIGGER sly AFTER INSERT ON penstock_dead BEGIN SELECT 1; END")
    for command in ("runs", "status", "dead"):
        assert cli(command, path)[0] == 3


@pytest.mark.parametrize("time", [1e300, -1e300, 9e18, float("inf")])
def test_a_time_of_no_calendar_is_shown_as_it_is(database, memory, cli, time):
    path = Path(shutil.copy(database, memory / "x.db"))
    shown = "9e999" if time == float("inf") else repr(time)
    change(path, f"UPDATE penstock_runs SET began = {shown}", f"UPDATE penstock_dead SET at = {shown}")
    for command in (["runs", path], ["status", path], ["dead", path], ["dead", path, "show"]):
        code, said = cli(*command)
        assert (code, said) == (0, "")


def test_a_run_whose_name_is_anything_is_found(database, memory, cli):
    path = Path(shutil.copy(database, memory / "x.db"))
    change(path, "UPDATE penstock_runs SET name = char(27, 10) || name")
    assert cli("status", path)[0] == 0
    assert cli("status", path, RUN)[0] == 2


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """An index of documents, made as the command line makes it."""
    folder = tmp_path_factory.mktemp("documents")
    (folder / "docs").mkdir()
    for number in range(12):
        (folder / "docs" / f"{number}.md").write_text(f"# Title {number}\n\nword{number} is common to all\n")
    index = folder / "index.db"
    run(embed(folder / "docs", index))
    return index


def test_flipped_bits_in_an_index_of_documents(documents, memory, cli):
    path = memory / "x.db"
    assert cli("search", documents, "common word3") == (0, "")
    for seed in range(FLIPS):
        flipped(documents, path, 20_000 + seed)
        code, said = cli("search", path, "common word3")
        assert code in {0, 2, 3}, seed
        assert code == 0 or "x.db" in said, (seed, said)


@pytest.mark.parametrize(
    "statement",
    [
        *(
            f"UPDATE entries SET {name} = {value}"
            for name in ("text", "heading", "first_line", "last_line", "title")
            for value in ("NULL", "'x'", "x'ff'", "1e300", "CAST(x'fffe' AS TEXT)", "''", "-5")
        ),
        *(f"ALTER TABLE entries RENAME COLUMN {name} TO more" for name in ("text", "heading", "first_line", "title")),
        *(f"ALTER TABLE entries DROP COLUMN {name}" for name in ("text", "heading", "first_line", "last_line")),
        *(f"UPDATE penstock_roots SET key = {value} || id" for value in ("'../../'", "'\x1b[31m'", "x'ff'")),
        "UPDATE penstock_roots SET key = id",
        "UPDATE penstock_roots SET key = CAST(id || x'fffe' AS TEXT)",
        "DELETE FROM entries",
        "DELETE FROM vectors",
        "DELETE FROM penstock_roots",
    ],
)
def test_a_row_of_an_index_of_documents_that_is_not_one(documents, memory, cli, statement):
    path = Path(shutil.copy(documents, memory / "x.db"))
    try:
        change(path, statement)
    except apsw.SQLError:
        pytest.skip("there is no such column")
    for options in ([], ["--json"]):
        code, said = cli("search", path, "common word3", *options)
        assert code in {0, 3}
        assert code == 0 or "x.db" in said
