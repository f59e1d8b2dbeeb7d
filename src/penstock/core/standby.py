"""Where a task waits for its turn, which it is given within the call that gives it.

High-level idea: a future wakes its task in the next pass of the loop. A task that makes something for whoever asks now
need not wait for one: it can go on inside the call that asks, as an eager task begins inside the call that makes it.
asyncio lets a task await any object that keeps the protocol of a future, and lets a task enter and leave the loop
("Extending asyncio" in its documentation). A task that goes on here is the current one, in its own context; cancelling
it is as ever.
"""

import asyncio
from asyncio import (
    _enter_task,  # pyright: ignore[reportPrivateUsage] -- documented for those who extend asyncio
    _leave_task,  # pyright: ignore[reportPrivateUsage] -- as above
    current_task,
)
from collections.abc import Callable, Generator
from contextvars import Context
from typing import ClassVar


class Standby:
    """What one task awaits until it is told to go on, any number of times; a cancellation ends it.

    `resume` is for callers that the task cannot lead to: never a call that was made by this task, or by one that it
    waits for. What the task asks (the protocol of a future, as far as a task uses it) is answered in C where it can be:
    a call into Python takes 60 ns.
    """

    __slots__ = ("_asyncio_future_blocking", "_context", "_loop", "_wakeup", "is_cancelled")

    get_loop: ClassVar[Callable[[], asyncio.AbstractEventLoop]] = staticmethod(asyncio.get_running_loop)
    result: ClassVar[Callable[[], object]] = staticmethod(bool)  # that it was told to go on

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio_future_blocking = False
        self._loop = loop
        self._wakeup: Callable[[object], object] | None = None
        self._context: Context | None = None
        self.is_cancelled: bool = False

    def __await__(self) -> Generator["Standby"]:
        self._asyncio_future_blocking = True
        yield self

    def resume(self) -> None:
        """Let the task go on now, until it waits for something; if it was cancelled, it goes on in the next pass."""
        wakeup, context = self._wakeup, self._context
        self._wakeup = self._context = None
        if wakeup is None or context is None:
            return
        caller = current_task(self._loop)
        if caller is None:
            context.run(wakeup, self)
            return
        _leave_task(self._loop, caller)
        try:
            context.run(wakeup, self)
        finally:
            _enter_task(self._loop, caller)

    def add_done_callback(self, wakeup: "Callable[[object], object]", *, context: Context) -> None:
        """Keep what lets the task go on."""
        self._wakeup, self._context = wakeup, context

    def cancel(self, msg: object = None) -> bool:
        """Raise `CancelledError` in the task, in the next pass of the loop."""
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is None:
            return False
        self.is_cancelled = True
        self._loop.call_soon(wakeup, _Cancellation(msg), context=self._context)
        return True


class _Cancellation:
    """What a cancelled task asks for the result of its wait."""

    def __init__(self, message: object) -> None:
        self._message = message

    def result(self) -> None:
        raise asyncio.CancelledError() if self._message is None else asyncio.CancelledError(self._message)
