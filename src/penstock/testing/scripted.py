"""A source that follows a script, and records how it is read."""

import asyncio
import itertools
import math
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from penstock.testing.books import Books
from penstock.testing.virtual import Clock

type Delay = float | Callable[[int], float | None] | None

_END: Final[Any] = object()


class Scripted[T](Books, AsyncIterable[T]):
    """An async iterable over `items` that follows a script; `sync()` is the plain iterable of the same script.

    `Books` says what it records.

        source = Scripted(range(10_000), delay=0.1)
        async with stream(source).map(fetch, concurrency=4, buffer=2).open() as pages:
            async for page in source.settling(pages):
                ...
        assert source.peak_unsettled <= 6
        assert source.pulled_by == {source.closed_by}

    Args:
        items: what to yield. Read lazily, so it may be endless.
        delay: seconds before each item, or a function from index to seconds. None: the item comes without suspension;
            0: after one pass of the loop.
        fail_at: the index at which `error` is raised in place of an item.
        error: a RuntimeError by default.
        silent_after: how many items come before the source waits for ever.
        ignore_cancel: seconds for which a read goes on after it was cancelled while it waited.
        close_delay: seconds that closing takes.
        close_error: what closing raises at its end.
    """

    def __init__(
        self,
        items: Iterable[T],
        *,
        delay: Delay = None,
        fail_at: int | None = None,
        error: BaseException | None = None,
        silent_after: int | None = None,
        ignore_cancel: float = 0.0,
        close_delay: float = 0.0,
        close_error: BaseException | None = None,
    ) -> None:
        super().__init__()
        error = error or RuntimeError(f"the script fails at item {fail_at}")
        self._script = _Script(items, delay, fail_at, error, silent_after, ignore_cancel, close_delay, close_error)

    def __aiter__(self) -> AsyncIterator[T]:
        self.record_open()
        return _AsyncReading(self._script, self)

    def sync(self, clock: Clock | None = None) -> Iterable[T]:
        """Return the same script as a plain iterable, which waits with `clock.sleep`: for use in threads.

        Raises:
            ValueError: the script waits and has no clock to wait with, or falls silent: a thread could not be stopped.
        """
        script = self._script
        if clock is None and (script.delay is not None or script.close_delay):
            raise ValueError("sync: clock must be given when the script has delays, got None")
        if script.silent_after is not None:
            raise ValueError(f"sync: silent_after must be None, got {script.silent_after}")
        return _PlainSource(script, self, clock)


@dataclass(frozen=True, slots=True)
class _Script[T]:
    items: Iterable[T]
    delay: Delay
    fail_at: int | None
    error: BaseException
    silent_after: int | None
    ignore_cancel: float
    close_delay: float
    close_error: BaseException | None

    def wait_before(self, index: int) -> float | None:
        """Return the seconds to wait before the item at `index`."""
        if index == self.silent_after:
            return math.inf
        return self.delay(index) if callable(self.delay) else self.delay

    def draw(self, index: int, items: Iterator[T]) -> Any:
        """Return the next of `items`, at `index`, or _END."""
        if index == self.fail_at:
            raise self.error
        return next(items, _END)

    def close(self) -> None:
        """Raise if closing is to fail."""
        if self.close_error is not None:
            raise self.close_error


class _AsyncReading[T](AsyncIterator[T]):
    """Reads a script. It holds a real async generator, with all the ways in which one fails."""

    def __init__(self, script: _Script[T], books: Books) -> None:
        self._script = script
        self._books = books
        self._steps = _steps(script, books)

    async def __anext__(self) -> T:
        self._books.record_pull()
        return await anext(self._steps)

    async def aclose(self) -> None:
        """Close the generator, then take as long and raise as the script says."""
        self._books.record_close()
        await self._steps.aclose()
        if self._script.close_delay:
            await asyncio.sleep(self._script.close_delay)
        self._script.close()


async def _steps[T](script: _Script[T], books: Books) -> AsyncGenerator[T]:
    items = iter(script.items)
    for index in itertools.count():
        seconds = script.wait_before(index)
        if seconds is not None:
            await _wait(seconds, script.ignore_cancel)
        item = script.draw(index, items)
        if item is _END:
            return
        books.record_take()
        yield item


async def _wait(seconds: float, ignore_cancel: float) -> None:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        time = asyncio.get_running_loop().time
        end = time() + ignore_cancel
        while time() < end:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(end - time())
        raise


class _PlainSource[T](Iterable[T]):
    def __init__(self, script: _Script[T], books: Books, clock: Clock | None) -> None:
        self._script = script
        self._books = books
        self._clock = clock

    def __iter__(self) -> Iterator[T]:
        self._books.record_open()
        return _PlainReading(self._script, self._books, self._clock)


class _PlainReading[T](Iterator[T]):
    def __init__(self, script: _Script[T], books: Books, clock: Clock | None) -> None:
        self._script = script
        self._books = books
        self._clock = clock
        self._steps = _plain_steps(script, books, clock)

    def __next__(self) -> T:
        self._books.record_pull()
        return next(self._steps)

    def close(self) -> None:
        """Close the generator, then take as long and raise as the script says."""
        self._books.record_close()
        self._steps.close()
        if self._clock is not None and self._script.close_delay:
            self._clock.sleep(self._script.close_delay)
        self._script.close()


def _plain_steps[T](script: _Script[T], books: Books, clock: Clock | None) -> Generator[T]:
    items = iter(script.items)
    for index in itertools.count():
        seconds = script.wait_before(index)
        if clock is not None and seconds is not None:
            clock.sleep(seconds)
        item = script.draw(index, items)
        if item is _END:
            return
        books.record_take()
        yield item
