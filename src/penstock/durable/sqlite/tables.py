"""The tables of a journal, their format, and the steps from older formats."""

from collections.abc import Mapping
from typing import Final

from penstock.durable.sqlite import death_tables
from penstock.durable.sqlite.connection import Connection
from penstock.durable.sqlite.schema import refuse_other_tables
from penstock.durable.store_errors import StoreError

FORMAT: Final = 3

_CODES: Final = """
CREATE TABLE penstock_codes (
    run INTEGER NOT NULL REFERENCES penstock_runs, since INTEGER NOT NULL, code BLOB NOT NULL,
    PRIMARY KEY (run, since)) WITHOUT ROWID;
"""

_MIGRATIONS: Final[Mapping[int, str]] = {
    1: "ALTER TABLE penstock_runs ADD COLUMN sink TEXT NOT NULL DEFAULT ''",
    2: f"""
UPDATE penstock_roots SET times = 0 WHERE times < (SELECT since FROM penstock_runs AS of WHERE of.id = run);
ALTER TABLE penstock_runs DROP COLUMN since;
ALTER TABLE penstock_journal ADD COLUMN last_id INTEGER NOT NULL DEFAULT 0;
{_CODES}
DROP TABLE IF EXISTS penstock_dispatched;
DROP TABLE IF EXISTS penstock_deaths;
{death_tables.TABLES}
""",  # noqa: S608 -- constants
}
"""The statement that brings a journal of format n to format n + 1."""

_TABLES = f"""
CREATE TABLE penstock_journal (format INTEGER NOT NULL, last_id INTEGER NOT NULL DEFAULT 0);
CREATE TABLE penstock_runs (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, source TEXT NOT NULL,
    times INTEGER NOT NULL, clean INTEGER NOT NULL, owner TEXT NOT NULL,
    began REAL NOT NULL, ended REAL, sink TEXT NOT NULL DEFAULT '');
CREATE TABLE penstock_stages (
    run INTEGER NOT NULL REFERENCES penstock_runs, number INTEGER NOT NULL, name TEXT NOT NULL,
    fingerprint BLOB NOT NULL, PRIMARY KEY (run, number)) WITHOUT ROWID;
{_CODES}
CREATE TABLE penstock_roots (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES penstock_runs, key NOT NULL, version TEXT NOT NULL,
    state INTEGER NOT NULL, position INTEGER NOT NULL, times INTEGER NOT NULL, rows INTEGER NOT NULL,
    UNIQUE (run, key));
CREATE TABLE penstock_dead (
    id INTEGER PRIMARY KEY, root INTEGER NOT NULL REFERENCES penstock_roots, stage TEXT NOT NULL,
    attempts INTEGER NOT NULL, error TEXT NOT NULL, traceback TEXT NOT NULL, item TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX penstock_dead_root ON penstock_dead (root);
CREATE TABLE penstock_staged (id INTEGER PRIMARY KEY, staging INTEGER NOT NULL, rows BLOB NOT NULL);
CREATE INDEX penstock_staged_staging ON penstock_staged (staging);
CREATE TABLE penstock_memo (
    id INTEGER PRIMARY KEY, stage BLOB NOT NULL, item BLOB NOT NULL, value BLOB NOT NULL, UNIQUE (stage, item));
{death_tables.TABLES}
"""


def make(path: str, connection: Connection) -> None:
    """Make the tables if there are none, or bring them to this format, in the open transaction."""
    if not has_journal(connection):
        connection.execute(_TABLES)
        connection.execute("INSERT INTO penstock_journal (format) VALUES (?)", (FORMAT,))
    for format_before in range(_check_newer(path, connection), FORMAT):
        connection.execute(_MIGRATIONS[format_before])
    connection.execute("UPDATE penstock_journal SET format = ? WHERE format < ?", (FORMAT, FORMAT))
    refuse_other_tables(connection, _TABLES)


def check(path: str, connection: Connection) -> None:
    """Raise `StoreError` if there is a journal that this penstock neither makes nor can bring to its format."""
    if has_journal(connection) and _check_newer(path, connection) == FORMAT:
        refuse_other_tables(connection, _TABLES)


def require(path: str, connection: Connection) -> None:
    """Raise `StoreError` if the database has no journal, or one of another format."""
    if not has_journal(connection):
        raise StoreError(f"{path}: no durable run has written to it")
    check_format(path, connection)


def has_journal(connection: Connection) -> bool:
    """Whether the database has a journal, of any format."""
    return bool(list(connection.execute("PRAGMA table_info(penstock_journal)")))


def check_format(path: str, connection: Connection) -> None:
    """Raise `StoreError` if the journal is of another format, or its tables are not as a run makes them."""
    found = _check_newer(path, connection)
    if found < FORMAT:
        raise StoreError(f"{path}: a journal of format {found}; the next run into it makes it one of format {FORMAT}")
    refuse_other_tables(connection, _TABLES)


def _check_newer(path: str, connection: Connection) -> int:
    """Return the format of the journal; raise `StoreError` if a newer penstock made it."""
    found = _format(path, connection)
    if found > FORMAT:
        raise StoreError(f"{path}: a journal of format {found}; this penstock knows formats up to {FORMAT}")
    return found


def _format(path: str, connection: Connection) -> int:
    """Return the format of the journal; raise `StoreError` if the table with its name is something else."""
    if any(name == "format" for _, name, *_ in connection.execute("PRAGMA table_info(penstock_journal)")):
        found = list(connection.execute("SELECT format FROM penstock_journal LIMIT 2"))
        if len(found) == 1 and isinstance(found[0][0], int) and found[0][0] > 0:
            return found[0][0]
    raise StoreError(f"{path}: its table penstock_journal was not made by a durable run")
