"""Which iterables hold their items in memory, and how many items an iterable has."""

from collections import deque
from collections.abc import Sized
from typing import Final

AT_HAND: Final = (list, tuple, set, frozenset, dict, deque)
"""Iterables that hold their items in memory; any other (a `range`, a query) may compute them as it is read."""


def length_of(iterable: object) -> int | None:
    """Return the length of `iterable`, if it has one: wrappers of iterators may have a `__len__` that raises."""
    try:
        return len(iterable) if isinstance(iterable, Sized) else None
    except Exception:  # noqa: BLE001 -- whatever it is, there is no length
        return None
