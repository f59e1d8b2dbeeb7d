"""Finds a journal: that of a sink, or the one in a database at a path."""

import os
from typing import Any, Final, cast

from penstock.core.errors import OptionError
from penstock.durable.sink import Sink, is_sink, place_of
from penstock.durable.store import JournalPlace
from penstock.exports import naming_extras

SCHEMES: Final = ("postgresql://", "postgres://")
"""What the connection string of a PostgreSQL database begins with, in place of a path."""

type At = Sink | str | os.PathLike[str]
"""A sink, or the path of the database that its journal is in, or the connection string of one of PostgreSQL."""


def journal_at(sink: At) -> JournalPlace:
    """Return the place of the journal.

    Raises:
        OptionError: it is neither a sink nor a path.
    """
    if isinstance(sink, str | os.PathLike):
        path = os.fspath(sink)
        if path.startswith(SCHEMES):
            return _postgres(path)
    elif not is_sink(sink):
        raise OptionError(f"sink must be a sink or the path of its database, got {sink!r}")
    elif not hasattr(sink, "path"):
        return cast("JournalPlace", cast("Any", sink).journal)
    else:
        path = place_of(sink)
    with naming_extras("a journal in a database", {"apsw": "durable"}):
        from penstock.durable.sqlite.journal_file import JournalFile  # noqa: PLC0415 -- its library is an extra

    return JournalFile(path)


def _postgres(dsn: str) -> JournalPlace:
    with naming_extras("a journal in PostgreSQL", {"psycopg": "postgres"}):
        from penstock.durable.postgres.postgres_connection import Address  # noqa: PLC0415 -- its library is an extra
        from penstock.durable.postgres.postgres_place import PostgresPlace  # noqa: PLC0415 -- as above

    return PostgresPlace(Address("sink", dsn))
