"""Measures how many calls are in progress at once."""

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, Self, cast


class Gauge:
    """Counts the calls that are in progress, on the loop or in threads.

    At any instant `started == now + finished + failed + cancelled`.

        gauge = Gauge()
        results = await stream(urls).map(gauge.wrap(fetch), concurrency=8).to_list()
        assert gauge.peak == 8

    Attributes:
        now: calls in progress.
        peak: the most calls in progress at once.
        started: calls that were begun.
        finished: calls that returned.
        failed: calls that raised.
        cancelled: calls that a cancellation ended.
    """

    def __init__(self) -> None:
        self.now: int = 0
        self.peak: int = 0
        self.started: int = 0
        self.finished: int = 0
        self.failed: int = 0
        self.cancelled: int = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        counts = "now", "peak", "started", "finished", "failed", "cancelled"
        return f"<Gauge {', '.join(f'{name}={getattr(self, name)}' for name in counts)}>"

    def __enter__(self) -> Self:
        with self._lock:
            self.started += 1
            self.now += 1
            self.peak = max(self.peak, self.now)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        with self._lock:
            self.now -= 1
            if error is None:
                self.finished += 1
            elif isinstance(error, asyncio.CancelledError | GeneratorExit):
                self.cancelled += 1
            else:
                self.failed += 1

    def wrap[F: Callable[..., Any]](self, fn: F) -> F:
        """Wrap `fn`, so that its calls are counted: async if `fn` is, else plain."""
        return cast("F", self._wrap_async(fn) if _is_async(fn) else self._wrap_plain(fn))

    def _wrap_async(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        async def measured(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await fn(*args, **kwargs)

        return measured

    def _wrap_plain(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def measured(*args: Any, **kwargs: Any) -> Any:
            with self:
                return fn(*args, **kwargs)

        return measured


def _is_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004
