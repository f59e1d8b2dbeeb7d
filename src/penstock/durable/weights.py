"""How much memory a row takes, roughly: enough to bound what waits."""

from collections.abc import Iterable
from typing import Any, Final, cast

_ROW: Final = 1_000
"""Bytes that count as one row."""

_ELEMENT: Final = 32
"""Bytes of an element of a list: a float and the reference to it."""

_SMALL: Final = frozenset((type(None), bool, int, float))


def weight(row: Any) -> int:
    """In rows of up to a kilobyte, at least 1; what stands deeper than in a column is taken for small."""
    size = 0
    values: Iterable[Any] = cast("dict[Any, Any]", row).values() if isinstance(row, dict) else (row,)
    for value in values:
        kind: type[object] = value.__class__
        if kind is str or kind is bytes:
            size += len(value)
        elif kind is list or kind is tuple:
            size += _ELEMENT * len(value)
        elif kind not in _SMALL and hasattr(kind, "nbytes"):  # arrays
            size += value.nbytes
    return 1 + size // _ROW
