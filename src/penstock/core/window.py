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
from asyncio import Task
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol, cast, override

from penstock.core.clock import now
from penstock.core.errors import MisuseError, as_failure, note
from penstock.core.limited import limited
from penstock.core.log import LOG
from penstock.core.meter import Meter, Wait
from penstock.core.outcome import Failed, Ok
from penstock.core.plan import DROPPED, MISSING, Call, Later, Plan, gated
from penstock.core.retry import Exhausted, retrying, thread_back, timed
from penstock.core.scope import Scope
from penstock.core.stage import END, PENDING, Pulled, Stage, name_work
from penstock.core.stats import StageStats

LOOK: Final = 7
"""Results that are handed on between two looks at the clock, as a mask of their number: a look takes 40 ns."""


class Results(Protocol):
    """Where results wait, by the index of their item."""

    def __len__(self) -> int: ...

    def __setitem__(self, index: int, value: Any, /) -> None: ...


class Places[U](Stage[U]):
    """A stage with places for calls that run, by index, and for results that wait."""

    def __init__(self, scope: Scope, name: str, concurrency: int, bound: int, finished: Results) -> None:
        super().__init__(scope, name)
        self.concurrency: int = concurrency
        self.bound: int = bound
        self.meter: Meter = Meter(scope.clock, scope.opened, every_call=scope.timing)
        self.running: dict[int, asyncio.Task[None]] = {}
        self._kept_places: int = 0
        self.finished: Any = finished  # of the kind that a window needs

    def _room(self) -> int:
        """Count the free places."""
        running = len(self.running)
        free = self.concurrency - running
        places = self.bound - running - len(self.finished)
        return places if places < free else free  # noqa: FURB136 -- min() takes twice as long, for every result

    def _has_next(self) -> bool:
        """Whether a result is there that order allows to be handed on."""
        raise NotImplementedError

    # What is noted

    def _note_peaks(self, last: int) -> None:
        """Note how much there is after work was started, at the end on the item at `last`, which may be settled."""
        running, waiting = len(self.running), len(self.finished)
        held = running + waiting + (self.meter.last_settled == last)
        self.meter.note_peaks(running + (last not in self.running), held, waiting)

    def _note_results(self) -> None:
        """Note how many results wait when one has come by itself."""
        waiting = len(self.finished)
        if waiting > self.meter.peak_buffered:
            self.meter.note_buffered(waiting)

    def _note_wait(self) -> None:
        """Note what keeps a place free, if one is."""
        if len(self.running) >= self.concurrency:
            wait = Wait.NOTHING
        elif self._room() > 0:
            wait = Wait.UPSTREAM
        else:
            wait = Wait.CONSUMER if self._has_next() else Wait.HEAD
        if wait is not self.meter.waits_for:
            self.meter.wait_for(wait)

    @override
    def stats(self) -> StageStats:
        books = super().stats()
        returned, results = self._count_finished()
        running = books.in_flight - returned
        books = replace(
            books,
            running=running + self._kept_places,
            buffered=results,
            concurrency=self.concurrency,
            blocked_loop_s=self.scope.blocked.seconds.get(self.name, 0.0),
        )
        return self.meter.measured(books, running)

    def _count_finished(self) -> tuple[int, int]:
        """Count the items whose work has returned and that have no outcome yet, and the results that wait."""
        return len(self.finished), len(self.finished)

    @override
    def settle_lost(self) -> None:
        books = super().stats()
        if books.in_flight and not self.running:
            self._failed += books.in_flight

    @override
    def runs(self, task: asyncio.Task[Any] | None) -> bool:
        return task in self.running.values()

    @override
    def busy(self) -> str | None:
        return name_work(self.name, [i if i >= 0 else ~i for i in self.running]) if self.running else None


class Window[T, U](Places[U]):
    """A stage that runs work on its items, at most `concurrency` at once (P1, P2, P5, P7, P9).

    `core.order` says which finished result is next.
    """

    def __init__(self, scope: Scope, upstream: Stage[T], plan: Plan[T, U], finished: Results) -> None:
        super().__init__(scope, plan.name, plan.concurrency, (plan.concurrency + plan.buffer) * plan.size, finished)
        self.upstream = upstream
        self.plan = plan
        self.in_band: bool = plan.on_error == "return"
        self.work: Call[T, U] = plan.work if plan.timeout is None else timed(plan.work, plan.timeout)
        self.measured_work: Call[T, U] = self.meter.timing(self.work)
        if plan.limits is not None:
            self.work = self.measured_work = limited(self.measured_work, plan.limits, plan.name, self.meter)
            self.meter.times_all = True
        if plan.retry is not None:
            self.work = self.measured_work = retrying(
                self.measured_work, plan.retry, self._retry, lambda _: not self._stopping, stage=plan.name
            )
            self.meter.times_all = True
        if plan.gate is not None:
            self.work, self.measured_work = gated(self.work, plan.gate), gated(self.measured_work, plan.gate)
        self._stopping = self._exhausted = self._asked = self._scheduled = self._pumping = False
        self._last_turn = 0.0
        self._burst = 1
        self._unbegun: LazyTasks[T, U] = LazyTasks(scope, self._never_began)
        upstream.on_ready = self._schedule

    # What the two orders decide

    def _hand_over(self) -> Any:
        """Remove and return the next result that order allows, or MISSING."""
        raise NotImplementedError

    def _keep(self, index: int, value: Any) -> None:
        """Store a result until it is pulled."""
        self.finished[index] = value

    def _discard_behind(self, index: int) -> None:
        """Discard results that order does not allow once the item at `index` gives none."""

    # Pulling

    @override
    def pull(self, room: int) -> Pulled[U]:
        value = self._hand_over()
        if value is MISSING:
            self._pump(wanted=True)
            turn_is_over = now() > self.scope.turn_ends  # then what the pump has made can wait: others have calls too
            value = MISSING if turn_is_over else self._hand_over()
            if value is MISSING:
                has_next = self._has_next()
                if self._is_over() and not has_next:
                    return END
                self._asked = True
                self._burst = 1
                if turn_is_over or has_next:
                    self._schedule()
                return PENDING
        if not self._scheduled and not self._exhausted:
            self._schedule()
        if self.in_band and type(value) is Failed:
            self._delivered -= 1
            self._failed += 1
        return value  # type: ignore[no-any-return]  # pyright: ignore[reportReturnType] # a U; Any spares a cast per item

    def _turn_is_over(self) -> bool:
        """Whether the next result is to wait for another turn (P9); each turn has one at least."""
        turn = self.scope.turn_ends
        if now() > turn and self._last_turn == turn:
            return True
        self._last_turn = turn
        return False

    def _is_over(self) -> bool:
        return self._stopping or (self._exhausted and not self.running and not self.finished)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            if self.meter.waits_for:
                self.meter.wait_for(Wait.NOTHING)
            self.scope.schedule(self)

    @override
    def take_turn(self) -> None:
        """Tell the stage below if what it waits for is there, and only then begin more (P2)."""
        self._scheduled = False
        if not self._asked:
            self._pump(wanted=False)
            return
        if not self._has_next():
            self._pump(wanted=True)
        self._tell()
        if not self._asked and not self._exhausted:
            self._schedule()

    def _tell(self) -> None:
        if self._asked and (self._has_next() or self._is_over()):
            self._asked = False
            self.on_ready()

    def _pump(self, *, wanted: bool) -> None:
        """Start work while there is a free place, an item for it, and time left in this turn (P9).

        With `wanted`, only until there is a result: the stage below waits for one.
        """
        if self._pumping or self._exhausted:
            return
        if self.scope.is_deep:
            self._schedule()
            return
        self._pumping = True
        taken = self._taken
        try:
            self.scope.enter(self._fill_until_next if wanted and self.bound > 1 else self._fill_places)
        finally:
            self._pumping = False
        if self._taken > taken:
            self._note_peaks(self._taken - 1)
        if not self._scheduled and not self._exhausted:
            self._note_wait()

    def _fill_places(self) -> None:
        while not self._exhausted and (room := self._room()) > 0:
            if not self._fill(room, room):
                break

    def _fill_until_next(self) -> None:
        """Start work until there is a result for the stage below, which waits: what returns at once is one (P2).

        One call at first, then more and more as long as more is asked for before others had the loop.
        """
        while not self._exhausted and (room := self._room()) > 0:
            burst = self._burst
            if burst < self.bound:
                self._burst = 8 * burst
            if not self._fill(room, burst if burst < room else room) or self._has_next():  # noqa: FURB136 -- as in _room
                break

    def _fill(self, room: int, count: int) -> bool:
        """Start work on up to `count` items, where there is room for so many; whether there may be more to do."""
        following = self.measured_work if self.meter.slow else self.work
        work = self.measured_work if self.meter.samples(self._taken) else following
        scope, start, pull = self.scope, self._starter(), self.upstream.pull
        if start is None:
            start = self._start
            if started := self._start_ready(count, work, following):
                room -= started
                count -= started
                work = following
                if self._exhausted:
                    return False
        must_look = not self.upstream.looks_at_the_clock
        for _ in range(count):
            if must_look and now() > scope.turn_ends:
                self._schedule()
                return False
            pulled = pull(room)
            if pulled is PENDING:
                return False
            if pulled is END:
                self._exhausted = True
                return False
            start(pulled, work)
            if self._exhausted:
                return False
            work = following
            room -= 1
        return True

    def _start_ready(self, room: int, work: Call[T, U], following: Call[T, U]) -> int:
        """Start work on items that are there, and count them: `_start` by hand, a thirtieth of what an item costs."""
        before, loop, call, running = self._taken, self.scope.loop, self._call, self.running
        for item in self.upstream.ready_items(room):
            index = self._taken
            self._taken = index + 1
            coroutine = call(index, item, work)
            try:
                task = Task(coroutine, loop=loop, eager_start=True)
            except BaseException:
                coroutine.close()
                raise
            if not task.done():
                running[index] = task
                if self._stopping:
                    task.cancel(self.scope.reason)
            if self._exhausted:
                break
            work = following
        return self._taken - before

    def _starter(self) -> Callable[[T, Call[T, U]], None] | None:
        """How to start work, if otherwise than `_start`."""
        if self.plan.inline is not None:
            return self._start_inline
        return self._start_as_the_loop_likes if self.scope.has_factory else None

    # Running

    def _start(self, item: T, work: Call[T, U]) -> None:
        """Do what `_start_as_the_loop_likes` comes to without a task factory: half a microsecond less an item."""
        index = self._taken
        self._taken = index + 1
        call = self._call(index, item, work)
        try:
            task = Task(call, loop=self.scope.loop, eager_start=True)
        except BaseException:
            call.close()
            raise
        if not task.done():
            self.running[index] = task
            if self._stopping:
                task.cancel(self.scope.reason)

    def _start_as_the_loop_likes(self, item: T, work: Call[T, U]) -> None:
        index = self._taken
        self._taken = index + 1
        self._run(index, item, work)

    def _start_inline(self, item: T, work: Call[T, U]) -> None:
        """Call a plain function here and now; no task unless it turns out to return an awaitable."""
        index = self._taken
        self._taken = index + 1
        assert self.plan.inline is not None
        began = self.scope.clock() if work is self.measured_work else None
        try:
            value = self.scope.context.copy().run(self.plan.inline, item)
        except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
            self._raised(index, item, error)
            return
        if began is not None:
            self.meter.returned(began)
        if isinstance(value, Later):
            self._run(index, item, cast("Later[U]", value))
        else:
            self._returned(index, item, value)

    def _run(self, index: int, item: T, work: Call[T, U]) -> None:
        call = self._call_in_turn(index, item, work)
        try:
            task = self.scope.spawn(call)
        except BaseException as error:  # noqa: BLE001 -- a task factory is user code
            if isinstance(work, Later):
                work.close()
            self._raised(index, item, error)
            return
        if not task.done():
            self.running[index] = task
            self._unbegun.note(task, call, index, item, work)
            if self._stopping:
                task.cancel(self.scope.reason)

    async def _call_in_turn(self, index: int, item: T, work: Call[T, U]) -> None:
        """Call when it is its turn: a task factory may start many tasks that all want to begin in one pass."""
        try:
            if self._unbegun:
                await self._unbegun.begin()
        except asyncio.CancelledError:
            if isinstance(work, Later):
                work.close()
            self._never_began(index, item)
        else:
            await self._call(index, item, work)

    async def _call(self, index: int, item: T, work: Call[T, U]) -> None:
        """The life of an item. Hands over its own result: a callback of the task would cost a pass of the loop.

        What returns while this pumps has been started just now, and is not among `running` yet.
        """
        try:
            try:
                value = await work(item)
            except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
                await self._failed_call(index, item, error)
                return
            # `_returned` by hand, where there is nothing special: a tenth of a microsecond an item.
            if self._pumping:
                if value is DROPPED or self.in_band or self._stopping:
                    self._returned(index, item, value)
                else:
                    self.finished[index] = value
                return
            del self.running[index]
            if value is DROPPED or self.in_band or self._stopping:
                self._returned(index, item, value)
                return
            self.finished[index] = value
            if len(self.finished) > self.meter.peak_buffered:
                self.meter.note_buffered(len(self.finished))
            if self._asked or not self._scheduled:
                self._settled()
        except Exception as error:  # noqa: BLE001 -- whatever it is, it ends the run
            self._crashed(index, error)

    def _crashed(self, index: int, error: Exception) -> None:
        """End the run with an error that is not of the work on the item at `index`, but in its task."""
        self.running.pop(index, None)
        scope = self.scope  # the end of the run takes it from here
        scope.crash(self.name, error)
        scope.work_stopped()

    async def _failed_call(self, index: int, item: T, error: BaseException) -> None:
        """Settle an item that failed; keep its place until its thread, which cannot be stopped, is back."""
        await self._settle(index, partial(self._raised, index, item, error), thread_back(error))

    async def _settle(self, index: int, settle: Callable[[], None], back: Callable[[], Awaitable[None]] | None) -> None:
        """Settle the call at `index`, and keep its place until `back()`, if there is a thread to wait for."""
        if back is None:
            self.running.pop(index, None)
            settle()
            return
        self.running[~index] = self.running.pop(index)  # ~index: the place is taken, the order does not wait for it
        self._kept_places += 1
        settle()
        try:
            await back()
        except Exception as error:  # noqa: BLE001 -- of closing what the thread was inside of
            self.scope.cleanup_failed(Failed(as_failure(error), index, None, self.name))
        finally:
            del self.running[~index]
            self._kept_places -= 1
            self._settled()

    def _never_began(self, index: int, item: T) -> None:
        """Settle an item whose task was cancelled before it called the function."""
        self.running.pop(index, None)
        self.meter.never_began += 1
        self._raised(index, item, asyncio.CancelledError())

    # Settling

    def _returned(self, index: int, item: T, value: U) -> None:
        if self._stopping:
            self._discarded += 1
        elif value is DROPPED:
            self._dropped += 1
            self.meter.last_settled = index
            if self.plan.on_through is not None:
                self.plan.on_through(item)
        else:
            self._keep(index, Ok(value, index) if self.in_band else value)
        if not self._pumping:
            self._note_results()
            self._settled()

    def _raised(self, index: int, item: T, error: BaseException) -> None:
        attempts = 1
        if isinstance(error, Exhausted):
            attempts = error.attempts
            error = error.error
        if self._stopping and isinstance(error, asyncio.CancelledError):
            self._cancelled += 1
        else:
            self._fail(Failed(as_failure(error), index, item, self.name, attempts))
        self._settled()

    def _fail(self, failed: Failed) -> None:
        self.meter.failures += 1
        as_taken, failed = failed, self._shown(failed)
        is_fault_of_item = isinstance(failed.error, Exception) and not isinstance(failed.error, MisuseError)
        if self.in_band and not self._stopping and is_fault_of_item:
            self._keep(failed.index, failed)
            self._note_results()
            return
        self._failed += 1
        self.meter.last_settled = failed.index
        if self._stopping and self.plan.on_error != "raise" and is_fault_of_item:
            self.scope.keep(failed)
        elif self._stopping:
            self.scope.cleanup_failed(failed)
        elif self.plan.on_error == "raise" or not is_fault_of_item:
            self.scope.fail(failed)
            self._halt(failed.index)
        elif broken := self.plan.tolerance.exceeded(self._failed, self._delivered + self._dropped + self._failed):
            note(failed.error, f"failures of stage {self.name!r}: {self._failed}, more than {broken} allows")
            self.scope.fail(failed)
            self._halt(failed.index)
        else:
            self._pass_over(as_taken, failed)

    def _shown(self, failed: Failed) -> Failed:
        """A failure as the user is to know it."""
        return failed if self.plan.on_failed is None else self.plan.on_failed(failed)

    def _pass_over(self, as_taken: Failed, failed: Failed) -> None:
        """Go on without an item; `as_taken` has the item as it came, if the failure is known otherwise."""
        if self.plan.on_passed_over is not None:
            self.plan.on_passed_over(as_taken)
        if self.plan.on_error == "collect":
            self.scope.keep(failed)
        else:
            LOG.warning("skipped: %s", str(failed))  # as text: a handler that keeps records must not keep items

    def _settled(self) -> None:
        """Tell the stage below if its result is there; if a place is free, pump in the next turn."""
        asked = self._asked
        if asked:
            self._tell()
        if self._stopping:
            if not self.running:
                self.scope.work_stopped()
        elif not self._scheduled and not self._pumping and not self._exhausted:
            if self._room() > 0:
                self._schedule()
            elif not self.meter.waits_for and self._asked is asked:  # else the stage below is on its way
                self._note_wait()

    def _retry(self) -> None:
        self.meter.retried += 1

    # Stopping

    @override
    def stop(self) -> None:
        if not self._stopping:
            self._halt(self._taken)

    def _halt(self, index: int) -> None:
        """Cancel everything that runs; of what is finished, keep what stands in order before `index`."""
        self._stopping = self._exhausted = True
        self._discard_behind(min([index, *(i for i in self.running if i >= 0)]))
        for task in list(self.running.values()):
            task.cancel(self.scope.reason)
        self.scope.stop(self.upstream)
        self._tell()

    @override
    def close(self) -> None:
        del self.work, self.measured_work, self._unbegun  # they hold this window


class LazyTasks[T, U]:
    """Tasks that a task factory starts lazily: they begin in a later pass of the loop, or, cancelled before, never.

    Holds those that have not begun; `never_began(index, item)` is called for each that never will (gh-116048).
    """

    def __init__(self, scope: Scope, never_began: Callable[[int, T], None]) -> None:
        self._scope = scope
        self._never_began = never_began
        self._items: dict[asyncio.Task[None], tuple[int, T, Call[T, U]]] = {}
        self._waiting: dict[asyncio.Task[None] | None, None] = {}  # those that have begun too late in a turn, in order

    def __len__(self) -> int:
        return len(self._items)

    def note(
        self, task: asyncio.Task[None], call: Coroutine[Any, Any, None], index: int, item: T, work: Call[T, U]
    ) -> None:
        """Remember what `task` is to do, if it has not begun with its `call`."""
        if inspect.getcoroutinestate(call) == inspect.CORO_CREATED:
            self._items[task] = index, item, work
            self._scope.unbegun += 1
            task.add_done_callback(self._done)

    async def begin(self) -> None:
        """Begin the current task, after those before it; when the turn is over, in a later pass of the loop (P9)."""
        task = asyncio.current_task()
        noted = task is not None and self._items.pop(task, None) is not None
        if task is not None and noted:
            task.remove_done_callback(self._done)
        self._waiting[task] = None
        try:
            while next(iter(self._waiting)) is not task or now() > self._scope.turn_ends:
                self._scope.request_turn()
                await asyncio.sleep(0)
        finally:
            del self._waiting[task]
            self._scope.unbegun -= noted

    def _done(self, task: asyncio.Task[None]) -> None:
        index, item, work = self._items.pop(task)
        self._scope.unbegun -= 1
        if isinstance(work, Later):
            work.close()
        self._never_began(index, item)
