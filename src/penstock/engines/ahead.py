"""Reading what blocks in a thread of its own, some items ahead, so that a hop between threads serves many items."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from typing import Final, override

from penstock.core.clock import now
from penstock.core.scope import Scope, outlast
from penstock.core.source import AsyncIteratorStage

AHEAD: Final = 256
"""Items that may have been read while nobody has asked for them."""

AHEAD_BYTES: Final = 4_000_000
"""Bytes that these may hold together, or one item alone."""


class AheadStage[T](AsyncIteratorStage[T]):
    """Reads `read()` in a thread, `AHEAD` items ahead, and closes it there; what is read is there at once (P2).

    `size` gives the bytes of an item, if they count.
    """

    def __init__(
        self, scope: Scope, read: Callable[[], Generator[T]], name: str, size: Callable[[T], int] | None = None
    ) -> None:
        super().__init__(scope, _Lists(scope, read, name, size), name)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- lists of what it reads

    @override
    def ready_items(self, room: int) -> Iterator[T]:
        inbox, scope = self._inbox, self.scope
        while room and inbox and now() <= scope.turn_ends:
            room -= 1
            self._delivered += 1
            yield inbox.popleft()

    @override
    def drain(self) -> None:
        """Take nothing more; what was only read ahead is as if it had not been."""
        self._discarded += len(self._inbox)
        self._inbox.clear()
        super().drain()

    @override
    async def _read(self, iterator: AsyncIterator[list[T]]) -> None:  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride] -- as above
        while not self._ended:
            if self._inbox:
                await self._sleep()
                continue
            self._pulling = True
            try:
                items = await anext(iterator)
            finally:
                self._pulling = False
            self._taken += len(items)
            if self._stopping:
                self._discarded += len(items)
                return
            self._inbox.extend(items)
            self._tell()


class _Lists[T](AsyncIterator[list[T]]):
    """What a thread has read since this was last asked, as lists that are not empty."""

    def __init__(
        self, scope: Scope, read: Callable[[], Generator[T]], name: str, size: Callable[[T], int] | None
    ) -> None:
        self._loop = scope.loop
        self._read = read
        self._size = size
        self._name = name
        self._changed = threading.Condition()
        self._items: list[T] = []
        self._bytes = 0
        self._error: BaseException | None = None
        self._closing_error: BaseException | None = None
        self._asked = self._ended = self._closing = False
        self._wakeup: asyncio.Future[None] | None = None
        self._over: asyncio.Future[None] = scope.loop.create_future()
        self._thread: threading.Thread | None = None
        scope.on_closed.append(self._is_over)

    async def __anext__(self) -> list[T]:
        if self._thread is None:
            thread = threading.Thread(target=self._work, name=f"penstock {self._name}", daemon=True)
            thread.start()
            self._thread = thread
        while True:
            with self._changed:
                if self._items:
                    items, self._items = self._items, []
                    self._bytes = 0
                    self._changed.notify()
                    return items
                if self._ended:
                    break
                self._asked = True
                wakeup = self._wakeup = self._loop.create_future()
            await wakeup
        error, self._error = self._error, None
        _raise(error)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Have the thread close what it reads, and wait for its end, or for that of the run."""
        if self._thread is None:
            return
        with self._changed:
            self._closing = True
            self._changed.notify()
        await outlast(self._over)
        error, self._closing_error = self._closing_error, None
        _raise(error)

    def _work(self) -> None:
        items = self._read()
        try:
            for item in items:
                if not self._hand_on(item):
                    break
        except BaseException as error:  # noqa: BLE001 -- raised to whoever reads, whatever it is
            self._error = error
        try:
            items.close()
        except BaseException as error:  # noqa: BLE001 -- raised from leaving, whatever it is
            self._closing_error = error
        with self._changed:
            self._ended = True
        with suppress(RuntimeError):  # the loop is closed: this was left behind
            self._loop.call_soon_threadsafe(self._thread_ended)

    def _hand_on(self, item: T) -> bool:
        """Put an item where it is found; whether more is wanted."""
        size = 0 if self._size is None else self._size(item)
        with self._changed:
            self._items.append(item)
            self._bytes += size
            if self._asked:
                self._asked = False
                self._loop.call_soon_threadsafe(self._wake)
            while (len(self._items) >= AHEAD or self._bytes >= AHEAD_BYTES) and not self._closing:
                self._changed.wait()
            return not self._closing

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    def _thread_ended(self) -> None:
        assert self._thread is not None
        self._thread.join()
        self._wake()
        self._is_over()

    def _is_over(self) -> None:
        if not self._over.done():
            self._over.set_result(None)


def _raise(error: BaseException | None) -> None:
    """Raise it, if there is one; its traceback must not lead to who holds it."""
    try:
        if error is not None:
            raise error
    finally:
        del error
