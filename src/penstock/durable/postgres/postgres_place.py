"""A journal in a schema of a PostgreSQL database, while no run has it open."""

from collections.abc import Generator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass

from penstock.durable.postgres import postgres_tables as tables
from penstock.durable.postgres.postgres_connection import Address, PostgresConnection
from penstock.durable.postgres.postgres_journal import PostgresJournal
from penstock.durable.postgres.postgres_reader import PostgresReader
from penstock.durable.postgres.writing_session import WritingSession


class PostgresPlace:
    """The place of a journal; see `penstock.durable.store.JournalPlace`."""

    def __init__(self, address: Address, schema: str | None = None) -> None:
        self.address: Address = address
        self.schema: str | None = schema
        self.place: str = address.place

    @contextmanager
    def read(self) -> Generator[PostgresReader]:
        """Open the journal for reading."""
        with closing(PostgresConnection(self.address, self.schema)) as connection:
            tables.require(connection)
            yield PostgresReader(connection)

    @contextmanager
    def write(self) -> Generator["_OpenPostgres"]:
        """Open the journal for changes; if there is none, nothing is made or locked."""
        with self.read():
            pass
        with closing(WritingSession(self.address, self.schema, "process")) as session:
            session.begin()
            yield _OpenPostgres(session, PostgresJournal(session))


@dataclass(frozen=True, slots=True)
class _OpenPostgres:
    """A journal that is open for writing."""

    session: WritingSession
    journal: PostgresJournal

    def transaction(self) -> AbstractContextManager[None]:
        """Open a transaction: all or nothing."""
        return self.session.transaction()
