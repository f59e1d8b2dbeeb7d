"""Functions that keep the event loop to themselves: lambdas, builtins and other callables that are called on it."""

import asyncio
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from penstock.core.clock import clock_of
from penstock.core.errors import BlockedLoopWarning, Place
from penstock.core.log import LOG

BLOCKED: Final = 0.1
"""Seconds from which on it is said that a function keeps the loop."""

_SLOW: Final = 0.01
"""Seconds from which on every call is timed."""

_RARELY: Final = 16
"""Calls from one that is timed to the next, while they are not slow: two looks at the clock are a tenth of a lambda."""


class Blocked:
    """What has kept the loop in one run: seconds by stage. Warns once of each, where the run was opened."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.opened_at: Place = ("", 0)

    def note(self, stage: str, fn: str, seconds: float) -> None:
        """Note that `fn`, a function of that stage, kept the loop."""
        known = self.seconds.get(stage)
        self.seconds[stage] = (known or 0.0) + seconds
        if known is None:
            message = (
                f"{fn} of stage {stage!r} kept the event loop for {seconds:.1f} s, in which nothing else ran: "
                'give engine="thread", or make it async'
            )
            LOG.warning("%s", message)
            warnings.warn_explicit(message, BlockedLoopWarning, *self.opened_at)


BLOCKED_BY: ContextVar[Blocked] = ContextVar("BLOCKED_BY")
"""What the run of this work notes it in."""


def watched[T, U](fn: Callable[[T], U], stage: str, name: str) -> Callable[[T], U]:
    """`fn`, known by that name, some calls of it timed, in the time of the loop."""
    untimed = 0

    def call(item: T) -> U:
        nonlocal untimed
        if untimed:
            untimed -= 1
            return fn(item)
        clock = clock_of(asyncio.get_running_loop())
        began = clock()
        result = fn(item)
        seconds = clock() - began
        if seconds < _SLOW:
            untimed = _RARELY - 1
        elif seconds >= BLOCKED and (blocked := BLOCKED_BY.get(None)) is not None:
            blocked.note(stage, name, seconds)
        return result

    return call
