"""Rows in a table of an SQLite database."""

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import groupby
from typing import Any, override

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.durable.sink import Delivery, Durability, KeyTakenError
from penstock.durable.sqlite import ConstraintError, StoreError, connect_reader, named_errors
from penstock.sinks.store import (
    ROOT,
    SqliteStore,
    check_name,
    check_names,
    columns_of,
    database,
    lowered,
    mapping,
    quoted,
    refuse_what_cannot_be_stored,
    stored,
)


class SqliteTable:
    """A table that rows go to, exactly once: the rows of a root and the note that it is done are one transaction.

    A row is a mapping of column names to `None`, numbers (also numpy's), `str`, `bytes` or `bool`; lists and dicts are
    stored as JSON, a NaN as NULL (SQLite has none). Arrays are refused: `tolist` or `tobytes` says which is meant. The
    first row says which columns the table has, if there is none yet; a column more, `penstock_root`, says which root a
    row came from. Readers see the old rows of a root or the new ones, never a mixture. The journal of runs stands in
    the same database.

    Args:
        path: the database, made if there is none.
        table: the name of the table.
        key: the column, if any, in which every row differs from all others; a table that is there already is held to it
            from now on, which is an error where its rows do not differ.

    Rows may move from root to root, key and all: a root with the key of a row that another root has waits until that
    one has changed, too, or is gone (`on_missing="delete"`); if it does neither, the run ends with an error.

    Raises:
        OptionError: an argument breaks its rule.
    """

    delivery: Delivery = "exactly once"

    def __init__(self, path: str | os.PathLike[str], table: str, *, key: str | None = None) -> None:
        self.path: str = database("path", path)
        self.table: str = validate.text("table", table)
        check_name("table", table)
        if lowered(table).startswith(("penstock_", "sqlite_")):
            raise OptionError(f"table must not begin with penstock_ or sqlite_, got {table!r}")
        self.key: str | None = None if key is None else validate.text("key", key)
        check_name("key", key or "")

    @property
    def identity(self) -> str:
        """The table, as SQLite tells tables apart: whatever the case of its letters from a to z."""
        return f"table {lowered(self.table)}"

    def open(self, durability: Durability) -> "TableStore":
        """Open it for writing; see `penstock.durable.sink`."""
        return TableStore(self, durability)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows, in the order in which they came, without the column `penstock_root`.

        There are none where runs have been and none has had a row for this table.

        Raises:
            StoreError: no run has been there.
        """
        with closing(connect_reader(self.path)) as connection, named_errors(self.path):
            columns = columns_of(connection, self.table)
            if not columns and columns_of(connection, "penstock_journal"):
                return
            cursor = connection.execute(f"SELECT * FROM {quoted(self.table)} ORDER BY {_place(columns)}")  # noqa: S608 -- quoted
            for row in cursor:
                names = [name for name, _ in cursor.get_description()]
                yield {name: value for name, value in zip(names, row, strict=True) if name != ROOT}


class TableStore(SqliteStore):
    """The table, opened for writing by one run."""

    def __init__(self, sink: SqliteTable, durability: Durability) -> None:
        self._sink = sink
        self._columns: set[str] | None = None
        self._inserts: dict[tuple[str, ...], str] = {}
        self._row: Mapping[str, Any] = {}  # the last that was to be stored, for the error if it could not be
        self._delete: str = f"DELETE FROM {quoted(sink.table)} WHERE {ROOT} = ?"  # noqa: S608 -- quoted
        super().__init__(sink.path, durability)

    @override
    def prepare(self) -> None:
        """Learn which columns the table has."""
        found = set(columns_of(self.connection, self._sink.table))
        if found and ROOT not in found:
            raise StoreError(f"{self.path}: the table {self._sink.table} was not made by a durable run")
        self._columns = found - {ROOT} or None
        if self._columns and self._sink.key is not None and not self._is_unique(self._sink.key):
            self._make_unique(self._sink.key)

    def _is_unique(self, column: str) -> bool:
        indexes = self.connection.execute(f"PRAGMA index_list({quoted(self._sink.table)})")
        whole = [name for _, name, unique, _, partial in indexes if unique and not partial]
        parts = ([part[2] for part in self.connection.execute(f"PRAGMA index_info({quoted(name)})")] for name in whole)
        return [column] in parts

    def _make_unique(self, column: str) -> None:
        table, name = self._sink.table, quoted(column)
        if column not in (self._columns or ()):
            raise StoreError(f"{self.path}: the table {table} has no column {column!r}, which is to be its key")
        several = (
            f"SELECT {name}, count(*) FROM {quoted(table)} "  # noqa: S608 -- quoted
            f"GROUP BY {name} HAVING count(*) > 1 OR {name} IS NULL LIMIT 1"
        )
        for value, times in self.connection.execute(several):
            raise StoreError(
                f"{self.path}: the column {column!r} cannot be the key of the table {table}: "
                f"{times} of its rows have {value!r} there"
            )
        index = quoted(f"penstock_key_{table}.{column}")
        self.connection.execute(f"CREATE UNIQUE INDEX {index} ON {quoted(table)} ({name})")

    @override
    @contextmanager
    def transaction(self) -> Generator[None]:
        """All of it or nothing, also of what is known of the table."""
        before = self._columns
        try:
            with super().transaction():
                yield
        except BaseException:
            self._columns = before
            self._inserts.clear()
            raise

    @override
    def replace(self, root: int, rows: Iterable[Any]) -> None:
        """Put `rows` in the place of those of the root."""
        if self._columns is not None:
            self.connection.execute(self._delete, (root,))
        for names, alike in groupby(map(mapping, rows), key=_names):
            insert = self._inserts.get(names) or self._insert(names)
            self._row = {}
            try:
                self.connection.executemany(insert, self._values(root, alike))
            except (TypeError, ValueError, OverflowError):
                refuse_what_cannot_be_stored(self._row)
                raise
            except ConstraintError:
                self._refuse_the_key_of_another(root)
                raise

    def _values(self, root: int, rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
        for self._row in rows:
            yield root, *map(stored, self._row.values())

    def _refuse_the_key_of_another(self, root: int) -> None:
        """`OptionError` if the last row has no key, or one that a row has that is there."""
        key, table = self._sink.key, quoted(self._sink.table)
        if key is None:
            return
        value = stored(self._row[key])
        if value is None:
            raise OptionError(f"the key column {key!r} must have a value in every row, got {self._row!r}")
        found = self.connection.execute(
            f"SELECT owner.id, owner.key, owner.run = own.run AND owner.times < own.times FROM {table} AS there "  # noqa: S608 -- quoted
            f"JOIN penstock_roots AS owner ON owner.id = there.{ROOT} JOIN penstock_roots AS own ON own.id = ? "
            f"WHERE there.{quoted(key)} = ?",
            (root, value),
        )
        for owner, name, may_give_it_up in found:
            whose = "another row of this root" if owner == root else f"a row of root {name!r}"
            kind = KeyTakenError if may_give_it_up else OptionError
            raise kind(f"the key column {key!r} must differ in every row, got {value!r}, which {whose} has")

    def _insert(self, names: tuple[str, ...]) -> str:
        """The statement for rows of these columns."""
        if not names:
            raise OptionError("a row must have a column, got {}")
        check_names(names)
        if ROOT in map(lowered, names):
            raise OptionError(f"a row must have no column {ROOT!r}, which says what root a row came from")
        key = self._sink.key
        if key is not None and key not in names:
            raise OptionError(f"a row lacks the key column {key!r}, it has {', '.join(map(repr, names))}")
        if strange := set(names) - (self._columns or self._create(names)):
            raise OptionError(f"a row has the column {min(strange)!r}, the table {self._sink.table} has not")
        columns = ", ".join((ROOT, *map(quoted, names)))
        places = ", ".join("?" * (1 + len(names)))
        statement = f"INSERT INTO {quoted(self._sink.table)} ({columns}) VALUES ({places})"  # noqa: S608 -- quoted
        self._inserts[names] = statement
        return statement

    def _create(self, names: tuple[str, ...]) -> set[str]:
        table, key = quoted(self._sink.table), self._sink.key
        _place(names)
        columns = ", ".join(quoted(name) + (" NOT NULL UNIQUE" if name == key else "") for name in names)
        self.connection.execute(f"CREATE TABLE {table} ({ROOT} INTEGER NOT NULL, {columns})")
        index = quoted(f"{ROOT}_of_{self._sink.table}")
        self.connection.execute(f"CREATE INDEX {index} ON {table} ({ROOT})")
        self._columns = set(names)
        return self._columns


def _names(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row)


def _place(columns: Iterable[str]) -> str:
    """What SQL calls the place of a row, which a column of the same name hides."""
    taken = set(map(lowered, columns))
    for name in ("rowid", "_rowid_", "oid"):
        if name not in taken:
            return name
    raise OptionError("columns must not be called rowid, _rowid_ and oid at once: one of them is the place of a row")
