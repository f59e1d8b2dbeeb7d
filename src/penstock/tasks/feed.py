"""What an executor puts under a window: the tasks that wait, the place that they come from, what becomes of them."""

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
    """What became of a task.

    Attributes:
        id: of the task.
        success: whether it returned.
        result: what it returned; None if it did not.
        error: why it did not: what it raised, or `asyncio.CancelledError(reason)` if it was stopped; None if it did.
        attempts: how often it was tried; 0 if it was never started.
    """

    id: str
    success: bool
    result: T | None
    error: BaseException | None
    attempts: int

    def unwrap(self) -> T:
        """The result.

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
    """A task that was added."""

    id: str
    task: Any
    taken: bool = False
    attempts: int = 0
    added: "weakref.ref[AddedTask[Any]] | None" = None

    def told(self, result: TaskResult[Any] | None) -> None:
        """Tell what the caller of `add` has of the result, if it is kept; of None, that there will not be one now."""
        added = None if self.added is None else self.added()
        if added is not None:
            added.told(result)

    def cancelled(self, reason: Reason) -> TaskResult[Any]:
        """The result of a task that was stopped."""
        return TaskResult(self.id, False, None, asyncio.CancelledError(reason), self.attempts)

    def done_with(self) -> None:
        """Let go of the task; close a coroutine object that nobody has started."""
        if not self.attempts:
            close_coroutine(self.task)
        self.task = None


class AddedTask[T](str):
    """The id of a task that was added to an executor; awaited, it gives what the task returns (P5, P8).

    Cancelling who waits does not cancel the task. It may be awaited any number of times, or never.

    Raises:
        Exception: on `await`, the error of a task that failed, after its last try.
        NoResultError: on `await`, the task was stopped, or never started.
        ExecutorUseError: on `await`, the executor is not at work, or a task of its own waits, which may hold the place
            that is wanted.
    """

    __slots__ = ("__weakref__", "_check", "_result", "_waiters")
    _check: Callable[[], Awaitable[None]]
    _result: TaskResult[T] | None
    _waiters: list[asyncio.Future[None]]

    def __new__(cls, key: str, check: Callable[[], Awaitable[None]]) -> Self:
        """The id `key`; `check` raises if it cannot be waited for now."""
        added = super().__new__(cls, key)
        added._check = check
        added._result = None
        added._waiters = []
        return added

    def told(self, result: TaskResult[T] | None) -> None:
        """Take the result; those who wait look again."""
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
    """Gives a window the most urgent task when it has a place for one; ends when the executor says so.

    Attributes:
        changed: set when all that was added is done, or nothing more will be.
        cut_short: whether it was ended by anybody else: what is queued will not be started.
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
        """Have the window look, if it waits: there is a task, or none will come."""
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
    """Runs tasks; has failures recorded, as results are by the work, and what was cancelled at the end of the run."""

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
        """Whether it is one of the tasks that asks."""
        return self._pumping or asyncio.current_task() in self.running.values()

    @override
    def _fail(self, failed: Failed) -> None:
        entry: QueuedTask = failed.item
        self._record(entry, TaskResult(entry.id, False, None, failed.error, entry.attempts))
        super()._fail(failed)


@dataclass(slots=True)
class ExecutorRun:
    """What an executor has open while it works; its `run` comes last, as it must not be led to by what opens it."""

    scope: Scope
    feed: Feed
    window: TaskWindow
    run: Run[Any] = field(init=False)

    async def until_all(self, done: Callable[[], bool]) -> None:
        """Wait until all is done, or until what is not is being stopped."""
        while not self.feed.stopped and not done():
            self.feed.changed.clear()
            await self.feed.changed.wait()
