"""Rows of an SQLite database as a source; one column is the key."""

import marshal
import os
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from importlib.util import find_spec
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from penstock.core import validate
from penstock.core.errors import OptionError, SourceError
from penstock.durable.journals import SCHEMES
from penstock.durable.ledger import Identity
from penstock.sources.paths import key_of
from penstock.sources.postgres_rows import HIDDEN, postgres_rows
from penstock.sources.read_ahead import Reading, read_ahead
from penstock.streams import Stream

if TYPE_CHECKING:
    from penstock.durable.sqlite.connection import Connection

_PART: Final = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|\Z)|\s+|.""", re.DOTALL
)
"""A literal or a name in quotes, a comment, space, or any other character, as SQLite reads them."""

type Parameters = Sequence[Any] | Mapping[str, Any]


def rows(
    database: str | os.PathLike[str],
    sql: str,
    *,
    key: str,
    version: str | None = None,
    parameters: Parameters = (),
) -> Stream[dict[str, Any]]:
    """Make a stream over the rows of a query on an SQLite or PostgreSQL database, as dicts; for `to`, each is a root.

    The query runs once, on a connection that only reads, and SQLite puts its rows aside in a temporary file before the
    first is handed on. So a run of hours sees one state of the database and keeps no lock on it; it may be the database
    of the sink. A thread reads rows, up to 256 or 4 MB ahead. With `ORDER BY` the key, passing over what is done is
    quicker.

    Args:
        database: the file; or a connection string, as `postgresql://user@host/name`: then the rows come from a cursor
            of the server, in a transaction that only reads, and `parameters` are not taken.
        sql: a query; each of its columns needs a name of its own. The columns `penstock_root` and `penstock_row` of our
            own tables are left out, so `SELECT *` gives the rows as they were stored.
        key: the column by which a row is known from run to run: text or integers, each once.
        version: the column that changes when the row does; default a digest of the whole row.
        parameters: values for `?` or `:name` in the query; they are not part of the identity of the source.

    Example:
        users = penstock.rows("app.db", "SELECT id, name FROM users ORDER BY id", key="id")

    Raises:
        OptionError: an option breaks its rule; in the run, if the query has no such column.
        ModuleNotFoundError: apsw is not installed, or psycopg.
        SourceError: in the run, at a text that is not UTF-8.
        StoreError: in the run, if the database cannot be read, or the query is wrong.
    """
    if isinstance(database, str) and database.startswith(SCHEMES):
        if parameters:
            raise OptionError(f"parameters are for SQLite, got {parameters!r} for PostgreSQL")
        return postgres_rows(database, sql, key=key, version=version)
    if find_spec("apsw") is None:
        raise ModuleNotFoundError("penstock.rows needs apsw: pip install 'penstock[durable]'", name="apsw")
    query = _Query(
        os.path.realpath(validate.path("database", database)),
        _plain(validate.text("sql", sql)),
        validate.text("key", key),
        None if version is None else validate.text("version", version),
        parameters,
    )
    identity = Identity(
        f"rows of {key_of(query.path)}: {query.sql}",
        key=itemgetter(key),
        version=_digest if version is None else lambda row: _text(row[version]),
    )
    return read_ahead("rows", query.read, identity, size=_size)


@dataclass(frozen=True, slots=True)
class _Query:
    """The query that `rows` reads."""

    path: str
    sql: str
    key: str
    version: str | None
    parameters: Parameters

    def read(self, _: Reading) -> Generator[dict[str, Any]]:
        """Read the rows; runs in a thread."""
        from penstock.durable.sqlite.connection import TextError, connect_reader  # noqa: PLC0415 -- an extra

        with closing(connect_reader(self.path, of_others=True)) as connection:
            names = self._columns(connection)
            columns = ", ".join(f"c{number}" for number in range(len(names)))
            connection.execute(f"CREATE TEMP TABLE penstock_rows ({columns})")
            connection.execute(f"INSERT INTO temp.penstock_rows {self.sql}", self.parameters)
            shown = [place for place, name in enumerate(names) if name not in HIDDEN]
            chosen = ", ".join(f"c{place}" for place in shown)
            given = [names[place] for place in shown]
            found, number = connection.execute(f"SELECT {chosen} FROM temp.penstock_rows ORDER BY rowid"), 0  # noqa: S608 -- numbers
            try:
                for number, row in enumerate(found, 1):  # noqa: B007 -- for the error
                    yield dict(zip(given, row, strict=True))
            except TextError as error:
                raise self._no_text(connection, names, number + 1) from error

    def _no_text(self, connection: "Connection", names: list[str], number: int) -> SourceError:
        """Make the error for a row with a text that cannot be read."""
        from penstock.durable.sqlite.connection import TextError  # noqa: PLC0415 -- an extra

        for place, name in enumerate(names):
            value = f"SELECT c{place} FROM temp.penstock_rows WHERE rowid = ?"  # noqa: S608 -- a number
            try:
                list(connection.execute(value, (number,)))
            except TextError:
                return SourceError(
                    f"{self.path}: the column {name!r} of row {number:,} holds text that is not UTF-8: "
                    "CAST(... AS BLOB) gives its bytes"
                )
        raise AssertionError(number)

    def _columns(self, connection: "Connection") -> list[str]:
        from apsw.ext import query_info  # noqa: PLC0415 -- an extra

        found = query_info(connection, self.sql, self.parameters)
        names = [name for name, _ in found.description]
        if found.query_remaining or not names:
            raise OptionError(f"sql must be one query, got {self.sql!r}")
        there = [name for name in names if name not in HIDDEN]
        for option, column in (("key", self.key), ("version", self.version)):
            if column is not None and column not in there:
                raise OptionError(
                    f"{option} must name a column of the query, got {column!r}: it has {', '.join(there)}"
                )
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise OptionError(f"sql must give each column a name of its own, got {twice!r} twice")
        return names


def _plain(sql: str) -> str:
    """Return the query without comments, without its end mark, and with single spaces."""
    parts = (" " if part.isspace() or part.startswith(("--", "/*")) else part for part in _PART.findall(sql))
    return "".join(" " if is_space else "".join(run) for is_space, run in groupby(parts, " ".__eq__)).strip(" ;")


def _digest(row: dict[str, Any]) -> str:
    return blake2b(marshal.dumps(list(row.values()), 2), digest_size=16).hexdigest()


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _size(row: dict[str, Any]) -> int:
    return sum(len(value) for value in row.values() if isinstance(value, str | bytes))
