"""An open input of `flat_map`: how far it has come, and its outputs that wait."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextvars import Context
from enum import IntEnum
from typing import Any, Final

from penstock.core.plan import MISSING, AsyncFn
from penstock.core.stage_limits import Hold
from penstock.core.standby import Standby

EXHAUSTED: Final[Any] = object()
"""What `Outputs.take` returns after the last output."""


class Phase(IntEnum):
    """How far an open input has come; phases only go up, but for AT_WORK and MAKING, which alternate."""

    AT_WORK = 0
    MAKING = 1  # an output, with a permit
    CUT_OFF = 2  # the call is over; as yet, or for good, its last output was not made
    WHOLE = 3  # the call is over, and its last output was made before the end of the run
    SETTLED = 4  # it has its outcome; outputs may still be handed on


# by these names: a member that is looked up in its enum takes 40 ns
AT_WORK: Final = Phase.AT_WORK
MAKING: Final = Phase.MAKING
CUT_OFF: Final = Phase.CUT_OFF
WHOLE: Final = Phase.WHOLE
SETTLED: Final = Phase.SETTLED


class Outputs[T, U]:
    """An open input, with its outputs that wait."""

    __slots__ = (
        "failure",
        "given",
        "held",
        "hold",
        "index",
        "item",
        "iterator",
        "limit",
        "paused",
        "permit",
        "phase",
        "ready",
        "timed",
        "waiting",
        "work",
    )

    def __init__(self, index: int, item: T, work: AsyncFn[T, Any]) -> None:
        self.index: int = index
        self.item: T = item
        self.work: AsyncFn[T, Any] = work
        self.phase: Phase = AT_WORK
        self.ready: deque[U] = deque()
        self.iterator: Iterator[U] | None = None
        self.given: int = 0  # outputs that were handed on
        self.waiting: int = 0  # of the outputs in `ready`, those that are counted
        self.timed: bool = False  # whether its attempt is
        self.paused: float = 0.0  # seconds of waiting for permits
        self.held: int = 0  # outputs that wait or are in the making; those of a collection are not counted
        self.hold: Hold | None = None
        self.failure: object = MISSING
        self.permit: Standby | Unbegun | None = None
        self.limit: asyncio.Timeout | None = None

    @property
    def making(self) -> bool:
        """Whether an output is being made."""
        return self.phase is MAKING

    @property
    def produced(self) -> bool:
        """Whether its call is over."""
        return self.phase >= CUT_OFF

    def has_output(self) -> bool:
        """Whether `take` may return an output."""
        return bool(self.ready) or self.iterator is not None

    def spent(self) -> bool:
        """Whether the last output has been handed on."""
        return self.produced and not self.ready and self.iterator is None

    def take(self) -> Any:
        """Return the next output, MISSING if there is none yet, or EXHAUSTED."""
        if self.ready:
            return self.ready.popleft()
        if self.iterator is not None:
            return next(self.iterator, EXHAUSTED)
        return EXHAUSTED if self.produced else MISSING


class Unbegun:
    """The place of a task that does not exist yet: it stands by as a task does, and begins when it is told to go on."""

    __slots__ = ("_begin", "_context", "_generator", "_never_read", "_outputs")

    is_cancelled = False

    def __init__(
        self,
        outputs: Outputs[Any, Any],
        generator: AsyncGenerator[Any],
        context: Context,
        begin: Callable[[Outputs[Any, Any], AsyncGenerator[Any], Context], None],
        never_read: Callable[[Outputs[Any, Any]], None],
    ) -> None:
        self._outputs = outputs
        self._generator = generator
        self._context = context
        self._begin = begin
        self._never_read = never_read

    def resume(self) -> None:
        """Begin to read the generator now, until it waits for something."""
        self._outputs.permit = None
        self._begin(self._outputs, self._generator, self._context)

    def cancel(self, _reason: object) -> None:
        """Settle the input as cancelled: there is no task that could be."""
        self._outputs.permit = None
        self._never_read(self._outputs)
