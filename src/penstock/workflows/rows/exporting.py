"""Writes the rows of a table to a file: lines of JSON, CSV, or Parquet."""

import csv
import fcntl
import glob
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import batched
from pathlib import Path
from typing import Any, Final

from penstock.core.errors import OptionError
from penstock.durable.journals import SCHEMES, journal_at
from penstock.durable.sink import place_of
from penstock.durable.store_errors import StoreError
from penstock.sinks.cells import cell
from penstock.sinks.outside import named_by_system
from penstock.workflows.rows.row_sources import pyarrow

_AT_ONCE: Final = 10_000
"""Rows that are encoded together."""

_JSON: Final = frozenset((bool, int, float, dict, list))
"""Types of values that are JSON in a column of text."""

type ExportedRows = Iterable[dict[str, Any]]


def export(database: str, to: str, *, table: str = "rows") -> int:
    """Write the rows of a table, in the order in which they came, to a file; return how many there are.

    The file is put in its place when it is complete: nobody sees half of it. What an export that was killed has written
    beside it, the next one to the same file removes. Memory does not grow with the rows.

    Args:
        database: the path of an SQLite database, or the connection string of one of PostgreSQL.
        to: a file that ends in .jsonl, .ndjson, .csv or .parquet.
        table: the table.

    Raises:
        OptionError: nothing says what `to` is.
        StoreError: no run has written to the table, or it cannot be read; or the file cannot be written.
        ModuleNotFoundError: a library is missing; the message says which extra installs it.
    """
    write = {".jsonl": _lines, ".ndjson": _lines, ".csv": _csv, ".parquet": _parquet}.get(Path(to).suffix.lower())
    if write is None:
        raise OptionError(f"to must end in .jsonl, .ndjson, .csv or .parquet, got {to!r}")
    if not Path(to).absolute().parent.is_dir():
        raise OptionError(f"to must be in a directory that is there, got {to!r}")
    if database.startswith(SCHEMES):
        from penstock.sinks import PostgresTable  # noqa: PLC0415 -- its library is an extra

        sink: Any = PostgresTable(database, table)
    else:
        from penstock.sinks import SqliteTable  # noqa: PLC0415 -- as above

        if not Path(database).exists():
            raise StoreError(f"{database}: no such database")
        sink = SqliteTable(database, table)
    columns = _ColumnKinds(sink.rows())
    if not columns.kinds:
        _check_a_run_is_into(sink)
    with named_by_system(to):
        descriptor, part = _new_part(Path(to).absolute())
        try:
            number = write(part, lambda: columns.checked(sink.rows()), columns)
            os.fsync(descriptor)  # else a power failure may leave the name to an empty file
            part.chmod(0o666 & ~_umask())
            part.replace(to)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
    return number


def _new_part(to: Path) -> tuple[int, Path]:
    """Make the file that is to become `to`, locked as long as it is open; remove those of exports that were killed."""
    for left in to.parent.glob(f".{glob.escape(to.name)}.*.part"):
        with suppress(OSError):  # somebody writes to it, or it is not ours
            descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(descriptor)
    while True:
        descriptor, part = tempfile.mkstemp(dir=to.parent, prefix=f".{to.name}.", suffix=".part")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if Path(part).exists():
            return descriptor, Path(part)
        os.close(descriptor)  # another export has removed it before it was locked


def _check_a_run_is_into(sink: Any) -> None:
    """Raise `StoreError` if no run has ever had the table as its sink: it is empty because its name is wrong."""
    with journal_at(sink).read() as journal:
        sinks = {run.sink for run in journal.runs()}
    if sink.identity not in sinks and "" not in sinks:  # a journal of an older format does not say
        there = ", ".join(sorted(sinks)) or "none"
        raise StoreError(f"{place_of(sink)}: no run has written to {sink.identity}; runs have written to: {there}")


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


class _ColumnKinds:
    """The names of all columns, and the types of their values, from one look at every row."""

    def __init__(self, rows: ExportedRows) -> None:
        self.kinds: dict[str, set[type]] = {}
        for row in rows:
            for name, value in row.items():
                kinds = self.kinds.setdefault(name, set())
                if value is not None:
                    kinds.add(value.__class__)

    def checked(self, rows: ExportedRows) -> Iterator[dict[str, Any]]:
        """Give the rows; raise `StoreError` if a run has given the table other columns, or other types, since."""
        for row in rows:
            for name, value in row.items():
                if name not in self.kinds or (value is not None and type(value) not in self.kinds[name]):
                    raise StoreError(f"the column {name!r} has changed while the table was read: export it again")
            yield row

    @property
    def names(self) -> list[str]:
        return list(self.kinds)


def _lines(path: Path, rows: Any, _: _ColumnKinds) -> int:
    number = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number, row in enumerate(rows(), 1):
            try:
                line = json.dumps(row, ensure_ascii=False, default=_text, allow_nan=False)
            except ValueError:
                raise StoreError(f"row {number}: {_no_number(row)}") from None
            file.write(f"{line}\n")
    return number


def _csv(path: Path, rows: Any, columns: _ColumnKinds) -> int:
    number = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns.names, lineterminator="\n")
        writer.writeheader()
        for number, row in enumerate(rows(), 1):  # noqa: B007 -- returned
            writer.writerow({name: _in_csv(value) for name, value in row.items()})
    return number


def _no_number(row: dict[str, Any]) -> str:
    """Say which column of a row JSON has no number for."""
    for name, value in row.items():
        try:
            json.dumps(value, default=_text, allow_nan=False)
        except ValueError:
            return f"the column {name!r} has {value!r}, which JSON has not: export it to Parquet or CSV"
    raise AssertionError


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=_text)


def _text(value: object) -> Any:
    """Return what stands for a value that JSON has not: of bytes their hexadecimal digits."""
    return value.hex() if isinstance(value, bytes) else cell(value)


def _in_csv(value: object) -> object:
    return _as_text(value) if value is not None and not isinstance(value, int | float) else value


def _parquet(path: Path, rows: Any, columns: _ColumnKinds) -> int:
    arrow, parquet = pyarrow(), pyarrow("parquet")
    kinds = {name: _arrow_type(arrow, found) for name, found in columns.kinds.items()}
    schema = arrow.schema([(name, kind) for name, (kind, _) in kinds.items()])
    number = 0
    with parquet.ParquetWriter(path, schema) as writer:
        for some in batched(_held(rows(), kinds), _AT_ONCE):
            writer.write_table(arrow.Table.from_pylist(list(some), schema=schema))
            number += len(some)
    return number


def _held(rows: ExportedRows, kinds: dict[str, tuple[Any, bool]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {name: _as_text(value) if kinds[name][1] and value is not None else value for name, value in row.items()}


def _as_text(value: Any) -> str:
    return _json(value) if value.__class__ in _JSON else str(_text(value))


def _arrow_type(arrow: Any, found: set[type]) -> tuple[Any, bool]:
    """Return the type of a column, and whether its values have to be written as text: they are of several types."""
    for kinds, kind in (
        ({bool}, arrow.bool_()),
        ({int}, arrow.int64()),
        ({int, float}, arrow.float64()),
        ({bytes}, arrow.binary()),
    ):
        if found and found <= kinds:
            return kind, False
    if found <= {str}:
        return arrow.string(), False
    return arrow.string(), True
