"""Rows of a PostgreSQL query as a source; one column is the key."""

import marshal
from collections.abc import Generator
from contextlib import closing
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from penstock.core import validate
from penstock.core.errors import OptionError
from penstock.durable.ledger import Identity
from penstock.exports import naming_extras
from penstock.sources.read_ahead import Reading, read_ahead
from penstock.streams import Stream

if TYPE_CHECKING:
    from penstock.durable.postgres.postgres_connection import Address

HIDDEN: Final = frozenset({"penstock_root", "penstock_row"})
"""Columns that sinks add to their tables: they say nothing of a row, and `SELECT *` has them."""

_AT_ONCE: Final = 2_000
"""Rows that the server sends together."""


def postgres_rows(dsn: str, sql: str, *, key: str, version: str | None = None) -> Stream[dict[str, Any]]:
    """Make a stream over the rows of a query on a PostgreSQL database, as dicts; for `to`, each row is a root.

    The query runs once, in a transaction that only reads: a run of hours sees one state of the database. Its cursor is
    the server's, so memory does not grow with the rows. A thread reads them, up to 256 ahead. With `ORDER BY` the key,
    passing over what is done is quicker.

    Args:
        dsn: a connection string of libpq; its password is in no message.
        sql: a query; each of its columns needs a name of its own. The columns `penstock_root` and `penstock_row` of our
            own tables are left out.
        key: the column by which a row is known from run to run: text or integers, each once.
        version: the column that changes when the row does; default a digest of the whole row.

    Raises:
        OptionError: an option breaks its rule; in the run, if the query has no such column.
        ModuleNotFoundError: psycopg is not installed.
        StoreError: in the run, if the database cannot be read, or the query is wrong.
    """
    with naming_extras("penstock.postgres_rows", {"psycopg": "postgres"}):
        from penstock.durable.postgres.postgres_connection import Address  # noqa: PLC0415 -- its library is an extra

    address, query = Address("dsn", dsn), validate.text("sql", sql).strip().rstrip(";").strip()
    validate.text("key", key)
    named = [("key", key)] + ([] if version is None else [("version", validate.text("version", version))])

    def version_of(row: dict[str, Any]) -> str:
        return _digest(row) if version is None else str(row[version])

    identity = Identity(
        f"rows of {address.place}: {' '.join(query.split())}", key=lambda row: row[key], version=version_of
    )
    return read_ahead("postgres", lambda _: _read(address, query, named, _), identity)


def _read(address: "Address", query: str, named: list[tuple[str, str]], _: Reading) -> Generator[dict[str, Any]]:
    from penstock.durable.postgres.postgres_connection import PostgresConnection  # noqa: PLC0415 -- as above

    with closing(PostgresConnection(address, None)) as connection:
        for names, row in connection.query(query, _AT_ONCE):
            for option, column in named:
                if column in HIDDEN or column not in names:
                    there = ", ".join(name for name in names if name not in HIDDEN)
                    raise OptionError(f"{option} must name a column of the query, got {column!r}: it has {there}")
            if len(set(names)) < len(names):
                raise OptionError(f"sql must give each column a name of its own, got {', '.join(names)}")
            yield {name: value for name, value in zip(names, row, strict=True) if name not in HIDDEN}


def _digest(row: dict[str, Any]) -> str:
    try:
        data = marshal.dumps(list(row.values()), 2)
    except ValueError:  # of a date, say
        data = repr(list(row.values())).encode()
    return blake2b(data, digest_size=16).hexdigest()
