"""The starts of a rate, by the generic cell rate algorithm: what is owed, who may start, who waits."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from penstock.core.clock import EARLY, clock_of, seconds_left

SLOW: Final = (8.0, 4.0, 2.0)
"""By how much the space between starts is wider in each third of the time after a pause: the rate doubles."""

SLOWEST: Final = 60.0
"""Seconds that the slow start of a rate takes at most."""


class Rate(Protocol):
    """What a schedule asks of its rate, which may change.

    Attributes:
        burst: units that may start at once after enough idle time.
        spacing: seconds between two starts of cost 1.
    """

    burst: float
    spacing: float


class Schedule:
    """The starts of a rate: what is owed for those there were, who may start, and who waits in line.

    Whoever may start has its cost promised until it is charged. So as many may start at once as the burst allows, and
    without a burst the next one has to wait until this one has started.
    """

    __slots__ = (
        "_clock",
        "_promised",
        "_promises",
        "_slow",
        "_timer",
        "_waiters",
        "began",
        "charged",
        "rate",
        "resumes",
    )

    def __init__(self, rate: Rate) -> None:
        self.rate: Rate = rate
        self.began: float = float("-inf")
        self.charged: float = 0.0  # since then: sums of seconds would drift
        self.resumes: float = float("-inf")  # when the last pause is over
        self._clock: Callable[[], float] | None = None
        self._promises = 0
        self._promised = 0.0
        self._slow: list[tuple[float, float]] = []  # until when the space between starts is how much wider
        self._waiters: OrderedDict[asyncio.Future[None], float] = OrderedDict()  # with their costs; any may leave
        self._timer: asyncio.TimerHandle | None = None  # for the first in line

    def _now(self) -> float:
        """Return the time by the clock of the loop."""
        if self._clock is None:
            self._clock = clock_of(asyncio.get_running_loop())
        return self._clock()

    def is_idle(self) -> bool:
        """Whether nobody may start or waits, nothing is owed, and no pause is felt."""
        now = self._now()
        free = not (self._promises or self._waiters)
        return free and max(self.paid_at(), self.resumes) <= now and self._wider(now) == 1

    def forget_tasks(self) -> None:
        """Forget who may start and who waits; what is owed is owed."""
        self._promises, self._promised = 0, 0.0
        self._waiters.clear()
        self._timer = None

    def paid_at(self) -> float:
        """Return when all that was charged is paid off: the theoretical arrival time of the algorithm."""
        return self.began + self.charged * self.rate.spacing

    def seconds_until(self, cost: float) -> float:
        """Return the seconds until a start of `cost` is due, 0 or less if it is; inf if another has to start first."""
        now, burst, spacing = self._now(), self.rate.burst, self.rate.spacing
        if not self._promises:
            due = self.began + (self.charged - max(0.0, burst - cost)) * spacing
            return max(due, self.resumes) - now
        owed = max(0.0, self.paid_at() - now) / spacing
        short = owed + self._promised + cost - burst
        if short > owed:
            return float("inf")
        return max(short * spacing, self.resumes - now)

    def is_due(self, cost: float) -> bool:
        """Whether a start of `cost` would not wait; it waits behind those that have a promise and are yet to start."""
        return not (self._waiters or self._promises) and self.seconds_until(cost) <= EARLY

    def take(self, cost: float) -> bool:
        """Promise a start of `cost`, if it is due and nobody waits; return whether it was."""
        if not self.is_due(cost):
            return False
        self._promise(cost)
        return True

    async def wait(self, cost: float) -> None:
        """Be promised a start of `cost` when it is its turn and due."""
        loop = asyncio.get_running_loop()
        first = False
        while True:
            waiter = loop.create_future()
            self._waiters[waiter] = cost
            if first:
                self._waiters.move_to_end(waiter, last=False)
            if next(iter(self._waiters)) is waiter:
                self.look_again()
            try:
                if waiter.done():  # those that were promised a start before this one are yet to start
                    await asyncio.sleep(0)
                await waiter
            except BaseException:
                if waiter.done() and not waiter.cancelled():  # promised and cancelled in one pass
                    self.give_back(cost)
                else:
                    self._waiters.pop(waiter, None)
                    self.look_again()
                raise
            if not self.pause_left():
                return
            self.give_back(cost)  # promised and paused in one pass
            first = True

    def _promise(self, cost: float) -> None:
        self._promises += 1
        self._promised += cost

    def give_back(self, cost: float) -> None:
        """Take a promise back: it was charged, or nothing starts."""
        self._promises -= 1
        self._promised = self._promised - cost if self._promises else 0.0
        if self._waiters:
            self.look_again()

    def look_again(self) -> None:
        """Promise starts to the first in line, as far as they are due; be called when the next one is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            waiter, cost = next(iter(self._waiters.items()))
            if not waiter.done():  # or it was cancelled, and its task is yet to hear of it
                left = self.seconds_until(cost)
                if left > EARLY:
                    if left != float("inf"):
                        self._timer = waiter.get_loop().call_later(left, self.look_again)
                    return
                self._promise(cost)
                waiter.set_result(None)
            del self._waiters[waiter]

    def charge(self, cost: float) -> None:
        """Charge `cost` for what starts now, as it was promised."""
        now = self._now()
        self._forget_what_is_paid(now)
        owed = self.charged + cost
        if (wider := self._wider(now)) > 1:  # not so much that the next would wait beyond the slow time
            until_then = (self._slow[-1][0] - self.began) / self.rate.spacing + self.rate.burst
            owed = max(owed, min(owed + cost * (wider - 1), until_then))
        self.charged = owed
        self.give_back(cost)

    def settle(self, more: float) -> None:
        """Charge so much more for what has started; less than 0 gives back."""
        if more > 0:
            self._forget_what_is_paid(self._now())
        self.charged += more
        self.look_again()

    def _forget_what_is_paid(self, now: float) -> None:
        if now > self.paid_at() + EARLY:
            self.began, self.charged = now, 0.0

    def pause(self, seconds: float) -> None:
        """Start nothing for so many seconds, then begin slowly, without a burst."""
        self.resumes = max(self.resumes, self._now() + seconds)
        third = min(seconds, SLOWEST) / len(SLOW)
        self._slow = [(self.resumes + third * (number + 1), wider) for number, wider in enumerate(SLOW)]
        no_burst = self.rate.burst - 1
        if self.paid_at() < self.resumes + no_burst * self.rate.spacing:
            self.began, self.charged = self.resumes, no_burst

    def pause_left(self) -> float:
        """Return the seconds until the pause is over; 0 if there is none."""
        return seconds_left(self.resumes - self._now())

    def slow_down(self, seconds: float, wider: float) -> None:
        """Make the space between starts so many times as wide for so many seconds."""
        now = self._now()
        if wider > self._wider(now):  # a slow start goes on
            self._slow = [(now + seconds, wider)]

    def _wider(self, now: float) -> float:
        while self._slow and self._slow[0][0] <= now:
            del self._slow[0]
        return self._slow[0][1] if self._slow else 1.0
