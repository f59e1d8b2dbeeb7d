"""The parts of an executor below its window: the queue as a source, the window, and the results."""

import asyncio
import inspect
import weakref
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any, Self, cast, override

from penstock.core.errors import NoResultError
from penstock.core.outcome import Failed, Reason
from penstock.core.plan import Plan
from penstock.core.scope import Scope
from penstock.core.source import SourceStage
from penstock.core.stage import END, PENDING, Pulled, Stage
from penstock.core.stats import StageStats
from penstock.core.window import Window
from penstock.run import Run
from penstock.tasks.queue import TaskQueue


@dataclass(frozen=True, slots=True)
class TaskResult[T]:
    """The result of a task.

    Attributes:
        id: of the task.
        success: whether it returned.
        result: what it returned; None if it did not.
        error: what it raised, or `asyncio.CancelledError(reason)` if it was stopped; None if it returned.
        attempts: how often it was tried; 0 if it was never started.
    """

    id: str
    success: bool
    result: T | None
    error: BaseException | None
    attempts: int

    def unwrap(self) -> T:
        """Return the result.

        Raises:
            NoResultError: the task was stopped, or never started.
            Exception: the error of a task that failed.
        """
        if self.error is None:
            return cast("T", self.result)
        if isinstance(self.error, asyncio.CancelledError):
            how = "was cancelled" if self.attempts else "was not started"
            raise NoResultError(f"task {self.id!r} {how}: {self.error}")
        try:
            raise self.error
        finally:
            del self  # the traceback holds this frame, and this frame would hold the error


@dataclass(slots=True, eq=False)
class QueuedTask:
    """A task that was added, until its result is known."""

    id: str
    task: Any
    taken: bool = False
    attempts: int = 0
    added: "weakref.ref[AddedTask[Any]] | None" = None

    def told(self, result: TaskResult[Any] | None) -> None:
        """Give the result to the id that `add` returned, if somebody keeps it; None means that none will come now."""
        added = None if self.added is None else self.added()
        if added is not None:
            added.told(result)

    def cancelled(self, reason: Reason) -> TaskResult[Any]:
        """Make the result of a task that was stopped."""
        return TaskResult(self.id, False, None, asyncio.CancelledError(reason), self.attempts)

    def done_with(self) -> None:
        """Forget the task; close a coroutine object that nobody has started."""
        if not self.attempts:
            close_coroutine(self.task)
        self.task = None


class AddedTask[T](str):
    """The id of a task that was added to an executor; awaited, it gives what the task returns (P5, P8).

    Cancelling the wait does not cancel the task. It may be awaited any number of times, or never.

    Raises:
        Exception: on `await`, the error of a task that failed, after its last try.
        NoResultError: on `await`, the task was stopped, or never started.
        ExecutorUseError: on `await`, the executor is not working, or one of its own tasks waits, which may hold the
            place that is wanted.
    """

    __slots__ = ("__weakref__", "_check", "_result", "_waiters")
    _check: Callable[[], Awaitable[None]]
    _result: TaskResult[T] | None
    _waiters: list[asyncio.Future[None]]

    def __new__(cls, key: str, check: Callable[[], Awaitable[None]]) -> Self:
        """Make the id `key`; `check` raises if it cannot be waited for now."""
        added = super().__new__(cls, key)
        added._check = check
        added._result = None
        added._waiters = []
        return added

    def told(self, result: TaskResult[T] | None) -> None:
        """Keep the result and wake those who wait."""
        self._result = result
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def __await__(self) -> Generator[Any, None, T]:
        return self._until_done().__await__()

    async def _until_done(self) -> T:
        try:
            while self._result is None:
                await self._check()
                await self._told()
            return self._result.unwrap()
        finally:
            del self  # the traceback holds this frame, and this frame would hold the error

    async def _told(self) -> None:
        if self._result is not None:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)


def close_coroutine(task: object) -> None:
    """Close `task` if it is a coroutine object."""
    if inspect.iscoroutine(task):
        task.close()


class Feed(SourceStage[QueuedTask]):
    """The queue of an executor as a source: gives a window the most urgent task; ends when the executor says so.

    Attributes:
        changed: set when all that was added is done, or nothing more will be.
        cut_short: whether something else has ended it: what is queued will not start.
        stopped: whether what was started is being stopped as well.
    """

    __slots__ = ("_asked", "_on_cut_short", "_queue", "changed", "cut_short", "stopped")

    def __init__(self, scope: Scope, queue: TaskQueue[QueuedTask], on_cut_short: Callable[[], None]) -> None:
        super().__init__(scope, "queue")
        self._queue = queue
        self._on_cut_short = on_cut_short
        self._asked = True  # there need not be anybody who reads what comes of it: work starts by itself
        self.changed: asyncio.Event = asyncio.Event()
        self.cut_short: bool = False
        self.stopped: bool = False

    @override
    def pull(self, room: int) -> Pulled[QueuedTask]:
        if self._ended:
            return END
        if not self._queue:
            self._asked = True
            return PENDING
        self._taken += 1
        entry = self._queue.dequeue()
        entry.taken = True
        return entry

    def tell(self) -> None:
        """Wake the window if it waits: there is a task, or none will come."""
        if self._asked:
            self._asked = False
            self.on_ready()

    def end(self) -> None:
        """Give nothing more; what is queued can wait for the next run."""
        self._ended = True
        self.tell()

    @override
    def drain(self) -> None:
        if not self._ended:
            self.cut_short = True
            self._on_cut_short()
            self.end()

    @override
    def stop(self) -> None:
        self.stopped = True
        self.drain()
        self.changed.set()

    @override
    def release(self) -> None:
        self._closed = True

    @override
    def stats(self) -> StageStats:
        books = super().stats()
        return replace(books, delivered=books.taken)


class TaskWindow(Window[QueuedTask, Any]):
    """Runs tasks and records their failures.

    The work itself records results, and the end of the run what was cancelled.
    """

    __slots__ = ("_record",)

    def __init__(
        self,
        scope: Scope,
        source: Stage[QueuedTask],
        plan: Plan[QueuedTask, Any],
        record: Callable[[QueuedTask, TaskResult[Any]], None],
    ) -> None:
        super().__init__(scope, source, plan)
        self._record = record

    def runs_caller(self) -> bool:
        """Whether the caller is one of its tasks."""
        return self._pumping or asyncio.current_task() in self.running.values()

    @override
    def _fail(self, failed: Failed) -> None:
        entry: QueuedTask = failed.item
        self._record(entry, TaskResult(entry.id, False, None, failed.error, entry.attempts))
        super()._fail(failed)


@dataclass(slots=True)
class ExecutorRun:
    """What an executor has open while it works. Its `run` is set last, as nothing that opens it may lead to it."""

    scope: Scope
    feed: Feed
    window: TaskWindow
    run: Run[Any] = field(init=False)

    async def until_all(self, done: Callable[[], bool]) -> None:
        """Wait until all is done, or until the rest is being stopped."""
        while not self.feed.stopped and not done():
            self.feed.changed.clear()
            await self.feed.changed.wait()
