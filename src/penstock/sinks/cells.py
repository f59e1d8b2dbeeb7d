"""Turns rows of Python into rows of SQLite: their columns, and the value of each.

A value that no column can hold raises `RowError`: the failure of the root that the row came from.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from json import JSONEncoder, dumps
from math import isfinite, isnan
from os import fspath
from pathlib import PurePath
from typing import Any, Final, cast
from uuid import UUID

from penstock.core import validate
from penstock.durable.store_errors import RowError
from penstock.durable.values import kind_of

type Cell = bool | int | float | str | bytes | None
"""A value that SQLite can hold."""

type Row = tuple[tuple[str, ...], tuple[Cell, ...]]
"""The names of the columns of a row, and their values."""

LEAST: Final = -(2**63)
MOST: Final = 2**63 - 1

_NUMBERS: Final = "biuf"
_NUMBERS_OF_PYTHON: Final = frozenset((int, float, bool))
_PLAIN: Final = _NUMBERS_OF_PYTHON | {str, type(None)}
_SHOWN: Final = 100
"""Characters of a value in a message, at most."""


def mapping(row: object) -> Mapping[str, Any]:
    """Return `row` as columns and values: a mapping, or anything with named fields."""
    if isinstance(row, Mapping):
        return cast("Mapping[str, Any]", row)
    named = _fields(row)
    if named is None and hasattr(row, "keys") and hasattr(row, "__getitem__"):  # as the rows of `sqlite3` have
        named = dict(cast("Any", row))
    if named is None:
        raise RowError(f"a row must be a mapping of columns to values, got {shown(row)}")
    return named


def cells(row: Mapping[str, Any]) -> tuple[Cell, ...]:
    """Return the values of a row as SQLite holds them; raise `RowError` for the first that no column can hold."""
    out: list[Cell] = []
    for name, value in row.items():
        kind: type[object] = value.__class__
        if (
            value is None
            or (kind is str and value.isascii())
            or (kind is float and value == value)  # noqa: PLR0124 -- no NaN
            or (kind is int and LEAST <= value <= MOST)
        ):
            out.append(value)
            continue
        try:
            out.append(cell(value))
        except RowError:
            raise
        except Exception as error:  # of the code of others, too, in what a value holds
            raise RowError(
                f"the column {name!r} must have None, an int of 64 bits, a float, text that UTF-8 can hold, bytes, a "
                f"date or time, a UUID, Decimal, path or enum, or what is JSON of these, got {shown(value)}"
            ) from error
    return tuple(out)


def columns_at_once(names: tuple[str, ...], rows: Sequence[dict[str, Any]]) -> list[list[Cell]] | None:
    """Return the values of rows, by column, in a fifth of the time of `cells`; None if each row has to be looked at.

    They are what `cells` gives, if all rows have the same columns, with nothing but plain values.
    """
    if {*map(len, rows)} != {len(names)}:
        return None
    try:
        columns: list[list[Any]] = [[row[name] for row in rows] for name in names]
    except KeyError:
        return None
    return columns if all(map(_is_plain, columns)) else None


def _is_plain(column: list[Any]) -> bool:
    """Whether all values are such as SQLite has them; it looks at them in C, but for columns that hold a mixture."""
    kinds: set[type[object]] = {*map(type, column)}
    if kinds == {str}:
        return validate.is_utf8("".join(column))
    if kinds == {float}:
        return not any(map(isnan, column))
    if not kinds <= _PLAIN:
        return False
    if str in kinds and not validate.is_utf8("".join([value for value in column if value.__class__ is str])):
        return False
    numbers: list[float] = [each for each in column if type(each) in _NUMBERS_OF_PYTHON]
    return not numbers or (min(numbers) >= LEAST and max(numbers) <= MOST and not any(map(isnan, numbers)))


def cell(value: Any) -> Cell:  # noqa: PLR0911 -- one for each kind
    """Return a value as a column holds it; the error says that none can."""
    if value is None or isinstance(value, bool | Enum):
        return cell(value.value) if isinstance(value, Enum) else value
    if isinstance(value, str):
        return _text(str.__str__(value))
    if isinstance(value, int):
        return _whole(int.__int__(value))
    if isinstance(value, float):
        return _part(float.__float__(value))
    if isinstance(value, bytes | bytearray):
        return bytes(memoryview(value))
    if isinstance(value, memoryview):
        return value.tobytes()
    given: Any = value
    if isinstance(value, date | time | timedelta) and given != given:  # noqa: PLR0124 -- NaT of pandas
        return None
    if (written := _written(given)) is not None:
        return _text(written)
    return cell(given.item()) if _is_number_of_numpy(given) else _text(as_json(given))


def shown(value: object) -> str:
    """Show a value in a message, cut if it is long."""
    try:
        text = repr(value)
    except Exception as failure:  # noqa: BLE001 -- code of others
        return f"<{type(value).__name__}, whose repr raised {type(failure).__name__}>"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _text(text: str) -> str:
    if not text.isascii():
        text.encode()
    return text


def _whole(number: int) -> int:
    if not LEAST <= number <= MOST:
        raise OverflowError("more than 64 bits")
    return number


def _part(number: float) -> float | None:
    return None if number != number else number  # noqa: PLR0124 -- NaN


def _is_number_of_numpy(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic) or value.dtype.kind not in _NUMBERS:
        return False
    return not isinstance(value, numpy.longdouble)  # which Python has no number for


def _written(value: Any) -> str | None:
    """Return the text of a value that is written as text; None for any other."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, UUID | Decimal | Fraction):
        return str(value)
    if isinstance(value, PurePath):
        return fspath(value)
    return str(value) if type(value).__module__ == "ipaddress" else None


def _duration(value: timedelta) -> str:
    """Write seconds as an ISO 8601 duration: PT93784.5S."""
    micros = value // timedelta(microseconds=1)
    whole, part = divmod(abs(micros), 1_000_000)
    return f"{'-' if micros < 0 else ''}PT{whole}{f'.{part:06}'.rstrip('0') if part else ''}S"


def _fields(value: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass, a named tuple, a class of attrs or a model of pydantic, by name; else None."""
    kind: Any = kind_of(value)
    if is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in fields(kind)}
    if tuple in kind.__mro__ and hasattr(kind, "_fields"):
        return dict(zip(kind._fields, value, strict=True))
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
    return value.model_dump() if hasattr(kind, "model_dump") and hasattr(kind, "model_fields") else None


def as_json(value: Any) -> str:
    """Return a list, a mapping, a set or what has named fields as JSON, in one line.

    What it raises says that JSON cannot hold it.
    """
    if not isinstance(value, list | tuple | Mapping | AbstractSet) and _fields(value) is None:
        raise TypeError("not JSON")
    _refuse_equal_names(value)
    try:
        return _ENCODE(value)
    except (TypeError, ValueError):  # a NaN, or a key that is no text
        return _ENCODE(_plain(value))


def _refuse_equal_names(whole: Any) -> None:
    """Raise `RowError` for a mapping of which two keys are one name in JSON: whoever reads it would get one of them."""
    left, seen = [whole], set[int]()
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            given = cast("Mapping[Any, Any]", value)
            if not {*map(type, given)} <= {str}:
                names = Counter(map(_name, given))
                if twice := [name for name, times in names.items() if times > 1]:
                    raise RowError(f"{shown(given)} has several keys that are the name {twice[0]!r} in JSON")
            held: Iterable[Any] = given.values()
        elif isinstance(value, list | tuple):
            held = cast("list[Any]", value)
        else:
            continue
        left += [each for each in held if each.__class__ not in _PLAIN]


def _name(key: Any) -> str:
    plain = _key(key)
    return plain if isinstance(plain, str) else dumps(plain)


def _in_json(value: Any) -> Any:
    """Return what stands in JSON for a value that JSON does not have."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    if isinstance(value, AbstractSet):
        return sorted(cast("AbstractSet[Any]", value), key=_encoded)
    named = _fields(value)
    if named is not None:
        return named
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("JSON has no bytes")
    return cell(value)


def _encoded(value: Any) -> str:
    return _ENCODE(_plain(value))


def _plain(value: Any) -> Any:
    """Return the plain value of what JSON itself has; a NaN is null."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, Mapping):
        return {_key(key): _plain(each) for key, each in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in cast("list[Any]", value)]
    if isinstance(value, float):
        if not isfinite(value) and value == value:  # noqa: PLR0124 -- no NaN
            raise ValueError("JSON has no infinity")
        return _part(value)
    if value is None or isinstance(value, str | int):
        return value
    return _plain(_in_json(value))


def _key(key: Any) -> Any:
    if key is None or isinstance(key, Enum | str | int | float):
        return key.value if isinstance(key, Enum) else key
    written = _written(key)
    if written is None:
        raise TypeError("no key of JSON")
    return written


_ENCODE: Final[Callable[[Any], str]] = JSONEncoder(ensure_ascii=False, allow_nan=False, default=_in_json).encode


def check_name(name: object) -> str:
    """Return `name`; raise `RowError` if it cannot be the name of a column in SQL."""
    if not isinstance(name, str):
        raise RowError(f"the name of a column must be a str, got {shown(name)}")
    if "\0" in name or not validate.is_utf8(name):
        raise RowError(f"the name of a column must be text that UTF-8 can hold, without NUL, got {shown(name)}")
    return str.__str__(name)
