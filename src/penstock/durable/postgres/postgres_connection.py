"""PostgreSQL through psycopg: the one place that connects.

What the server or its content raises becomes a `StoreError` that names the database, at any call; a password is in none
of its messages. A connection that is lost is opened anew, for up to a minute: servers restart.
"""

import os
import weakref
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import Any, Final, LiteralString, cast, override

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.durable.store_errors import LostTransactionError, StoreError, StoreFullError

PATIENCE: Final = 60.0
"""Seconds for which a server may be away in the middle of a run."""

_TRIES: Final = 2
"""How often a question is asked again whose connection is lost."""

_BETWEEN: Final = 0.2
"""Seconds between two attempts to connect again."""

_DEFAULTS: Final[Mapping[str, Any]] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    "application_name": "penstock",
}
"""What a connection string may say otherwise. A network that is cut in silence is noticed within a minute."""

_SESSION: Final[tuple[LiteralString, ...]] = (
    "SET client_connection_check_interval = '2s'",  # a statement whose client was killed ends, and its lock is free
    "SET tcp_keepalives_idle = 30",
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 3",
    "SET lock_timeout = '60s'",
    "SET statement_timeout = 0",
    "SET idle_in_transaction_session_timeout = 0",
    "SET idle_session_timeout = 0",
    "SET client_min_messages = 'warning'",
)
"""Some of them no server knows that is older than its 14th version: those are passed over."""


type PostgresQuery = LiteralString | sql.Composed
"""Never one that was put together from text of others."""


class Address:
    """Where a database is, by a connection string.

    Attributes:
        dsn: the string, which may hold a password: never in a message.
        place: the same for messages.
    """

    def __init__(self, option: str, dsn: object) -> None:
        """Read it; raise `OptionError` if it is none."""
        if not isinstance(dsn, str) or not dsn or "\0" in dsn or not validate.is_utf8(dsn):
            kind = type(dsn).__name__ if not isinstance(dsn, str) else "other text"
            raise OptionError(f"{option} must be a connection string, as postgresql://user@host:5432/name, got {kind}")
        try:
            parts = conninfo_to_dict(dsn)
        except psycopg.ProgrammingError:
            raise OptionError(
                f"{option} must be a connection string, as postgresql://user@host:5432/name, got one that libpq cannot "
                "read (not shown here, as it may hold a password)"
            ) from None
        self.dsn: str = dsn
        user, host, port, name = (str(parts.get(part) or "") for part in ("user", "host", "port", "dbname"))
        self.place: str = (
            f"postgresql://{user and f'{user}@'}{host or parts.get('hostaddr') or ''}{port and f':{port}'}/{name}"
        )
        self.arguments: str = make_conninfo("", **{**_DEFAULTS, **parts})

    @override
    def __repr__(self) -> str:
        return f"Address({self.place!r})"


_GONE: Final = (errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.IdleSessionTimeout)
"""What a server says that is about to end a session."""


_REFUSALS: Final = (
    psycopg.IntegrityError,
    psycopg.DataError,
    errors.ProgramLimitExceeded,
    errors.StatementTooComplex,
    errors.TooManyColumns,
)
"""What is said of a row, or of a value of it."""

_TOO_LARGE: Final = "invalid memory alloc request size"
"""What the server says of a row that has no place in 1 GB, as an error of its own."""

_OF_A_TRIGGER: Final = "P0"
"""The class of the codes that a trigger raises, as `RAISE EXCEPTION` does, for a row that it does not want."""


class RefusalError(StoreError):
    """The server refuses a row, or a value of it."""


class KeyRefusalError(RefusalError):
    """A row has the key of another."""


class PostgresConnection:
    """A connection that asks; what it asks changes nothing, so it is asked again if the connection is lost meanwhile.

    Attributes:
        place: the database, for messages.
        schema: where the tables are.
    """

    def __init__(self, address: Address, schema: str | None) -> None:
        self.place: str = address.place
        self._address = address
        self._wanted = schema
        self.schema: str = ""
        self._connection: psycopg.Connection[Any] = self._connect()

    def _connect(self) -> psycopg.Connection[Any]:
        """Connect, and set up the session; raise `StoreError` that says why it cannot be done."""
        try:
            connection = psycopg.connect(self._address.arguments, autocommit=True)
        except psycopg.Error as error:
            raise StoreError(f"{self.place}: cannot connect: {_line(error)}") from error
        _open.add(connection)
        try:
            for statement in _SESSION:
                with suppress(psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue):
                    connection.execute(statement)
            self.schema = self._schema_of(connection)
            connection.execute(
                "SELECT set_config('search_path', %s || ', ' || current_setting('search_path'), false)",
                (quoted(self.schema),),
            )
        except psycopg.Error as error:
            connection.close()
            raise self.named(error) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _schema_of(self, connection: psycopg.Connection[Any]) -> str:
        encoding = connection.execute("SHOW server_encoding").fetchone()
        if encoding != ("UTF8",):
            raise StoreError(f"{self.place}: a database in {(encoding or '?')[0]}, it must be in UTF8")
        wanted = self._wanted
        there = connection.execute(
            "SELECT coalesce(%s::text, current_schema()), EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)",
            (wanted, wanted),
        ).fetchone()
        assert there is not None
        if wanted is not None and not there[1]:
            raise StoreError(f"{self.place}: no schema {wanted!r}")
        if there[0] is None:
            raise StoreError(f"{self.place}: its search_path has no schema in which tables could be made")
        return str(there[0])

    def reconnect(self) -> None:
        """Connect again, for as long as the server may be away; raise `StoreError` with the last reason after that."""
        ends = monotonic() + PATIENCE
        while True:
            self.close()
            try:
                self._connection = self._connect()
            except StoreError as error:
                if monotonic() > ends:
                    raise StoreError(f"{error} (for {PATIENCE:.0f} s); the same run again goes on") from error
                sleep(_BETWEEN)
            else:
                return

    @property
    def is_lost(self) -> bool:
        """Whether there is no connection any more."""
        return self._connection.closed

    def ask(self, statement: PostgresQuery, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        for _ in range(_TRIES):
            with suppress(LostTransactionError):
                return self._ask(statement, values)
            self.reconnect()
        return self._ask(statement, values)

    def _ask(self, statement: PostgresQuery, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, values or None).fetchall()
        except psycopg.Error as error:
            raise self.named(error) from error

    def one(self, statement: PostgresQuery, values: Sequence[Any] = ()) -> tuple[Any, ...]:
        """Return the only row of a query; raise `StoreError` if there is none."""
        found = self.ask(statement, values)
        if len(found) != 1:
            raise StoreError(f"{self.place}: the database is damaged: {len(found)} rows where one is to be")
        return found[0]

    def exists(self, table: str) -> bool:
        """Whether the schema has that table."""
        return bool(self.columns(table))

    def columns(self, table: str) -> dict[str, str]:
        """Return the columns of a table and their types, as the server calls them; none if there is no such table."""
        columns = (
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = to_regclass(%s) "
            "AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
        return dict(self.ask(columns, (f"{quoted(self.schema)}.{quoted(table)}",)))

    def stream(self, statement: sql.Composed, most: int) -> Generator[tuple[Any, ...]]:
        """Give the rows of a query, some at a time, as they were when it began."""
        try:
            with self._connection.transaction(), self._connection.cursor("penstock") as cursor:
                cursor.itersize = most
                cursor.execute(statement)
                yield from cursor
        except psycopg.Error as error:
            raise self._unreadable(error) from error

    def query(self, text: str, most: int) -> Generator[tuple[list[str], tuple[Any, ...]]]:
        """Give the rows of somebody's query, some at a time, with the names of its columns; nothing can be changed."""
        try:
            self._connection.read_only = True
            with self._connection.transaction(), self._connection.cursor("penstock") as cursor:
                cursor.itersize = most
                cursor.execute(cast("LiteralString", text))
                names = [column.name for column in cursor.description or ()]
                for row in cursor:
                    yield names, row
        except psycopg.Error as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: psycopg.Error) -> StoreError:
        """Return the error of a query: no row is at fault, also where a value is, as a date that Python has not."""
        named = self.named(error)
        return StoreError(f"{self.place}: {named}") if isinstance(named, RefusalError) else named

    def named(self, error: Exception) -> StoreError:
        """Return an error of psycopg as one that names the database."""
        connection = getattr(self, "_connection", None)
        if isinstance(error, errors.DiskFull):
            return StoreFullError(f"{self.place}: the disk is full")
        if isinstance(error, errors.UniqueViolation):
            return KeyRefusalError(_line(error))
        line = _line(error)
        is_refusal = isinstance(error, _REFUSALS) or (getattr(error, "sqlstate", None) or "").startswith(_OF_A_TRIGGER)
        if is_refusal or _TOO_LARGE in line:
            return RefusalError(line)
        if connection is not None and (connection.closed or isinstance(error, _GONE)):
            connection.close()
            return LostTransactionError(f"{self.place}: the connection was lost: {_line(error)}")
        return StoreError(f"{self.place}: {_line(error)}")

    def close(self) -> None:
        """Close it."""
        self._connection.close()


class WritingConnection(PostgresConnection):
    """A connection that writes: inside a transaction, nothing is asked again, as the first half of it would be lost."""

    def execute(self, statement: PostgresQuery, values: Sequence[Any] = ()) -> int:
        """Run a statement; return how many rows it has changed."""
        try:
            return self._connection.execute(statement, values or None).rowcount
        except psycopg.Error as error:
            raise self.named(error) from error

    def execute_many(self, statement: LiteralString, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each row."""
        try:
            with self._connection.cursor() as cursor:
                cursor.executemany(statement, rows)
        except psycopg.Error as error:
            raise self.named(error) from error

    def copy(self, statement: PostgresQuery, rows: Iterable[Sequence[Any]], kinds: Sequence[str] = ()) -> None:
        """Insert rows by a COPY statement; `kinds` are the types of its columns if it is a binary one."""
        try:
            with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
                if kinds:
                    copy.set_types(kinds)
                for row in rows:
                    copy.write_row(row)
        except psycopg.Error as error:
            raise self.named(error) from error

    @override
    def ask(self, statement: PostgresQuery, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._ask(statement, values)

    def commit(self) -> None:
        """Commit the open transaction."""
        try:
            done = self._connection.execute("COMMIT", prepare=False).statusmessage
        except psycopg.Error as error:
            raise self.named(error) from error
        if done != "COMMIT":
            raise StoreError(f"{self.place}: the transaction was not committed: one of its statements had failed")

    def roll_back(self) -> None:
        """Give the open transaction up, if there is one."""
        with suppress(psycopg.Error):
            self._connection.execute("ROLLBACK")

    @contextmanager
    def savepoint(self) -> Generator[None]:
        """Undo what is done in this block, and nothing else, if it raises a `RefusalError`."""
        self.execute("SAVEPOINT penstock")
        try:
            yield
        except RefusalError:
            self.execute("ROLLBACK TO SAVEPOINT penstock")
            raise
        self.execute("RELEASE SAVEPOINT penstock")  # else the next one is inside it: n of them cost n * n


def quoted(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'


def beside_values(*names: str) -> sql.SQL:
    """Quote a name, or a schema and a name, for a statement that comes with values: a percent sign is doubled there."""
    return sql.SQL(cast("LiteralString", ".".join(map(quoted, names)).replace("%", "%%")))


def _line(error: Exception) -> str:
    """Return what an error says in one line, with what the server adds: which key, which column."""
    diagnostics = getattr(error, "diag", None)
    said = getattr(diagnostics, "message_primary", None) or str(error).strip() or type(error).__name__
    more = getattr(diagnostics, "message_detail", None)
    where = getattr(diagnostics, "context", None)
    column = where if isinstance(where, str) and where.startswith("COPY ") else None
    return "; ".join(" ".join(str(part).split()) for part in (said, more, column) if part)


_open: "weakref.WeakSet[psycopg.Connection[Any]]" = weakref.WeakSet()
"""The connections of this process."""


def _let_go() -> None:
    """Take the sockets from a forked child: it would keep the session alive, and the lock with it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for connection in list(_open):
        with suppress(psycopg.Error, OSError, ValueError):
            os.dup2(nowhere, connection.pgconn.socket)
    os.close(nowhere)


os.register_at_fork(after_in_child=_let_go)
