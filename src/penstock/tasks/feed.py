"""What an executor puts under a window: the tasks that wait, the place that they come from, what becomes of them."""

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast, override

from penstock.core.errors import NoResultError
from penstock.core.order import UnorderedWindow
from penstock.core.outcome import Failed, Reason
from penstock.core.plan import Plan
from penstock.core.scope import Scope
from penstock.core.source import SourceStage
from penstock.core.stage import END, PENDING, Pulled, Stage
from penstock.core.stats import StageStats
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
class Entry:
    """A task that was added."""

    id: str
    task: Any
    taken: bool = False
    attempts: int = 0

    def cancelled(self, reason: Reason) -> TaskResult[Any]:
        """The result of a task that was stopped."""
        return TaskResult(self.id, False, None, asyncio.CancelledError(reason), self.attempts)

    def done_with(self) -> None:
        """Let go of the task; close a coroutine object that nobody has started."""
        if not self.attempts:
            close_coroutine(self.task)
        self.task = None


def close_coroutine(task: object) -> None:
    """Close `task` if it is a coroutine object."""
    if inspect.iscoroutine(task):
        task.close()


class Feed(SourceStage[Entry]):
    """Gives a window the most urgent task when it has a place for one; ends when the executor says so.

    Attributes:
        changed: set when all that was added is done, or nothing more will be.
        cut_short: whether it was ended by anybody else: what is queued will not be started.
        stopped: whether what was started is being stopped as well.
    """

    def __init__(self, scope: Scope, queue: TaskQueue[Entry], on_cut_short: Callable[[], None]) -> None:
        super().__init__(scope, "queue")
        self._queue = queue
        self._on_cut_short = on_cut_short
        self._asked = True  # there need not be anybody who reads what comes of it: work starts by itself
        self.changed: asyncio.Event = asyncio.Event()
        self.cut_short: bool = False
        self.stopped: bool = False

    @override
    def pull(self, room: int) -> Pulled[Entry]:
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


class TaskWindow(UnorderedWindow[Entry, Any]):
    """Runs tasks; has failures recorded, as results are by the work, and what was cancelled at the end of the run."""

    def __init__(
        self,
        scope: Scope,
        source: Stage[Entry],
        plan: Plan[Entry, Any],
        record: Callable[[Entry, TaskResult[Any]], None],
    ) -> None:
        super().__init__(scope, source, plan)
        self._record = record

    def runs_caller(self) -> bool:
        """Whether it is one of the tasks that asks."""
        return self._pumping or asyncio.current_task() in self.running.values()

    @override
    def _fail(self, failed: Failed) -> None:
        entry: Entry = failed.item
        self._record(entry, TaskResult(entry.id, False, None, failed.error, entry.attempts))
        super()._fail(failed)


@dataclass(slots=True)
class Opened:
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
