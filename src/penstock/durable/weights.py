"""Estimates the memory that a row takes: enough to bound what waits."""

import sys
from collections import deque
from dataclasses import fields, is_dataclass
from typing import Any, Final, cast

_ROW: Final = 1_000
"""Bytes that count as one row."""

_ELEMENT: Final = 32
"""Bytes of an element of a list: a float and the reference to it."""

_COLUMN: Final = 50
"""Bytes of a column beside its value: of the dict, and of the object."""

_NUMBERS: Final = frozenset((type(None), bool, int, float))
_LISTS: Final = frozenset((list, tuple, set, frozenset, deque))


class WeighedRow:
    """A row that knows its weight."""

    __slots__ = ("weight",)

    weight: int


def weight(row: Any) -> int:
    """Return the weight in rows of a kilobyte, at least 1; nested values count as those in columns do."""
    if isinstance(row, WeighedRow):
        return row.weight
    if row.__class__ is dict:
        size = _COLUMN * len(row)
        for value in cast("dict[Any, Any]", row).values():
            kind: type[object] = value.__class__
            if kind is bytes or (kind is str and value.isascii()):
                size += len(value)
            elif kind is not int and kind not in _NUMBERS:
                size += _size(value)
    else:
        size = _size(row)
    return 1 + size // _ROW


def _size(whole: Any) -> int:
    """Return the bytes of a value and of all that it holds, each object once, at any depth."""
    size = 0
    seen = set[int]()
    left: list[Any] = [whole]
    while left:
        value = left.pop()
        kind: type[object] = value.__class__
        if kind is str or kind is bytes:
            size += sys.getsizeof(value)
            continue
        if kind in _NUMBERS:
            size += _ELEMENT
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        if kind in _LISTS:
            if set(map(type, value)) <= _NUMBERS:
                size += _ELEMENT * len(value)
            else:
                size += _COLUMN + 8 * len(value)
                left += value
        elif kind is dict:
            size += _COLUMN + 2 * _COLUMN * len(value)
            left += value.keys()
            left += value.values()
        else:
            size += _own_size(kind, value)
            left += _held_by(value)
    return size


def _own_size(kind: type[object], value: Any) -> int:
    nbytes: object = getattr(value, "nbytes", 0) if hasattr(kind, "nbytes") else 0  # of arrays, which may be of others
    try:
        return max(sys.getsizeof(value), nbytes if isinstance(nbytes, int) else 0)
    except Exception:  # noqa: BLE001 -- a `__sizeof__` of others
        return 0


def _held_by(value: Any) -> list[Any]:
    """Return what an object of a class holds: its attributes, and its elements if it derives from a collection."""
    held: list[Any] = list(getattr(value, "__dict__", {}).values())
    if isinstance(value, dict):
        held += [*cast("dict[Any, Any]", value).keys(), *cast("dict[Any, Any]", value).values()]
    elif isinstance(value, list | tuple | set | frozenset | deque):
        held += cast("list[Any]", value)
    elif not held and is_dataclass(value) and not isinstance(value, type):  # with slots
        held += [getattr(value, field.name, None) for field in fields(value)]
    return held
