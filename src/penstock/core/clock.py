"""The clocks: real time for turns of the loop, the loop's own time for everything that a user can see."""

import asyncio
from collections.abc import Callable
from time import monotonic
from time import perf_counter as now

__all__ = ["TURN", "clock_of", "now"]

TURN = 0.0025
"""Seconds that a run may keep the loop before others get a turn.

A quarter of what P9 promises: in one pass of the loop, the consumer, the windows and a source may each use one.
"""


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return the clock of `loop`.

    For real time the monotonic clock, as uvloop's own has a resolution of a millisecond.
    """
    kind = type(loop)
    real = kind.__module__.startswith("uvloop") or kind.time is asyncio.BaseEventLoop.time
    return monotonic if real else loop.time
