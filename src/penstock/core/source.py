"""Sources: their description, and the stages that read them.

One task reads an async iterable and closes it: `anext` from several tasks breaks timeouts, cancel scopes and context
variables inside it. A sync iterator is read by the stage that has a free place.
"""

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final, cast, override

from penstock.core.at_hand import length_of
from penstock.core.clock import now
from penstock.core.closing import aclose, close
from penstock.core.errors import OptionError, SourceConsumedError, as_failure
from penstock.core.outcome import Failed
from penstock.core.scope import Scope
from penstock.core.stage import END, PENDING, Pulled, Stage
from penstock.core.stats import StageStats

PASSES: Final = 4
"""Passes of the loop in which the result of a thread comes to the consumer: a source that blocks waits for so many."""

type Source[T] = Iterable[T] | AsyncIterable[T] | Callable[[], Iterable[T] | AsyncIterable[T]]


class SourceStage[T](Stage[T]):
    """The first stage of an opened stream."""

    __slots__ = ("_closed", "_ended", "total")

    def __init__(self, scope: Scope, name: str) -> None:
        super().__init__(scope, name)
        self.total: int | None = None  # how many items to expect, if anybody knows
        self._ended: bool = False
        self._closed: bool = False
        scope.sources.append(self)

    def drain(self) -> None:
        """Take nothing more; finish what was taken."""
        raise NotImplementedError

    def release(self) -> None:
        """Close the iterator: no work is left that could want it."""
        raise NotImplementedError

    @override
    def stats(self) -> StageStats:
        return replace(super().stats(), total=self.total)

    @override
    def is_over(self) -> bool:
        return self._closed

    def _source_failed(self, error: BaseException) -> None:
        self._ended = True
        self.scope.fail(self._failure(error))

    def _closing_failed(self, error: BaseException) -> None:
        self.scope.cleanup_failed(self._failure(error))

    def _failure(self, error: BaseException) -> Failed:
        return Failed(as_failure(error, "the source"), self._taken, None, self.name)


class IteratorStage[T](SourceStage[T]):
    """Reads a sync iterator in the turn of the stage that asks."""

    __slots__ = ("_iterable", "_iterator", "_last_turn", "_turn_asked")

    looks_at_the_clock = True
    has_ready_items = True
    ready_items_last = True

    def __init__(self, scope: Scope, iterable: Iterable[T], name: str) -> None:
        super().__init__(scope, name)
        self._iterable = iterable
        self._iterator: Iterator[T] | None = None
        self._turn_asked = False
        self._last_turn = 0.0

    @override
    def pull(self, room: int) -> Pulled[T]:
        if self._ended:
            return END
        turn = self.scope.turn_ends
        if now() > turn and self._last_turn == turn:  # an item a turn at least: a slow machine must not spin
            if not self._turn_asked:
                self._turn_asked = True
                self.scope.schedule_after(self, PASSES)
            return PENDING
        self._last_turn = turn
        try:
            iterator = self._iterator
            if iterator is None:
                iterator = self._iterator = iter(self._iterable)
            item = next(iterator)
        except StopIteration:
            self._ended = True
            return END
        except BaseException as error:  # noqa: BLE001 -- raised to the consumer, whatever it is
            self._source_failed(error)
            return END
        self._taken += 1
        return item

    @override
    def ready_items(self, room: int) -> Iterator[T]:
        """Read while the turn lasts. A generator keeps its place: this takes a twentieth of the time of an item."""
        iterator, turn_ends = self._iterator, self.scope.turn_ends
        if iterator is None:
            return
        for _ in range(room):
            if self._ended or now() > turn_ends:
                return
            try:
                item = next(iterator)
            except StopIteration:
                self._ended = True
                return
            except BaseException as error:  # noqa: BLE001 -- raised to the consumer, whatever it is
                self._source_failed(error)
                return
            self._last_turn = turn_ends
            self._taken += 1
            yield item

    @override
    def stats(self) -> StageStats:
        books = super().stats()
        return replace(books, delivered=books.taken)

    @override
    def take_turn(self) -> None:
        self._turn_asked = False
        self.on_ready()

    @override
    def stop(self) -> None:
        self._ended = True

    @override
    def drain(self) -> None:
        self._ended = True

    @override
    def release(self) -> None:
        iterator = self._iterable if self._iterator is None else self._iterator
        self._closed = True
        if not isinstance(iterator, Iterator):
            return
        try:
            close(iterator)
        except BaseException as error:  # noqa: BLE001 -- raised from leaving, whatever it is
            self._closing_failed(error)


class OwnedStage[T](SourceStage[T]):
    """A source that one task reads, as long as there are free places, and closes."""

    __slots__ = ("_asked", "_inbox", "_released", "_room", "_stopping", "_task", "_wakeup")

    def __init__(self, scope: Scope, name: str) -> None:
        super().__init__(scope, name)
        self._inbox: deque[T] = deque()
        self._room = 0
        self._stopping = False
        self._released = False
        self._asked = False
        self._task: asyncio.Task[None] | None = None
        self._wakeup: asyncio.Future[None] | None = None

    async def _read(self) -> None:
        """Read to the end, or until `_ended`."""
        raise NotImplementedError

    async def _close(self) -> None:
        """Close what was read."""
        raise NotImplementedError

    def _close_unread(self) -> bool:
        """Whether there is something to close though nothing was read."""
        raise NotImplementedError

    def _interrupt(self) -> None:
        """End the read that is under way, if there is one."""
        raise NotImplementedError

    @override
    def pull(self, room: int) -> Pulled[T]:
        if not self._inbox and not self._ended:
            self._room = room
            if self._task is None:
                self._start()
            else:
                self._wake()
        if self._inbox:
            self._delivered += 1
            self._room -= 1
            return self._inbox.popleft()
        if self._ended:
            return END
        self._asked = True
        return PENDING

    @override
    def stop(self) -> None:
        self._stopping = True
        self.drain()

    @override
    def drain(self) -> None:
        self._ended = True
        self._interrupt()
        self._tell()

    @override
    def release(self) -> None:
        self._released = True
        if self._task is not None:
            self._wake()
        elif self._close_unread():
            self._start()
        else:
            self._closed = True

    @override
    def close(self) -> None:
        self._discarded += len(self._inbox)
        self._inbox.clear()

    def _start(self) -> None:
        task = self._task = self.scope.spawn(self._read_and_close())
        if task.done():
            self._gone(task)
        else:
            task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        """Note that the task has ended, also if it was cancelled before its first step (gh-116048)."""
        self._ended = self._closed = True
        if not task.cancelled() and (error := task.exception()) is not None:
            self._closing_failed(error)
        self._tell()
        self.scope.source_closed()

    @override
    def runs(self, task: asyncio.Task[Any] | None) -> bool:
        return task is not None and task is self._task

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    def _tell(self) -> None:
        if self._asked:
            self._asked = False
            self.on_ready()

    async def _read_and_close(self) -> None:
        try:
            await self._read()
        except StopAsyncIteration:
            pass
        except asyncio.CancelledError as error:
            if not self._ended:
                self._source_failed(error)
        except BaseException as error:  # noqa: BLE001 -- raised to the consumer, whatever it is
            if self._stopping:
                self._closing_failed(error)
            else:
                self._source_failed(error)
        self._ended = True
        self._tell()
        with suppress(asyncio.CancelledError):  # from outside: then nobody may come to release it, so it closes now
            while not self._released and not self._cancelled_from_outside():
                await self._sleep()
        try:
            await self._close()
        except (SystemExit, KeyboardInterrupt) as error:  # from a task they would go through the loop
            self._closing_failed(error)

    def _cancelled_from_outside(self) -> bool:
        """Whether somebody other than this run cancelled the task: `asyncio.run` cancels all tasks that are left."""
        return self._task is not None and self._task.cancelling() > 0

    async def _sleep(self) -> None:
        """Wait until woken."""
        self._wakeup = self.scope.loop.create_future()
        try:
            await self._wakeup
        finally:
            self._wakeup = None


class AsyncIteratorStage[T](OwnedStage[T]):
    """Reads an async iterable in a task of its own, as long as there are free places."""

    __slots__ = ("_interrupted", "_iterable", "_iterator", "_pulling")

    def __init__(self, scope: Scope, iterable: AsyncIterable[T], name: str) -> None:
        super().__init__(scope, name)
        self._iterable = iterable
        self._iterator: AsyncIterator[T] | None = None
        self._pulling = False
        self._interrupted = False

    @override
    def _interrupt(self) -> None:
        if self._pulling and self._task is not None and not self._interrupted:
            self._interrupted = True  # once: a second cancellation would hit the iterator's cleanup
            self._task.cancel(self.scope.reason)

    @override
    async def _read(self) -> None:
        iterator = self._iterator = aiter(self._iterable)
        while not self._ended:
            if len(self._inbox) >= self._room:
                await self._sleep()
                continue
            if now() > self.scope.turn_ends:
                await self.scope.pause()
                continue
            self._pulling = True
            try:
                item = await anext(iterator)
            finally:
                self._pulling = False
            self._taken += 1
            if self._stopping:
                self._discarded += 1
                return
            self._inbox.append(item)
            self._tell()

    @override
    def _close_unread(self) -> bool:
        return isinstance(self._iterable, AsyncIterator)

    @override
    async def _close(self) -> None:
        iterator, self._iterator = self._iterator, None
        await aclose(iterator)

    @override
    def _cancelled_from_outside(self) -> bool:
        return self._task is not None and self._task.cancelling() > self._interrupted


class SourceSpec:
    """A source as the user gave it; each run opens it once.

    `in_thread(scope, iterable, name)` opens a stage that reads a plain iterable in a thread; without it, the loop reads
    it.
    """

    def __init__(
        self,
        source: object,
        total: int | None = None,
        in_thread: Callable[[Scope, Iterable[Any], str], SourceStage[Any]] | None = None,
        name: str = "source",
    ) -> None:
        if not isinstance(source, Iterable | AsyncIterable) and (
            not callable(source) or inspect.iscoroutinefunction(source)
        ):
            raise OptionError(
                f"source must be an iterable, an async iterable or a function that returns one, got {source!r}"
            )
        self._source: Any = source
        self._total = total
        self._in_thread = in_thread
        self._name = name
        self._consumed = False
        if isinstance(source, AsyncIterable):
            self._refuse_thread(cast("object", source))

    @property
    def is_one_shot(self) -> bool:
        """Whether it can be read only once."""
        return isinstance(self._source, Iterator | AsyncIterator)

    def refuse_consumed(self) -> None:
        """Raise if this is a one-shot iterator that a run has read already."""
        if self._consumed or _is_closed_generator(self._source):
            raise SourceConsumedError(
                f"the source {self._source!r} is an iterator and has been read already: "
                "give a list, or a function that returns a fresh iterator"
            )

    def open(self, scope: Scope) -> SourceStage[Any]:
        """Open the stage that reads this source in one run."""
        self.refuse_consumed()
        source = self._source
        self._consumed = self.is_one_shot
        if not isinstance(source, Iterable | AsyncIterable):
            source = source()
            if not isinstance(source, Iterable | AsyncIterable):
                raise OptionError(f"the source function must return an iterable or an async iterable, got {source!r}")
        iterable = cast("Iterable[Any] | AsyncIterable[Any]", source)
        stage = self._stage(scope, iterable)
        stage.total = length_of(iterable) if self._total is None else self._total
        return stage

    def _stage(self, scope: Scope, source: Iterable[Any] | AsyncIterable[Any]) -> SourceStage[Any]:
        if isinstance(source, AsyncIterable):
            self._refuse_thread(source)
            return AsyncIteratorStage(scope, source, self._name)
        if self._in_thread is None:
            return IteratorStage(scope, source, self._name)
        return self._in_thread(scope, source, self._name)

    def _refuse_thread(self, source: object) -> None:
        if self._in_thread is not None:
            raise OptionError(f'engine="thread" is for a source that blocks, got the async iterable {source!r}')


def _is_closed_generator(source: object) -> bool:
    if isinstance(source, GeneratorType):
        return inspect.getgeneratorstate(cast("GeneratorType[Any, Any, Any]", source)) == inspect.GEN_CLOSED
    if isinstance(source, AsyncGeneratorType):
        return inspect.getasyncgenstate(cast("AsyncGeneratorType[Any, Any]", source)) == inspect.AGEN_CLOSED
    return False
