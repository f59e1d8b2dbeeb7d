"""Running plain functions, and reading plain iterables, in threads."""

import asyncio
import contextvars
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Final, cast

from penstock.core.errors import as_failure
from penstock.core.fan_out import AT_HAND
from penstock.core.retry import ThreadTimeout, in_time
from penstock.core.scope import outlast
from penstock.engines.pool import DaemonThreads

type _Outcome = list[Any]
"""What a call returned, and what it raised; one of them is None."""

_A_DICT: Final[dict[str, str]] = {}
_VIEWS: Final = (type(_A_DICT.keys()), type(_A_DICT.values()), type(_A_DICT.items()))
_NEVER_BLOCKS: Final = (*AT_HAND, *_VIEWS, str, bytes, bytearray, range, AsyncIterable)
"""What is read on the loop: it is there in memory, or waits as the loop does."""


class Threads:
    """Runs plain functions in up to `workers` threads; context variables go along.

    A thread cannot be stopped: after a timeout or a cancellation a call is over only when its thread is back. When
    `closed` is done, the run has left those behind that are not.
    """

    def __init__(self, workers: int, name: str, closed: asyncio.Future[None]) -> None:
        self._pool = DaemonThreads(workers, f"penstock {name}")
        self._closed = closed

    def bind[T, U](self, fn: Callable[[T], U], timeout: float | None) -> Callable[[T], Awaitable[U]]:
        """`fn` as an async function that runs it in a thread and fails after `timeout` seconds."""

        async def call(item: T) -> U:
            limit = Budget(timeout)
            with limit:
                return cast("U", await self._awaited(limit, fn, item))

        return call

    def bind_reading[T](self, fn: Callable[[T], Any], timeout: float | None) -> Callable[[T], Awaitable[Any]]:
        """`fn`, which gives iterables, as an async function: what may block as it is read is read in a thread too."""

        async def read(item: T) -> Any:
            limit = Budget(timeout)
            with limit:
                fan = await self._awaited(limit, fn, item)
                if isinstance(fan, _NEVER_BLOCKS) or not isinstance(fan, Iterable):
                    return cast("Any", fan)
            return InThread(cast("Iterable[Any]", fan), self, limit)

        return read

    async def _awaited(self, limit: "Budget", fn: Callable[[Any], Any], item: Any) -> Any:
        value = await self.run(limit, fn, item)
        if isinstance(value, Awaitable):
            return await in_time(cast("Awaitable[Any]", value), limit.when, limit.seconds)
        return value

    async def run(self, limit: "Budget", fn: Callable[..., Any], *args: Any) -> Any:
        """What `fn(*args)` returns in a thread; an error of it, of `limit`, or a cancellation is raised."""
        context = contextvars.copy_context()
        future = asyncio.get_running_loop().run_in_executor(self._pool, lambda: context.run(_outcome, fn, *args))
        late = False
        try:
            if limit.when is None:
                await asyncio.shield(future)
            else:
                async with asyncio.timeout_at(limit.when):
                    await asyncio.shield(future)
        except TimeoutError:
            late = True
        except asyncio.CancelledError:
            try:
                await outlast(future, self._closed)
            except asyncio.CancelledError:
                future.add_done_callback(_empty)
                raise
            if future.result()[1] is None:
                _empty(future)
                raise
        if late:  # raised here, without a context: that would lead to the task, whose own end may lead here
            assert limit.seconds is not None
            future.add_done_callback(_empty)
            raise ThreadTimeout(limit.seconds, partial(outlast, future, self._closed))
        value, error = future.result()
        _empty(future)
        if error is not None:
            try:
                raise error
            finally:
                del error, future  # the traceback holds this frame, and this frame would hold the error
        return value

    @property
    def gone(self) -> bool:
        """Whether the run is over, and who is still inside a call is left behind."""
        return self._closed.done()

    def close(self) -> None:
        """Let the threads go; one that is stuck in a call is left behind."""
        self._pool.shutdown()


class Budget:
    """The seconds that an attempt may take in all, spent only inside its `with` blocks."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = self._left = seconds
        self.when: float | None = None

    def __enter__(self) -> None:
        self.when = None if self._left is None else asyncio.get_running_loop().time() + self._left

    def __exit__(self, *_: object) -> None:
        if self.when is not None:
            self._left = self.when - asyncio.get_running_loop().time()


class InThread[T](AsyncIterator[T]):
    """A plain iterable, read and closed in a thread, for those whose reading blocks.

    A cancelled read waits for its item, as a thread cannot be stopped.
    """

    def __init__(self, iterable: Iterable[T], threads: Threads, limit: Budget) -> None:
        self._iterable = iterable
        self._iterator: Iterator[T] | None = None
        self._threads = threads
        self._limit = limit
        self._read: list[T] = []
        self._left_running = False

    async def __anext__(self) -> T:
        try:
            with self._limit:
                await self._threads.run(self._limit, self._next)
        except StopAsyncIteration as error:  # of a plain iterator, it is no end
            raise as_failure(error) from error
        except ThreadTimeout as error:
            self._left_running = True
            raise ThreadTimeout(error.seconds, partial(self._close_behind, error.back)) from None
        if not self._read:
            raise StopAsyncIteration
        return self._read.pop()

    async def aclose(self) -> None:
        """Close the iterator, if it can be closed, no thread is inside it, and the run is not over."""
        if self._left_running or self._threads.gone:
            return
        if self._iterator is not None or isinstance(self._iterable, Iterator):
            await self._threads.run(NO_LIMIT, self._close)

    async def _close_behind(self, back: Callable[[], Awaitable[None]]) -> None:
        """Close the iterator when the thread that is inside it is back."""
        try:
            await back()
        finally:
            self._left_running = False
            await self.aclose()

    def _next(self) -> None:
        if self._iterator is None:
            self._iterator = iter(self._iterable)
        self._read.extend(islice(self._iterator, 1))

    def _close(self) -> None:
        close = getattr(self._iterable if self._iterator is None else self._iterator, "close", None)
        if close is not None:
            close()


NO_LIMIT: Final = Budget(None)


def _empty(future: asyncio.Future[_Outcome]) -> None:
    """Let go of what a call came to: a thread's future holds itself, and the frames of an error hold it too."""
    if not future.cancelled():
        future.result().clear()


def _outcome(fn: Callable[..., Any], *args: Any) -> _Outcome:
    """What a call came to, in a form that a future can carry: it refuses `StopIteration`."""
    try:
        return [fn(*args), None]
    except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
        return [None, error]
