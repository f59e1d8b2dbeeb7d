"""A line of those who wait for a place: first come, first served, and nobody in during a pause."""

import asyncio
from collections import OrderedDict
from typing import Final

from penstock.core.clock import seconds_left

PAUSED: Final = -1
"""The limit of a line that is paused: nothing fits."""


class WaitingLine:
    """Waiters in a line, each until its weight fits under `limit`. Nobody overtakes the first in line.

    While somebody waits, the first does not fit. A weight above the limit fits when nothing is in use.

    Attributes:
        in_use: how much is held.
        full: how much may be held.
        limit: how much may be held now: `PAUSED` during a pause, and less than `full` in the slow start after it.
    """

    __slots__ = ("_paused_until", "_slow_until", "_timer", "_waiters", "full", "in_use", "limit")

    def __init__(self, limit: int) -> None:
        self.full: int = limit
        self.limit: int = limit
        self.in_use: int = 0
        self._waiters: OrderedDict[asyncio.Future[None], int] = OrderedDict()  # any may leave in O(1)
        self._paused_until = self._slow_until = float("-inf")
        self._timer: asyncio.TimerHandle | None = None  # for the end of a pause, while somebody waits

    def __len__(self) -> int:
        return len(self._waiters)

    def is_idle(self) -> bool:
        """Whether nobody holds anything or waits, and no pause is felt."""
        if self.in_use or self._waiters:
            return False
        return self.limit == self.full or asyncio.get_running_loop().time() > self._slow_until

    def forget_tasks(self) -> None:
        """Forget who holds it and who waits."""
        self.in_use = 0
        self._waiters.clear()
        self._timer = None

    def take(self, weight: int) -> bool:
        """Take `weight` now, if it fits and nobody waits; return whether it did."""
        if self._waiters:
            return False
        in_use = self.in_use + weight
        if in_use > self.limit:
            if self.limit == PAUSED and not self.pause_left():
                self._begin_slowly()
                return self.take(weight)
            if in_use != weight or self.limit == PAUSED:
                return False
        self.in_use = in_use
        return True

    async def wait(self, weight: int) -> None:
        """Take `weight` when it is its turn and it fits."""
        loop = asyncio.get_running_loop()
        first = False
        while True:
            waiter = loop.create_future()
            self._waiters[waiter] = weight
            if first:
                self._waiters.move_to_end(waiter, last=False)
            if self.limit == PAUSED:
                self._watch()
            try:
                if waiter.done():  # those that were promised a start before this one are yet to start
                    await asyncio.sleep(0)
                await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled():  # granted and cancelled in one pass: hand on
                    self.give_back(weight)
                else:
                    self._waiters.pop(waiter, None)
                    self.grant()
                if not self._waiters and self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
                raise
            if self.limit != PAUSED:
                return
            self.in_use -= weight  # granted and paused in one pass
            first = True

    def give_back(self, weight: int) -> None:
        """Give back what was taken."""
        self.in_use -= weight
        if 0 < self.limit < self.full:
            self.limit = min(self.full, self.limit + weight)
        if self._waiters:
            self.grant()

    def grant(self) -> None:
        """Let in the first waiters, as far as there is room."""
        while self._waiters and self.limit != PAUSED:
            waiter, weight = next(iter(self._waiters.items()))
            if not waiter.done():  # or it was cancelled, and its task is yet to hear of it
                if self.in_use and self.in_use + weight > self.limit:
                    return
                self.in_use += weight
                waiter.set_result(None)
            del self._waiters[waiter]

    def resize(self, full: int) -> None:
        """Let `full` be held."""
        if self.limit == self.full or self.limit > full:
            self.limit = full
        self.full = full
        self.grant()

    # Pauses

    def pause(self, seconds: float) -> None:
        """Let nobody in for so many seconds; then one, and one more for each that leaves (slow start, RFC 5681)."""
        until = asyncio.get_running_loop().time() + seconds
        self._paused_until = max(until, self._paused_until)
        self._slow_until = max(until + seconds, self._slow_until)
        self.limit = PAUSED
        if self._waiters:
            self._watch()

    def pause_left(self) -> float:
        """Return the seconds until the pause is over; 0 if there is none."""
        return seconds_left(self._paused_until - asyncio.get_running_loop().time())

    def _watch(self) -> None:
        """Be called when the pause is over: somebody waits for it."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.pause_left(), self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._timer = None
        if self.pause_left():
            self._watch()
        else:
            self._begin_slowly()
            self.grant()

    def _begin_slowly(self) -> None:
        self.limit = 1
