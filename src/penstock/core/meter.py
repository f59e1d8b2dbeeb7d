"""What a window measures beside its counters: peaks, waits, latency.

It takes constant memory and few looks at the clock.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import replace
from enum import IntEnum
from math import ceil, exp, log
from typing import Final

from penstock.core.stats import Latency, StageStats

_GROWTH = log(1.04)
"""The width of a bucket of a sketch, 4 %: a quantile is off by 2 % at most."""

_SMALLEST = 1e-7
"""The shortest time in seconds: anything shorter counts as this."""

SLOW = 0.01
"""Seconds from which every call is timed: this costs less than a ten-thousandth of the call."""

SLOW_FOR_EACH = SLOW / 100
"""With more than 100 calls at once, so many seconds for each of them: else it costs a tenth of what an item takes."""

RARELY = 16
"""Calls from one that is timed to the next, at least, while calls are quick: two looks cost a tenth of a lambda."""

VERY_RARELY = 64
"""The same after the first MANY calls: what a call is charged for looks and the sketch falls from 0.08 to 0.02 us."""

MANY = 1024


WAITED: Final[ContextVar[float]] = ContextVar("seconds in which the call of this task was not running yet", default=0.0)
"""Part of what a call takes that is no latency of it: nothing of it ran while it waited for a worker."""


class Wait(IntEnum):
    """What keeps a free place from being used."""

    NOTHING = 0
    UPSTREAM = 1
    CONSUMER = 2
    HEAD = 3


class Sketch:
    """Quantiles in constant memory: counts in buckets of geometric width (DDSketch, Masson et al., 2019)."""

    def __init__(self) -> None:
        self.count: int = 0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count a value."""
        self.count += 1
        self._buckets[ceil(log(max(seconds, _SMALLEST)) / _GROWTH)] += 1

    def quantile(self, share: float) -> float:
        """Return the time that a `share` of all calls did not exceed, within 2 %; 0 if there are none."""
        rank = share * (self.count - 1)
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen > rank:
                return exp((bucket - 0.5) * _GROWTH)
        return 0.0


class Meter:
    """The measurements of one window.

    Attributes:
        retried: attempts after the first.
        failures: items whose work has failed.
        miscounted: calls that gave a wrong number of results.
        never_began: items whose task was cancelled before it called the function.
        peak_running, peak_in_flight, peak_buffered: the most at once.
        last_settled: the index of the item that was dropped or failed last.
        first_result: when the first result came, by the clock of the run.
        waits_for: what keeps a free place from being used now.
        slow: whether the last timed call was slow; then the next calls are timed too.
        next_sample: the index of the item whose call is timed next.
        times_all: whether every call is timed, as timing costs little beside the call.
        calls: how long calls of the work function took.
    """

    __slots__ = (
        "_clock",
        "_limit",
        "_limited",
        "_limited_s",
        "_limited_since",
        "_opened",
        "_since",
        "_waits",
        "calls",
        "failures",
        "first_result",
        "last_settled",
        "miscounted",
        "never_began",
        "next_sample",
        "peak_buffered",
        "peak_in_flight",
        "peak_running",
        "retried",
        "slow",
        "times_all",
        "waits_for",
    )

    def __init__(self, clock: Callable[[], float], opened: float, *, every_call: bool, concurrency: int = 1) -> None:
        self._opened = opened
        self._clock = clock
        self._since = clock()
        self._limit = 0.0 if every_call else max(SLOW, SLOW_FOR_EACH * concurrency)
        self.next_sample: int = 0
        self.slow: bool = True
        self.times_all: bool = False
        self._waits = [0.0] * len(Wait)
        self._limited = 0
        self._limited_since = self._limited_s = 0.0
        self.retried: int = 0
        self.failures: int = 0
        self.never_began: int = 0
        self.miscounted: int = 0
        self.peak_running: int = 0
        self.peak_in_flight: int = 0
        self.peak_buffered: int = 0
        self.last_settled: int = -1
        self.first_result: float | None = None
        self.waits_for: Wait = Wait.NOTHING
        self.calls: Sketch = Sketch()

    def wait_for(self, what: Wait) -> None:
        """Count the time from now on as a wait for `what`."""
        time = self._clock()
        self._waits[self.waits_for] += time - self._since
        self._since = time
        self.waits_for = what

    def waited(self, what: Wait) -> float:
        """Return the seconds of waiting for `what` until now."""
        going_on = self._clock() - self._since if what is self.waits_for else 0.0
        return self._waits[what] + going_on

    async def limited(self, permit: Awaitable[None]) -> None:
        """Await `permit` of a limit, and count the time in which at least one call waits for one."""
        if not self._limited:
            self._limited_since = self._clock()
        self._limited += 1
        try:
            await permit
        finally:
            self._limited -= 1
            if not self._limited:
                self._limited_s += self._clock() - self._limited_since

    def waited_for_limits(self) -> float:
        """Return the seconds in which at least one call waited for a limit."""
        return self._limited_s + (self._clock() - self._limited_since if self._limited else 0.0)

    def note_retry(self) -> None:
        """Count an attempt that follows a failed one."""
        self.retried += 1

    def note_peaks(self, running: int, in_flight: int, buffered: int) -> None:
        """Raise the peaks to these numbers."""
        self.peak_running = max(running, self.peak_running)
        self.peak_in_flight = max(in_flight, self.peak_in_flight)
        if buffered > self.peak_buffered:
            self.note_buffered(buffered)

    def note_buffered(self, number: int) -> None:
        """Note that more results wait than ever before."""
        if not self.peak_buffered:
            self.first_result = self._clock()
        self.peak_buffered = number

    def timing[T, U](self, work: Callable[[T], Awaitable[U]]) -> Callable[[T], Awaitable[U]]:
        """Wrap `work`: time every call."""

        async def timed(item: T) -> U:
            WAITED.set(0.0)
            began = self._clock()
            value = await work(item)
            self.returned(began + WAITED.get())
            return value

        return timed

    def measured(self, books: StageStats, running: int) -> StageStats:
        """Add the measurements to the counters `books`; `running` items run now."""
        succeeded = books.taken - running - self.failures - books.cancelled
        return replace(
            books,
            started=books.taken - self.never_began,
            succeeded=succeeded,
            retried=self.retried,
            miscounted=self.miscounted,
            peak_running=self.peak_running,
            peak_in_flight=self.peak_in_flight,
            peak_buffered=self.peak_buffered,
            upstream_wait_s=self.waited(Wait.UPSTREAM),
            consumer_wait_s=self.waited(Wait.CONSUMER),
            blocked_by_head_s=self.waited(Wait.HEAD),
            limit_wait_s=self.waited_for_limits(),
            first_result_s=None if self.first_result is None else self.first_result - self._opened,
            latency=self._latency(succeeded),
        )

    def _latency(self, succeeded: int) -> Latency | None:
        """Return how long calls took; None if none has returned."""
        samples, quantile = self.calls.count, self.calls.quantile
        if not samples:
            return None
        share = 1.0 if self.times_all else min(1.0, samples / max(1, succeeded))
        return Latency(quantile(0.5), quantile(0.95), quantile(0.99), samples, share)

    def samples(self, taken: int) -> bool:
        """Whether to time the call on the item at `taken`, which is next."""
        if taken < self.next_sample:
            return False
        self.note_sample(taken)
        return True

    def note_sample(self, index: int) -> None:
        """Note that the call on the item at `index` is timed."""
        self.next_sample = index + (RARELY if index < MANY else VERY_RARELY)

    def returned(self, began: float) -> float:
        """Note that a call that began at `began` has returned; give the seconds that it took."""
        seconds = self._clock() - began
        self.calls.add(seconds)
        self.slow = seconds >= self._limit
        return seconds
