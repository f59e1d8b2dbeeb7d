"""Cancel tokens: they ask work to stop, and the work can see it and answer."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from penstock.core import validate
from penstock.core.outcome import Reason


class CancelToken:
    """Tells work that it should end; the work decides what it does then.

    It is signalled once and for good, and may be signalled and asked from any thread.

    Example:
        async def crawl(token: CancelToken) -> Report:
            while pages and not token.cancelled:
                ...
            return report  # what there is so far
    """

    __slots__ = ("_callbacks", "_lock", "_reason")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason: Reason | None = None
        self._callbacks: dict[object, Callable[[], None]] = {}

    @property
    def cancelled(self) -> bool:
        """Whether it was signalled."""
        return self._reason is not None

    @property
    def reason(self) -> Reason | None:
        """Why it was signalled; None before."""
        return self._reason

    def cancel(self, reason: Reason = "caller cancelled") -> None:
        """Signal it; the first time, call the callbacks at once, in the order in which they came."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            callbacks, self._callbacks = self._callbacks, {}
        for callback in callbacks.values():
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback`, which must not raise, when it is signalled, or at once if it was.

        Return how to call that off. The callback runs in the thread that signals.

        Raises:
            OptionError: `callback` is no plain function.
        """
        validate.plain_function("callback", callback)
        key = object()
        with self._lock:
            waits = self._reason is None
            if waits:
                self._callbacks[key] = callback
        if not waits:
            callback()
        return lambda: self._forget(key)

    async def wait(self) -> None:
        """Wait until it is signalled."""
        loop = asyncio.get_running_loop()
        signalled = loop.create_future()
        forget = self.on_cancel(lambda: _wake(loop, signalled))
        try:
            await signalled
        finally:
            forget()

    def raise_if_cancelled(self) -> None:
        """Raise `asyncio.CancelledError` with the reason if it was signalled."""
        if self._reason is not None:
            raise asyncio.CancelledError(self._reason)

    def _forget(self, key: object) -> None:
        with self._lock:
            self._callbacks.pop(key, None)


def _wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
    in_loop(loop, lambda: None if future.done() else future.set_result(None))


def in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Call `callback` in the thread of `loop`: at once, if this is it."""
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        here = False
    if here:
        callback()
    elif not loop.is_closed():
        loop.call_soon_threadsafe(callback)
