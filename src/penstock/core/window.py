"""The bounded window: the one place that starts work.

A window pulls an item when it has a free place, starts the work on it in a task of its own, and keeps the result until
the stage below pulls it. One *pump* does the starting. It runs in a turn of the loop or inside a pull, never in the
call stack of a completion, and it is never re-entered: work that returns at once is a loop here, not a recursion.

Places (P1): `running` holds the calls that were started and have not come back, `finished` the results that wait.

    len(running) <= concurrency    and    len(running) + len(finished) <= concurrency + buffer

An item that settles without a result to hand on (dropped, failed) leaves both, so that nothing accumulates behind a
slow head (P7): in an ordered window, an index below `taken` that stands in neither has been settled.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sized
from dataclasses import dataclass, replace
from typing import Any, Final, cast, override

from penstock.core.clock import now
from penstock.core.errors import as_failure, note
from penstock.core.log import LOG
from penstock.core.outcome import Failed, Ok
from penstock.core.policy import ANY_NUMBER, OnError, Tolerance
from penstock.core.retry import Exhausted, Retry, retrying, thread_back, timed
from penstock.core.scope import Scope
from penstock.core.stage import END, PENDING, Pulled, Stage


class _Nothing:
    """A marker that no user value can be (P6)."""


DROPPED: Final[Any] = _Nothing()
"""What work returns for an item that has no result to hand on."""

MISSING: Final[Any] = _Nothing()
"""What a window hands over when no result is next."""


@dataclass(frozen=True, slots=True)
class Later[U]:
    """What inline work returns when its result is still to be awaited: a result may itself be awaitable (P6)."""

    result: Awaitable[U]


@dataclass(frozen=True, slots=True)
class Plan[T, U]:
    """What a window is to do: the work and the options of its stage, checked."""

    name: str
    work: Callable[[T], Awaitable[U]]
    inline: Callable[[T], U | Later[U]] | None = None
    concurrency: int = 1
    ordered: bool = True
    buffer: int = 0
    timeout: float | None = None
    retry: Retry | None = None
    on_error: OnError = "raise"
    tolerance: Tolerance = ANY_NUMBER

    def replaced(self, **changes: Any) -> "Plan[T, U]":
        """This plan with some fields changed."""
        return replace(self, **changes)


class Window[T, U](Stage[U]):
    """A stage that runs work on its items, at most `concurrency` at once (P1, P2, P5, P7, P9).

    `core.order` says which finished result is next.
    """

    def __init__(self, scope: Scope, upstream: Stage[T], plan: Plan[T, U], finished: Sized) -> None:
        super().__init__(scope, plan.name)
        self.upstream = upstream
        self.concurrency = plan.concurrency
        self.bound = plan.concurrency + plan.buffer
        self.plan = plan
        self.in_band = plan.on_error == "return"
        self.work = plan.work if plan.timeout is None else timed(plan.work, plan.timeout)
        if plan.retry is not None:
            self.work = retrying(self.work, plan.retry, self._retry)
        self.running: dict[int, asyncio.Task[None]] = {}
        self.kept_places = 0
        self.stopping = False
        self._waiting_results = finished
        self._exhausted = False
        self._asked = False
        self._scheduled = False
        self._pumping = False
        self._unbegun: dict[asyncio.Task[Any], tuple[int, T, Awaitable[U] | None]] = {}
        upstream.on_ready = self._schedule

    # What the two orders decide

    def _hand_over(self) -> Any:
        """Remove and return the next result that order allows, or MISSING."""
        raise NotImplementedError

    def _keep(self, index: int, value: Any) -> None:
        """Store a result until it is pulled."""
        raise NotImplementedError

    def _has_next(self) -> bool:
        """Whether `_hand_over` would return a result."""
        raise NotImplementedError

    def _discard_behind(self, index: int) -> None:
        """Discard results that order does not allow once the item at `index` gives none."""

    # Pulling

    @override
    def pull(self, room: int) -> Pulled[U]:
        value = self._hand_over()
        if value is MISSING:
            self._pump()
            if (
                now() > self.scope.turn_ends
            ):  # what the pump has made can wait: the stages below have calls of their own
                self._asked = True
                self._schedule()
                return PENDING
            value = self._hand_over()
            if value is MISSING:
                if self._is_over():
                    return END
                self._asked = True
                return PENDING
        if not self._scheduled and not self._exhausted:
            self._schedule()
        if self.in_band and type(value) is Failed:
            self.delivered -= 1
            self.failed += 1
        return value  # type: ignore[no-any-return] # a U; Any spares a cast per item

    def _is_over(self) -> bool:
        return self.stopping or (self._exhausted and not self.running and not self._waiting_results)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.scope.schedule(self)

    def pump_in_turn(self) -> None:
        """Pump, then tell the stage below if it waits for something that is there now."""
        self._scheduled = False
        self._pump()
        self._tell()

    def _tell(self) -> None:
        if self._asked and (self._has_next() or self._is_over()):
            self._asked = False
            self.on_ready()

    def _pump(self) -> None:
        """Start work while there is a free place, an item for it, and time left in this turn (P9)."""
        if self._pumping:
            return
        self._pumping = True
        taken = self.taken
        try:
            while not self._exhausted and (room := self._room()) > 0:
                if not self._fill(room):
                    break
        finally:
            self._pumping = False
        if self.taken > taken:
            last_returned_at_once = self.taken - 1 not in self.running
            self.peak_running = max(self.peak_running, len(self.running) + last_returned_at_once)

    def _fill(self, room: int) -> bool:
        """Start work on up to `room` items; whether there may be more to do."""
        scope, pull = self.scope, self.upstream.pull
        start = self._start if self.plan.inline is None else self._start_inline
        must_look = not self.upstream.looks_at_the_clock
        while room > 0 and not self._exhausted:
            if must_look and now() > scope.turn_ends:
                self._schedule()
                return False
            item = pull(room)
            if item is PENDING:
                return False
            if item is END:
                self._exhausted = True
                return False
            start(item)
            room -= 1
        return True

    def _room(self) -> int:
        """Count the free places."""
        running = len(self.running)
        free = self.concurrency - running
        places = self.bound - running - len(self._waiting_results)
        return places if places < free else free  # noqa: FURB136 -- min() takes twice as long, for every result

    # Running

    def _start(self, item: T) -> None:
        index = self.taken
        self.taken = index + 1
        if self.scope.has_factory:
            self._run(index, item)
            return
        # Scope.spawn and _run by hand, as far as they apply: half a microsecond an item.
        call = self._call(index, item)
        task = asyncio.Task(call, loop=self.scope.loop, context=self.scope.context.copy(), eager_start=True)
        if not task.done():
            self.running[index] = task
            if self.stopping:
                task.cancel()

    def _start_inline(self, item: T) -> None:
        """Call a plain function here and now; no task unless it turns out to return an awaitable."""
        index = self.taken
        self.taken = index + 1
        assert self.plan.inline is not None
        try:
            value = self.scope.context.copy().run(self.plan.inline, item)
        except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
            self._raised(index, item, error)
            return
        if isinstance(value, Later):
            self._run(index, item, cast("Later[U]", value).result)
        else:
            self._returned(index, value)

    def _run(self, index: int, item: T, result: Awaitable[U] | None = None) -> None:
        call = self._call(index, item, result)
        try:
            task = self.scope.spawn(call)
        except BaseException as error:  # noqa: BLE001 -- a task factory is user code
            call.close()
            close_unawaited(result)
            self._raised(index, item, error)
            return
        if not task.done():
            self.running[index] = task
            if inspect.getcoroutinestate(call) == inspect.CORO_CREATED:
                self._unbegun[task] = index, item, result
                task.add_done_callback(self._never_began)
            if self.stopping:
                task.cancel()

    async def _call(self, index: int, item: T, result: Awaitable[U] | None = None) -> None:
        """The life of an item. Hands over its own result: a callback of the task would cost a pass of the loop."""
        try:
            if self._unbegun:
                await self._begin()
            value = await (self.work(item) if result is None else result)
        except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
            close_unawaited(result)
            await self._failed_call(index, item, error)
        else:
            self.running.pop(index, None)
            self._returned(index, value)

    async def _failed_call(self, index: int, item: T, error: BaseException) -> None:
        """Settle an item that failed; keep its place until its thread, which cannot be stopped, is back."""
        back = thread_back(error)
        if back is None:
            self.running.pop(index, None)
            self._raised(index, item, error)
            return
        self.running[~index] = self.running.pop(index)  # ~index: the place is taken, the order does not wait for it
        self.kept_places += 1
        self._raised(index, item, error)
        try:
            await back()
        finally:
            del self.running[~index]
            self.kept_places -= 1
            self._settled()

    async def _begin(self) -> None:
        """Begin a task that a factory has started lazily; when the turn is over, in a later pass of the loop (P9)."""
        task = asyncio.current_task()
        if task is not None and self._unbegun.pop(task, None) is not None:
            task.remove_done_callback(self._never_began)
        while now() > self.scope.turn_ends:
            self.scope.request_turn()
            await asyncio.sleep(0)

    def _never_began(self, task: asyncio.Task[None]) -> None:
        """Settle an item whose task was cancelled before its first step and so never ran (gh-116048)."""
        index, item, result = self._unbegun.pop(task)
        del self.running[index]
        close_unawaited(result)
        self._raised(index, item, asyncio.CancelledError())

    # Settling

    def _returned(self, index: int, value: U) -> None:
        if self.stopping:
            self.discarded += 1
        elif value is DROPPED:
            self.dropped += 1
        else:
            self._keep(index, Ok(value, index) if self.in_band else value)
        if not self._pumping:
            self._settled()

    def _raised(self, index: int, item: T, error: BaseException) -> None:
        attempts = 1
        if isinstance(error, Exhausted):
            attempts = error.attempts
            error = error.error
        if self.stopping and isinstance(error, asyncio.CancelledError):
            self.cancelled += 1
        else:
            self._fail(Failed(as_failure(error), index, item, self.name, attempts))
        self._settled()

    def _fail(self, failed: Failed) -> None:
        if self.in_band and not self.stopping and isinstance(failed.error, Exception):
            self._keep(failed.index, failed)
            return
        self.failed += 1
        if self.stopping:
            self.scope.cleanup_failed(failed)
        elif self.plan.on_error == "raise" or not isinstance(failed.error, Exception):
            self.scope.fail(failed)
            self._halt(failed.index)
        elif broken := self.plan.tolerance.exceeded(self.failed, self.delivered + self.dropped + self.failed):
            note(failed.error, f"{self.failed} items of stage {self.name!r} have failed, more than {broken} allows")
            self.scope.fail(failed)
            self._halt(failed.index)
        elif self.plan.on_error == "collect":
            self.scope.keep(failed)
        else:
            LOG.warning("skipped: %s", str(failed))  # as text: a handler that keeps records must not keep items

    def _settled(self) -> None:
        """Tell the stage below if its result is there; if a place is free, pump in the next turn."""
        if self._asked:
            self._tell()
        if self.stopping:
            if not self.running:
                self.scope.work_stopped()
        elif not self._scheduled and not self._pumping and not self._exhausted and self._room() > 0:
            self._schedule()

    def _retry(self) -> None:
        self.retried += 1

    # Stopping

    @override
    def stop(self) -> None:
        if not self.stopping:
            self._halt(self.taken)

    def _halt(self, index: int) -> None:
        """Cancel everything that runs; of what is finished, keep what stands in order before `index`."""
        self.stopping = self._exhausted = True
        self._discard_behind(min([index, *(i for i in self.running if i >= 0)]))
        for task in list(self.running.values()):
            task.cancel()
        self.upstream.stop()
        self._tell()

    @override
    def drain(self) -> None:
        self.upstream.drain()

    @override
    def close(self) -> None:
        del self.work  # when it retries it holds this window

    @override
    def busy(self) -> str | None:
        if not self.running:
            return None
        items = sorted(i if i >= 0 else ~i for i in self.running)
        some = ", ".join(map(str, items[:5])) + (", ..." if len(items) > 5 else "")  # noqa: PLR2004 -- enough to find it
        return f"stage {self.name!r}, item{'s' if len(items) > 1 else ''} {some}"


def close_unawaited(result: object) -> None:
    """Close what nobody will await, if it is a coroutine or has one inside."""
    close = getattr(result, "close", None)
    if close is not None:
        close()
