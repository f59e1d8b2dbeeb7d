"""Finds the journal of a sink, or the one in a database at a path."""

import os
from typing import TYPE_CHECKING, Any, cast

from penstock.core.errors import OptionError
from penstock.durable.sink import Sink, is_sink
from penstock.exports import naming_extras

if TYPE_CHECKING:
    from penstock.durable.store import JournalPlace

type At = Sink | str | os.PathLike[str]
"""A sink, or the path of the database that its journal is in."""


def journal_at(sink: At) -> "JournalPlace":
    """Return where the journal is.

    Raises:
        OptionError: it is neither a sink nor a path.
    """
    path = sink
    if not isinstance(sink, str | os.PathLike):
        if not is_sink(sink):
            raise OptionError(f"sink must be a sink or the path of its database, got {sink!r}")
        journal = getattr(sink, "journal", None)
        if journal is not None:
            return cast("JournalPlace", journal)
        path = cast("Any", sink).path
    with naming_extras("a journal in a database", {"apsw": "durable"}):
        from penstock.durable.sqlite.journal_file import JournalFile  # noqa: PLC0415 -- its library is an extra

    return JournalFile(os.fspath(cast("str", path)))
