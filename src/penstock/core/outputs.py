"""An input of `flat_map` while it is open."""

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from penstock.core.limited import Hold
from penstock.core.plan import MISSING

AT_HAND: Final = (list, tuple, set, frozenset, dict, deque)
"""Iterables whose items are in memory already; what else there is (`range`, a query) may make them when it is read."""

EXHAUSTED: Final[Any] = object()
"""What an input gives when its last output has been taken."""


class Outputs[T, U]:
    """An open input and what it has come to so far."""

    __slots__ = (
        "complete",
        "failure",
        "handed_on",
        "held",
        "hold",
        "index",
        "item",
        "iterator",
        "limit",
        "making",
        "paused",
        "permit",
        "produced",
        "queued",
        "ready",
        "settled",
        "waiting",
    )

    def __init__(self, index: int, item: T) -> None:
        self.index: int = index
        self.item: T = item
        self.ready: deque[U] = deque()
        self.iterator: Iterator[U] | None = None
        self.waiting: int = 0  # of the outputs in `ready`, those that are counted
        self.paused: float = 0.0  # seconds of waiting for permits
        self.held: int = 0  # outputs that wait or are in the making; those of a collection are not counted
        self.hold: Hold | None = None
        self.making: bool = False
        self.produced: bool = False
        self.complete: bool = False  # whether nothing was cut off: its last output was made before the end of the run
        self.handed_on: bool = False
        self.queued: bool = False
        self.settled: bool = False
        self.failure: object = MISSING
        self.permit: asyncio.Future[None] | None = None
        self.limit: asyncio.Timeout | None = None

    def has_output(self) -> bool:
        """Whether `take` may give an output."""
        return bool(self.ready) or self.iterator is not None

    def spent(self) -> bool:
        """Whether the last output has been handed on."""
        return self.produced and not self.ready and self.iterator is None

    def take(self) -> Any:
        """Give the next output, MISSING if there is none yet, or EXHAUSTED."""
        if self.ready:
            return self.ready.popleft()
        if self.iterator is not None:
            return next(self.iterator, EXHAUSTED)
        return EXHAUSTED if self.produced else MISSING
