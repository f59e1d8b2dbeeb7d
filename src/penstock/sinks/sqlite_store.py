"""What all stores of SQLite databases share: the lock, the one connection that writes, the journal beside the rows."""

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Final

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.durable.roots import Root, RootId
from penstock.durable.sink import Durability
from penstock.durable.sqlite import tables
from penstock.durable.sqlite.connection import (
    Connection,
    ConstraintError,
    TooLargeError,
    connect_reader,
    connect_writer,
    transaction,
)
from penstock.durable.sqlite.disks import refuse_network_disk
from penstock.durable.sqlite.journal import SqliteJournal
from penstock.durable.sqlite.lock import Reached, exclusive
from penstock.durable.sqlite.reader import SqliteReader
from penstock.durable.store import Reach
from penstock.durable.store_errors import RefusedRowError, RowError, StoreError

LARGEST: Final = 50_000
"""Rows of one commit, at most, so that none takes long; a root with more is committed alone."""

LONGEST: Final = 1_000_000_000
"""Bytes of a value, at most, as SQLite has it."""

_LOG_LEFT: Final = 64 << 20
"""Bytes of the write-ahead log that are kept: the commit of a very large root makes it as large as its rows are."""

_PAGE: Final = 512
"""The size of the smallest database, in bytes."""

ROOT: Final = "penstock_root"
"""The column that says which root a row came from."""


_NO_VALUE: Final = "Bad binding argument type"
"""How apsw's error begins for an object that is no value of SQLite."""

_COUNTED = """
SELECT total(rows), total(rows * id) FROM penstock_roots WHERE +run IN (SELECT id FROM penstock_runs WHERE sink = ?)
"""
_LOST = """
SELECT roots.id, coalesce(number, 0) FROM penstock_roots AS roots LEFT JOIN ({}) ON root = roots.id
WHERE +run = ? AND times > 0 AND rows > coalesce(number, 0)
"""


class SqliteStore:
    """A database that one run has opened for writing.

    Attributes:
        path: where it is.
        extension: a library of functions that its connection loads.
        connection: the only one that writes.
        journal: which roots are done, in the same database.
        largest: rows of one commit, at most; a root with more is committed alone.
    """

    extension: str = ""

    def __init__(self, path: str, durability: Durability) -> None:
        """Open it, made if there is none; `StoreError` or `HeldError` says why it cannot be written."""
        self.path: str = database("path", path)
        self.largest: int = LARGEST
        check_place(path)
        refuse_network_disk(path)
        self.check()
        with ExitStack() as opened:
            locked = opened.enter_context(exclusive(path))
            self.check()
            self.connection: Connection = connect_writer(path, extension=self.extension)
            opened.callback(self.connection.close)
            self._refuse_other_place(self.connection, locked)
            self.journal: SqliteJournal = SqliteJournal(path, self.connection)
            with self.connection.bounded():
                tables.check(path, self.connection)
                self.prepare()
            self.connection.pragma("journal_mode", "wal")
            self.connection.pragma("synchronous", "normal" if durability == "process" else "full")
            self.connection.pragma("journal_size_limit", _LOG_LEFT)
            with self.connection.bounded():
                self.journal.prepare()
            self._opened = opened.pop_all()

    def check(self) -> None:
        """Refuse a database that is not for this, reading only: before the lock is taken, and again when it is held."""

    def prepare(self) -> None:
        """Make what a new database needs, and learn what there is; the connection is open."""

    def accept(self, row: Any) -> Any:
        """Return what is kept of a row until it is stored, here the row itself; called on the loop.

        What it raises is the failure of the row's root; it should be a `RowError` that says why.
        """
        return row

    def send(self, run: str, roots: Iterable[tuple[Root, Iterable[Any]]]) -> None:
        """Do nothing: `replace` brings the rows to where they belong."""

    def replace(self, root: RootId, rows: Iterable[Any]) -> None:
        """Replace the rows of the root by `rows`."""
        raise NotImplementedError

    def refusal(self, error: Exception) -> RowError | None:
        """Return the `RowError` for what SQLite raises at a value that it cannot hold, in any statement."""
        if isinstance(error, ConstraintError | TooLargeError):
            return RefusedRowError(str(error))
        if isinstance(error, UnicodeEncodeError | OverflowError) or (
            isinstance(error, TypeError) and str(error).startswith(_NO_VALUE)
        ):
            return RowError(f"a value that SQLite cannot hold: {error}")
        return None

    def lost(self, run: int) -> Sequence[tuple[int, int]]:
        """Return nothing: what the rows are is not known here."""
        del run
        return ()

    def transaction(self) -> AbstractContextManager[None]:
        """Open a transaction: all or nothing."""
        return transaction(self.connection)

    def reader(self) -> SqliteReader:
        """Return a reader of the journal, on a connection of its own."""
        connection = connect_reader(self.path)
        try:
            self._refuse_other_place(connection, self.connection.filename)
            tables.check_format(self.path, connection)
        except BaseException:
            connection.close()
            raise
        return SqliteReader(self.path, connection)

    def reach(self, run: int, opening: int) -> Reach:
        """Return what notes in the lock how far the sources are read."""
        return Reached(self.path, run, opening).reach

    def is_there(self) -> bool:
        """Whether the database is where it was opened."""
        return self.journal.is_there()

    def _refuse_other_place(self, connection: Connection, place: str) -> None:
        if connection.filename != place:
            raise StoreError(f"{self.path}: leads to another file than a moment ago")

    def abort(self) -> None:
        """Do nothing: what is finished is soon written."""

    def close(self) -> None:
        """Close it, and let others write."""
        self._opened.close()


def is_whole(connection: Connection, sink: str, rows: str) -> bool:
    """Whether exactly those rows are there that the journal counts for the sink of that identity.

    It compares their number and the sum of the ids of their roots: a tenth of a second for a million rows. `rows` is
    what SQL selects them from, with the column of their roots.
    """
    there = connection.one(f"SELECT count(*), total({ROOT}) FROM {rows}", (), int, float)  # noqa: S608 -- quoted
    return there == counted(connection, sink)


def counted(connection: Connection, sink: str) -> tuple[float, float]:
    """Return how many rows the journal counts for the sink of that identity, and the sum of the ids of their roots."""
    number: float
    ids: float
    number, ids = connection.one(_COUNTED, (sink,), float, float)
    return number, ids


def lost_from(connection: Connection, run: int, rows: str | None) -> Sequence[tuple[int, int]]:
    """Return the roots of a run that have lost rows, and how many they still have; `rows` is None without a table."""
    there = f"SELECT {ROOT} AS root, count(*) AS number FROM {rows} GROUP BY 1"  # noqa: S608 -- quoted
    return lost_of(connection, run, there if rows else "SELECT NULL AS root, 0 AS number")


def lost_of(connection: Connection, run: int, there: str) -> Sequence[tuple[int, int]]:
    """Return the roots that have lost rows; `there` is a query for which `root` has what `number` of rows."""
    return [(root, number) for root, number in connection.select(_LOST.format(there), (run,), int, int)]


def quoted(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def columns_of(connection: Connection, table: str) -> list[str]:
    """Return the names of the columns of a table, in order; none if there is no such table."""
    return [row[1] for row in connection.execute(f"PRAGMA table_info({quoted(table)})")]


def lowered(name: str) -> str:
    """Return a name as SQLite compares names: only the letters from a to z have no case."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


def check_name(option: str, name: str) -> None:
    """Raise `OptionError` if it cannot be the name of a table or column in SQL."""
    if "\0" in name or not validate.is_utf8(name):
        raise OptionError(f"{option} must be text that UTF-8 can hold, without NUL, got {name!r}")


def database(option: str, value: object) -> str:
    """Return `value` as the path of a database.

    Raise `OptionError` if it is none, or SQLite takes it for something else.
    """
    path = validate.path(option, value)
    if not validate.is_utf8(path):
        raise OptionError(f"{option} must be a path that UTF-8 can hold, got {value!r}")
    if path == ":memory:" or path.startswith("file:"):
        raise OptionError(f"{option} must be the path of a file that the next run finds again, got {value!r}")
    return path


def check_place(path: str) -> None:
    """Raise `StoreError` if no database can be at `path`, or something else is there; reads only."""
    if path.endswith(os.sep) or Path(path).is_dir():
        raise StoreError(f"{path}: a directory, not a database")
    if not Path(path).parent.is_dir():
        raise StoreError(f"{path}: its directory does not exist")
    if not Path(path).exists():
        return
    if not Path(path).is_file():
        raise StoreError(f"{path}: not a regular file")
    if Path(path).stat().st_size:
        connect_reader(path).close()  # not `open`: its end would take the locks of a run in this process
        if 0 < Path(path).stat().st_size < _PAGE:  # SQLite would take it for an empty one
            raise StoreError(f"{path}: not an SQLite database")
