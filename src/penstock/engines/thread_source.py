"""Reads a source that blocks in a thread of its own, in bulk: one hop between threads serves many items.

The thread reads as long as there are free places, in one *burst*. When all that it has read was taken and there are
free places again, the next burst begins. The stage below gets an item as soon as it has been read, while the burst goes
on. So a quick iterator fills all places for the price of one hop, and nobody waits for a slow one. See
`docs/decisions.md`, "A thread reads in bulk, into free places".
"""

import threading
from asyncio import CancelledError, Task
from collections.abc import Callable, Iterable, Iterator
from typing import Final, override

from penstock.core.clock import now
from penstock.core.closing import close
from penstock.core.errors import as_failure
from penstock.core.scope import Scope
from penstock.core.source import OwnedStage
from penstock.core.stage import END, PENDING, Pulled
from penstock.engines.binding import NO_LIMIT, Binding
from penstock.engines.threads import Threads

AHEAD: Final = 256
"""Items that may be read before anybody asks for them."""

AHEAD_BYTES: Final = 4_000_000
"""Bytes that these may hold together; one item alone may hold more."""

HASTE: Final = 0.000_1
"""Seconds for which the loop waits for an item that it may have at once."""

LINGER: Final = 0.001
"""Seconds for which the thread waits to be called when it has filled all places."""


class ThreadStage[T](OwnedStage[T]):
    """Reads a plain iterable in a thread, as long as there are free places, and closes it there (P1, P2, P4)."""

    __slots__ = (
        "_asked_at",
        "_awaited",
        "_binding",
        "_call",
        "_came",
        "_exhausted",
        "_is_quick",
        "_iterable",
        "_iterator",
        "_lingers",
        "_lock",
        "_thread",
        "_told",
    )

    def __init__(self, scope: Scope, iterable: Iterable[T], name: str) -> None:
        super().__init__(scope, name)
        self._iterable = iterable
        self._iterator: Iterator[T] | None = None
        self._exhausted = False
        self._told = False
        self._lock = threading.Lock()
        self._lingers = False
        self._call = threading.Lock()  # released when the thread, which lingers, is to read on
        self._call.acquire()
        self._is_quick = False
        self._asked_at = 0.0
        self._awaited = False
        self._came = threading.Lock()  # released when there is the item that the loop awaits
        self._came.acquire()
        self._thread = Threads(1, name=name)
        self._binding = Binding(self._thread, scope.closed)
        scope.on_closed.append(self._thread.abandon)

    # On the loop

    @override
    def pull(self, room: int) -> Pulled[T]:
        inbox = self._inbox
        self._room = room
        if not inbox and not self._ended:
            self._asked = True  # before the look below: the thread puts an item there first, and then looks at this
            if self._task is None:
                self._start()
            else:
                self._ask()
                self._wake()
        if inbox:
            self._asked = False
            self._delivered += 1
            self._room = room - 1
            return inbox.popleft()
        return END if self._ended else PENDING

    @override
    def ready_items(self, room: int) -> Iterator[T]:
        inbox, scope = self._inbox, self.scope
        while room and inbox and now() <= scope.turn_ends:
            self._room = room = room - 1
            self._delivered += 1
            yield inbox.popleft()

    @override
    def drain(self) -> None:
        with self._lock:
            self._ended = True
            self._read_on()
        super().drain()

    @override
    def close(self) -> None:
        with self._lock:
            super().close()

    def _ask(self) -> None:
        """Call the thread if it lingers, and wait for its item if the last one came at once.

        To sleep and be woken through the loop costs twice as much.
        """
        self._asked_at = now()
        with self._lock:
            self._awaited = self._is_quick and self._lingers
            self._read_on()
            if not self._awaited:
                return
        if not self._came.acquire(timeout=HASTE):
            with self._lock:
                self._is_quick = not self._awaited
                self._awaited = False
            if self._is_quick:  # it came just now
                self._came.acquire()

    def _read_on(self) -> None:
        """Call the thread if it lingers; inside the lock."""
        if self._lingers:
            self._lingers = False
            self._call.release()

    @override
    def _interrupt(self) -> None:
        """Do nothing: the thread looks after each item, and cannot be interrupted before."""

    @override
    async def _read(self) -> None:
        while not self._ended and not self._exhausted:
            if self._inbox or not self._may_go_on():
                await self._sleep()
            else:
                await self._binding.run(NO_LIMIT, self._burst)

    @override
    def _close_unread(self) -> bool:
        return isinstance(self._iterable, Iterator)

    @override
    async def _close(self) -> None:
        if not self._binding.gone and (self._iterator is not None or self._close_unread()):
            await self._binding.run(NO_LIMIT, self._close_in_thread)

    @override
    def _gone(self, task: Task[None]) -> None:
        super()._gone(task)
        self._thread.abandon()  # here, too: nobody may come to close a run that `asyncio.run` has cancelled

    def _arrived(self) -> None:
        with self._lock:  # the thread, which tells inside of it, goes on first: to the next items, if they are there
            self._told = False
        self._is_quick = now() - self._asked_at < HASTE
        if self._inbox:
            self._tell()

    # In the thread

    def _open(self) -> Iterator[T]:
        return iter(self._iterable)

    def _may_go_on(self) -> bool:
        return len(self._inbox) < self._room and not self._ended

    def _burst(self) -> None:
        """Read until the places are full, or the end; linger there, and read on if there are places again."""
        iterator = self._iterator
        if iterator is None:
            iterator = self._iterator = self._open()
        self._fill(iterator)
        while self._linger():
            self._fill(iterator)

    def _fill(self, iterator: Iterator[T]) -> None:
        while self._may_go_on() and not self._cancelled_from_outside():
            try:
                item = next(iterator)
            except StopIteration:
                self._exhausted = True
                return
            except StopAsyncIteration as error:  # of a plain iterator, it is no end
                raise as_failure(error, "the source") from error
            self._put(item)

    def _linger(self) -> bool:
        """Wait a moment to be called; return whether to read on. A call costs a third of what another burst does."""
        with self._lock:
            if self._exhausted or self._ended or self._cancelled_from_outside():
                return False
            if self._may_go_on():  # the loop has said so since the last look, when nobody lingered
                return True
            self._lingers = True
        if self._call.acquire(timeout=LINGER):
            return True
        with self._lock:
            if self._lingers:
                self._lingers = False
                return False
        return self._call.acquire()  # it was released just now

    def _put(self, item: T) -> None:
        """Put an item where the loop finds it, unless the loop wants no more."""
        with self._lock:
            self._taken += 1
            if self._ended:
                self._discarded += 1
                return
            self._inbox.append(item)
            if self._awaited:
                self._awaited = False
                self._came.release()
            elif self._asked and not self._told:
                self._told = True
                self.scope.loop.call_soon_threadsafe(self._arrived)

    def _close_in_thread(self) -> None:
        try:
            close(self._iterable if self._iterator is None else self._iterator)
        except (StopIteration, StopAsyncIteration, GeneratorExit, CancelledError) as error:
            raise as_failure(error, "closing the source") from error  # itself would end the task that waits for this


class AheadStage[T](ThreadStage[T]):
    """Reads `read()` in a thread, `AHEAD` items ahead, and closes it there; items are handed on at once (P2).

    `size` gives the bytes of an item, if they count.
    """

    __slots__ = ("_bytes", "_read_source", "_size")

    def __init__(
        self, scope: Scope, read: Callable[[], Iterator[T]], name: str, size: Callable[[T], int] | None = None
    ) -> None:
        super().__init__(scope, (), name)
        self._read_source = read
        self._size = size
        self._bytes = 0

    @override
    def drain(self) -> None:
        """Take nothing more; items that were only read ahead count as not taken."""
        with self._lock:
            self._ended = True
            self._read_on()
        self.close()
        super().drain()

    @override
    def _open(self) -> Iterator[T]:
        return self._read_source()

    @override
    def _may_go_on(self) -> bool:
        waiting = len(self._inbox)
        return (not waiting or (waiting < AHEAD and self._bytes < AHEAD_BYTES)) and not self._ended

    @override
    def _fill(self, iterator: Iterator[T]) -> None:
        self._bytes = 0
        super()._fill(iterator)

    @override
    def _put(self, item: T) -> None:
        if self._size is not None:
            self._bytes += self._size(item)
        super()._put(item)
