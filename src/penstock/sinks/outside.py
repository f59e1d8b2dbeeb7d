"""What stores share whose rows are not in the database of their journal.

High level idea: what is to be done outside is noted in the transaction that notes the roots as done. After the commit
it is carried out, and in the next transaction it is crossed out. Who is killed in between leaves the notes to the next
run, which carries them out when it opens the sink. So carrying out has to be idempotent, and only what is committed is
ever seen outside. See `docs/decisions.md`, "Outside of the database, the commit comes first".
"""

import errno
import os
from abc import abstractmethod
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final, override

from penstock.durable.sink import Durability
from penstock.durable.sqlite.connection import transaction
from penstock.durable.sqlite.schema import refuse_other_tables
from penstock.durable.store_errors import StoreError, StoreFullError
from penstock.sinks.sqlite_store import SqliteStore

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class OutsideStore(SqliteStore):
    """A journal beside rows that are elsewhere on this machine.

    Attributes:
        tables: the statements that make its own tables; `due` is one of them.
        syncs: whether what is carried out has to outlive a power failure.
    """

    tables: str

    def __init__(self, path: str, durability: Durability) -> None:
        self.syncs: bool = durability == "power"
        self._is_due: bool = False
        self._is_carried_out: bool = False
        super().__init__(path, durability)

    @abstractmethod
    def carry_out(self) -> None:
        """Carry out what is noted in the table `due`; it may have been carried out already, or in part."""

    @abstractmethod
    def keep(self) -> None:
        """Take what the transaction has changed for what is committed."""

    @abstractmethod
    def take_back(self) -> None:
        """Go back to what was committed last: the transaction has failed."""

    @abstractmethod
    def note_due(self) -> bool:
        """Note what is left to be noted, before the commit; return whether there is anything to be carried out."""

    @override
    def prepare(self) -> None:
        """Make the tables, and carry out what a run that was killed has left to do."""
        if not list(self.connection.execute("PRAGMA table_info(due)")):
            with transaction(self.connection):
                self.connection.execute(self.tables)
        refuse_other_tables(self.connection, self.tables)
        if list(self.connection.execute("SELECT 1 FROM due LIMIT 1")):
            self._is_due = True

    def catch_up(self) -> None:
        """Carry out what is committed and not carried out yet."""
        if self._is_due:
            self.carry_out()
            self._is_due, self._is_carried_out = False, True

    @override
    @contextmanager
    def transaction(self) -> Generator[None]:
        """Open a transaction: all or nothing; what is due is carried out after it."""
        self.catch_up()
        try:
            with transaction(self.connection):
                if self._is_carried_out:
                    self.connection.execute("DELETE FROM due")
                yield
                is_due = self.note_due()
        except BaseException:
            self.take_back()
            raise
        self.keep()
        self._is_carried_out, self._is_due = False, is_due
        self.catch_up()

    @override
    def close(self) -> None:
        """Cross out what is carried out; what cannot be is done again by the next run, and changes nothing."""
        with suppress(StoreError):
            if self._is_carried_out:
                with transaction(self.connection):
                    self.connection.execute("DELETE FROM due")
        super().close()


@contextmanager
def named_by_system(path: str) -> Generator[None]:
    """Turn an error of the system into a `StoreError` that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StoreFullError(f"{path}: the disk is full") from error
        raise StoreError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def sync_directory(path: str) -> None:
    """Have the names in a directory outlive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
