"""The one writer of a schema: its lock, its epoch, and transactions that are known to be committed or not.

The idea: the schema's one row in `penstock_journal` has an `epoch`, counted up by every writer that comes, and a
`serial`, counted up by every transaction. A transaction begins with the update of that row, if it still has the
writer's epoch. So

- a writer that was taken for dead can commit nothing any more once another has come;
- a transaction whose reply to COMMIT was lost is committed if, and only if, the row has its serial: rows, done keys and
  serial are one transaction.

A lock of the session keeps a second writer away while the first one lives: the server frees it with the session.
"""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import Final, override

import psycopg

from penstock.durable.owner import owner
from penstock.durable.postgres import postgres_tables as tables
from penstock.durable.postgres.postgres_connection import Address, WritingConnection, quoted
from penstock.durable.sink import Durability
from penstock.durable.store_errors import HeldError, LostTransactionError, StoreError

LOCK: Final = 0x70656E73
"""The class of our locks among all advisory locks of a database; their object is the schema."""

_ENDING: Final = 0.3
"""Seconds that the server gets to notice that a writer was killed."""

_BETWEEN: Final = 0.05

_ASKED: Final = 10
"""How often it is asked whether a transaction is committed: nothing else may be taken for the answer."""

_TAKE: Final = "SELECT pg_try_advisory_lock(%s, %s::regnamespace::oid::int)"
HOLDERS: Final = """
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s::regnamespace AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_BEGIN: Final = "UPDATE penstock_journal SET serial = serial + 1 WHERE epoch = %s RETURNING serial"


class WritingSession(WritingConnection):
    """A connection with the lock of its schema, for one writer.

    Attributes:
        connected: how often it had to connect again.
    """

    def __init__(self, address: Address, schema: str | None, durability: Durability) -> None:
        """Connect and take the lock; raise `HeldError` if somebody has it."""
        self._durability = durability
        self._epoch = 0
        self._serial = 0
        self._process = 0
        self.connected: int = 0
        super().__init__(address, schema)
        try:
            self._settings()
            self._take()
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        """Make the tables if there are none, or refuse them, and begin an epoch."""
        self.execute("BEGIN")
        try:
            tables.make(self)
            said = "UPDATE penstock_journal SET epoch = epoch + 1, holder = %s, since = now() RETURNING epoch, serial"
            self._epoch, self._serial = self.one(said, (owner(),))
            self.execute("DELETE FROM penstock_staged")
            self.commit()
        except BaseException:
            self.roll_back()
            raise

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Open a transaction: all or nothing.

        Raises:
            LostTransactionError: the connection was lost, and is there again; nothing of the transaction is.
            HeldError: another writer has come since.
        """
        self._begin()
        try:
            yield
        except BaseException:
            self.roll_back()
            raise
        try:
            self.commit()
        except LostTransactionError:
            if not self._is_committed():
                raise
        except BaseException:
            self.roll_back()
            raise
        self._serial += 1

    def _begin(self) -> None:
        if self.is_lost:
            self._come_back()
        try:
            self._enter()
        except LostTransactionError:
            self._come_back()
            self._enter()

    def _enter(self) -> None:
        self.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        found = self.ask(_BEGIN, (self._epoch,))
        if found != [(self._serial + 1,)]:
            self.roll_back()
            self._refuse_other_writer()

    def _refuse_other_writer(self) -> None:
        holder = self.one("SELECT epoch, serial, holder, since FROM penstock_journal")
        if holder[0] != self._epoch:
            raise HeldError(f"{self.place}: {holder[2]} has taken it over, since {holder[3]:%Y-%m-%d %H:%M:%S}")
        raise StoreError(
            f"{self.place}: the database has gone back in time: {self._serial - holder[1]:,} transactions that it had "
            "committed are not there; the same run again goes on from what is there"
        )

    def _come_back(self) -> None:
        """Connect again and take the lock again, from the server's rest of our last session if it has to be."""
        lost = self._process
        self.connected += 1
        self.reconnect()
        self._settings()
        self._take(lost)

    def _is_committed(self) -> bool:
        """Whether the last transaction is committed, whose end nobody has told; asked until there is an answer."""
        for _ in range(_ASKED):
            with suppress(LostTransactionError):
                self._come_back()
                epoch, serial = self.one("SELECT epoch, serial FROM penstock_journal")
                return bool((epoch, serial) == (self._epoch, self._serial + 1))
        raise StoreError(
            f"{self.place}: the connection is lost again and again; the same run again finds what was committed"
        )

    def _settings(self) -> None:
        if self._durability == "power":
            self.execute("SET synchronous_commit = 'on'")

    def _take(self, lost: int = 0) -> None:
        schema = quoted(self.schema)
        ends = monotonic() + _ENDING
        while not self.one(_TAKE, (LOCK, schema))[0]:
            if lost and (lost,) in self.ask(HOLDERS, (LOCK, schema)):
                self.ask("SELECT pg_terminate_backend(%s)", (lost,))
            elif monotonic() > ends:
                raise HeldError(f"{self.place}: {self._holder()}")
            sleep(_BETWEEN)
        self._process = self._connection.info.backend_pid

    def _holder(self) -> str:
        """Say who has the lock."""
        if not self.exists("penstock_journal"):
            return "another process is writing to it"
        holder, since = self.one("SELECT holder, since FROM penstock_journal")
        return f"{holder} is writing to it, since {since:%Y-%m-%d %H:%M:%S}"

    @override
    def close(self) -> None:
        """Free the lock, which the server would do a moment later, and close the connection."""
        with suppress(psycopg.Error):
            self._connection.execute("SELECT pg_advisory_unlock_all()")
        super().close()
