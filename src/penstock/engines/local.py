"""Running functions in this process: on the loop, inline, or in threads."""

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, cast

from penstock.core.retry import ThreadTimeout, in_time
from penstock.core.scope import outlast

type Kind = Literal["async", "plain", "other"]
type _Outcome = list[Any]
"""What a call returned, and what it raised; one of them is None."""


def kind_of(fn: Callable[..., object]) -> Kind:
    """Tell an async function, a plain `def` function, and everything else (lambdas, classes, builtins) apart.

    Looks through `functools.partial`, bound methods, `__call__` and `__wrapped__`: `inspect.iscoroutinefunction` alone
    sends a callable object or a decorated async function to a thread.
    """
    seen: Any = fn
    for _ in range(100):  # a chain of wrappers longer than this is a cycle
        if inspect.iscoroutinefunction(seen):
            return "async"
        if isinstance(seen, functools.partial):
            seen = cast("functools.partial[object]", seen).func
        elif hasattr(seen, "__wrapped__"):
            seen = seen.__wrapped__
        elif inspect.ismethod(seen):
            seen = seen.__func__
        elif inspect.isfunction(seen):
            return "other" if seen.__name__ == "<lambda>" or inspect.isasyncgenfunction(seen) else "plain"
        elif isinstance(seen, type) or inspect.isbuiltin(seen) or not inspect.ismethod(getattr(seen, "__call__", None)):  # noqa: B004 -- the bound method itself is wanted
            return "other"
        else:
            seen = seen.__call__
    return "other"


def on_loop[T, U](fn: Callable[[T], U | Awaitable[U]]) -> Callable[[T], Awaitable[U]]:
    """`fn` called on the loop; an awaitable that comes back is awaited."""

    async def call(item: T) -> U:
        result = fn(item)
        return await cast("Awaitable[U]", result) if isinstance(result, Awaitable) else result

    return call


class Threads:
    """Runs plain functions in up to `workers` threads; context variables go along."""

    def __init__(self, workers: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"penstock {name}")
        self._busy = 0

    def bind[T, U](self, fn: Callable[[T], U], timeout: float | None) -> Callable[[T], Awaitable[U]]:
        """`fn` as an async function that runs it in a thread and fails after `timeout` seconds.

        A thread cannot be stopped: after a timeout or a cancellation the call is over only when its thread is back.
        """

        async def call(item: T) -> U:
            when = None if timeout is None else asyncio.get_running_loop().time() + timeout
            future = self._submit(fn, item)
            try:
                async with asyncio.timeout_at(when):
                    await asyncio.shield(future)
            except TimeoutError:
                assert timeout is not None
                raise ThreadTimeout(timeout, functools.partial(outlast, future)) from None
            except asyncio.CancelledError:
                await outlast(future)
                if future.result()[1] is None:
                    raise
            outcome = future.result()
            value, error = outcome
            outcome.clear()  # the frames of a thread hold its future, and the future would hold the error
            if error is not None:
                try:
                    raise error
                finally:
                    del error, future  # the traceback holds this frame, and this frame would hold the error
            return (
                await in_time(cast("Awaitable[U]", value), when, timeout)
                if isinstance(value, Awaitable)
                else cast("U", value)
            )

        return call

    def _submit(self, fn: Callable[[Any], Any], item: Any) -> asyncio.Future[_Outcome]:
        self._busy += 1
        context = contextvars.copy_context()
        future = asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(_outcome, fn, item))
        future.add_done_callback(self._came_back)
        return future

    def _came_back(self, _: object) -> None:
        self._busy -= 1

    def close(self) -> None:
        """Let the threads go; one that is stuck in a call is left behind."""
        self._pool.shutdown(wait=not self._busy)


def _outcome(fn: Callable[[Any], Any], item: Any) -> _Outcome:
    """What a call came to, in a form that a future can carry: it refuses `StopIteration`."""
    try:
        return [fn(item), None]
    except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
        return [None, error]
