"""What a window is given to do, and what work may come to beside a result."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from penstock.core.closing import close
from penstock.core.limited import Limits
from penstock.core.outcome import Failed
from penstock.core.policy import ANY_NUMBER, OnError, Tolerance
from penstock.core.retry import Retry


class _Nothing:
    """A marker that no user value can be (P6)."""


DROPPED: Final[Any] = _Nothing()
"""What work returns for an item that has no result to hand on."""

MISSING: Final[Any] = _Nothing()
"""What a window hands over when no result is next."""


type Call[T, U] = Callable[[T], Awaitable[U]]

type Gate[T] = Callable[[T], Awaitable[Any]]
"""What an item waits for before its work, outside of limits, attempts and timeouts.

It gives what work would have come to, if that is known, else MISSING; for work that takes lists, a list of these.
"""


@dataclass(frozen=True, slots=True)
class Later[U]:
    """What inline work returns when its result is still to be awaited: a result may itself be awaitable (P6)."""

    result: Awaitable[U]

    def __call__(self, _: object) -> Awaitable[U]:
        """Go on with the item, as work."""
        return self.result

    def close(self) -> None:
        """Close a coroutine that nobody will await."""
        close(self.result)


@dataclass(frozen=True, slots=True)
class Plan[T, U]:
    """What a window is to do: the work and the options of its stage, checked."""

    name: str
    work: Call[T, U]
    inline: Callable[[T], U | Later[U]] | None = None
    size: int = 1  # the most items that a call takes, where it takes lists
    concurrency: int = 1
    ordered: bool | None = True  # None until a run is opened: in order where that can be seen
    buffer: int = 0
    timeout: float | None = None
    retry: Retry | None = None
    limits: Limits | None = None
    on_error: OnError = "raise"
    tolerance: Tolerance = ANY_NUMBER
    on_failed: Callable[[Failed], Failed] | None = None  # told of every failure; gives what is to be known of it
    on_passed_over: Callable[[Failed], None] | None = None  # told of those without which the run goes on
    on_through: Callable[[T], None] | None = None  # told of items that give nothing more, unless the end cut them off
    gate: Gate[T] | None = None  # with it, there is no inline work

    def replaced(self, **changes: Any) -> "Plan[T, U]":
        """This plan with some fields changed."""
        return replace(self, **changes)
