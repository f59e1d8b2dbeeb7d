"""SQLite through apsw, with the functions of sqlite-vec: the one place that opens connections.

A process that also opens the file with the standard `sqlite3` loses the locks that apsw holds on it when that closes.
"""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import apsw
import sqlite_vec  # type: ignore[import-untyped] # pyright: ignore[reportMissingTypeStubs] -- has no types; only used here

from penstock.core.errors import PenstockError
from penstock.durable.sink import RowError

type Connection = apsw.Connection
ConstraintError = apsw.ConstraintError

_REASONS: tuple[tuple[type[apsw.Error], str], ...] = (
    (apsw.NotADBError, "not an SQLite database"),
    (apsw.FullError, "the disk is full"),
    (apsw.ReadOnlyError, "cannot be written"),
    (apsw.BusyError, "another process is writing to it"),
    (apsw.CantOpenError, "cannot be opened"),
    (apsw.CorruptError, "the database is damaged"),
)


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system says where SQLite tells only the first from other failures: a quota, and `ulimit -f`."""

_PATIENCE = 5_000
"""Milliseconds that a connection waits while another process has the database for itself."""


class StoreError(PenstockError):
    """A database cannot be used; the message names it and says why."""


class RefusedRowError(RowError, StoreError):
    """The database refuses a row; it can be used for others."""


class StoreFullError(StoreError):
    """There is no room to write more; what was committed stays."""


def connect_writer(path: str) -> Connection:
    """The connection that writes to the database at `path`, which is made if there is none.

    Who may write is decided before, by `penstock.durable.lock`; it waits only for those who hold the database for a
    moment: a reader that comes first after a kill reads the log anew, and others back it up.
    """
    with named_errors(path):
        connection = _with_vectors(apsw.Connection(path))
        connection.set_busy_timeout(_PATIENCE)
        return connection


def connect_reader(path: str) -> Connection:
    """A connection that only reads, and needs to write nothing to do so, not even beside the database.

    A database in WAL mode whose `-wal` and `-shm` are gone can only be opened where they can be made again; in a
    directory that cannot be written it is therefore opened as immutable. With a `-wal` that holds something this would
    hide the newest rows, and with a `-journal` show half of a transaction, so it is then an error. What a process was
    killed in the middle of, outside WAL mode, is rolled back first, as whoever opens such a database does.
    """
    with named_errors(path):
        connection = _with_vectors(apsw.Connection(_uri(path, "mode=ro"), flags=_READ))
        connection.set_busy_timeout(_PATIENCE)
        try:
            connection.pragma("schema_version")
        except (apsw.CantOpenError, apsw.ReadOnlyError) as error:
            if getattr(error, "extendedresult", 0) == apsw.SQLITE_READONLY_ROLLBACK:
                _roll_back(path)
            elif os.access(Path(path).parent, os.W_OK) or _size(f"{path}-wal") or _size(f"{path}-journal"):
                raise
            else:
                connection.close()
                connection = _with_vectors(apsw.Connection(_uri(path, "immutable=1"), flags=_READ))
            connection.pragma("schema_version")
        return connection


@contextmanager
def transaction(connection: Connection) -> Generator[None]:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException as error:
        is_full = isinstance(error, apsw.IOError) and connection.system_errno in _NO_ROOM
        if connection.in_transaction:  # SQLite may have rolled back by itself, for example when the disk is full
            with suppress(apsw.Error):
                connection.execute("ROLLBACK")
        if is_full:
            raise apsw.FullError(str(error)) from error
        raise


@contextmanager
def named_errors(path: str) -> Generator[None]:
    """Turn what SQLite raises into a `StoreError` in one line that names the database."""
    try:
        yield
    except apsw.Error as error:
        reason = next((text for kind, text in _REASONS if isinstance(error, kind)), str(error))
        kind = StoreFullError if isinstance(error, apsw.FullError) else StoreError
        raise kind(f"{path}: {reason}") from error


_READ = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI


def _uri(path: str, option: str) -> str:
    return f"file:{quote(os.fsencode(Path(path).absolute()))}?{option}"


def _roll_back(path: str) -> None:
    connection = apsw.Connection(path)
    try:
        connection.set_busy_timeout(_PATIENCE)
        connection.pragma("schema_version")
    finally:
        connection.close()


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0


def _with_vectors(connection: Connection) -> Connection:
    connection.enable_load_extension(True)
    connection.load_extension(sqlite_vec.loadable_path())
    connection.enable_load_extension(False)
    return connection
