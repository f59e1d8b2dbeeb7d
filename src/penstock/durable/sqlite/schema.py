"""Checks that tables are what made them: whoever may write a database may put something else in their place.

A view, a virtual table, a generated column, a check, a trigger or an index over an expression computes what others have
written there. So a table of ours must have the very text that makes it, and a table of rows must be a plain one. See
`docs/decisions.md`, "A database is not trusted".
"""

from collections.abc import Mapping
from contextlib import closing
from functools import cache
from typing import Final

import apsw

from penstock.core.text import a
from penstock.durable.sqlite.connection import Connection
from penstock.durable.store_errors import DamageError

_ALL: Final = "SELECT type, name, tbl_name, coalesce(rootpage, 0), coalesce(sql, '') FROM sqlite_schema"
_LISTED: Final = "SELECT type, wr FROM pragma_table_list(?) WHERE schema = 'main'"
_COLUMNS: Final = "SELECT name, hidden FROM pragma_table_xinfo(?)"


@cache
def texts_of(tables: str) -> Mapping[str, str]:
    """Return what the schema of a database says of each table and index that these statements make, in one line."""
    with closing(apsw.Connection(":memory:")) as made:
        made.execute(tables)
        return {name: _line(sql) for name, sql in made.execute("SELECT name, sql FROM sqlite_schema WHERE sql NOTNULL")}


def refuse_other_tables(connection: Connection, tables: str) -> None:
    """Raise `DamageError` unless each table and index is there as these statements make it, with nothing attached.

    The module of a virtual table makes the tables for its content as it likes, from version to version: these only have
    to be tables.
    """
    texts = texts_of(tables)
    kept = {name for name in texts for whole in texts if name.startswith(f"{whole}_") and _is_virtual(texts[whole])}
    there: set[str] = set()
    for kind, name, table, page, sql in connection.select(_ALL, (), str, str, str, int, str):
        lowered = name.lower()
        if lowered not in texts and table.lower() not in texts:
            continue
        if kind in {"trigger", "view"}:
            _refuse(connection, table if kind == "trigger" else name, f"{kind} {name!r}")
        if lowered in kept:
            if kind != "table" or not page:
                _refuse(connection, name, "something else in its place")
        elif sql and _line(sql) != texts.get(lowered):
            _refuse(connection, table, f"another text for the {kind} {name!r}")
        there.add(lowered)
    if missing := texts.keys() - kept - there:
        raise DamageError(f"{connection.path}: the database is damaged: it lacks {min(missing)}")


def refuse_computed(connection: Connection, table: str) -> None:
    """Raise `DamageError` if this is a table that computes its rows; one that is missing is accepted."""
    for kind, without_rowid in connection.select(_LISTED, (table,), str, int):
        if kind != "table" or without_rowid:
            _refuse(connection, table, f"{a(kind if kind != 'table' else 'table without rowid')} in its place")
    for name, hidden in connection.select(_COLUMNS, (table,), str, int):
        if hidden:
            _refuse(connection, table, f"the generated column {name!r}")
    for kind, name, of, _, _ in connection.select(_ALL, (), str, str, str, int, str):
        if kind == "trigger" and of.lower() == table.lower():
            _refuse(connection, table, f"the trigger {name!r}")


def _refuse(connection: Connection, table: str, what: str) -> None:
    raise DamageError(f"{connection.path}: the table {table} is not as a durable run makes it, there is {what}")


def _is_virtual(sql: str) -> bool:
    return sql.startswith("CREATE VIRTUAL TABLE")


def _line(sql: str) -> str:
    return " ".join(sql.split())
