"""A circuit breaker: after so many failures in a row nothing starts for a while, and then one call finds out.

High level idea (Nygard, "Release It!"). Closed: calls start, and failures in a row are counted. Open: nothing starts
until the pause is over. Then half-open: one call, the probe, starts; its success closes the breaker, its failure opens
it for twice as long. What would start meanwhile waits: see `docs/decisions.md`, "An open breaker has calls wait". Calls
that were in flight when it opened say nothing of the time since, so their outcomes do not count.
"""

# ruff: noqa: SLF001 -- a circuit is a part of its breaker
# pyright: reportPrivateUsage=false

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, cast, overload, override

from penstock.core import validate
from penstock.core.clock import seconds_left
from penstock.core.errors import FatalError, OptionError, said
from penstock.core.log import LOG
from penstock.core.retry import RetryOn, Seconds
from penstock.core.shared_limit import NO_ITEM, SharedLimit


class Circuit:
    """What a breaker knows of one key, or of all if it has no keys."""

    __slots__ = ("_breaker", "_failures", "_is_open", "_pause", "_probing", "_timer", "_times", "_until", "_waiters")

    def __init__(self, breaker: "Breaker") -> None:
        self._breaker = breaker
        self._failures = 0
        self._pause = breaker.first_pause
        self._is_open = False
        self._until = float("-inf")
        self._probing = False
        self._times = 0  # that it has opened or closed: outcomes of calls from before do not count
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is open or half-open."""
        return self._is_open

    def is_idle(self) -> bool:
        """Whether a new one would do: nothing has failed, or not for the time of the longest pause."""
        if self._waiters or self._probing:
            return False
        return not (self._is_open or self._failures) or self._until + self._breaker.longest_pause < _now()

    def forget_tasks(self) -> None:
        """Forget who waits, and who is the probe."""
        self._waiters.clear()
        self._timer = None
        self._probing = False

    def pause(self, seconds: float) -> None:
        """Open it for so many seconds, or for longer if it is open for longer."""
        if not self._is_open:
            self._open(seconds)
        else:
            self._until = max(self._until, _now() + seconds)

    def pause_left(self) -> float:
        """Return the seconds until the probe may start; 0 if it may, or if nothing is the matter."""
        left = self._until - _now() if self._is_open else 0.0
        return seconds_left(left)

    def lets_in(self) -> bool:
        """Whether a call may start now."""
        return not self._is_open or not (self._probing or self.pause_left())

    def begin(self) -> int:
        """Note that a call starts; return what `ended` wants of it."""
        self._probing = self._is_open
        return self._times

    async def wait(self) -> None:
        """Wait until a call may start; of those that wait, the first to have all else that it needs does."""
        while not self.lets_in():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters[waiter] = None
            self._watch()
            try:
                await waiter
            finally:
                self._waiters.pop(waiter, None)
                if not self._waiters and self._timer is not None:
                    self._timer.cancel()
                    self._timer = None

    def ended(self, times: int, error: BaseException | None) -> None:
        """Note how a call ended that `begin` gave `times`."""
        if times != self._times:
            return
        counts = False
        try:
            counts = error is not None and self._breaker._is_failure(error)
        finally:
            self._ended(error, counts=counts)

    def _ended(self, error: BaseException | None, *, counts: bool) -> None:
        if error is None:
            self._failures = 0
            if self._is_open:
                self._close()
        elif self._is_open:
            if counts:
                self._pause = min(2 * self._pause, self._breaker.longest_pause)
                self._open(self._pause, error)
            else:  # it says nothing of the service: another one has to find out
                self._probing = False
                self._wake()
        elif counts:
            self._failures += 1
            self._until = _now()
            if self._failures >= self._breaker.failures:
                self._open(self._pause, error)

    def _open(self, seconds: float, error: BaseException | None = None) -> None:
        self._is_open = True
        self._probing = False
        self._until = _now() + seconds
        self._times += 1
        if error is not None:
            why = f"after {self._failures} failures in a row" if self._failures else "as the probe failed"
            LOG.warning("%r is open: nothing starts for %.3g s %s: %s", self._breaker, seconds, why, said(error))
        self._failures = 0
        if self._waiters:
            self._watch()

    def _close(self) -> None:
        self._is_open = self._probing = False
        self._pause = self._breaker.first_pause
        self._times += 1
        LOG.warning("%r is closed: the probe succeeded", self._breaker)
        self._wake()

    def _watch(self) -> None:
        """Be called when the pause is over: somebody waits for it. The end of a probe is told."""
        if self._timer is None and not self._probing:
            self._timer = asyncio.get_running_loop().call_later(self.pause_left(), self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._timer = None
        if self.lets_in():
            self._wake()
        else:
            self._watch()

    def _wake(self) -> None:
        """Wake all: one may be cancelled, or wait long for something else, so none is told to be the one."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def _now() -> float:
    return asyncio.get_running_loop().time()


class Breaker(SharedLimit):
    """Starts nothing while what calls need is down: a circuit breaker, given as `limit=` and shared by stages.

    It opens after `failures` failed attempts in a row. Then calls wait, holding nothing, and after `pause` seconds one
    of them, the probe, starts. If it succeeds, all go on; if it fails, the pause doubles, up to `most` seconds. Calls
    in flight finish. A `Retry` decides by itself what becomes of those that failed, the probe among them. The breaker
    belongs to the loop of its first use.

    Args:
        failures: attempts in a row, an int >= 1, that fail before it opens.
        pause: seconds, or a timedelta, > 0, until the first probe.
        most: seconds, or a timedelta, >= `pause`: the longest pause.
        on: what counts as a failure: types of `Exception`, or a plain function of one; default: every one. What else an
            attempt raises counts neither as a failure nor as a success.
        name: its name in errors and in the log.
        key: gives the key of an item, anything hashable (the host of an address, say): it is a breaker for each.

    Raises:
        OptionError: an argument breaks its rule.

    Example:
        service = penstock.Breaker(5, pause=30, on=OSError)
        penstock.stream(urls).map(fetch, concurrency=64, limit=service, retry=penstock.Retry(on=OSError))
    """

    _by_hand = "use `run(fn, item)`"

    def __init__(
        self,
        failures: int = 5,
        *,
        pause: Seconds = 30.0,
        most: Seconds = 600.0,
        on: RetryOn = Exception,
        name: str | None = None,
        key: Callable[[Any], Hashable] | None = None,
    ) -> None:
        self.failures: int = validate.whole("failures", failures, least=1)
        self.first_pause: float = validate.seconds("pause", pause)
        self.longest_pause: float = validate.seconds("most", most)
        if self.longest_pause < self.first_pause:
            raise OptionError(f"most must be at least {self.first_pause:g}, which is pause, got {self.longest_pause:g}")
        self._counts = validate.predicate_or_types("on", on)
        super().__init__(name, None, key)

    @override
    def _new_part(self) -> Circuit:
        return Circuit(self)

    @override
    def __repr__(self) -> str:
        return self._said(f"Breaker({self.failures}, pause={self.first_pause:g}")

    @property
    def is_open(self) -> bool:
        """Whether it is open or half-open; with a key, for any."""
        return any(circuit.is_open for circuit in self._parts_in_use())

    @overload
    async def run[*Ts, U](self, fn: Callable[[*Ts], Awaitable[U]], /, *args: *Ts) -> U: ...
    @overload
    async def run[*Ts, U](self, fn: Callable[[*Ts], U | Awaitable[U]], /, *args: *Ts) -> U: ...
    async def run[*Ts, U](self, fn: Callable[[*Ts], U | Awaitable[U]], /, *args: *Ts) -> U:
        """Wait until a call may start; return what `fn(*args)` gives, awaited if need be, and note how it ends.

        If the breaker has a key, that is asked of the first argument.
        """
        key = self._key_by_hand(args[0] if args else NO_ITEM)
        self._bind(asyncio.get_running_loop())
        await self._wait(key)
        times = self._begin(key)
        try:
            given = fn(*args)
            result = await cast("Awaitable[U]", given) if isinstance(given, Awaitable) else given
        except BaseException as error:
            self._ended(times, error, key)
            raise
        self._ended(times, None, key)
        return result

    # For stages, which call in the name of others (`stage_limits.py`), and circuits

    def _is_failure(self, error: BaseException) -> bool:
        """Whether such an error counts as a failure."""
        return isinstance(error, Exception) and not isinstance(error, OptionError | FatalError) and self._counts(error)

    def _lets_in(self, key: Hashable = None) -> bool:
        """Whether a call may start now."""
        circuit: Circuit = self._part(key)
        return circuit.lets_in()

    async def _wait(self, key: Hashable = None) -> None:
        """Wait until a call may start."""
        circuit: Circuit = self._part(key)
        await circuit.wait()

    def _begin(self, key: Hashable = None) -> int:
        """Note that a call starts, which `_lets_in` allows; return what `_ended` wants of it."""
        circuit: Circuit = self._part(key)
        return circuit.begin()

    def _ended(self, times: int, error: BaseException | None, key: Hashable = None) -> None:
        """Note how a call has ended."""
        circuit: Circuit = self._part(key)
        circuit.ended(times, error)
