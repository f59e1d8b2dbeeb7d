"""A table of an SQLite database as a sink."""

import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import groupby, repeat
from operator import itemgetter
from typing import Any, Final, override

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.durable.roots import RootId
from penstock.durable.sink import Delivery, Durability
from penstock.durable.sqlite.connection import ConstraintError, TooLargeError, connect_reader, transaction
from penstock.durable.sqlite.schema import refuse_computed
from penstock.durable.sqlite.tables import has_journal
from penstock.durable.store_errors import KeyTakenError, RefusedRowError, RowError, StoreError
from penstock.sinks.cells import Cell, Row, cells, columns_at_once, mapping, shown
from penstock.sinks.cells import check_name as column_name
from penstock.sinks.columns import SQLITE_OPTIONS, Columns, declared, place_of
from penstock.sinks.declaring import Declared
from penstock.sinks.sqlite_store import (
    LONGEST,
    ROOT,
    SqliteStore,
    check_name,
    columns_of,
    database,
    is_whole,
    lost_from,
    lowered,
    quoted,
)


class SqliteTable:
    """Writes rows to a table, exactly once: the rows of a root and the note that it is done are one transaction.

    A row is a mapping of column names to values, or anything with named fields: a dataclass, a named tuple, a class of
    attrs, a model of pydantic. A column holds `None`, `bool`, an int of 64 bits, a float (a NaN as NULL: SQLite has
    none), `str` and `bytes`. The table of values in `docs/durability.md` says what is held as text: dates, times,
    `timedelta`, `UUID`, `Decimal`, paths; an enum is held as its value, a number of numpy as that of Python; lists,
    dicts, sets and anything with named fields as JSON. Arrays are refused: `tolist` or `tobytes` says which is meant. A
    row that cannot be stored is the failure of its root: see `on_error` of `to`.

    The table is made with the first row. A column that comes later is added, NULL in rows that lack it; names that
    differ only in the case of letters from a to z are one column. An additional column, `penstock_root`, says which
    root a row came from. Readers see the old rows of a root or the new ones, never a mixture. The journal of runs is in
    the same database.

    Args:
        path: the database, made if there is none.
        table: the name of the table.
        key: the column, or the columns together, in which every row differs from all others, and has a value. A table
            that exists is held to it from now on, which is an error if its rows do not differ.
        columns: the names of the columns that rows may have, or a mapping of names to what SQL says of their values:
            INTEGER, REAL, TEXT, BLOB or ANY, each also with NOT NULL, which a new table is then held to (`STRICT`).
            They are made when the table is opened. Default: whatever columns rows have, up to the 1,999 of SQLite.

    Rows may move from root to root, key and all: a root with the key of another root's row waits until that root has
    changed, too, or is gone (`on_missing="delete"`); if that does not happen, it fails.

    Raises:
        OptionError: an argument breaks its rule.
    """

    delivery: Delivery = "exactly once"

    def __init__(
        self,
        path: str | os.PathLike[str],
        table: str,
        *,
        key: str | Sequence[str] | None = None,
        columns: Declared | None = None,
    ) -> None:
        self.path: str = database("path", path)
        self.table: str = validate.text("table", table)
        check_name("table", table)
        if lowered(table).startswith(("penstock_", "sqlite_")):
            raise OptionError(f"table must not begin with penstock_ or sqlite_, got {table!r}")
        self.key: tuple[str, ...] = _OPTIONS.key(key)
        self.columns: dict[str, str] | None = declared(columns, _OPTIONS, self.key)

    @property
    def identity(self) -> str:
        """The table, as SQLite tells tables apart: the case of letters from a to z does not count."""
        return f"table {lowered(self.table)}"

    def open(self, durability: Durability) -> "TableStore":
        """Open it for writing; see `penstock.durable.sink`."""
        return TableStore(self, durability)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Give the rows, in the order in which they came, without the column `penstock_root`.

        There are none if runs have been there and none has had a row for this table.

        Raises:
            StoreError: no run has been there.
        """
        with closing(connect_reader(self.path)) as connection:
            connection.bound(LONGEST)
            refuse_computed(connection, self.table)
            columns = columns_of(connection, self.table)
            if not columns and has_journal(connection):
                return
            cursor = connection.execute(f"SELECT * FROM {quoted(self.table)} ORDER BY {place_of(columns)}")  # noqa: S608 -- quoted
            for row in cursor:
                names = [name for name, _ in cursor.get_description()]
                yield {name: value for name, value in zip(names, row, strict=True) if name != ROOT}


class TableStore(SqliteStore):
    """The table, opened for writing by one run."""

    def __init__(self, sink: SqliteTable, durability: Durability) -> None:
        self._sink = sink
        self._values: tuple[Cell, ...] = ()  # of the last row that was to be stored, for the error if it could not be
        self._delete: str = f"DELETE FROM {quoted(sink.table)} WHERE {ROOT} = ?"  # noqa: S608 -- quoted
        super().__init__(sink.path, durability)

    @override
    def prepare(self) -> None:
        """Learn which columns the table has, and add those that are declared."""
        sink = self._sink
        refuse_computed(self.connection, sink.table)
        self._columns = Columns(
            self.connection,
            self.path,
            sink.table,
            own={ROOT: "INTEGER NOT NULL"},
            index=f"{ROOT}_of_{sink.table}",
            key=sink.key,
            fixed=sink.columns,
        )
        with transaction(self.connection):
            self._columns.declare()
            if self._columns.known and sink.key and not self._is_unique(sink.key):
                self._make_unique(sink.key)

    def _is_unique(self, key: tuple[str, ...]) -> bool:
        indexes = self.connection.execute(f"PRAGMA index_list({quoted(self._sink.table)})")
        whole = [name for _, name, unique, _, partial in indexes if unique and not partial]
        parts = ([part[2] for part in self.connection.execute(f"PRAGMA index_info({quoted(name)})")] for name in whole)
        wanted = sorted(map(lowered, key))
        return any(wanted == sorted(lowered(str(name)) for name in names) for names in parts)

    def _make_unique(self, key: tuple[str, ...]) -> None:
        table, names = self._sink.table, ", ".join(map(quoted, key))
        if missing := [name for name in key if lowered(name) not in self._columns.known]:
            raise StoreError(f"{self.path}: the table {table} has no column {missing[0]!r}, which is to be its key")
        nothing = " OR ".join(f"{quoted(name)} IS NULL" for name in key)
        several = (
            f"SELECT count(*), {names} FROM {quoted(table)} "  # noqa: S608 -- quoted
            f"GROUP BY {names} HAVING count(*) > 1 OR {nothing} LIMIT 1"
        )
        for times, *values in self.connection.execute(several):
            raise StoreError(
                f"{self.path}: {_named('column', key)} cannot be the key of the table {table}: "
                f"{times} of its rows have {_alone(values)} there"
            )
        index = quoted(f"penstock_key_{table}.{'.'.join(key)}")
        self.connection.execute(f"CREATE UNIQUE INDEX {index} ON {quoted(table)} ({names})")

    @override
    def accept(self, row: Any) -> Row:
        """Return the row as SQLite holds it; raise `RowError` if it cannot be stored."""
        given: Mapping[str, Any] = row if row.__class__ is dict else mapping(row)
        names, key = self._columns.check(tuple(given))
        values = cells(given)
        for place in key:
            if values[place] is None:
                raise RowError(f"the key column {names[place]!r} must have a value in every row, got {shown(given)}")
        return names, values

    def accept_all(self, rows: Sequence[Any]) -> Sequence[Row] | None:
        """Return what `accept` gives for each of the rows; None if each has to be looked at."""
        if {*map(type, rows)} != {dict}:
            return None
        try:
            names, key = self._columns.check(tuple(rows[0]))
        except RowError:
            return None
        columns = columns_at_once(names, rows)
        if columns is None or any(None in columns[place] for place in key):
            return None
        return list(zip(repeat(names), zip(*columns, strict=True)))

    @override
    @contextmanager
    def transaction(self) -> Generator[None]:
        """Open a transaction: all or nothing, also of what is known of the table."""
        before = self._columns.known
        try:
            with super().transaction():
                yield
        except BaseException:
            self._columns.back_to(before)
            raise

    @override
    def lost(self, run: int) -> Sequence[tuple[int, int]]:
        rows = quoted(self._sink.table) if self._columns.known else None
        with self.connection.bounded():
            if rows and is_whole(self.connection, self._sink.identity, rows):
                return ()
            return lost_from(self.connection, run, rows)

    @override
    def replace(self, root: RootId, rows: Iterable[Row]) -> None:
        """Replace the rows of the root by `rows`."""
        if self._columns.known:
            self.connection.execute(self._delete, (root.number,))
        for names, alike in groupby(rows, key=itemgetter(0)):
            try:
                self.connection.executemany(self._columns.insert(names), self._stored(root.number, alike))
            except (ConstraintError, TooLargeError) as error:
                refused = self._key_of_another(root.number, names) if isinstance(error, ConstraintError) else None
                refused = refused or RefusedRowError(str(error))
                refused.row = dict(zip(names, self._values, strict=True))
                raise refused from error

    def add(self, rows: Iterable[tuple[int, Row]]) -> None:
        """Add rows of roots that have none, each with the number of its root.

        Rows with the same columns go together.
        """
        for names, alike in groupby(rows, key=_columns):
            self.connection.insert(self._columns.insert(names), ((root, *values) for root, (_, values) in alike))

    def _stored(self, root: int, rows: Iterable[Row]) -> Iterator[tuple[Any, ...]]:
        for _, self._values in rows:
            yield root, *self._values

    def _key_of_another(self, root: int, names: tuple[str, ...]) -> RowError | None:
        """Return the error for the last row, if it has the key of a row that is there."""
        key, table = self._sink.key, quoted(self._sink.table)
        if not key:
            return None
        places = [*map(lowered, names)]
        values = [self._values[places.index(lowered(name))] for name in key]
        same = " AND ".join(f"there.{quoted(name)} = ?" for name in key)
        found = self.connection.execute(
            f"SELECT owner.id, owner.key, owner.run = own.run AND owner.times < own.times FROM {table} AS there "  # noqa: S608 -- quoted
            f"LEFT JOIN penstock_roots AS owner ON owner.id = there.{ROOT} JOIN penstock_roots AS own ON own.id = ? "
            f"WHERE {same}",
            (root, *values),
        )
        for owner, name, may_give_it_up in found:
            whose = f"a row of root {name!r}" if owner is not None else "a row of no run"
            whose = "another row of this root" if owner == root else whose
            kind = KeyTakenError if may_give_it_up else RowError
            return kind(
                f"{_named('key column', key)} must differ in every row, got {_alone(values)}, which {whose} has"
            )
        return None


def _columns(row: tuple[int, Row]) -> tuple[str, ...]:
    return row[1][0]


def _not_ours(name: object) -> str:
    text = column_name(name)
    if lowered(text) == ROOT:
        raise RowError(f"a column must not be called {text!r}, which says what root a row came from")
    return text


_OPTIONS: Final = replace(SQLITE_OPTIONS, check=_not_ours)


def _named(what: str, key: Sequence[str]) -> str:
    return f"the {what}{'' if len(key) == 1 else 's'} {', '.join(map(repr, key))}"


def _alone(values: Sequence[object]) -> str:
    return repr(values[0]) if len(values) == 1 else repr(tuple(values))
