"""Looks up, in pages, which roots were settled before."""

from collections.abc import Iterator
from itertools import count
from typing import Any, Final

from penstock.durable.roots import Key
from penstock.durable.store import JournalReader, Known, KnownRoots
from penstock.durable.store_errors import DamageError

PAGE: Final = 1024
"""Roots that are read at once, at most: no read lasts so long that the write-ahead log cannot be checkpointed."""

_COUNTED: Final = 8 * PAGE
"""Roots that are counted at once: a millisecond."""

_WORTH: Final = 8
"""Roots of a page that can be read in the time of looking up a single one."""


class DoneRoots:
    """The roots of a run that the journal knows.

    Attributes:
        place: the journal that it reads.
    """

    def __init__(self, reader: JournalReader, run: int) -> None:
        self._reader = reader
        self._run = run
        self.place: str = reader.place

    def lookup(self) -> "Lookup":
        """Return what finds the roots of one source."""
        return Lookup(self._reader, self._run)

    def settled_before(self, opening: int) -> Iterator[list[tuple[int, Key]]]:
        """Give the number and key of every root settled before that opening, in the order of keys, a page at a time."""
        last: Key | None = None
        while page := self._reader.settled(self._run, last, PAGE):
            if last is not None and _rank(page[0][1]) <= _rank(last):  # it would not end
                raise DamageError(f"{self.place}: the database is damaged: its keys are not in their order")
            yield [(number, key) for number, key, times in page if times != opening]
            last = page[-1][1]

    def count_settled(self, but: int) -> Iterator[int]:
        """Count the roots that were settled in other openings, some at a time."""
        last: Key | None = None
        while True:
            number, end = self._reader.count_settled(self._run, last, _COUNTED, but=but)
            yield number
            if end is None:
                return
            if last is not None and _rank(end) <= _rank(last):  # it would not end
                raise DamageError(f"{self.place}: the database is damaged: its keys are not in their order")
            last = end


class Lookup:
    """Finds roots by key, in the order of keys: a page at a time.

    A page is as long as the last one was worth. If keys come in order it grows; if they do not, each key is looked up
    by itself.

    Attributes:
        page: the places of the roots that were read last, by key; the same dict at all times.
        roots: what is known of those.
        next: the place behind the last of them that was asked for.
    """

    def __init__(self, reader: JournalReader, run: int) -> None:
        self._reader = reader
        self._run = run
        self._low: Key | None = None  # the page holds what there is from here
        self._high: Key | None = None  # to here, or to the end
        self._highest: Key | None = None  # of the keys that were not found
        self._end: Key | None = None  # the same, where the page has all that was there behind it
        self._size = PAGE // 16
        self._turned_at = 0
        self._not_there = 0
        self._before: Key | None = None  # the last key that was looked up by itself
        self._rising = 0  # how many of those came in order
        self.page: dict[Key, int] = {}
        self.roots: KnownRoots = KnownRoots()
        self.next: int = 0

    def at(self, place: int) -> Known:
        """Return what is known of the root at a place of the page."""
        if place >= self.next:
            self.next = place + 1
        return self.roots.at(place)

    def find(self, key: Key, position: int) -> Known | None:
        """Return what is known of the root of that key, which is not in the page; `position` counts its keys."""
        end = self._end
        if end is not None and key.__class__ is end.__class__ and key > end:  # type: ignore[operator] # pyright: ignore[reportOperatorIssue] -- of one type
            self._end = self._highest = key
            self._not_there += 1
            return None
        if self._size == 1 and not self._in_order_again(key):
            known = self._reader.known(self._run, key)
        elif not self._covers(key):
            self._turn_to(key, position)
            place = self.page.get(key)
            known = None if place is None else self.at(place)
        elif self._highest is None or _rank(key) > _rank(self._highest):
            known = None  # it was not there when the page was read, and no run but this one settles it
        else:
            known = self._reader.known(self._run, key)
        if known is None:
            self._not_there += 1
            if self._highest is None or _rank(key) > _rank(self._highest):
                self._highest = key
                self._end = key if self._low is not None and self._high is None and self._covers(key) else None
        return known

    @property
    def is_at_the_end(self) -> bool:
        """Whether the last key that was looked for comes after all known ones."""
        return self._end is not None

    def has_none_of(self, keys: list[Key]) -> bool:
        """Whether keys of one type, in rising order, come after all known ones: one look for all of them.

        It may answer no even if nothing is known of them.
        """
        end: Any = self._end
        first: Any = keys[0]
        if end.__class__ is not first.__class__ or first <= end or not self.page.keys().isdisjoint(keys):
            return False
        self._end = self._highest = keys[-1]
        self._not_there += len(keys)
        return True

    def _in_order_again(self, key: Key) -> bool:
        """Whether enough keys that were looked up by themselves came in order, so that a page is worth a try."""
        before, self._before = self._before, key
        self._rising = self._rising + 1 if before is not None and _rank(key) > _rank(before) else 0
        if self._rising <= _WORTH:
            return False
        self._size, self._low, self._end, self._rising = 2 * _WORTH, None, None, 0
        return True

    def _covers(self, key: Key) -> bool:
        if self._low is None or _rank(key) < _rank(self._low):
            return False
        return self._high is None or _rank(key) <= _rank(self._high)

    def _turn_to(self, key: Key, position: int) -> None:
        """Read the page that begins at that key."""
        if self._low is not None:
            used = position - self._turned_at - self._not_there
            self._size = min(2 * self._size, PAGE) if used * _WORTH > self._size else 1
        self._turned_at, self._not_there = position, 0
        self._end = None
        self.page.clear()
        self.roots = roots = self._reader.known_from(self._run, key, self._size)
        self.page.update(zip(roots.keys, count(), strict=False))
        self.next = 0
        self._low = key
        self._high = roots.keys[-1] if len(self.page) == self._size else None


def _rank(key: Key) -> tuple[bool, Any]:
    """Return what keys are ordered by: numbers before text."""
    return isinstance(key, str), key
