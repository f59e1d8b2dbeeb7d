"""Opens what the command line calls OUT: a table or a file."""

from pathlib import Path

from penstock.core.errors import OptionError
from penstock.durable.journals import SCHEMES
from penstock.durable.sink import Sink
from penstock.workflows.rows.row_sources import DATABASES, LINES


def open_out(to: str, *, table: str | None = None) -> Sink:
    """Make the sink of `to`: an SQLite database, the connection string of one of PostgreSQL, or a file of JSON lines.

    `table` is the table of a database, default "rows".

    Raises:
        OptionError: nothing says what `to` is, or a file is to have a table.
        ModuleNotFoundError: a library is missing; the message says which extra installs it.
    """
    if to.startswith(SCHEMES):
        from penstock.sinks import PostgresTable  # noqa: PLC0415 -- its library is an extra, and a run has one sink

        return PostgresTable(to, table or "rows")
    suffix = Path(to).suffix.lower()
    if suffix in DATABASES:
        from penstock.sinks import SqliteTable  # noqa: PLC0415 -- as above

        return SqliteTable(to, table or "rows")
    if suffix in LINES and table is None:
        from penstock.sinks import JsonLines  # noqa: PLC0415 -- as above

        return JsonLines(to)
    if suffix in LINES:
        raise OptionError(f"table is for a database, got {table!r} for {to!r}")
    raise OptionError(
        f"to must end in {', '.join((*DATABASES, *LINES))}, or be a connection string of PostgreSQL, got {to!r} "
        "(`penstock export` writes Parquet and CSV from a table)"
    )
