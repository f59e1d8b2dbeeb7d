"""Opens what the command line calls ROWS: a file, a directory, a query, or standard input."""

import json
import os
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from importlib import import_module
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from penstock.core.errors import OptionError, SourceError
from penstock.core.plan import OnError
from penstock.durable.journals import SCHEMES
from penstock.durable.ledger import Identity
from penstock.exports import naming_extras
from penstock.sources.keyed import keyed
from penstock.sources.paths import key_of
from penstock.streams import Stream
from penstock.workflows.rows.standard_input import numbered_lines

if TYPE_CHECKING:
    from penstock.sources.files import File
    from penstock.sources.read_ahead import Reading

LINES: Final = (".jsonl", ".ndjson")
DATABASES: Final = (".db", ".sqlite", ".sqlite3")

_AT_ONCE: Final = 1_000
"""Rows of a Parquet file that are decoded together."""


def open_rows(
    over: str,
    *,
    key: str | None = None,
    query: str | None = None,
    glob: str | None = None,
    texts: bool = False,
    on_error: OnError = "collect",
) -> Stream[Any]:
    """Make a stream over the rows of `over`, each a root with a key, for `to`.

    Args:
        over: a file of JSON lines (.jsonl, .ndjson), CSV (.csv, .tsv) or Parquet (.parquet); a directory; an SQLite
            database (.db, .sqlite, .sqlite3) or the connection string of one of PostgreSQL, with a `query`; "-": lines
            of JSON from standard input.
        key: the column by which a row is known from run to run. Default: its place in the file; a query needs one, and
            files of a directory have their paths.
        query: the query of a database.
        glob: which files of a directory, as for `penstock.files`; default all.
        texts: whether rows of a directory have the `text` of their file, beside its `path` and `key`.
        on_error: what becomes of a file whose text cannot be read.

    Raises:
        OptionError: the options do not fit together, or nothing says what `over` is.
        SourceError: there is no such file.
        ModuleNotFoundError: a library is missing; the message says which extra installs it.
    """
    opens = _opener(over)
    for option, value, fits in (("query", query, _query), ("glob", glob, _directory)):
        if value is not None and opens is not fits:
            raise OptionError(f"{option} is for {'a database' if option == 'query' else 'a directory'}, got {over!r}")
    if query is None and opens is _query:
        raise OptionError(f"query must say which rows of the database {_shown(over)} are meant, got None")
    if key is None and opens is _query:
        raise OptionError("key must name the column by which a row of a query is known from run to run, got None")
    if key is not None and opens is _directory:
        raise OptionError(f"key is for rows with columns; files of a directory are known by their paths, got {key!r}")
    if opens is not _standard_input and not over.startswith(SCHEMES):
        _refuse_missing(over)
    return opens(_RowsAsked(over, key, query or "", glob or "**/*", texts, on_error))


def numbered_rows(over: Iterable[Any], key: str | None) -> Stream[Any]:
    """Make a stream over rows of an iterable, each a root: known by a column, or by its place."""

    def key_of_row(pair: tuple[int, Any]) -> str | int:
        return pair[0] if key is None else column_of(pair[1], key, f"rows, row {pair[0]}")

    return keyed(
        _Numbered(over), key=key_of_row, version=lambda pair: digest_of(pair[1]), name=f"rows by {key or 'place'}"
    ).map(_row_of, name="row")


class _Numbered:
    """The rows of an iterable with their numbers, from 1; as often as the iterable can be read."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        return iter(enumerate(self._rows, 1))


@dataclass(frozen=True, slots=True)
class _RowsAsked:
    over: str
    key: str | None
    query: str
    glob: str
    texts: bool
    on_error: OnError


def _opener(over: str) -> Callable[[_RowsAsked], Stream[Any]]:
    if over == "-":
        return _standard_input
    if over.startswith(SCHEMES):
        return _query
    if Path(over).is_dir():
        return _directory
    suffix = Path(over).suffix.lower()
    known: dict[str, Callable[[_RowsAsked], Stream[Any]]] = {
        **dict.fromkeys(LINES, _lines),
        **dict.fromkeys(DATABASES, _query),
        ".csv": _csv,
        ".tsv": _csv,
        ".parquet": _parquet,
    }
    if suffix not in known:
        raise OptionError(
            f"over must be a file that ends in {', '.join(sorted(known))}, a directory, a connection string of "
            f"PostgreSQL, or - for standard input, got {over!r}"
        )
    return known[suffix]


def _refuse_missing(over: str) -> None:
    """Refuse a file that is not there before anything is made, or said of other files that a run was over."""
    try:
        Path(over).stat()
    except OSError as error:
        raise SourceError(f"{over}: {(error.strerror or str(error)).lower()}") from error


def _shown(over: str) -> str:
    return "of PostgreSQL" if over.startswith(SCHEMES) else repr(over)


def _lines(asked: _RowsAsked) -> Stream[Any]:
    from penstock.sources.jsonl import jsonl  # noqa: PLC0415 -- a run has one source

    return jsonl(asked.over, key=asked.key, growing=False)


def _csv(asked: _RowsAsked) -> Stream[Any]:
    from penstock.sources.csv_file import csv  # noqa: PLC0415 -- as above

    return csv(asked.over, key=asked.key, delimiter="\t" if asked.over.lower().endswith(".tsv") else ",")


def _query(asked: _RowsAsked) -> Stream[Any]:
    from penstock.sources.rows import rows  # noqa: PLC0415 -- as above

    return rows(asked.over, asked.query, key=asked.key or "")


def _directory(asked: _RowsAsked) -> Stream[Any]:
    from penstock.sources.files import files  # noqa: PLC0415 -- as above

    return files(asked.over, asked.glob).map(
        _with_text if asked.texts else _without_text, name="file", on_error=asked.on_error
    )


def _without_text(file: "File") -> dict[str, Any]:
    return {"path": str(file.path), "key": file.key}


def _with_text(file: "File") -> dict[str, Any]:
    return {"path": str(file.path), "key": file.key, "text": file.read_text()}


def _standard_input(asked: _RowsAsked) -> Stream[Any]:
    """Read lines of JSON; a line is known by its key, or by its place."""
    if sys.stdin is None:  # it was closed
        raise OptionError("over is standard input, which is closed")
    name = "standard input" + (f" by {asked.key!r}" if asked.key else "")
    column = asked.key

    def key(pair: tuple[int, Any]) -> str | int:
        return pair[0] if column is None else column_of(pair[1], column, f"standard input, line {pair[0]}")

    stream = keyed(_read_lines(), key=key, version=lambda pair: digest_of(pair[1]), name=name)
    return stream.map(_row_of, name="row")


async def _read_lines() -> AsyncGenerator[tuple[int, Any]]:
    async for number, line in numbered_lines(sys.stdin.fileno()):
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SourceError(f"standard input, line {number}: not JSON: {error}") from error


def _parquet(asked: _RowsAsked) -> Stream[Any]:
    from penstock.sources.read_ahead import read_ahead  # noqa: PLC0415 -- as above

    pyarrow()
    path, column = os.path.realpath(asked.over), asked.key

    def key(pair: tuple[int, dict[str, Any]]) -> str | int:
        return pair[0] if column is None else column_of(pair[1], column, f"{path}, row {pair[0]}")

    by = f" by {column!r}" if column else ""
    identity = Identity(f"parquet {key_of(path)}{by}", key=key, version=lambda pair: digest_of(pair[1]))
    return read_ahead("parquet", lambda reading: _read_parquet(path, reading), identity).map(_row_of, name="row")


def pyarrow(part: str = "") -> Any:
    """Import it, or a part of it; it has no types."""
    with naming_extras("a Parquet file", {"pyarrow": "parquet"}):
        return import_module(f"pyarrow.{part}" if part else "pyarrow")


def _row_of(pair: tuple[int, Any]) -> Any:
    return pair[1]


def _read_parquet(path: str, _: "Reading") -> Generator[tuple[int, dict[str, Any]]]:
    arrow = pyarrow("parquet")
    try:
        with arrow.ParquetFile(path) as file:
            columns: list[str] = file.schema_arrow.names
            if twice := [name for name, times in Counter(columns).items() if times > 1]:
                raise SourceError(f"{path}: several columns have the name {twice[0]!r}")
            first = 1
            for batch in file.iter_batches(batch_size=_AT_ONCE):
                yield from enumerate(_decoded(batch, path, first), first)
                first += batch.num_rows
    except (OSError, pyarrow().ArrowException) as error:
        raise SourceError(f"{path}: {' '.join(str(error).split())}") from error


def _decoded(batch: Any, path: str, first: int) -> list[dict[str, Any]]:
    """Return rows as values of Python; raise `SourceError` for the first that it has not, as a time in nanoseconds."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (ValueError, OverflowError):
        for place, name in product(range(batch.num_rows), batch.schema.names):
            try:
                batch[name][place].as_py()
            except (ValueError, OverflowError) as error:
                raise SourceError(f"{path}, row {first + place}, column {name!r}: {error}") from error
        raise
    return rows


def column_of(row: object, column: str, where: str) -> str | int:
    """Return the key of a row: the value of a column.

    Raises:
        SourceError: the row has no such column, or its value can be no key.
    """
    value = row.get(column) if isinstance(row, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] -- of others
    if isinstance(value, bool) or not isinstance(value, str | int):
        names = ", ".join(map(repr, islice(cast("dict[Any, Any]", row), 20))) if isinstance(row, dict) else "no columns"
        raise SourceError(f"{where}: the key {column!r} must be text or an int, got {value!r}: the row has {names}")
    return value


def digest_of(row: object) -> str:
    """Return what changes when a row does."""
    return blake2b(json.dumps(row, sort_keys=True, default=repr).encode(), digest_size=16).hexdigest()
