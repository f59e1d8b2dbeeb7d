"""The sink that a run has gone into, as its journal knows it."""

import os

from penstock.core.errors import OptionError
from penstock.durable.journals import SCHEMES
from penstock.durable.sink import Sink


def sink_at(path: str, identity: str) -> Sink:
    """Make the sink of that identity at that path; raise `OptionError` if it is none of this library."""
    kind, _, name = identity.partition(" ")
    if kind == "table" and name and path.startswith(SCHEMES):
        from penstock.sinks.postgres_table import PostgresTable  # noqa: PLC0415 -- as below

        return PostgresTable(path, name)
    if kind == "table" and name:
        from penstock.sinks.table import SqliteTable  # noqa: PLC0415 -- each brings libraries of its own

        return SqliteTable(path, name)
    if identity == "vectors":
        from penstock.sinks.vectors import SqliteVectors  # noqa: PLC0415 -- as above

        return SqliteVectors(path)
    if kind == "lines" and name:
        from penstock.sinks.json_lines import JsonLines  # noqa: PLC0415 -- as above

        return JsonLines(os.path.join(os.path.dirname(path), name), journal=path)  # noqa: PTH118, PTH120 -- strings
    if identity == "files":
        from penstock.sinks.directory import Files  # noqa: PLC0415 -- as above

        return Files(os.path.dirname(os.path.dirname(path)))  # noqa: PTH120 -- strings
    where = "where a function has brought them" if identity == "callback" else f"in {identity or 'a sink'!r}"
    raise OptionError(f"the rows of this run are {where}: they cannot be reached from here")
