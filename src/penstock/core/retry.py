"""Attempts: when to try again, how long to wait, and how long one attempt may take."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from penstock.core import validate
from penstock.core.errors import AttemptTimeout, OptionError, said
from penstock.core.log import LOG

type RetryOn = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
type Seconds = float | timedelta


class Exhausted(Exception):
    """An item failed for good after more than one attempt."""

    def __init__(self, error: Exception, attempts: int) -> None:
        super().__init__()
        self.error = error
        self.attempts = attempts


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Try a failed call again, with exponential backoff and jitter.

    The wait before try k+1 is `min(max, initial * factor**(k-1) * U(1-jitter, 1+jitter))` seconds: exponential backoff
    with proportional jitter, as Effect's `Schedule.jittered` has it. A waiting retry keeps its place in the window.
    Cancellation is never retried (P8).

    Args:
        on: exception types to retry, or a predicate that is asked once per failure.
        attempts: total tries, the first included; an int >= 1.
        initial: seconds before the second try, >= 0.
        factor: growth from one wait to the next, >= 1.
        max: the longest wait in seconds, >= 0.
        jitter: 0 (none) to 1; how far a wait may stray, as a share of itself.
        wait: gives the seconds to wait after an exception (from a Retry-After header, say), or None for the backoff.
        deadline: seconds after the first try began beyond which no further try is begun, > 0.

    Raises:
        OptionError: an argument breaks its rule.
    """

    on: RetryOn
    attempts: int = 3
    initial: Seconds = 0.1
    factor: float = 2.0
    max: Seconds = 30.0
    jitter: float = 0.2
    wait: Callable[[BaseException], Seconds | None] | None = None
    deadline: Seconds | None = None

    def __post_init__(self) -> None:
        validate.predicate_or_types("on", self.on)
        validate.whole("attempts", self.attempts, least=1)
        validate.seconds("initial", self.initial, zero=True)
        validate.number("factor", self.factor, least=1)
        validate.seconds("max", self.max, zero=True)
        validate.share("jitter", self.jitter)
        if self.wait is not None:
            validate.plain_function("wait", self.wait)
        if self.deadline is not None:
            validate.seconds("deadline", self.deadline)

    def backoff(self, failures: int) -> float:
        """Seconds to wait after failure number `failures`, from 1, jitter included."""
        longest = validate.seconds("max", self.max, zero=True)
        wait = validate.seconds("initial", self.initial, zero=True)
        try:
            wait *= self.factor ** (failures - 1)
        except OverflowError:
            return longest if wait else 0.0
        return min(longest, wait * random.uniform(1 - self.jitter, 1 + self.jitter))  # noqa: S311 -- jitter is no secret

    def pause(self, error: BaseException, failures: int) -> float:
        """Seconds to wait after `error`: what `wait` says, or the backoff."""
        said = None if self.wait is None else self.wait(error)
        return self.backoff(failures) if said is None else validate.seconds("wait(exception)", said, zero=True)


def retrying[T, U](
    work: Callable[[T], Awaitable[U]],
    retry: Retry,
    on_retry: Callable[[], None],
    may_retry: Callable[[T], bool] = lambda _: True,
    forget: Callable[[T], None] = lambda _: None,
    *,
    stage: str,
) -> Callable[[T], Awaitable[U]]:
    """`work`, tried again as `retry` says while `may_retry(item)`; what fails for good raises `Exhausted`.

    Before the wait for the next attempt, `forget(item)` is to forget what the last one has made.
    """
    worth_retrying = validate.predicate_or_types("on", retry.on)
    deadline = None if retry.deadline is None else validate.seconds("deadline", retry.deadline)

    async def attempts(item: T) -> U:
        loop = asyncio.get_running_loop()
        began = loop.time()
        failures = 0
        while True:
            try:
                return await work(item)
            except OptionError:  # the same again would come of it
                raise
            except Exception as error:
                failures += 1
                back = thread_back(error)
                try:
                    again = failures < retry.attempts and may_retry(item) and worth_retrying(error)
                    pause = retry.pause(error, failures) if again else 0.0
                except BaseException:
                    if back is not None:  # that error does not lead to the thread
                        await back()
                    raise
                if not again:
                    raise Exhausted(error, failures) from error
                if back is not None:
                    await back()
                if deadline is not None and loop.time() - began + pause > deadline:
                    raise Exhausted(error, failures) from error
                forget(item)
                LOG.info("stage %r: attempt %d failed, the next in %.3g s: %s", stage, failures, pause, said(error))
            await asyncio.sleep(pause)
            on_retry()

    return attempts


def timed[T, U](work: Callable[[T], Awaitable[U]], timeout: float) -> Callable[[T], Awaitable[U]]:
    """`work`, cancelled after `timeout` seconds; then the attempt fails with `AttemptTimeout`."""

    async def attempt(item: T) -> U:
        return await in_time(work(item), asyncio.get_running_loop().time() + timeout, timeout)

    return attempt


async def in_time[U](result: Awaitable[U], when: float | None, seconds: float | None) -> U:
    """Await `result`; at loop time `when`, `seconds` after the attempt began, fail with `AttemptTimeout`."""
    limit = asyncio.timeout_at(when)
    try:
        async with limit:
            return await result
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise AttemptTimeout(f"timed out after {seconds:g} s") from error.__cause__


class ThreadTimeout(AttemptTimeout):
    """An attempt in a thread took too long; the thread cannot be stopped and still runs."""

    def __init__(self, timeout: float, back: Callable[[], Awaitable[None]]) -> None:
        super().__init__(f"timed out after {timeout:g} s")
        self.seconds = timeout
        self.back = back


def thread_back(error: BaseException) -> Callable[[], Awaitable[None]] | None:
    """How to wait for the thread that `error` left running, or None."""
    if isinstance(error, Exhausted):
        error = error.error
    return error.back if isinstance(error, ThreadTimeout) else None
