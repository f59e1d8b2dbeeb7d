"""Turns rows of Python into rows of PostgreSQL: the value of each column, and the type that it calls for."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any, Final
from uuid import UUID

from penstock.durable.store_errors import RowError
from penstock.sinks.cells import LEAST, MOST, cell, columns_at_once, shown

type PostgresCell = bool | int | float | str | bytes | None
"""A value as COPY takes it; a `TextOfType` is a text that says of which type it is."""

type PostgresRow = tuple[tuple[str, ...], tuple[PostgresCell, ...]]
"""The names of the columns of a row, and their values."""


class TextOfType(str):
    """A value that goes to the server as text, but is of another type."""

    __slots__ = ()


class Numeric(TextOfType):
    """Of `numeric`."""

    __slots__ = ()


class Json(TextOfType):
    """Of `jsonb`."""

    __slots__ = ()


class Timestamp(TextOfType):
    """Of `timestamp`."""

    __slots__ = ()


class TimestampTz(TextOfType):
    """Of `timestamptz`."""

    __slots__ = ()


class Date(TextOfType):
    """Of `date`."""

    __slots__ = ()


class Time(TextOfType):
    """Of `time`."""

    __slots__ = ()


class TimeTz(TextOfType):
    """Of `timetz`."""

    __slots__ = ()


class Interval(TextOfType):
    """Of `interval`."""

    __slots__ = ()


class Uuid(TextOfType):
    """Of `uuid`."""

    __slots__ = ()


TYPES: Final[Mapping[type, str]] = {
    bool: "boolean",
    int: "bigint",
    float: "double precision",
    str: "text",
    bytes: "bytea",
    Numeric: "numeric",
    Json: "jsonb",
    Timestamp: "timestamp without time zone",
    TimestampTz: "timestamp with time zone",
    Date: "date",
    Time: "time without time zone",
    TimeTz: "time with time zone",
    Interval: "interval",
    Uuid: "uuid",
}
"""The type of a column that is made for a value, as `format_type` calls it."""

LARGEST_VALUE: Final = 250_000_000
"""Bytes of a value: the server takes 1 GB at a time, bytes are sent in hexadecimal, and it copies what it reads."""

_PLAIN: Final = frozenset((int, float, bool))


def cells(row: Mapping[str, Any]) -> tuple[PostgresCell, ...]:
    """Return the values of a row as PostgreSQL holds them; raise `RowError` for the first that no column can hold."""
    return tuple([_cell(name, value) for name, value in row.items()])


def cells_at_once(names: tuple[str, ...], rows: Sequence[dict[str, Any]]) -> list[list[Any]] | None:
    """Return the values of rows, by column, in a fifth of the time of `cells`; None if each row has to be looked at."""
    columns = columns_at_once(names, rows)
    if columns is None or any(map(_has_nul, columns)) or any(map(_has_large, columns)):
        return None
    return columns


def _has_nul(column: list[Any]) -> bool:
    return any("\0" in value for value in column if value.__class__ is str)


def _has_large(column: list[Any]) -> bool:
    return any(_is_large(value) for value in column if value.__class__ is str or value.__class__ is bytes)


def _is_large(value: str | bytes) -> bool:
    if len(value) <= LARGEST_VALUE // 4:  # bytes that UTF-8 needs for a character, at most
        return False
    return len(value.encode() if isinstance(value, str) else value) > LARGEST_VALUE


def _cell(name: str, value: Any) -> PostgresCell:
    if value is None:
        return None
    kind: type[object] = value.__class__
    if kind in _PLAIN and (kind is not int or LEAST <= value <= MOST):
        plain: PostgresCell = value
        return plain
    try:
        held = _held(value)
    except RowError:
        raise
    except Exception as error:  # of the code of others, too, in what a value holds
        raise RowError(
            f"the column {name!r} must have None, a number, text that UTF-8 can hold, bytes, a date or time, a UUID, "
            f"path or enum, or what is JSON of these, got {shown(value)}"
        ) from error
    if isinstance(held, str) and "\0" in held:
        raise RowError(
            f"the column {name!r} must have text without NUL, which PostgreSQL cannot hold, got {shown(value)}"
        )
    if isinstance(held, str | bytes) and _is_large(held):
        raise RowError(f"the column {name!r} must have a value of at most {LARGEST_VALUE:,} bytes, got a larger one")
    return held


def _held(value: Any) -> PostgresCell:  # noqa: PLR0911 -- one for each kind
    if isinstance(value, Enum):
        return _held(value.value)
    if isinstance(value, int) and not isinstance(value, bool):
        number = int.__int__(value)
        return number if LEAST <= number <= MOST else Numeric(number)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, date | time | timedelta) and value != value:  # noqa: PLR0124 -- NaT of pandas
        return None
    if isinstance(value, timedelta):
        return Interval(f"{value // timedelta(microseconds=1)} microseconds")
    written = _kind_of(value)
    if written is not None:
        return written(str(value) if isinstance(value, Decimal) else cell(value))
    held = cell(value)
    return Json(held) if isinstance(held, str) and not _is_text(value) else held


def _kind_of(value: object) -> type[TextOfType] | None:
    if isinstance(value, datetime):
        return Timestamp if value.tzinfo is None else TimestampTz
    if isinstance(value, time):
        return Time if value.tzinfo is None else TimeTz
    kinds: tuple[tuple[type, type[TextOfType]], ...] = ((date, Date), (UUID, Uuid), (Decimal, Numeric))
    return next((written for kind, written in kinds if isinstance(value, kind)), None)


def _is_text(value: object) -> bool:
    """Whether a value is text for itself, or written as text: a path, an address, a fraction."""
    if isinstance(value, str | Fraction):
        return True
    return not isinstance(value, list | tuple | Mapping | AbstractSet) and _writes_itself(value)


def _writes_itself(value: object) -> bool:
    return hasattr(value, "__fspath__") or type(value).__module__ == "ipaddress"
