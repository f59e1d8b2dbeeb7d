"""Concurrency that finds the limit of a service: `concurrency=Adaptive()`.

High level idea. Calls tell how long they took, and whether they were refused. As in TCP (RFC 5681): slow start adds one
call for each that returns, so the number doubles in the time of a call; then it grows by little while all is well, and
falls by a factor when a call is refused. As in Vegas (Brakmo and Peterson, 1995) and Netflix's concurrency-limits, a
latency that rises says that calls queue, before anything is refused. It is compared with the latency without a queue,
which a round at half the concurrency measures from time to time (as BBR does). A level that was refused is a ceiling
(as in CUBIC): above it more are tried only after so many calls that the refused ones are few. See `docs/decisions.md`,
"Concurrency that adapts".
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast, override

from penstock.core import validate
from penstock.core.errors import AttemptTimeout, OptionError
from penstock.core.retry import RetryOn
from penstock.core.text import Verbatim, call, name_of

ROUND: Final = 16
"""Calls in a round, at least."""

SAMPLE: Final = 40
"""Calls by which the latency without a queue is measured, at least: the mean of fewer says little."""

QUIET: Final = 200
"""Calls that must succeed before one more than a refused level is tried: so 1 in 200 is refused for it, or few more."""

AGE: Final = 60
"""Rounds after which the latency without a queue is measured anew."""

RISING: Final = 1.2
"""How many times the latency without a queue is no reason to grow any more; noise comes on top."""

HIGH: Final = 1.6
"""How many times the latency without a queue is a reason to fall; noise comes on top."""

NOISE: Final = 2.0
"""Standard errors of the mean latency of a round that are noise; latencies are taken to vary as much as their mean."""

BUSY: Final = frozenset({429, 503, 529})
"""The HTTP statuses by which services refuse a call for now."""


def is_refusal(error: Exception) -> bool:
    """Whether a failure says that the service has too much to do: see `Adaptive`."""
    if isinstance(error, AttemptTimeout) or getattr(error, "retry_after", None) is not None:
        return True
    response = getattr(error, "response", None)
    said = (getattr(each, name, None) for each in (error, response) for name in ("status_code", "status"))
    return any(isinstance(status, int) and status in BUSY for status in said)


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Adaptive:
    """Lets a stage find out how many calls a service takes at once: `concurrency=Adaptive(most=256)`.

    It begins with `least` calls and doubles (slow start) until a call is refused or latencies rise. Then it grows while
    latencies hold, and falls when a call is refused or latencies rise. It grows only while half of the calls that it
    allows run, or more. The statistic `concurrency` says where it stands. Each run of a stage finds out for itself.

    Args:
        least: the least calls at once, an int >= 1.
        most: the most calls at once, an int >= `least`.
        refused: types of `Exception`, or a plain function, that tell a refused call from another failure; default: a
            failure with a `retry_after`, with a `status_code` or `status` of 429, 503 or 529 (its own or that of its
            `response`), or a timeout of the stage.

    Raises:
        OptionError: an argument breaks its rule.

    Example:
        penstock.stream(urls).map(fetch, concurrency=penstock.Adaptive(most=64), retry=retry)
    """

    least: int = 1
    most: int = 256
    refused: RetryOn = is_refusal

    def __post_init__(self) -> None:
        object.__setattr__(self, "least", validate.whole("least", self.least, least=1))
        object.__setattr__(self, "most", validate.whole("most", self.most, least=1))
        if self.most < self.least:
            raise OptionError(f"most must be at least {self.least}, which is least, got {self.most}")
        validate.predicate_or_types("refused", self.refused)

    @override
    def __repr__(self) -> str:
        refused = None
        if self.refused is not is_refusal:
            given: Any = self.refused
            kinds = cast("tuple[object, ...]", given if isinstance(given, tuple) else (given,))
            refused = Verbatim(" | ".join(map(name_of, kinds)))
        return call("Adaptive", least=self.least, most=self.most, refused=refused)


class Resizable(Protocol):
    """A window whose concurrency can be set while it runs."""

    def resize(self, concurrency: int, /) -> None:
        """Let so many calls run at once."""


class Control:
    """Sets the concurrency of one window by what its calls tell.

    Attributes:
        level: the concurrency now.
    """

    def __init__(self, adaptive: Adaptive, window: Resizable, clock: Callable[[], float]) -> None:
        self._least = adaptive.least
        self._most = adaptive.most
        self._is_refusal = validate.predicate_or_types("refused", adaptive.refused)
        self._window: Resizable | None = window
        self._clock = clock
        self.level: int = adaptive.least
        self._active = 0
        self._slow_start = True
        self._fell_at = float("-inf")
        self._falls = 0  # because of latency, one after the other
        self._ceiling: int | None = None  # the highest level that was not refused, since one was
        self._quiet = 0  # calls that have succeeded since the last was refused
        self._step = 1
        self._skip = 0  # calls that were begun before the level fell: they queued longer
        self._alone: float | None = None  # the latency without a queue
        self._age = 0  # rounds since it was measured
        self._level_before: int | None = None  # to go back to after the round at half of it that measures the latency
        self._clean = True  # nothing was refused in this round, nor at its beginning
        self._begin_round()

    def watched[T, U](self, attempt: Callable[[T], Awaitable[U]]) -> Callable[[T], Awaitable[U]]:
        """Wrap `attempt`: learn from each call."""

        async def call(item: T) -> U:
            began = self._clock()
            self._active += 1
            full = 2 * self._active >= self.level
            try:
                result = await attempt(item)
            except Exception as error:
                if self._is_refusal(error):
                    self._refused(began)
                raise
            else:
                self._succeeded(self._clock() - began, full=full)
                return result
            finally:
                self._active -= 1

        return call

    def close(self) -> None:
        """Let go of the window."""
        self._window = None

    # What calls tell

    def _refused(self, began: float) -> None:
        self._quiet = 0
        if began < self._fell_at:  # it was begun before the level fell: that has been heard
            return
        if self._slow_start:
            self._alone = None  # what was measured so far are the quick calls
        if self._ceiling is not None and self.level > self._ceiling:  # one more was tried, and was too much
            self._fall(self._ceiling / self.level)
        else:
            self._ceiling = max(self._least, self.level - 1)
            self._fall(0.9 if self._clean else 0.7)
        self._begin_round()
        self._clean = False

    def _succeeded(self, seconds: float, *, full: bool) -> None:
        self._quiet += 1
        if self._slow_start and full:
            self._set(self.level + 1)
        if self._skip:
            self._skip -= 1
            return
        self._calls += 1
        self._seconds += seconds
        self._full += full
        if self._calls >= self._round_size:
            self._end_round()

    # Rounds

    def _begin_round(self) -> None:
        self._calls = 0
        self._seconds = 0.0
        self._full = 0
        self._round_size = max(ROUND if self._level_before is None else SAMPLE, self.level)
        self._clean = True

    def _end_round(self) -> None:
        mean = self._seconds / self._calls
        if self._level_before is not None:
            self._alone, self._age = mean, 0
            self._set(self._level_before)
            self._level_before = None
        elif self._alone is None:
            self._alone = mean
        else:
            self._age += 1
            self._judge(mean / self._alone if self._alone else 1.0, NOISE / math.sqrt(self._calls))
        self._begin_round()

    def _judge(self, rise: float, noise: float) -> None:
        if rise > HIGH + noise:
            was_slow_start = self._slow_start
            self._fall(max(0.5, RISING / rise))
            self._falls += 1
            if was_slow_start or self._falls > 1:  # or the service has become slower, and to fall does not help
                self._measure()
            return
        self._falls = 0
        if self._slow_start:
            return
        if self._age >= AGE:
            self._measure()
        elif rise < RISING + noise and 2 * self._full >= self._calls:
            self._grow()
        else:
            self._step = 1

    def _measure(self) -> None:
        self._level_before = self.level
        self._set(self.level // 2)

    def _grow(self) -> None:
        level, ceiling = self.level, self._ceiling
        if ceiling is not None and level < ceiling:
            self._set(level + max(1, (ceiling - level) // 2))
            return
        if ceiling is not None:
            self._ceiling = level
        if ceiling is None or self._quiet >= QUIET:
            self._set(level + self._step)
            self._step = min(2 * self._step, max(1, level // 4))

    # Levels

    def _fall(self, factor: float) -> None:
        self._slow_start = False
        self._step = 1
        self._fell_at = self._clock()
        self._level_before = None
        self._set(min(round(self.level * factor), self.level - 1))

    def _set(self, level: int) -> None:
        level = min(max(level, self._least), self._most)
        if level < self.level:
            self._skip = self._active
        if level != self.level:
            self.level = level
            if self._window is not None:
                self._window.resize(level)
