"""Passes over items that are done: those that come in the order of a page of the journal cost no step for each root.

What is noted of them, that they were seen and in which opening they were done, is noted for many at a time.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from penstock.durable.roots import DONE, Key

if TYPE_CHECKING:
    from penstock.durable.done import Lookup
    from penstock.durable.store import KnownRoots

NONE: Final = object()
"""Stands for no item."""


class Seen(dict[int, int]):
    """Numbers of roots that were seen, as bits of a number for each 1,024: it grows with the run, not with all runs."""

    def add(self, number: int) -> bool:
        """Note a number; return whether it was the first time."""
        block, bit = number >> 10, 1 << (number & 1023)
        before = self.get(block, 0)
        self[block] = before | bit
        return not before & bit

    def add_all(self, numbers: Sequence[int]) -> None:
        """Note numbers, at once if each is one more than the one before."""
        for block, bits in _bits(numbers):
            self[block] = self.get(block, 0) | bits

    def some_of(self, numbers: Sequence[int]) -> set[int]:
        """Return those numbers that were seen."""
        if any(self.get(block, 0) & bits for block, bits in _bits(numbers)):
            return {number for number in numbers if self.get(number >> 10, 0) >> (number & 1023) & 1}
        return set()

    def count(self) -> int:
        """Return how many were seen."""
        return sum(map(int.bit_count, self.values()))

    def others(self, page: list[tuple[int, Key]]) -> list[tuple[int, Key]]:
        """Return those of a page that were not seen."""
        return [each for each in page if not self.get((number := each[0]) >> 10, 0) >> (number & 1023) & 1]


def _bits(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Give the blocks of numbers, and their bits there: together for those that follow each other."""
    if not numbers:
        return
    first, end = numbers[0], numbers[-1] + 1
    if end - first != len(numbers) or tuple(numbers) != tuple(range(first, end)):
        for number in numbers:
            yield number >> 10, 1 << (number & 1023)
        return
    while first < end:
        block = first >> 10
        upto = min(end, (block + 1) << 10)
        yield block, ((1 << (upto - first)) - 1) << (first & 1023)
        first = upto


def none_passed(items: Iterator[Any]) -> tuple[int, Any]:
    """Pass over nothing; see `PassingOver.upto`."""
    return 0, next(items, NONE)


class PassingOver:
    """Passes over the items of one source."""

    def __init__(
        self,
        lookup: "Lookup",
        key_of: Callable[[Any], Key],
        version_of: Callable[[Any], str],
        *,
        opening: int,
        seen: Seen,
        passed: Counter[int],
        positions: Iterator[int],
    ) -> None:
        """Look for roots that were done before `opening`; note them in `seen` and `passed`, and count `positions`."""
        self._lookup = lookup
        self._key_of = key_of
        self._version_of = version_of
        self._opening = opening
        self._seen = seen
        self._passed = passed
        self._positions = positions
        self._roots: KnownRoots | None = None
        self._expected: Sequence[Key | None] = ()

    def upto(self, items: Iterator[Any]) -> tuple[int, Any]:
        """Pass over items as long as they are the next ones of the page, and done; an exception is one that is not.

        Return how many those are, and the item behind them, if one was read: nothing is read behind that.
        """
        lookup, key_of, version_of = self._lookup, self._key_of, self._version_of
        place = begin = lookup.next
        if begin == len(lookup.roots.keys):
            return 0, next(items, NONE)
        if self._roots is not lookup.roots:
            self._turn_to(lookup.roots)
        following = zip(self._expected[begin:], lookup.roots.versions[begin:], items, strict=False)
        for key, version, item in following:
            try:
                given = key_of(item)
                if given != key or type(given) is not type(key) or version_of(item) != version:
                    break
            except Exception:  # noqa: BLE001 -- it comes again, for its item
                break
            place += 1
        else:
            item = next(items, NONE)
        if place > begin:
            self._note(begin, place)
        return place - begin, item

    def _turn_to(self, roots: "KnownRoots") -> None:
        """Prepare for another page: what is not done, or was seen before, is not to be passed over."""
        self._roots = roots
        is_done = {times: 0 < times < self._opening for times in set(roots.times)}
        seen = self._seen.some_of(roots.numbers[self._lookup.next :])
        if not seen and all(is_done.values()) and set(roots.states) <= {DONE}:
            self._expected = roots.keys
            return
        self._expected = [
            key if state == DONE and is_done[times] and number not in seen else None
            for key, number, state, times in zip(roots.keys, roots.numbers, roots.states, roots.times, strict=True)
        ]

    def _note(self, begin: int, end: int) -> None:
        lookup = self._lookup
        lookup.next = end
        self._seen.add_all(lookup.roots.numbers[begin:end])
        self._passed.update(lookup.roots.times[begin:end])
        deque(islice(self._positions, end - begin), 0)
