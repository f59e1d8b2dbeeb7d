"""An executor: tasks are added one by one and run by priority; each has a result, and none stops the others."""

import asyncio
import inspect
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, overload

from penstock.core import validate
from penstock.core.clock import clock_of
from penstock.core.errors import ConcurrentReadError, ExecutorUseError, MisuseError, OptionError, WrongLoopError
from penstock.core.outcome import Reason
from penstock.core.plan import DROPPED, AsyncFn, Plan
from penstock.core.retry import Retry, Seconds
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.core.stats import Stats
from penstock.engines.choosing import EngineOption
from penstock.tasks.calls import AsyncTask, Calls, Given, Task, engine_of, one_stage, refuse_coroutine
from penstock.tasks.feed import AddedTask, ExecutorRun, Feed, QueuedTask, TaskResult, TaskWindow, close_coroutine
from penstock.tasks.queue import TaskQueue

THREE_TRIES: Final = Retry(attempts=3, on=Exception)
"""How an executor retries by default."""


class TaskExecutor:
    """Runs tasks as they are added, the most urgent first, at most `concurrency` at once (P1, P2, P4, P5, P8).

    A task is a function without arguments: async ones run on the loop, plain `def` functions in threads, lambdas and
    other callables on the loop. A task that fails is tried again; in the end each has a `TaskResult`, and a failure
    neither stops other tasks nor is raised. Whenever a place is free, the most urgent task starts: a task of high
    priority overtakes all that wait, and equals keep the order in which they were added.

    There are two ways to use it. `run()` does all that was added, and may be called again for what is added later. In a
    block of `async with executor:` a task starts as soon as it is added; leaving the block waits for all tasks, leaving
    it by an exception stops them. Tasks may add tasks; those in threads do so by
    `loop.call_soon_threadsafe(executor.add, fn)`, as a working executor is for its own loop only.

    Args:
        concurrency: tasks that run at once, an int >= 1.
        timeout: seconds that one attempt may take, > 0, or None. A function in a thread cannot be stopped: its attempt
            fails in time, but it keeps its place until the thread is back, and the next attempt waits for that.
        retry: when to try a failed task again, or None; default: after every `Exception`, three tries in all.
        engine: where plain `def` functions run, as for operators; default threads of the executor's own.
        ageing: seconds of waiting that are worth a point of priority, at least a microsecond, so that no task waits for
            ever behind more urgent ones; default none.
        grace: seconds that work which ignores its cancellation gets, >= 0; then a warning names it.
        name: of the executor, in statistics, warnings and names of threads.

    Example:
        executor = TaskExecutor(concurrency=2, timeout=10)
        executor.add(sweep)
        executor.add(put_out_the_fire, id="fire", priority=10)
        for done in await executor.run():
            print(done.id, done.result if done.success else done.error)

    Raises:
        OptionError: an option breaks its rule.
    """

    def __init__(
        self,
        concurrency: int = 5,
        *,
        timeout: Seconds | None = 30.0,
        retry: Retry | None = THREE_TRIES,
        engine: EngineOption | None = None,
        ageing: Seconds | None = None,
        grace: Seconds = 5.0,
        name: str = "executor",
    ) -> None:
        self._concurrency = validate.whole("concurrency", concurrency, least=1)
        self._timeout = None if timeout is None else validate.seconds("timeout", timeout)
        if retry is not None:
            validate.instance("retry", retry, Retry, "a Retry")
        self._retry = retry
        self._engine = engine_of(engine, max(2, self._concurrency), self._timeout)  # the loop is for those who add
        self._grace = validate.seconds("grace", grace, zero=True)
        self._name = validate.text("name", name)
        self._queue: TaskQueue[QueuedTask] = TaskQueue(ageing=ageing, clock=_time_here)
        self._entries: dict[str, QueuedTask] = {}
        self._done: dict[str, TaskResult[Any]] = {}
        self._numbered = 0
        self._opened: ExecutorRun | None = None
        self._entered: ExecutorRun | None = None
        self._running = False
        self._closed = False
        self._stats = Stats()

    # Feeding

    @overload
    def add[T](self, fn: AsyncTask[T], *, id: str | None = None, priority: float = 0) -> AddedTask[T]: ...
    @overload
    def add[T](self, fn: Task[T], *, id: str | None = None, priority: float = 0) -> AddedTask[T]: ...
    def add(
        self,
        fn: Task[Any],
        *,
        id: str | None = None,  # noqa: A002 -- what it is called in a result
        priority: float = 0,
    ) -> AddedTask[Any]:
        """Add a task; return its id, a str, which can be awaited for the result.

        Args:
            fn: a function without arguments, sync or async; without `retry` also a coroutine object, which is closed if
                it is refused or never started.
            id: a non-empty str that no task has whose result was not handed out yet; default "task-1" and so on.
            priority: a finite number; higher is sooner.

        Raises:
            OptionError: an argument breaks its rule, or the id is taken.
            ExecutorUseError: the executor is closed.
            WrongLoopError: the executor runs on another loop, or in another thread.
        """
        try:
            key = self._admit(fn, id)
            entry = QueuedTask(key, fn)
            self._queue.enqueue(entry, priority=priority)
        except Exception:
            close_coroutine(fn)
            raise
        self._entries[key] = entry
        added: AddedTask[Any] = AddedTask(key, self._check_at_work)
        entry.added = weakref.ref(added)
        if self._opened is not None:
            if self._opened.feed.cut_short:
                self._cut_short()
            self._opened.feed.tell()
        return added

    def close(self) -> None:
        """Let nothing be added any more; what was added is still done. Closing twice is no error."""
        self._require_its_loop()
        self._closed = True

    # Working

    async def run(self) -> list[TaskResult[Any]]:
        """Do all that was added, also what is added meanwhile.

        Return the results since the last time, in the order of `add`. Their ids are free again. In a block of `async
        with executor:`, where tasks start by themselves, it waits until all are done; a cancellation then ends only the
        wait. Elsewhere, a cancellation stops the work and waits for it (P4, P8); the results until then come with those
        of the next `run()`.

        Raises:
            ConcurrentReadError: `run()` is in progress.
            ExecutorUseError: a task of this executor asks, which would wait for itself.
            WrongLoopError: the executor runs on another loop, or in another thread.
            BaseException: what a task raised that is no `Exception`, such as `KeyboardInterrupt`; it stops all others.
        """
        self._require_its_loop()
        self._refuse_own_tasks("run()")
        if self._running:
            raise ConcurrentReadError("two run() calls at once on one executor: a result would have two takers")
        self._running = True
        try:
            if self._entered is not None:
                await self._until_done(self._entered)
            while self._entered is None and self._queue:
                await self._leave(await self._open())
        finally:
            self._running = False
        results = [self._done[key] for key in self._entries]
        self._entries.clear()
        self._done.clear()
        return results

    async def __aenter__(self) -> Self:
        why = "closed" if self._closed else "in run()" if self._running else "entered already"
        if self._closed or self._running or self._entered is not None:
            raise ExecutorUseError(f"executor {self._name!r} cannot be entered: it is {why}")
        self._entered = await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        opened = self._entered
        assert opened is not None
        self._closed = self._closed or error is not None
        try:
            await self._leave(opened, error)
        finally:
            self._closed = True
            self._entered = None

    async def abort(self) -> None:
        """Close, cancel the tasks that run and wait for them, and start none of the others; twice is no error (P4).

        A task that was stopped has the error `asyncio.CancelledError("caller cancelled")`; one that was never started
        has it after 0 attempts. `run()` gives the results, also a `run()` in progress.

        Raises:
            ExecutorUseError: a task of this executor asks, which would wait for itself.
            WrongLoopError: the executor runs on another loop, or in another thread.
        """
        self._require_its_loop()
        self._refuse_own_tasks("abort()")
        self._closed = True
        opened = self._opened
        if opened is None:
            self._cancel_queued("caller cancelled")
            return
        await self._stop(opened)

    # Looking

    @property
    def results(self) -> Mapping[str, TaskResult[Any]]:
        """The results that `run()` has not handed out yet, by id, in the order in which tasks ended; a live view."""
        return MappingProxyType(self._done)

    def stats(self) -> Stats:
        """Return what the stages `queue` and `name` count and measure, in the present run or else the last one."""
        return self._stats if self._opened is None else self._opened.run.stats()

    # Inside

    def _admit(self, fn: object, key: str | None) -> str:
        """Return the id of a task that may be added."""
        self._require_its_loop()
        number = self._numbered
        if key is None:
            while (key := f"task-{number + 1}") in self._entries:
                number += 1
            number += 1
        key = validate.text("id", key)
        if self._closed:
            raise ExecutorUseError(f"executor {self._name!r} is closed: task {key!r} cannot be added")
        if key in self._entries:
            raise OptionError(f"id must not be taken, got {key!r}, whose result was not handed out yet")
        if self._retry is not None:
            refuse_coroutine(fn, "retry")
        if not inspect.iscoroutine(fn):
            validate.function("fn", fn)
        elif inspect.getcoroutinestate(fn) != inspect.CORO_CREATED:
            raise MisuseError(f"cannot reuse already awaited coroutine: {fn!r} runs only once")
        self._numbered = number
        return key

    def _require_its_loop(self) -> None:
        if self._opened is None:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is not self._opened.scope.loop:
            raise WrongLoopError(
                f"executor {self._name!r} runs on another event loop or in another thread: "
                "there it can be used, with loop.call_soon_threadsafe"
            )

    async def _check_at_work(self) -> None:
        """Raise if nobody should wait for a task now."""
        self._require_its_loop()
        self._refuse_own_tasks("await of what add() gave")
        if not self._is_at_work():
            await asyncio.sleep(0)  # a task for run() may have been made just now
            if not self._is_at_work():
                raise ExecutorUseError(
                    f"executor {self._name!r} is not at work: await a task in a block of `async with`, or beside run()"
                )

    def _is_at_work(self) -> bool:
        return self._opened is not None or self._running

    def _refuse_own_tasks(self, call: str) -> None:
        if self._opened is not None and self._opened.window.runs_caller():
            raise ExecutorUseError(f"{call} inside a task of executor {self._name!r} would wait for that task")

    async def _open(self) -> ExecutorRun:
        def open_window(scope: Scope, _in_order: bool) -> Stage[Any]:  # noqa: FBT001 -- as all
            feed = Feed(scope, self._queue, self._cut_short)
            calls = Calls(
                scope,
                Given(()),
                name=self._name,
                places=self._concurrency,
                timeout=self._timeout,
                engine=self._engine,
            )
            plan: Plan[QueuedTask, Any] = Plan(
                name=self._name,
                work=self._recorded(calls),
                concurrency=self._concurrency,
                ordered=False,
                retry=self._retry,
                on_error="collect",
            )
            window = TaskWindow(scope, feed, plan, self._record)
            self._opened = ExecutorRun(scope, feed, window)
            return window

        run = one_stage(open_window).open(grace=self._grace)
        await run.__aenter__()
        opened = self._opened
        assert opened is not None
        opened.run = run
        opened.feed.tell()
        return opened

    def _recorded(self, calls: Calls) -> AsyncFn[QueuedTask, Any]:
        async def attempt(entry: QueuedTask) -> Any:
            entry.attempts += 1
            try:
                result = await calls(entry.task)
            except MisuseError as error:  # of a coroutine object that was awaited since it was added: its own failure
                raise OptionError(*error.args) from None
            self._record(entry, TaskResult(entry.id, True, result, None, entry.attempts))
            return DROPPED

        return attempt

    def _record(self, entry: QueuedTask, result: TaskResult[Any]) -> None:
        if self._entries.get(entry.id) is not entry or entry.id in self._done:
            return  # it was left behind, and comes back after its result was given
        entry.done_with()
        self._done[entry.id] = result
        entry.told(result)
        if self._opened is not None and self._is_all_done():
            self._opened.feed.changed.set()

    def _is_all_done(self) -> bool:
        return len(self._done) == len(self._entries)

    async def _until_done(self, opened: ExecutorRun) -> None:
        """Wait until all is done; if the work is stopped before, wait for that and raise what has stopped it."""
        await opened.until_all(self._is_all_done)
        if not opened.feed.stopped:
            return
        self._closed = self._closed or self._entered is opened
        await self._stop(opened)
        error = opened.scope.take_failure()
        if error is not None:
            try:
                raise error
            finally:
                del error  # the traceback holds this frame, and this frame would hold the error

    async def _stop(self, opened: ExecutorRun) -> None:
        """Stop what runs and wait for it; errors meanwhile stand in the results."""
        try:
            await opened.run.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)
        finally:
            self._forget(opened)

    async def _leave(self, opened: ExecutorRun, error: BaseException | None = None) -> None:
        """Let the work end, or stop it if there is an `error`; then nothing of it is left."""
        try:
            if error is None:
                await self._until_done(opened)
                self._closed = self._closed or self._entered is opened
                if not opened.feed.stopped:
                    opened.feed.end()
                    with suppress(StopAsyncIteration):
                        await anext(opened.run)  # nothing comes but its end, when the last thread is back
        except BaseException as raised:
            error = raised
            raise
        finally:
            try:
                await opened.run.__aexit__(None if error is None else type(error), error, None)
            finally:
                self._forget(opened)
                del error  # the traceback holds this frame, and this frame would hold the error

    def _forget(self, opened: ExecutorRun) -> None:
        """Forget a run that is over; a task that had begun and is not done was cancelled, or is left behind."""
        if self._opened is not opened:
            return
        if not self._is_all_done():
            for entry in self._entries.values():
                if entry.taken:
                    self._record(entry, entry.cancelled(opened.scope.reason))
        opened.scope.failures.clear()  # they stand in the results; their frames may lead to the scope
        self._stats = opened.run.stats()
        self._opened = None
        for entry in self._entries.values():
            if entry.id not in self._done:
                entry.told(None)

    def _cut_short(self) -> None:
        assert self._opened is not None
        self._cancel_queued(self._opened.scope.reason if self._opened.feed.stopped else "caller cancelled")

    def _cancel_queued(self, reason: Reason) -> None:
        while self._queue:
            entry = self._queue.dequeue()
            self._record(entry, entry.cancelled(reason))


def _time_here() -> float:
    """Return the time of the running loop; without one, the time by which loops are made."""
    try:
        return clock_of(asyncio.get_running_loop())()
    except RuntimeError:
        return time.monotonic()
