"""The timers of a virtual loop: a heap by time, then by order of scheduling."""

import asyncio
import heapq
import itertools
from collections.abc import Iterator


class Timer(asyncio.TimerHandle):
    """A call that waits for its time; `cancel()` works as on any loop."""

    waiting = True

    def fire(self) -> None:
        """Make the call, unless it was cancelled."""
        if not self.cancelled():
            self._run()


class Timers:
    """The timers that wait.

    It throws out cancelled timers when they are the majority, so that each costs O(1) amortised and none is kept.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    def __iter__(self) -> Iterator[Timer]:
        return (timer for _, _, timer in self._heap if not timer.cancelled())

    def add(self, timer: Timer) -> None:
        """Add a timer."""
        heapq.heappush(self._heap, (timer.when(), next(self._order), timer))

    def forget(self, timer: Timer) -> None:
        """Count a timer that is being cancelled as cancelled."""
        if not timer.waiting:
            return
        timer.waiting = False
        self._cancelled += 1
        if self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].waiting]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next_time(self) -> float | None:
        """Return when the first timer is due, or None if none waits."""
        while self._heap and not self._heap[0][2].waiting:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: float) -> Iterator[Timer]:
        """Remove and yield the timers whose time has come, ties in the order in which they were scheduled."""
        while (due := self.next_time()) is not None and due <= now:
            timer = heapq.heappop(self._heap)[2]
            timer.waiting = False
            yield timer
