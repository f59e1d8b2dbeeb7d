"""Attempts: when to try again, how long to wait, and how long one attempt may take."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Final, Protocol, Self, cast, override

from penstock.core import validate
from penstock.core.errors import AttemptTimeout, FatalError, OptionError, WrongLoopError, note, said
from penstock.core.log import LOG
from penstock.core.text import Verbatim, call, name_of, shown

type RetryOn = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]
type Seconds = float | timedelta

_SLICES: Final = 10
"""Parts of the time of a budget; each is forgotten as one."""


class Pausable(Protocol):
    """A limit that can be paused: a `Limiter` or a `RateLimit`."""

    def pause(self, seconds: Seconds, item: object = ...) -> None:
        """Start nothing for so many seconds; with a key, for that of `item`."""


class Exhausted(Exception):
    """Raised by a call that failed for good after more than one attempt.

    Carries the error and the number of attempts.
    """

    def __init__(self, error: BaseException, attempts: int) -> None:
        super().__init__()
        self.error = error
        self.attempts = attempts


class RetryBudget:
    """Bounds the retries of all that share it, by the number of their calls: `Retry(..., budget=RetryBudget(0.1))`.

    In the last `per` seconds there are at most `least + share * calls` retries, so a service that has too much to do
    gets 1.1 times the calls, not `attempts` times. Beyond that a failure is final, however many attempts are left, and
    a note of the exception says so. It is the retry budget of Finagle (`RetryBudget.scala`); the chapter "Addressing
    Cascading Failures" of Site Reliability Engineering (2016) says why. The time is counted in tenths of `per`. It
    belongs to the loop of its first use.

    Args:
        share: retries for each call (each first attempt), a number >= 0.
        least: retries that are always there, an int >= 0: a run that has just begun has made few calls.
        per: seconds, or a timedelta, > 0.

    Raises:
        OptionError: an argument breaks its rule.

    Example:
        retry = penstock.Retry(on=OSError, attempts=5, budget=penstock.RetryBudget(0.1))
        penstock.stream(urls).map(fetch, concurrency=64, retry=retry)
    """

    def __init__(self, share: float = 0.1, *, least: int = 10, per: Seconds = 60.0) -> None:
        self._share = validate.number("share", share, least=0)
        self._least = validate.whole("least", least, least=0)
        self._per = validate.seconds("per", per)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slices: deque[list[float]] = deque()  # when each began, its calls, its retries
        self._calls = self._retries = 0

    @override
    def __repr__(self) -> str:
        return call("RetryBudget", f"{self._share:g}", least=self._least, per=self._per)

    def bind(self) -> None:
        """Bind it to the running loop, at its first use; raise `WrongLoopError` if it is bound to another."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise WrongLoopError(f"{self!r} belongs to the event loop of its first use and cannot be used on another")

    def called(self) -> None:
        """Count a first attempt."""
        self._slice()[1] += 1
        self._calls += 1

    def allows_retry_after(self, error: BaseException) -> bool:
        """Count a retry, if there may be one; if not, note it of the error."""
        now = self._slice()
        if self._retries + 1 > self._least + self._share * self._calls:
            note(error, f"not tried again, as the retry budget is used up: {self.said()}")
            return False
        now[2] += 1
        self._retries += 1
        return True

    def said(self) -> str:
        """Say what there was, and what there may be."""
        return f"{self._retries} retries beside {self._calls} calls in the last {self._per:g} s, and {self!r}"

    def _slice(self) -> list[float]:
        """Return the slice of now; forget those that are over."""
        now = asyncio.get_running_loop().time()
        slices = self._slices
        while slices and slices[0][0] + self._per <= now:
            _, calls, retries = slices.popleft()
            self._calls -= int(calls)
            self._retries -= int(retries)
        if not slices or slices[-1][0] + self._per / _SLICES <= now:
            slices.append([now, 0, 0])
        return slices[-1]


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Retry:
    """Tries a failed call again, with exponential backoff and jitter.

    The wait before try k+1 is `min(max, initial * factor**(k-1) * U(1-jitter, 1+jitter))` seconds: exponential backoff
    with proportional jitter, as Effect's `Schedule.jittered` has it. A call that waits for its next try keeps its place
    in the window. Only an `Exception` is retried, so cancellation never is (P8); an `OptionError` is not either, since
    every try would raise it. What `on` or `wait` raises becomes the failure of the item.

    Args:
        on: types of `Exception` to retry, or a plain function that is asked once per failure.
        attempts: total tries, the first included; an int >= 1.
        initial: seconds before the second try, >= 0.
        factor: growth from one wait to the next, >= 1.
        max: the longest wait in seconds, >= 0.
        jitter: how far a wait may stray, as a share of itself: 0 (not at all) to 1.
        wait: gives the seconds to wait after an exception (from a Retry-After header, say), or None for the backoff.
        pauses: a `Limiter`, `RateLimit` or `Breaker`, or several, to pause for as long as a failure asks for: what
            `wait` gives, or without it the seconds that the exception has as `retry_after`. So whoever shares the limit
            stays away from a service that is overloaded, not only the call that has heard of it. Also when no try is
            left. Default: none.
        deadline: seconds from the beginning of the first try after which no further try begins, > 0. A try begins when
            it has what it needs of the stage's `limit`; a try that would wait for a limit beyond the deadline is not
            made.
        budget: a `RetryBudget`, which may be shared by several: when it is used up a failure is final, whatever
            `attempts` says. Default: none.

    Raises:
        OptionError: an argument breaks its rule.
    """

    on: RetryOn
    attempts: int = 3
    initial: Seconds = 0.1
    factor: float = 2.0
    max: Seconds = 30.0
    jitter: float = 0.2
    wait: Callable[[Exception], Seconds | None] | None = None
    deadline: Seconds | None = None
    pauses: Pausable | Sequence[Pausable] | None = None
    budget: RetryBudget | None = None

    def __post_init__(self) -> None:
        validate.predicate_or_types("on", self.on)
        self._set("attempts", validate.whole("attempts", self.attempts, least=1))
        validate.seconds("initial", self.initial, zero=True)
        self._set("factor", validate.number("factor", self.factor, least=1))
        validate.seconds("max", self.max, zero=True)
        self._set("jitter", validate.share("jitter", self.jitter))
        if self.wait is not None:
            validate.plain_function("wait", self.wait)
        if self.deadline is not None:
            validate.seconds("deadline", self.deadline)
        if self.budget is not None:
            validate.instance("budget", self.budget, RetryBudget, "a RetryBudget")
        if not all(hasattr(each, "pause") for each in self.paused()):
            got = shown(cast("object", self.pauses))
            raise OptionError(f"pauses must be a Limiter, a RateLimit, a Breaker or a sequence of them, got {got}")

    @override
    def __repr__(self) -> str:
        on: Any = self.on
        kinds = cast("tuple[object, ...]", on if isinstance(on, tuple) else (on,))
        named = {"wait": None if self.wait is None else Verbatim(name_of(self.wait))}
        named["pauses"] = None if self.pauses is None else Verbatim(shown(self.pauses))
        given = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in {"on", *named}}
        changed = {name: value for name, value in given.items() if value != _DEFAULTS[name]}
        return call("Retry", f"on={' | '.join(map(name_of, kinds))}", **changed, **named)

    def _set(self, name: str, value: float) -> None:
        """Store a number as a plain int or float, whatever number type was given."""
        object.__setattr__(self, name, value)

    def backoff(self, failures: int) -> float:
        """Return the seconds to wait after failure number `failures`, from 1, jitter included."""
        longest = validate.seconds("max", self.max, zero=True)
        wait = validate.seconds("initial", self.initial, zero=True)
        try:
            wait *= self.factor ** (failures - 1)
        except OverflowError:
            return longest if wait else 0.0
        return min(longest, wait * random.uniform(1 - self.jitter, 1 + self.jitter))  # noqa: S311 -- jitter is no secret

    def paused(self) -> Sequence[Pausable]:
        """Return the limits that failures pause."""
        if self.pauses is None:
            return ()
        return self.pauses if isinstance(self.pauses, Sequence) else (self.pauses,)

    def pause(self, error: Exception, failures: int) -> float:
        """Return the seconds to wait after `error`: what it asks for, or the backoff."""
        asked = self.asked_for(error)
        return self.backoff(failures) if asked is None else asked

    def asked_for(self, error: Exception) -> float | None:
        """Return the seconds to wait that `error` asks for; None if it does not.

        Raises:
            OptionError: `wait` gives no number of seconds >= 0.
        """
        if self.wait is not None:
            said = self.wait(error)
        else:
            said = None if self.pauses is None else getattr(error, "retry_after", None)
        return None if said is None else validate.seconds("wait(exception)", said, zero=True)


_DEFAULTS = {each.name: each.default for each in fields(Retry)}


class Tries:
    """The tries of one call under a deadline. While they last, the task that makes them can look them up."""

    __slots__ = ("_last", "_loop", "_seconds", "_task", "_until")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._seconds = seconds
        self._until = self._loop.time() + seconds
        self._last: Exhausted | None = None

    def __enter__(self) -> Self:
        _TRIES[self._task] = self
        return self

    def __exit__(self, *_: object) -> None:
        del _TRIES[self._task]
        self._last = None  # the traceback of its error leads to the frame that holds this

    def may_follow(self, last: Exhausted, pause: float) -> bool:
        """Whether a try `pause` seconds from now is in time; until that try is made, `last` is the call's failure."""
        self._last = last
        return self._loop.time() + pause <= self._until

    async def begin_after(self, wait: Callable[[], Awaitable[None]]) -> None:
        """Begin a try after `wait()`. If it is not the first and not in time, raise the failure of the last one."""
        if self._last is None:
            await wait()
            self._until = self._loop.time() + self._seconds
            return
        try:
            async with asyncio.timeout_at(self._until):
                await wait()
        except TimeoutError:
            raise self._last from None


_TRIES: dict[asyncio.Task[Any] | None, Tries] = {}


def tries_of_this_task() -> Tries | None:
    """Return the tries under a deadline that the current task makes, if any."""
    return _TRIES.get(asyncio.current_task())


def retrying[T, U](
    work: Callable[[T], Awaitable[U]],
    retry: Retry,
    on_retry: Callable[[], None],
    may_retry: Callable[[T], bool] = lambda _: True,
    forget: Callable[[T], None] = lambda _: None,
    *,
    stage: str,
    seen: Callable[[T], object] | None = None,
) -> Callable[[T], Awaitable[U]]:
    """Wrap `work`: try again as `retry` says while `may_retry(item)`; raise `Exhausted` in the end.

    Before the wait for the next attempt, `forget(item)` is called: it drops what the last attempt made. `seen` turns an
    item into what the keys of limits are asked of.
    """
    pause_after = _Pauses(retry, may_retry, seen).after
    budget = retry.budget
    deadline = None if retry.deadline is None else validate.seconds("deadline", retry.deadline)

    async def attempts(item: T, tries: Tries | None = None) -> U:
        failures = 0
        if budget is not None:
            budget.called()
        while True:
            try:
                return await work(item)
            except (OptionError, Exhausted):  # the same again would come of it; the time was over before a try began
                raise
            except Exception as error:
                failures += 1
                try:
                    pause = pause_after(error, failures, item)
                except BaseException as own:
                    await _thread_is_back(error)  # to which its own error does not lead
                    raise Exhausted(own, failures) from own
                if pause is not None:
                    await _thread_is_back(error)
                if pause is None or (tries is not None and not tries.may_follow(Exhausted(error, failures), pause)):
                    raise Exhausted(error, failures) from error
                if budget is not None and not budget.allows_retry_after(error):
                    raise Exhausted(error, failures) from error
                forget(item)
                LOG.info("stage %r: attempt %d failed, the next in %.3g s: %s", stage, failures, pause, said(error))
            await asyncio.sleep(pause)
            on_retry()

    return attempts if deadline is None else _with_deadline(attempts, deadline)


class _Pauses:
    """What becomes of failures: the wait for the next try, and pauses of limits."""

    def __init__(self, retry: Retry, may_retry: Callable[[Any], bool], seen: Callable[[Any], object] | None) -> None:
        self._retry = retry
        self._may_retry = may_retry
        self._seen = seen
        self._worth_retrying = validate.predicate_or_types("on", retry.on)
        self._limits = retry.paused()
        if retry.budget is not None:
            retry.budget.bind()

    def after(self, error: Exception, failures: int, item: Any) -> float | None:
        """Pause limits if `error` asks for it; return the seconds until the next try; None: there is none."""
        if isinstance(error, FatalError):
            return None
        may = failures < self._retry.attempts and self._may_retry(item)
        if not (may or self._limits) or not self._worth_retrying(error):
            return None
        asked = self._retry.asked_for(error)
        if asked is not None:
            for limit in self._limits:
                limit.pause(asked, item if self._seen is None else self._seen(item))
        if not may:
            return None
        return self._retry.backoff(failures) if asked is None else asked


def _with_deadline[T, U](attempts: Callable[[T, Tries], Awaitable[U]], deadline: float) -> Callable[[T], Awaitable[U]]:
    async def attempts_in_time(item: T) -> U:
        with Tries(deadline) as tries:
            return await attempts(item, tries)

    return attempts_in_time


def within[U](seconds: float, result: Awaitable[U]) -> Awaitable[U]:
    """Await `result` for at most so many seconds from now; then cancel it and raise `AttemptTimeout`."""
    return in_time(result, asyncio.timeout(seconds), seconds)


async def in_time[U](result: Awaitable[U], limit: asyncio.Timeout, seconds: float | None) -> U:
    """Await `result`; when `limit` is over, `seconds` after the attempt began, raise `AttemptTimeout`."""
    try:
        async with limit:
            return await result
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise AttemptTimeout(f"timed out after {seconds:g} s") from error.__cause__


class StillRunning(AttemptTimeout):
    """An attempt on an engine took too long and still runs; `back()` waits until it has ended.

    A thread cannot be stopped. An engine that can kill its calls is back soon.
    """

    def __init__(self, timeout: float, back: Callable[[], Awaitable[None]]) -> None:
        super().__init__(f"timed out after {timeout:g} s")
        self.seconds = timeout
        self.back = back


def thread_back(error: BaseException) -> Callable[[], Awaitable[None]] | None:
    """Return what waits for the thread that `error` left running; None if there is none."""
    late = still_running(error)
    return None if late is None else late.back


def still_running(error: BaseException) -> StillRunning | None:
    """Return the attempt that still runs, if that is how the call has failed."""
    if isinstance(error, Exhausted):
        error = error.error
    return error if isinstance(error, StillRunning) else None


async def _thread_is_back(error: BaseException) -> None:
    """Wait for the thread that `error` left running, if there is one."""
    if (back := thread_back(error)) is not None:
        await back()
