"""The scope of an opened stream: it owns what runs. It starts tasks, gives turns, stops, waits and closes.

A scope lives like this: work runs; `begin_close` cancels it; when the last task has stopped, the sources are closed,
each by the task that read it; then `closed` is done. Callbacks drive all of this, so it goes on whoever waits.
"""

import asyncio
import contextvars
import logging
import warnings
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush
from types import coroutine
from typing import Any, Final, Protocol
from weakref import ref

from penstock.core import forks, open_runs
from penstock.core.blocking import BLOCKED_BY, Blocked
from penstock.core.clock import TURN, clock_of, now
from penstock.core.errors import Place, UnstoppedWorkWarning, as_failure, note, said
from penstock.core.log import LOG, TABLE
from penstock.core.outcome import Failed, Reason
from penstock.core.snapshots import Snapshots
from penstock.core.stats import StageStats, Stats
from penstock.core.traces import RunTrace

KEPT_FAILURES = 1000
"""Failures that a run keeps: the newest ones. The rest are counted."""

forks.watch()

_ENDING = (KeyboardInterrupt, SystemExit)

DEEP = 32
"""Pumps that may ask each other on one stack; the next one waits for another turn. A pump takes six frames."""

NOTED_FAILURES = 10
"""Other failures that the raised error names in its notes."""


PATIENCE: Final = 64
"""Waits of a consumer before it tries again whether the next result takes one pass of the loop, after one took more."""


class Outlet:
    """The lower end of a run: where its consumer waits for the next item.

    A call that waits once has its result in the next pass of the loop. A consumer that only lets this pass by finds it
    there; one that a future wakes comes a pass later: 10k instructions more an item, at one place. A pass too many
    costs as much, so the consumer tries this again only after a while if it was in vain.

    Attributes:
        is_on_its_way: whether the consumer was told to look again and has not looked yet.
        crashed: whether an error of penstock's own has ended the run.
    """

    __slots__ = ("_in_vain", "_is_awaited", "_waiter", "crashed", "is_on_its_way")

    def __init__(self) -> None:
        self._is_awaited = False
        self._waiter: asyncio.Future[None] | None = None
        self._in_vain = 0
        self.is_on_its_way: bool = False
        self.crashed: bool = False

    def wake(self) -> None:
        """Let the consumer look again."""
        self.is_on_its_way = self._is_awaited
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @coroutine
    def wait(self, loop: asyncio.AbstractEventLoop) -> Generator[Any, Any, None]:
        """Wait until woken."""
        self._is_awaited = True
        try:
            if not self._in_vain:
                yield  # as `sleep(0)` does
                if self.is_on_its_way:
                    return
                self._in_vain = PATIENCE
            self._in_vain -= 1
            self._waiter = loop.create_future()
            yield from self._waiter
        finally:
            self._waiter = None
            self._is_awaited = self.is_on_its_way = False


def nobody_waits() -> None:
    """Stand in for `on_ready` until there is a stage below."""


class Member:
    """A stage as its scope sees it: the scope gives it turns, stops it, waits for it and closes it."""

    __slots__ = ("__weakref__", "name", "on_ready", "scope")

    def __init__(self, scope: "Scope", name: str) -> None:
        self.scope: Scope = scope
        self.name: str = name
        self.on_ready: Callable[[], None] = nobody_waits
        scope.stages[self] = -len(scope.stages)

    def take_turn(self) -> None:
        """Go on with what the stage asked a turn for (`Scope.schedule`)."""

    def stop(self) -> None:
        """Cancel work and pull no more, here and upstream. Results that are next in order may still be pulled."""
        raise NotImplementedError

    def busy(self) -> str | None:
        """Name the work that still runs, or return None."""
        return None

    def runs(self, task: asyncio.Task[Any] | None) -> bool:  # noqa: ARG002 -- for those that have some
        """Whether `task` belongs to this stage."""
        return False

    def is_over(self) -> bool:
        """Whether nothing of this stage runs any more."""
        return self.busy() is None

    def stats(self) -> StageStats:
        """Return what was counted and measured until now."""
        raise NotImplementedError

    def settle_lost(self) -> None:
        """Count items without an outcome as failed. Called after a run that ended with an error of penstock's own."""

    def close(self) -> None:
        """Discard what nobody will pull any more. Called once, after all work has stopped."""


class Reader(Protocol):
    """A stage that reads a source, as its scope sees it."""

    name: str

    def drain(self) -> None:
        """Take nothing more; finish what was taken."""

    def release(self) -> None:
        """Close the iterator: no work is left that could want it."""

    def is_over(self) -> bool:
        """Whether the iterator is closed."""
        ...


class Resource(Protocol):
    """Something that a run owns and closes at its end: threads, processes."""

    def describe(self) -> str:
        """Name it for a warning."""
        ...

    async def aclose(self, grace: float) -> None:
        """Close it; leave behind what does not end within `grace` seconds."""
        ...

    def abandon(self) -> None:
        """Let go of it without waiting."""
        ...


class Scope:
    """What one run of a stream owns.

    In a turn, stages go on with their work, those next to the consumer first; the turn ends when the consumer has been
    woken. So a finished result goes all the way down before more work begins (P2): a call may block the loop. See
    `docs/decisions.md`, "Turns go from the consumer upwards".
    """

    unbegun: int = 0
    """Calls in lazy tasks that have not begun: they begin in a later pass of the loop."""

    def __init__(self, grace: float, *, timing: bool = False) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.clock: Callable[[], float] = clock_of(self.loop)
        self.opened: float = self.clock()
        self.timing = timing
        self.context: contextvars.Context = contextvars.copy_context()
        self.context.run(open_runs.INSIDE.set, (*open_runs.INSIDE.get(), ref(self)))
        self.blocked: Blocked = Blocked()  # not a method of this: the context would tie it to itself
        self.context.run(BLOCKED_BY.set, self.blocked)
        self.has_factory: bool = self.loop.get_task_factory() is not None
        self.grace = grace
        self.stages: dict[Member, int] = {}  # in the order of opening; by their ranks, those below come first
        self.sources: list[Reader] = []
        self.on_closed: list[Callable[[], None]] = []
        self.resources: list[Resource] = []
        self.snapshots: Snapshots = Snapshots()
        self.trace: RunTrace | None = None
        self.reason: Reason = "consumer left"
        self.failure: Failed | None = None
        self.failures: deque[Failed] = deque(maxlen=KEPT_FAILURES)
        self.failures_seen: int = 0
        self.drained: bool = False
        self.ended_with_loop: bool = False
        self.turn_ends: float = now() + TURN
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self.outlet: Outlet = Outlet()
        self._queue: list[tuple[int, Member]] = []  # a heap, by rank
        self._next_turn: list[Member] = []
        self._turn_due = False
        self.depth: int = 0  # how many pumps ask each other on the stack; with one at least, it is in the run's context
        self._closing = False
        self._releasing = False
        self._grace_timer: asyncio.TimerHandle | None = None
        self._to_stop: deque[Member] = deque()
        self._patience = grace
        self._closing_resources: asyncio.Task[None] | None = None
        self._unstopped: list[str] = []
        self._left_behind = False
        self._cleanup_errors: list[BaseException] = []
        self._last_stats: Stats | None = None
        self._guard: AsyncGenerator[None] | None = _closed_with_its_loop(ref(self))
        with suppress(StopIteration):
            self._guard.asend(None).send(None)

    # Work

    def spawn(
        self, coroutine: Coroutine[Any, Any, None], context: contextvars.Context | None = None
    ) -> asyncio.Task[None]:
        """Start a task in a context of its own; eagerly, unless the loop has a task factory, which decides then."""
        try:
            context = self.context.copy() if context is None else context
            if not self.has_factory:
                return asyncio.Task(coroutine, loop=self.loop, context=context, eager_start=True)
            return self.loop.create_task(coroutine, context=context)
        except BaseException:  # no memory, or the task factory, which is user code
            coroutine.close()
            raise

    def schedule(self, stage: Member) -> None:
        """Give `stage` a turn: the next one, or the one under way. One callback serves all stages of the run."""
        heappush(self._queue, (self.stages[stage], stage))
        self.request_turn()

    def schedule_later(self, stage: Member) -> None:
        """Give `stage` the next turn, not the one under way: others get the loop before."""
        self._next_turn.append(stage)
        self.request_turn()

    def schedule_after(self, stage: Member, passes: int) -> None:
        """Give `stage` a turn after so many passes of the loop: what threads have finished is on its way then."""
        if self._closing:
            return
        if passes:
            self.call_soon(partial(self.schedule_after, stage, passes - 1))
        else:
            self.schedule(stage)

    def request_turn(self) -> None:
        """Have a turn in the next pass of the loop."""
        if not self._turn_due and not self.loop.is_closed():
            self._turn_due = True
            self.loop.call_soon(self._turn)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call `callback` in the next pass of the loop, in the context of the run."""
        self.loop.call_soon(self.enter, callback)

    def enter[R](self, callback: Callable[[], R]) -> R:
        """Return `callback()`, called in the context of the run, which the tasks that it starts copy."""
        self.depth += 1
        try:
            return callback() if self.depth > 1 else self.context.run(callback)
        finally:
            self.depth -= 1

    def runs(self, task: "asyncio.Task[Any] | None") -> bool:
        """Whether `task` belongs to this run; yes while a pump is under way, as its task may not be known yet."""
        return self.depth > 0 or any(stage.runs(task) for stage in self.stages)

    def begin_turn(self) -> None:
        """Note that others just had the loop: the run may keep it for another TURN."""
        self.turn_ends = now() + TURN

    @property
    def hands_on(self) -> bool:
        """Whether a finished result, or a call that was begun, is still on its way to the consumer."""
        return self.outlet.is_on_its_way or bool(self._queue or self.unbegun)

    async def pause(self) -> None:
        """Give others the loop: all stages below and the consumer. For tasks that read on their own."""
        for _ in range(2 * len(self.stages) + 1):
            await asyncio.sleep(0)
            if not self.hands_on:
                break
        self.begin_turn()

    def _turn(self) -> None:
        try:
            self.enter(self._serve)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it ends the run
            self.crash("turn", error)

    def _serve(self) -> None:
        self._turn_due = False
        self.turn_ends = now() + TURN
        queue, outlet = self._queue, self.outlet
        if self._next_turn:
            for stage in self._next_turn:
                heappush(queue, (self.stages[stage], stage))
            self._next_turn.clear()
        while queue and not self.unbegun and not outlet.is_on_its_way:
            stage = heappop(queue)[1]
            try:
                stage.take_turn()
            except Exception as error:  # noqa: BLE001 -- whatever it is, it ends the run
                self.crash(stage.name, error)
            if queue and now() > self.turn_ends:
                break
        if queue:
            self.request_turn()

    # Failures

    def fail(self, failed: Failed) -> None:
        """Record a failure that ends the run: the first one is raised, later ones are noted (P5)."""
        if self.failure is None and not self._closing:
            self.failure = failed
            self.reason = "sibling failed"
        else:
            self.keep(failed)

    def keep(self, failed: Failed) -> None:
        """Record a failure that the run survives."""
        self.failures.append(failed)
        self.failures_seen += 1

    def cleanup_failed(self, failed: Failed) -> None:
        """Record an error of work that was being stopped, or of closing a source."""
        self.keep(failed)
        note(failed.error, f"while it was being stopped: {failed.place}")
        self._cleanup_errors.append(failed.error)

    def take_failure(self) -> BaseException | None:
        """Return the error to raise, with its notes, and let go of it."""
        failed, self.failure = self.failure, None
        if failed is None:
            return None
        error = failed.error
        note(error, failed.place)
        self._note_others(error)
        return error

    def _note_others(self, error: BaseException) -> None:
        others = [failed for failed in self.failures if failed.error is not error]
        for other in others[:NOTED_FAILURES]:
            note(error, f"also failed: {other}")
        if len(others) > NOTED_FAILURES:
            note(error, f"and {self.failures_seen - NOTED_FAILURES} more failed: see the run's failures")
        self._cleanup_errors.clear()

    def crash(self, stage: str, error: BaseException) -> None:
        """End the run with an error of penstock's own (no memory, no stack): its stages may be in any state.

        The consumer asks them for nothing more.
        """
        if not self._closing:
            self.fail(Failed(as_failure(error), 0, None, stage))
            self.outlet.crashed = True
            self.begin_close(error)
            self.outlet.wake()

    # Closing

    def begin_close(self, left_by: BaseException | None = None) -> None:
        """Stop all work, then close the sources; nothing starts from here on."""
        if self._closing:
            return
        self._closing = True
        if self.failure is None:
            self.reason = _reason(left_by)
        self._queue.clear()
        self._next_turn.clear()
        for stage in reversed(self.stages):
            self.stop(stage)
        self._grace_timer = self.loop.call_later(self.grace, self._grace_over, context=self.context)
        self.work_stopped()

    def stop(self, stage: Member) -> None:
        """Stop a stage and those above it, one after the other: there may be more stages than the stack is deep."""
        self._to_stop.append(stage)
        if len(self._to_stop) > 1:  # who stops is at it
            return
        while self._to_stop:
            first = self._to_stop[0]
            try:
                first.stop()
            except Exception as error:  # noqa: BLE001 -- raised from leaving: the others must stop all the same
                self.cleanup_failed(Failed(as_failure(error), 0, None, first.name))
            finally:
                self._to_stop.popleft()

    @property
    def closing(self) -> bool:
        """Whether the run is being left."""
        return self._closing

    def drain(self) -> None:
        """Take nothing more from the sources; finish what was taken."""
        self.drained = True
        for source in self.sources:
            source.drain()

    def work_stopped(self) -> None:
        """Go on with closing if no work runs any more."""
        if self._closing and not self._releasing and not any(stage.busy() for stage in self.stages):
            self._release_sources()

    def _release_sources(self) -> None:
        self._releasing = True
        for source in self.sources:
            source.release()
        self.source_closed()

    def source_closed(self) -> None:
        """Finish closing if every source is closed."""
        if self._releasing and all(source.is_over() for source in self.sources):
            self._finish()

    def _grace_over(self) -> None:
        self._grace_timer = None
        self._patience = 0.0
        if not self._releasing:
            self._unstopped += [work for stage in self.stages if (work := stage.busy())]
            self._left_behind = bool(self._unstopped)
            self._release_sources()
            if not self.closed.done():
                self._grace_timer = self.loop.call_later(self.grace, self._grace_over, context=self.context)
        else:
            self._unstopped += [f"closing of {source.name!r}" for source in self.sources if not source.is_over()]
            self._finish()

    def _finish(self) -> None:
        if self.closed.done() or self._closing_resources is not None:
            return
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None
        for stage in self.stages:
            self._call_at_the_end(stage.close)
        for callback in self.on_closed:
            self._call_at_the_end(callback)
        if not self.resources:
            self._end()
            return
        closing = self._close_resources()
        try:
            task = self._closing_resources = self.spawn(closing)
        except BaseException as error:  # noqa: BLE001 -- a task factory is user code
            closing.close()
            self.cleanup_failed(Failed(as_failure(error), 0, None, "end of the run"))
            for resource in self.resources:
                self._call_at_the_end(resource.abandon)
            self._end()
            return
        if not task.done():
            self._grace_timer = self.loop.call_later(self._patience, self._resources_late, context=self.context)

    async def _close_resources(self) -> None:
        """Close resources one by one; one that has not ended stays in the list, for `_resources_late`."""
        while self.resources:
            resource = self.resources[-1]
            try:
                await resource.aclose(self._patience)
            except asyncio.CancelledError:
                self._call_at_the_end(resource.abandon)
            except BaseException as error:  # noqa: BLE001 -- raised from leaving, whatever it is
                self.cleanup_failed(Failed(as_failure(error), 0, None, f"closing of {resource.describe()}"))
            if self.closed.done():
                return
            self.resources.remove(resource)
        self._end()

    def _resources_late(self) -> None:
        """Leave behind the resources that did not close in time."""
        self._grace_timer = None
        assert self._closing_resources is not None
        self._unstopped += [f"closing of {resource.describe()}" for resource in self.resources]
        for resource in self.resources:
            self._call_at_the_end(resource.abandon)
        self._closing_resources.cancel()
        self._end()

    def _end(self) -> None:
        """Mark the run as over."""
        if self.closed.done():
            return
        if self._grace_timer is not None:
            self._grace_timer.cancel()
            self._grace_timer = None
        try:
            self._let_go()
        finally:  # or who leaves would wait for ever
            if self._guard is not None:
                with suppress(StopAsyncIteration):
                    self._guard.asend(None).send(None)
            self.closed.set_result(None)
            open_runs.closed(self)

    def _call_at_the_end(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except BaseException as error:  # noqa: BLE001 -- raised from leaving, whatever it is
            self.cleanup_failed(Failed(as_failure(error), 0, None, "end of the run"))

    async def end_with_loop(self) -> None:
        """Close the run in the last step of its loop."""
        self._guard = None  # it is who asks
        self.ended_with_loop = not self._closing
        self.begin_close(asyncio.CancelledError())
        await asyncio.shield(self.closed)

    def abandon(self) -> None:
        """Let go of threads when nothing can be awaited any more: the loop was closed before the run was left."""
        for callback in (*self.on_closed, *(resource.abandon for resource in self.resources)):
            self._call_at_the_end(callback)
        self.on_closed.clear()
        self.resources.clear()

    @property
    def left_work_behind(self) -> bool:
        """Whether work that ignored its cancellation still runs after the run."""
        return self._left_behind

    def _let_go(self) -> None:
        """Break reference cycles: a run that is over must not need the garbage collector."""
        if self.outlet.crashed:
            for stage in self.stages:
                stage.settle_lost()
        stats = self._last_stats = self.stats()
        if self.trace is not None:
            self._call_at_the_end(partial(self.trace.ended, stats, self.failure))
            self.trace = None
        if LOG.isEnabledFor(logging.INFO):
            LOG.info("run over: %s", stats, extra=TABLE)
        for stage in self.stages:
            stage.on_ready = nobody_waits
            if stage.is_over():
                del stage.scope  # a failure's traceback may lead to the stage, and the scope keeps failures
        self.stages.clear()
        self.sources.clear()
        self.on_closed.clear()
        self.resources.clear()

    def stats(self) -> Stats:
        """Return what every stage counts and measures; after the end, as it was when the run was closed."""
        if self._last_stats is not None:
            return self._last_stats
        return Stats(tuple(stage.stats() for stage in self.stages), self.clock() - self.opened)

    def report_unstopped(self, opened_at: Place) -> None:
        """Warn once of work that ignored its cancellation; the warning points to where the run was opened."""
        unstopped, self._unstopped = self._unstopped, []
        if unstopped:
            message = f"still running {self.grace:g} s after cancellation, left behind: {'; '.join(unstopped)}"
            LOG.warning("%s", message)
            warnings.warn_explicit(message, UnstoppedWorkWarning, *opened_at)

    def raise_cleanup_errors(self, on_its_way: BaseException | None) -> None:
        """Raise the first error of cleanup, or note it on the error that is on its way.

        An error that ends the program (Ctrl-C while work was being stopped) goes before all others.
        """
        errors, self._cleanup_errors = self._cleanup_errors, []
        if not errors:
            return
        if not isinstance(on_its_way, _ENDING):
            errors.sort(key=lambda error: not isinstance(error, _ENDING))
            on_its_way = None if isinstance(errors[0], _ENDING) else on_its_way
        error, others = (errors[0], errors[1:]) if on_its_way is None else (on_its_way, errors)
        for other in others:
            if other is not error:
                note(error, f"cleanup also failed: {said(other)}: {'; '.join(getattr(other, '__notes__', ()))}")
        if on_its_way is None:
            raise error


async def _closed_with_its_loop(run: ref[Scope]) -> AsyncGenerator[None]:
    """Close an open run when its loop ends: a loop closes the async generators that are left, and this is one.

    By then `asyncio.run` has cancelled all tasks, so no `async for` comes back to leave the run, though a frame or a
    traceback may hold the run for long.
    """
    try:
        yield
    except GeneratorExit:
        scope = run()
        if scope is not None:
            await scope.end_with_loop()
        raise


def _reason(left_by: BaseException | None) -> Reason:
    """Tell why work is cancelled in a run that is left by that exception."""
    if isinstance(left_by, asyncio.CancelledError):
        return "caller cancelled"
    return "deadline" if isinstance(left_by, TimeoutError) else "consumer left"


async def outlast(future: asyncio.Future[Any], abandoned: asyncio.Future[None] | None = None) -> None:
    """Wait until `future` is done, whatever cancellation comes; raise the cancellation afterwards (P4).

    Once `abandoned` is done, a cancellation is raised at once.
    """
    cancelled: asyncio.CancelledError | None = None
    try:
        while not future.done():
            try:
                await asyncio.shield(future)
            except asyncio.CancelledError as error:
                cancelled = error
                if abandoned is not None and abandoned.done():
                    break
        if cancelled is not None:
            raise cancelled
    finally:
        del cancelled  # the traceback holds this frame, and this frame would hold the error
