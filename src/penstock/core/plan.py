"""The plan of a window: its work and the options of its stage, and the markers that work may return beside results."""

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from penstock.core.adaptive import Adaptive
from penstock.core.closing import close_awaitable
from penstock.core.errands import Elsewhere
from penstock.core.outcome import Failed
from penstock.core.retry import Retry
from penstock.core.stage_limits import Limits


class _Nothing:
    """A marker that no value of a user can be (P6)."""


DROPPED: Final[Any] = _Nothing()
"""What work returns for an item that has no result to hand on."""

MISSING: Final[Any] = _Nothing()
"""What a window returns when no result is next."""


type AsyncFn[T, U] = Callable[[T], Awaitable[U]]

type Gate[T] = Callable[[T], Awaitable[Any]]
"""Asked for an item before its work, outside of limits, attempts and timeouts.

Gives the result of the work if it is known, else MISSING; for work that takes lists, a list of these.
"""


@dataclass(frozen=True, slots=True)
class Later[U]:
    """An awaitable that inline work returns because its result must still be awaited.

    A result may be one itself (P6).
    """

    result: Awaitable[U]

    def __call__(self, _: object) -> Awaitable[U]:
        """Return what must be awaited: it stands in for the work."""
        return self.result

    def close(self) -> None:
        """Close what nobody will await."""
        close_awaitable(self.result)

    def shaped[J, V](self, shape: Callable[[J, U], V], item: J) -> "Later[V]":
        """Return what gives `shape(item, result)` of its result."""
        return Later(_Shaped(self, shape, item))


@dataclass(frozen=True, slots=True)
class _Shaped[J, U, V](Awaitable[V]):
    """An awaitable whose result is still to be shaped; as no coroutine, it can be closed with what is inside."""

    later: Later[U]
    shape: Callable[[J, U], V]
    item: J

    def __await__(self) -> Generator[Any, Any, V]:
        return self.shape(self.item, (yield from self.later.result.__await__()))

    def close(self) -> None:
        """Close what nobody will await."""
        self.later.close()


type OnError = Literal["raise", "skip", "collect", "return"]
type OutOfBand = Literal["raise", "skip", "collect"]
"""The values of `on_error` that leave the type of the results as it is."""

OUT_OF_BAND: Final[tuple[OutOfBand, ...]] = ("raise", "skip", "collect")
ON_ERROR: Final[tuple[OnError, ...]] = (*OUT_OF_BAND, "return")


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many failures "skip" and "collect" accept before they raise.

    `most` is a count. `rate` is a share, 0 to 1, of the items settled so far; a single failure never exceeds it.
    """

    most: int | None = None
    rate: float | None = None

    def exceeded(self, failed: int, settled: int) -> str | None:
        """Name the option that `failed` of `settled` items exceed; None if there is none."""
        if self.most is not None and failed > self.most:
            return f"max_failures={self.most}"
        if self.rate is not None and failed > max(1, self.rate * settled):
            return f"max_failure_rate={self.rate:g}"
        return None


ANY_NUMBER: Final = Tolerance()


@dataclass(frozen=True, slots=True)
class ByteBudget:
    """How much of finished results may wait: `size_of(result)` gives bytes (or any unit), `most` is their sum."""

    most: int
    size_of: Callable[[Any], float]


@dataclass(frozen=True, slots=True)
class Plan[T, U]:
    """The work of a window, and the checked options of its stage."""

    name: str
    work: AsyncFn[T, U]
    inline: Callable[[T], U | Later[U]] | None = None
    inline_name: str | None = None  # then inline calls may block the loop unseen, and this function is warned of
    elsewhere: Elsewhere | None = None
    size: int = 1  # the most items that a call takes, where it takes lists
    concurrency: int = 1
    adaptive: Adaptive | None = None  # then `concurrency` is the most
    ordered: bool | None = True  # None until a run is opened: in order where that can be seen
    buffer: int = 0
    timeout: float | None = None
    retry: Retry | None = None
    limits: Limits | None = None
    one_by_one: Limits | None = None  # held by the whole call, with all its tries: a limit of 1 for each key
    budget: ByteBudget | None = None
    on_error: OnError = "raise"
    tolerance: Tolerance = ANY_NUMBER
    on_failed: Callable[[Failed], Failed] | None = None  # told of every failure; gives what is to be known of it
    on_passed_over: Callable[[Failed], None] | None = None  # told of those without which the run goes on
    on_through: Callable[[T], None] | None = None  # told of items that give nothing more, unless the end cut them off
    gate: Gate[T] | None = None  # with it, there is no inline work
    seen: Callable[[Any], Any] | None = None  # gives what users know of an item, or of a list; None: they know it

    @property
    def keyed(self) -> bool:
        """Whether a call may wait for its key."""
        return self.one_by_one is not None or (self.limits is not None and self.limits.keyed)

    @property
    def needs_tasks(self) -> bool:
        """Whether a call may wait, be interrupted or be tried again: such a call is a task of its own."""
        options = (self.timeout, self.retry, self.limits, self.one_by_one, self.adaptive)
        return any(option is not None for option in options)

    def replaced(self, **changes: Any) -> "Plan[T, U]":
        """Return this plan with some fields changed."""
        return replace(self, **changes)
