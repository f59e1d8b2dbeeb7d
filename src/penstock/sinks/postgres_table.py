"""A table of a PostgreSQL database as a sink."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import batched, groupby, repeat
from typing import Any, Final

from psycopg import sql

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.durable.postgres.postgres_connection import (
    Address,
    KeyRefusalError,
    PostgresConnection,
    RefusalError,
    beside_values,
    quoted,
)
from penstock.durable.postgres.postgres_journal import PostgresJournal
from penstock.durable.postgres.postgres_place import PostgresPlace
from penstock.durable.postgres.postgres_reader import PostgresReader, key_of
from penstock.durable.postgres.writing_session import WritingSession
from penstock.durable.roots import Root, RootId
from penstock.durable.sink import Delivery, Durability
from penstock.durable.store_errors import KeyTakenError, RefusedRowError, RowError, StoreError
from penstock.sinks.cells import mapping, shown
from penstock.sinks.declaring import Declared
from penstock.sinks.postgres_cells import PostgresCell, PostgresRow, cells, cells_at_once
from penstock.sinks.postgres_columns import PLACE, POSTGRES_OPTIONS, ROOT, PostgresColumns, check_name, unique

LARGEST: Final = 50_000
"""Rows of one commit, at most, so that none takes long; a root with more is committed alone."""

_TOGETHER: Final = 1_000
"""Rows that one COPY brings, at most: rows that wait in the database are read in between."""

_COUNTED: Final = """
SELECT coalesce(sum(rows), 0), coalesce(sum(rows * id), 0) FROM penstock_roots
WHERE run IN (SELECT id FROM penstock_runs WHERE sink = %s)
"""


class PostgresTable:
    """Writes rows to a table of PostgreSQL, exactly once: the rows of a root and its done key are one transaction.

    A row is what `SqliteTable` takes: a mapping of column names to values, or anything with named fields. The table is
    made with the first rows, and has the type of their values: `bool` is boolean, an int bigint (numeric past 64 bits),
    a float double precision, `str` text, `bytes` bytea, a `Decimal` numeric, a `UUID` uuid, dates and times date, time,
    timetz, timestamp or timestamptz, a `timedelta` interval; lists, dicts, sets and anything with named fields are
    jsonb. A column that comes later is added; one that has had nothing but None is not there yet. Whole numbers become
    double precision when a number with parts comes, if that changes none of them. Text for a column of another type is
    read by the server, as COPY reads it. Any other value of another type is the failure of its root, and so is one
    above 250 MB, and what the server refuses: see `on_error` of `to`.

    Two columns are added: `penstock_root` says which root a row came from, `penstock_row` counts rows as they came.
    Readers see the old rows of a root or the new ones, never a mixture. The journal of runs is in the same schema; one
    run at a time writes there.

    If the connection is lost, or the server restarts, the run connects again for up to a minute, asks whether its last
    transaction was committed, and goes on. A run that was taken for dead can commit nothing once another has begun.

    Args:
        dsn: a connection string of libpq, as `postgresql://user@host:5432/name`. Its password is in no message; better
            leave it to `PGPASSFILE`. A pooler in between must give each client a session of its own.
        table: the name of the table, or `schema.table`; else it is in the first schema of the `search_path`.
        key: the column, or the columns together, in which every row differs from all others, and has a value.
        columns: the names of the columns that rows may have, or a mapping of names to types in SQL, each also with NOT
            NULL. Default: whatever columns rows have.

    Raises:
        OptionError: an argument breaks its rule.
    """

    delivery: Delivery = "exactly once"

    def __init__(
        self,
        dsn: str,
        table: str,
        *,
        key: str | Sequence[str] | None = None,
        columns: Declared | None = None,
    ) -> None:
        address = Address("dsn", dsn)
        schema, name = _names(table)
        self.table: str = name
        self.journal: PostgresPlace = PostgresPlace(address, schema)
        self.key: tuple[str, ...] = POSTGRES_OPTIONS.key(key)
        self.columns: dict[str, str] | None = POSTGRES_OPTIONS.columns(columns, self.key)

    def __repr__(self) -> str:
        return f"PostgresTable({self.journal.place!r}, {self.table!r})"

    @property
    def identity(self) -> str:
        """The table, in its schema."""
        return f"table {self.table}"

    def open(self, durability: Durability) -> "PostgresStore":
        """Open it for writing; see `penstock.durable.sink`."""
        return PostgresStore(self, durability)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Give the rows, in the order in which they came, without our own columns; a few thousand are held at a time.

        There are none if runs have been there and none has had a row for this table.

        Raises:
            StoreError: no run has been there.
        """
        with closing(PostgresConnection(self.journal.address, self.journal.schema)) as connection:
            columns = connection.columns(self.table)
            if not columns and connection.exists("penstock_journal"):
                return
            if not columns.keys() >= {ROOT, PLACE}:
                raise StoreError(f"{connection.place}: no durable run has written to a table {self.table}")
            names = [name for name in columns if name not in {ROOT, PLACE}]
            query = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
                sql.SQL(", ").join(map(sql.Identifier, names)),
                sql.Identifier(connection.schema, self.table),
                sql.Identifier(PLACE),
            )
            for row in connection.stream(query, 2 * _TOGETHER):
                yield dict(zip(names, row, strict=True))


class PostgresStore:
    """The table, opened for writing by one run; see `penstock.durable.store.Store`.

    Attributes:
        journal: which roots are done, in the same schema.
        largest: rows of one commit, at most.
    """

    def __init__(self, sink: PostgresTable, durability: Durability) -> None:
        self.largest: int = LARGEST
        self._sink = sink
        place = sink.journal
        self._session = WritingSession(place.address, place.schema, durability)
        try:
            self._session.begin()
            self.journal: PostgresJournal = PostgresJournal(self._session)
            self._table = sql.Identifier(self._session.schema, sink.table)
            self._beside_values = beside_values(self._session.schema, sink.table)
            with self._session.transaction():
                self._columns = PostgresColumns(
                    self._session, self._table, sink.table, key=sink.key, fixed=sink.columns
                )
                self._columns.declare()
                if self._columns.known and sink.key:
                    self._hold_to_key(sink.key)
        except BaseException:
            self._session.close()
            raise

    def _hold_to_key(self, key: tuple[str, ...]) -> None:
        """Make sure that a table that is there is held to its key."""
        place, table = self._session.place, self._sink.table
        if missing := [name for name in key if name not in self._columns.known]:
            raise StoreError(f"{place}: the table {table} has no column {missing[0]!r}, which is to be its key")
        indexes = self._session.ask(
            "SELECT array_agg(attname::text) FROM pg_index JOIN pg_attribute ON attrelid = indrelid "
            "AND attnum = ANY(indkey) WHERE indrelid = to_regclass(%s) AND indisunique AND indpred IS NULL "
            "AND indexprs IS NULL GROUP BY indexrelid",
            (f"{quoted(self._session.schema)}.{quoted(table)}",),
        )
        if any(sorted(names) == sorted(key) for (names,) in indexes):
            return
        names = ", ".join(map(repr, key))
        null = sql.SQL(" OR ").join(sql.SQL("{} IS NULL").format(sql.Identifier(name)) for name in key)
        (without,) = self._session.one(sql.SQL("SELECT count(*) FROM {} WHERE {}").format(self._table, null))
        if without:
            raise StoreError(
                f"{place}: {names} cannot be the key of the table {table}: {without:,} rows have no value there"
            )
        try:
            self._session.execute(unique(self._table, key))
        except RefusalError as error:
            raise StoreError(f"{place}: {names} cannot be the key of the table {table}: {error}") from error

    def reader(self) -> PostgresReader:
        """Return a reader of the journal, on a connection of its own."""
        return PostgresReader(PostgresConnection(self._sink.journal.address, self._sink.journal.schema))

    def reach(self, run: int, opening: int) -> None:
        """Return None: there is no place where it costs little to note how far the sources are read."""

    def accept(self, row: Any) -> PostgresRow:
        """Return the row as PostgreSQL holds it; raise `RowError` if it cannot be stored."""
        given: Mapping[str, Any] = row if row.__class__ is dict else mapping(row)
        names = tuple(given)
        key = self._columns.check(names)
        values = cells(given)
        for place in key:
            if values[place] is None:
                raise RowError(f"the key column {names[place]!r} must have a value in every row, got {shown(given)}")
        return names, values

    def accept_all(self, rows: Sequence[Any]) -> Sequence[PostgresRow] | None:
        """Return what `accept` gives for each of the rows; None if each has to be looked at."""
        if {*map(type, rows)} != {dict}:
            return None
        names = tuple(rows[0])
        try:
            key = self._columns.check(names)
        except RowError:
            return None
        columns = cells_at_once(names, rows)
        if columns is None or any(None in columns[place] for place in key):
            return None
        return list(zip(repeat(names), zip(*columns, strict=True)))

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Open a transaction: all or nothing, also of what is known of the table."""
        before = self._columns.known
        try:
            with self._session.transaction():
                yield
        except BaseException as error:
            self._columns.back_to(before)
            if isinstance(error, RefusalError):  # by COMMIT: a constraint of the table is deferred
                raise RefusedRowError(str(error)) from error
            raise

    def send(self, run: str, roots: Iterable[tuple[Root, Iterable[Any]]]) -> None:
        """Do nothing: `replace` brings the rows to where they belong."""

    def replace(self, root: RootId, rows: Iterable[PostgresRow]) -> None:
        """Replace the rows of the root by `rows`."""
        if self._columns.known:
            delete = sql.SQL("DELETE FROM {} WHERE {} = %s").format(self._beside_values, sql.Identifier(ROOT))
            self._session.execute(delete, (root.number,))
        for names, alike in groupby(rows, key=_names_of):
            for some in batched(alike, _TOGETHER):
                values = [values for _, values in some]
                if not self._sink.key:
                    self._put(names, [root.number] * len(values), values)
                    continue
                try:
                    with self._session.savepoint():
                        self._put(names, [root.number] * len(values), values)
                except KeyRefusalError as error:
                    raise self._key_of_another(root.number, names, values) or RefusedRowError(str(error)) from error

    def add(self, rows: Iterable[tuple[int, PostgresRow]]) -> None:
        """Add rows of roots that have none, each with the number of its root.

        Rows with the same columns go together.
        """
        for names, alike in groupby(rows, key=_names_of_root):
            for some in batched(alike, self.largest):
                self._put(names, [root for root, _ in some], [values for _, (_, values) in some])

    def _put(self, names: tuple[str, ...], roots: list[int], rows: Sequence[tuple[PostgresCell, ...]]) -> None:
        """Insert rows of these columns."""
        names, columns = self._columns.fit(names, rows)
        into = sql.SQL("COPY {} ({}) FROM STDIN").format(
            self._table, sql.SQL(", ").join(map(sql.Identifier, (ROOT, *names)))
        )
        self._session.copy(into, zip(roots, *columns, strict=True))

    def _key_of_another(
        self, root: int, names: tuple[str, ...], rows: Sequence[tuple[PostgresCell, ...]]
    ) -> RowError | None:
        """Return the error for the first of these rows that has the key of a row that is there, or of another one."""
        key = self._sink.key
        places = [names.index(name) for name in key]
        same = sql.SQL(" AND ").join(sql.SQL("there.{} = %s").format(beside_values(name)) for name in key)
        whose = sql.SQL(
            "SELECT owner.id, owner.key, owner.run = own.run AND owner.times < own.times FROM {} AS there "
            "LEFT JOIN penstock_roots AS owner ON owner.id = there.{} "
            "JOIN penstock_roots AS own ON own.id = %s WHERE {}"
        ).format(self._beside_values, sql.Identifier(ROOT), same)
        seen: set[tuple[PostgresCell, ...]] = set()
        for row in rows:
            values = tuple(row[place] for place in places)
            found = self._session.ask(whose, (root, *values))
            if not found and values not in seen:
                seen.add(values)
                continue
            owner, held, may_give_it_up = found[0] if found else (root, b"", False)
            has = f"a row of root {key_of(held)!r}" if held and owner is not None else "a row of no run"
            has = "another row of this root" if owner == root else has
            what = f"the key column{'' if len(key) == 1 else 's'} {', '.join(map(repr, key))}"
            said = repr(values[0]) if len(values) == 1 else repr(values)
            kind = KeyTakenError if may_give_it_up else RowError
            refused = kind(f"{what} must differ in every row, got {said}, which {has} has")
            refused.row = dict(zip(names, row, strict=True))
            return refused
        return None

    def refusal(self, error: Exception) -> RowError | None:
        """Return the `RowError` for what the server refuses of a row."""
        if isinstance(error, RefusalError):
            return RefusedRowError(str(error))
        if isinstance(error, UnicodeEncodeError | OverflowError):
            return RowError(f"a value that PostgreSQL cannot hold: {error}")
        return None

    def lost(self, run: int) -> Sequence[tuple[int, int]]:
        """Return the roots that have lost rows, and how many they still have."""
        there: sql.SQL | sql.Composed = sql.SQL("SELECT NULL::bigint AS root, 0::bigint AS number")
        if self._columns.known:
            whole = sql.SQL("SELECT count(*), coalesce(sum({}), 0) FROM {}").format(sql.Identifier(ROOT), self._table)
            if self._session.one(whole) == self._session.one(_COUNTED, (self._sink.identity,)):
                return ()
            there = sql.SQL("SELECT {} AS root, count(*) AS number FROM {} GROUP BY 1").format(
                sql.Identifier(ROOT), self._beside_values
            )
        lost = sql.SQL(
            "SELECT id, coalesce(number, 0) FROM penstock_roots LEFT JOIN ({}) AS there ON root = id "
            "WHERE run = %s AND times > 0 AND rows > coalesce(number, 0)"
        ).format(there)
        return [(number, left) for number, left in self._session.ask(lost, (run,))]

    def is_there(self) -> bool:
        """Whether the journal is there; if that cannot be looked at, it is taken to be."""
        try:
            with self._session.transaction():
                return not self._columns.known or self._session.exists(self._sink.table)
        except StoreError:
            return True

    def abort(self) -> None:
        """Do nothing: what is finished is soon written."""

    def close(self) -> None:
        """Close it, and let others write."""
        self._session.close()


def _names_of(row: PostgresRow) -> tuple[str, ...]:
    return row[0]


def _names_of_root(row: tuple[int, PostgresRow]) -> tuple[str, ...]:
    return row[1][0]


def _names(table: object) -> tuple[str | None, str]:
    """Return the schema, if one is said, and the name of the table; raise `OptionError` if they cannot be names."""
    text = validate.text("table", table)
    schema, dot, name = text.rpartition(".")
    if "." in schema or (dot and not schema):
        raise OptionError(f"table must be the name of a table, or schema.table, got {text!r}")
    for each in (schema, name) if dot else (name,):
        try:
            check_name(each)
        except RowError as error:
            raise OptionError(f"table: {error}") from None
    if name.startswith(("penstock_", "pg_")):
        raise OptionError(f"table must not begin with penstock_ or pg_, got {name!r}")
    return schema or None, name
