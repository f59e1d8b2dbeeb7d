"""Detects functions that block the event loop: lambdas, builtins and other callables that run on it.

Why plain `def` functions are not watched: `docs/decisions.md`, "A lambda that blocks the loop is warned of, a `def` is
not".
"""

import asyncio
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

from penstock.core.clock import clock_of
from penstock.core.errors import BlockedLoopWarning, Place
from penstock.core.log import LOG
from penstock.core.meter import RARELY, SLOW

BLOCKED: Final = 0.1
"""Seconds from which a call counts as blocking."""


class Blocked:
    """What has blocked the loop in one run: seconds by stage. Warns once for each stage, where the run was opened."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.opened_at: Place = ("", 0)

    def note(self, stage: str, fn: str, seconds: float) -> None:
        """Note that `fn`, a function of that stage, blocked the loop for so many seconds."""
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
"""The record of the run that this work belongs to."""


def watched[T, U](fn: Callable[[T], U], stage: str, name: str) -> Callable[[T], U]:
    """Wrap `fn`, called `name` in warnings: time some of its calls by the clock of the loop."""
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
        if seconds < SLOW:
            untimed = RARELY - 1
        elif seconds >= BLOCKED and (blocked := BLOCKED_BY.get(None)) is not None:
            blocked.note(stage, name, seconds)
        return result

    return call
