"""A journal in a database at a path, while no run has it open."""

from collections.abc import Generator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Final

from penstock.durable.sqlite import lock, tables
from penstock.durable.sqlite.connection import Connection, connect_reader, connect_writer, transaction
from penstock.durable.sqlite.journal import SqliteJournal
from penstock.durable.sqlite.reader import SqliteReader
from penstock.durable.store_errors import StoreError

_LONGEST: Final = 16 << 20
"""Bytes of a value, at most."""


class JournalFile:
    """The place of a journal; see `penstock.durable.store.JournalPlace`."""

    def __init__(self, path: str) -> None:
        self.place: str = path

    @contextmanager
    def read(self) -> Generator[SqliteReader]:
        """Open the journal for reading."""
        path = self.place
        if not path:
            raise StoreError("'': no such database")
        if Path(path).is_dir():
            raise StoreError(f"{path}: a directory, not a database")
        if not Path(path).exists():
            raise StoreError(f"{path}: no such database")
        if not Path(path).is_file():
            raise StoreError(f"{path}: not a regular file")
        with closing(connect_reader(path)) as connection:
            connection.bound(_LONGEST)
            tables.require(path, connection)
            yield SqliteReader(path, connection)

    @contextmanager
    def write(self) -> Generator["_Written"]:
        """Open the journal for changes; if there is none, nothing is made or locked."""
        path = self.place
        with self.read():
            pass
        with lock.exclusive(path), closing(connect_writer(path)) as connection:
            tables.require(path, connection)
            journal = SqliteJournal(path, connection)
            journal.prepare()
            yield _Written(journal, connection)


class _Written:
    """A journal that is open for writing."""

    def __init__(self, journal: SqliteJournal, connection: Connection) -> None:
        self.journal: SqliteJournal = journal
        self._connection = connection

    def transaction(self) -> AbstractContextManager[None]:
        """Open a transaction: all or nothing."""
        return transaction(self._connection)
