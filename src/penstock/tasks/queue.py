"""A priority queue, for one thread."""

import time
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

from penstock.core import validate
from penstock.core.retry import Seconds

_FASTEST: Final = 1e-6
"""Seconds; with a shorter ageing, a clock would round priorities away."""


class TaskQueue[T]:
    """A priority queue: high first, and among equals first in, first out.

    Any value can be an item, also one that cannot be compared. With `ageing`, an item gains a point of priority for
    every `ageing` seconds that it waits, so that none waits for ever. All items age alike, so their order never changes
    while they wait: an item is filed once, under `priority - enqueued / ageing`.

    Items of one priority stand in line, and a heap holds each priority once: putting in and taking out cost O(log p)
    for p different priorities (with `ageing`, nearly all differ). For one thread.

    Args:
        ageing: seconds of waiting that are worth a point of priority, at least a microsecond; default none.
        clock: gives the seconds by which items age.

    Example:
        queue = TaskQueue[str]()
        queue.enqueue("sweep")
        queue.enqueue("put out the fire", priority=10)
        assert queue.dequeue() == "put out the fire"

    Raises:
        OptionError: an option breaks its rule.
    """

    __slots__ = ("_ageing", "_alone", "_clock", "_keys", "_length", "_lines")

    def __init__(self, *, ageing: Seconds | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        validate.plain_function("clock", clock)
        self._ageing: float | None = None
        if ageing is not None:
            self._ageing = validate.number("ageing", validate.seconds("ageing", ageing), least=_FASTEST)
        self._clock = clock
        self._keys: list[float] = []
        self._alone: dict[float, T] = {}  # the items that are alone with their key: a line would be ten times as large
        self._lines: dict[float, deque[T]] = {}
        self._length = 0

    def enqueue(self, item: T, *, priority: float = 0) -> None:
        """Put `item` in; `priority` is a finite number, and higher is sooner.

        Raises:
            OptionError: `priority` is no such number.
        """
        key = -validate.finite("priority", priority)
        if self._ageing is not None:
            key += self._clock() / self._ageing
        self._length += 1
        if key in self._lines:
            self._lines[key].append(item)
        elif key in self._alone:
            self._lines[key] = deque((self._alone.pop(key), item))
        else:
            self._alone[key] = item
            heappush(self._keys, key)

    def dequeue(self) -> T:
        """Take out the item that is first.

        Raises:
            IndexError: the queue is empty.
        """
        if not self._length:
            raise IndexError("dequeue from an empty TaskQueue")
        self._length -= 1
        key = self._keys[0]
        line = self._lines.get(key)
        if line is None:
            return self._alone.pop(heappop(self._keys))
        item = line.popleft()
        if not line:
            del self._lines[heappop(self._keys)]
        return item

    def peek(self) -> T:
        """Return the item that is first; it stays where it is.

        Raises:
            IndexError: the queue is empty.
        """
        if not self._length:
            raise IndexError("peek into an empty TaskQueue")
        line = self._lines.get(self._keys[0])
        return self._alone[self._keys[0]] if line is None else line[0]

    def size(self) -> int:
        """Return how many items there are, as `len()` does."""
        return self._length

    def is_empty(self) -> bool:
        """Whether there are none; an empty queue is false."""
        return not self._length

    def clear(self) -> None:
        """Drop all items."""
        self._length = 0
        self._keys.clear()
        self._alone.clear()
        self._lines.clear()

    __len__ = size
