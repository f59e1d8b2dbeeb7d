"""A queue of what is to be done, the most urgent first."""

import time
from collections.abc import Callable
from heapq import heappop, heappush

from penstock.core import validate
from penstock.core.retry import Seconds


class TaskQueue[T]:
    """A priority queue: high first, and among equals first in, first out.

    Any value is an item, also one that cannot be compared. With `ageing`, an item gains a point of priority for every
    `ageing` seconds that it waits, so that none waits for ever. All of them age alike, so their order never changes
    while they wait: an item is filed once, under `priority - enqueued / ageing`.

    Putting in and taking out cost O(log n). For one thread.

    Args:
        ageing: seconds of waiting that are worth a point of priority, > 0; default none.
        clock: the seconds by which items age.

    Example:
        queue = TaskQueue[str]()
        queue.enqueue("sweep")
        queue.enqueue("put out the fire", priority=10)
        assert queue.dequeue() == "put out the fire"

    Raises:
        OptionError: an option breaks its rule.
    """

    __slots__ = ("_ageing", "_clock", "_enqueued", "_heap")

    def __init__(self, *, ageing: Seconds | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        validate.plain_function("clock", clock)
        self._ageing = None if ageing is None else validate.seconds("ageing", ageing)
        self._clock = clock
        self._heap: list[tuple[float, int, T]] = []
        self._enqueued = 0

    def enqueue(self, item: T, *, priority: float = 0) -> None:
        """Put `item` in; `priority` is a finite number, and higher is sooner.

        Raises:
            OptionError: `priority` is no such number.
        """
        key = -validate.finite("priority", priority)
        if self._ageing is not None:
            key += self._clock() / self._ageing
        self._enqueued += 1
        heappush(self._heap, (key, self._enqueued, item))

    def dequeue(self) -> T:
        """Take out the item that is first.

        Raises:
            IndexError: the queue is empty.
        """
        if not self._heap:
            raise IndexError("dequeue from an empty TaskQueue")
        return heappop(self._heap)[2]

    def peek(self) -> T:
        """The item that is first; it stays where it is.

        Raises:
            IndexError: the queue is empty.
        """
        if not self._heap:
            raise IndexError("peek into an empty TaskQueue")
        return self._heap[0][2]

    def size(self) -> int:
        """How many items there are; `len()` says the same."""
        return len(self._heap)

    def is_empty(self) -> bool:
        """Whether there are none; the queue is then false."""
        return not self._heap

    def clear(self) -> None:
        """Drop all items."""
        self._heap.clear()

    __len__ = size
