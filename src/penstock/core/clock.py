"""The clocks: real time for turns of the loop, the loop's own time for everything that a user can see."""

import asyncio
from collections.abc import Callable
from time import monotonic
from time import perf_counter as now

__all__ = ["EARLY", "TURN", "clock_of", "now", "seconds_left"]

TURN = 0.0025
"""Seconds that a run may keep the loop before others get a turn.

A quarter of what P9 promises: in one pass of the loop, the consumer, the windows and a source may each use one.
"""

EARLY = 1e-9
"""Seconds by which a loop may call a timer too early: the resolution of asyncio's clock."""


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return the clock of `loop`.

    For real time the monotonic clock, as uvloop's own has a resolution of a millisecond.
    """
    kind = type(loop)
    real = kind.__module__.startswith("uvloop") or kind.time is asyncio.BaseEventLoop.time
    return monotonic if real else loop.time


def seconds_left(seconds: float) -> float:
    """Return `seconds`, and 0 for what a timer cannot tell from it or is over."""
    return seconds if seconds > EARLY else 0.0
