"""The window of `map`, and what all windows share: each call runs in a task of its own, and each item is settled once.

Places (P1) of a window that holds results:

    len(running) <= concurrency    and    len(running) + len(finished) <= concurrency + buffer

An item that settles without a result (dropped, failed) leaves both, so nothing accumulates behind a slow head (P7).
Why a task per item, and not one for each place: `docs/decisions.md`, "A task per item".
"""

import asyncio
import inspect
from asyncio import Task
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence, Sized
from contextvars import Context
from functools import partial
from typing import Any, cast, override

from penstock.core.blocking import BLOCKED
from penstock.core.calling import attempt_of, composed
from penstock.core.clock import now
from penstock.core.closing import close_awaitable
from penstock.core.errands import Errand, Errands
from penstock.core.errors import as_failure, is_fault_of_item, note
from penstock.core.log import LOG
from penstock.core.order import AsFinished, InOrder
from penstock.core.outcome import Failed, Ok
from penstock.core.plan import DROPPED, MISSING, AsyncFn, Later, Plan
from penstock.core.pump import LOOK, Pump
from penstock.core.retry import Exhausted, thread_back
from penstock.core.scope import Scope
from penstock.core.stage import Pulled, Stage


class Caller[T, U](Pump[T, U]):
    """A pump that runs each call in a task of its own and settles each item (P5).

    Beside what a pump asks, its windows define what the task of an item does (`_call`), and where a failure goes that
    is handed on as a result (`_keep`).
    """

    __slots__ = ("_task_of", "_unbegun")

    def __init__(self, scope: Scope, upstream: Stage[T], plan: Plan[T, U]) -> None:
        super().__init__(scope, upstream, plan)
        self._unbegun: LazyTasks[T, U] = LazyTasks(scope, self._never_began)
        self._task_of: Callable[..., Task[None]] = partial(Task, loop=scope.loop, eager_start=True)

    async def _call(self, index: int, item: T, work: AsyncFn[T, U]) -> None:
        """Call `work` on the item, in its task, and settle the item."""
        raise NotImplementedError

    def _keep(self, index: int, value: Any) -> None:
        """Store a result until it is pulled."""
        raise NotImplementedError

    # Tasks

    def _start(self, item: T, work: AsyncFn[T, U]) -> None:
        """Do what `_start_as_the_loop_likes` does, for a loop without a task factory: 0.5 us less an item."""
        index = self._taken
        self._taken = index + 1
        call = self._call(index, item, work)
        try:
            task = self._task_of(call)
        except BaseException:
            call.close()
            raise
        if not task.done():
            self.running[index] = task
            if self._stopping:
                task.cancel(self.scope.reason)

    def _start_as_the_loop_likes(self, item: T, work: AsyncFn[T, U]) -> None:
        index = self._taken
        self._taken = index + 1
        self._run(index, item, work)

    def _run(self, index: int, item: T, work: AsyncFn[T, U], context: Context | None = None) -> None:
        call = self._call_in_turn(index, item, work)
        try:
            task = self.scope.spawn(call, context)
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

    async def _call_in_turn(self, index: int, item: T, work: AsyncFn[T, U]) -> None:
        """Call when it is this task's turn: a task factory may have started many that begin in one pass of the loop."""
        try:
            if self._unbegun:
                await self._unbegun.begin()
        except asyncio.CancelledError:
            if isinstance(work, Later):
                work.close()
            self._never_began(index, item)
        else:
            await self._call(index, item, work)

    def _crashed(self, index: int, error: Exception) -> None:
        """End the run: the task of the item at `index` raised an error that is not of the work."""
        self.running.pop(index, None)
        scope = self.scope  # the end of the run takes it from here
        scope.crash(self.name, error)
        scope.work_stopped()

    async def _failed_call(self, index: int, item: T, error: BaseException) -> None:
        """Settle an item that failed; if the call left a thread running, keep its place until the thread is back."""
        await self._settle(index, partial(self._raised, index, item, error), thread_back(error))

    async def _settle(self, index: int, settle: Callable[[], None], back: Callable[[], Awaitable[None]] | None) -> None:
        """Settle the call at `index`; keep its place until `back()` returns, if a thread still runs."""
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
        can_be_spared = is_fault_of_item(failed.error)
        if self.in_band and not self._stopping and can_be_spared:
            self._keep(failed.index, failed)
            return
        self._failed += 1
        self.meter.last_settled = failed.index
        if self._stopping and self.plan.on_error != "raise" and can_be_spared:
            self.scope.keep(failed)
        elif self._stopping:
            self.scope.cleanup_failed(failed)
        elif self.plan.on_error == "raise" or not can_be_spared:
            self.scope.fail(failed)
            self._halt(failed.index)
        elif broken := self.plan.tolerance.exceeded(self._failed, self._delivered + self._dropped + self._failed):
            note(failed.error, f"failures of stage {self.name!r}: {self._failed}, more than {broken} allows")
            self.scope.fail(failed)
            self._halt(failed.index)
        else:
            self._pass_over(as_taken, failed)

    def _shown(self, failed: Failed) -> Failed:
        """Turn a failure into the one that the user sees."""
        return failed if self.plan.on_failed is None else self.plan.on_failed(failed)

    def _pass_over(self, as_taken: Failed, failed: Failed) -> None:
        """Go on without a failed item; `as_taken` holds the item as this stage took it."""
        if self.plan.on_passed_over is not None:
            self.plan.on_passed_over(as_taken)
        if self.plan.on_error == "collect":
            self.scope.keep(failed)
        else:
            LOG.warning("skipped: %s", str(failed))  # as text: a handler that keeps records must not keep items

    @override
    def close(self) -> None:
        del self._unbegun  # it holds this window
        if self.waiting_room is not None:
            self.waiting_room.close()
        if self.control is not None:
            self.control.close()


class Window[T, U](Caller[T, U]):
    """Runs work on items, and holds the results in one of the two orders (P1, P2, P3, P5, P7, P9)."""

    has_ready_items = True

    only_by_pull = False
    """Whether results are handed on in no other way, as `pull` does more with them."""

    only_stores = True
    """Whether nothing is done with a result but to store it; else `_returned` is told of each."""

    __slots__ = ("_errands", "_order", "_results", "_stores", "measured_work", "work")

    def __init__(self, scope: Scope, upstream: Stage[T], plan: Plan[T, U]) -> None:
        trace = scope.trace
        if trace is not None and trace.follows_items:
            plan = plan.replaced(inline=None)
        super().__init__(scope, upstream, plan)
        if plan.keyed:
            self._open_waiting_room()
        self._order = InOrder(self.running, self.bound) if plan.ordered else AsFinished()
        self._results = self._order.waiting
        self.finished: Sized = self._results
        self._stores: bool = self.only_stores and not self.in_band  # until the window is stopped
        self.work: AsyncFn[T, U]
        self.measured_work: AsyncFn[T, U]
        self.work, self.measured_work = self._calls(attempt_of(plan))
        if trace is not None:
            self.work = trace.calls(self.name, self.work)
            self.measured_work = trace.calls(self.name, self.measured_work)
        self._errands: Errands | None = None
        if plan.elsewhere is not None and trace is None:
            self._errands = plan.elsewhere.open(scope.context, self._came)

    def _calls(self, attempt: AsyncFn[T, U]) -> tuple[AsyncFn[T, U], AsyncFn[T, U]]:
        """Give the function to call for an item, and the one for an item whose call is timed."""
        return self._composed(attempt), self._composed(self.meter.timing(attempt))

    def _composed(self, attempt: AsyncFn[T, U]) -> AsyncFn[T, U]:
        return composed(
            self.plan,
            self.meter,
            attempt,
            may_retry=lambda _: not self._stopping,
            room=self.waiting_room,
            control=self.control,
        )

    # What a pump asks

    @override
    def pull(self, room: int) -> Pulled[U]:
        """Do what `Pump.pull` does, written out where the next result is there: this takes 0.2 us less an item."""
        order, delivered = self._order, self._delivered
        head = order.head
        if (
            self.in_band
            or (not delivered & LOOK and now() > self.scope.turn_ends)
            or (value := self._results.pop(head, MISSING)) is MISSING
        ):
            return super().pull(room)
        order.head = head + 1
        self._delivered = delivered + 1
        if not self._scheduled and not self._exhausted:
            self._schedule()
        return value  # type: ignore[no-any-return] # a U; Any spares a cast per item

    @override
    def ready_items(self, room: int) -> Iterator[U]:
        """Hand on results that wait, in order, while the turn lasts: a third of the time that a pull takes for each."""
        if self.in_band or self.only_by_pull or not self._order.has_next() or self._turn_is_over():
            return  # without a look at the clock if nothing is there: a slow machine would spin
        order, results, scope = self._order, self._results, self.scope
        for _ in range(room):
            if (value := results.pop(order.head, MISSING)) is MISSING:
                return
            order.head += 1
            self._delivered += 1
            if not self._scheduled and not self._exhausted:
                self._schedule()
            yield value
            if now() > scope.turn_ends:
                return

    @override
    def waiting(self) -> Sequence[U]:
        return () if self.only_by_pull else self._order.next_ones()

    @override
    def hand_on(self, count: int) -> None:
        for _ in range(count):
            value = self._results.pop(self._order.head, MISSING)
            if value is MISSING:  # the run is closed
                return
            self._order.head += 1
            if self.in_band and type(value) is Failed:
                self._failed += 1
            else:
                self._delivered += 1
        if not self._scheduled and not self._exhausted:
            self._schedule()

    @override
    def _room(self) -> int:
        running = len(self.running)
        free = self.places - running
        places = self.bound - running - len(self.finished)
        return places if places < free else free  # noqa: FURB136 -- min() takes twice as long, for every result

    @override
    def _has_next(self) -> bool:
        return self._order.has_next()

    @override
    def _hand_over(self) -> Any:
        order = self._order
        if not order.has_next() or (not self._delivered & LOOK and self._turn_is_over()):
            return MISSING
        value = self._results.pop(order.head, MISSING)
        order.head += 1
        self._delivered += 1
        return value

    @override
    def _discard_behind(self, index: int) -> None:
        self._discarded += self._order.discard_behind(index)

    @override
    def _starting(self) -> tuple[Callable[[T, AsyncFn[T, U]], None], AsyncFn[T, U], AsyncFn[T, U]]:
        following = self.measured_work if self.meter.slow else self.work
        call = self.measured_work if self.meter.samples(self._taken) else following
        if self._errands is not None:
            return self._start_errand, call, following
        if self.plan.inline is not None:
            return self._start_inline, call, following
        return self._start_as_the_loop_likes if self.scope.has_factory else self._start, call, following

    # Running

    @override
    def _start_ready(
        self, count: int, start: Callable[[T, AsyncFn[T, U]], None], call: AsyncFn[T, U], following: AsyncFn[T, U]
    ) -> int:
        """Do what `Pump._start_ready` does, with `_start` written out: 0.1 us less an item."""
        if start != self._start:
            return super()._start_ready(count, start, call, following)
        task_of, running, before = self._task_of, self.running, self._taken
        for item in self.upstream.ready_items(count):
            index = self._taken
            self._taken = index + 1
            coroutine = self._call(index, item, call)
            try:
                task = task_of(coroutine)
            except BaseException:
                coroutine.close()
                raise
            if not task.done():
                running[index] = task
                if self._stopping:
                    task.cancel(self.scope.reason)
            if self._exhausted:
                break
            call = following
        return self._taken - before

    def _start_inline(self, item: T, work: AsyncFn[T, U]) -> None:
        """Call a plain function at once; start a task only if it returns an awaitable."""
        index = self._taken
        self._taken = index + 1
        assert self.plan.inline is not None
        began = self.scope.clock() if work is self.measured_work else None
        context = self.scope.context.copy()
        try:
            value = context.run(self.plan.inline, item)
        except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
            self._raised(index, item, error)
            return
        if began is not None:
            self._returned_inline(began)
        if isinstance(value, Later):
            self._run(index, item, cast("Later[U]", value), context)
        else:
            self._returned(index, item, value)

    def _returned_inline(self, began: float) -> None:
        """Note how long a call has had the loop to itself."""
        seconds = self.meter.returned(began)
        if seconds >= BLOCKED and self.plan.inline_name is not None:
            self.scope.blocked.note(self.name, self.plan.inline_name, seconds)

    def _start_errand(self, item: T, work: AsyncFn[T, U]) -> None:
        """Have the call made elsewhere, without a task."""
        index = self._taken
        self._taken = index + 1
        assert self._errands is not None
        try:
            began = self.scope.clock() if work is self.measured_work else None
            self.running[index] = self._errands.begin(index, item, began)
        except BaseException as error:  # noqa: BLE001 -- no thread can be started: it is the item's outcome
            self._raised(index, item, error)

    def _came(self, errands: Sequence[Errand]) -> None:
        """Settle the items of errands that are back."""
        self.scope.enter(partial(self._settle_errands, errands))

    def _settle_errands(self, errands: Sequence[Errand]) -> None:
        last = errands[-1]
        for errand in errands:
            self._pumping = errand is not last  # what all of them make ready is told with the last one
            if errand is last:
                self._note_results()  # of the others: it may fail
            try:
                self._settle_errand(errand)
            except Exception as error:  # noqa: BLE001 -- whatever it is, it ends the run
                self._pumping = False
                self._crashed(errand.index, error)
                return

    def _settle_errand(self, errand: Errand) -> None:
        index, item, error = errand.index, errand.item, errand.error
        del self.running[index]
        if errand.stopped and error is None:
            close_awaitable(errand.value)
            error = asyncio.CancelledError()
        if error is not None:
            errand.error = None  # its traceback may lead to the errand
            self._raised(index, item, error)
            return
        if errand.began is not None:
            self.meter.returned(errand.began)
        assert self.plan.elsewhere is not None
        try:
            value = self.plan.elsewhere.given(item, errand.value)
        except BaseException as raised:  # noqa: BLE001 -- the user's value was asked something
            self._raised(index, item, raised)
            return
        if type(value) is Later:
            self._run(index, item, cast("Later[U]", value))
            if index in self.running:
                self._settled()
        else:
            self._returned(index, item, value)

    @override
    async def _call(self, index: int, item: T, work: AsyncFn[T, U]) -> None:
        """Settle the item in its own task: a callback of the task would cost a pass of the loop.

        A call that returns during the pump that started it is not in `running` yet.
        """
        try:
            try:
                value = await work(item)
            except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
                await self._failed_call(index, item, error)
                return
            pumping = self._pumping
            if not pumping:
                self.running.pop(index, None)
            if value is DROPPED or not self._stores:
                self._returned(index, item, value)
                return
            self._results[index] = value
            if not pumping:
                self._stored()
        except Exception as error:  # noqa: BLE001 -- whatever it is, it ends the run
            self._crashed(index, error)

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
            self._results[index] = Ok(value, index) if self.in_band else value
            if not self._pumping:
                self._stored()
            return
        if not self._pumping:
            self._settled()

    def _stored(self) -> None:
        """Note a result that waits now; settle only if somebody is to be told of it, or a place may be free."""
        waiting, meter = len(self._results), self.meter
        if waiting > meter.peak_buffered:
            meter.note_buffered(waiting)
        if (
            self._asked
            or not (self._scheduled or (meter.waits_for and waiting + len(self.running) >= self.bound))
            or self.waiting_room is not None
        ):
            self._settled()

    @override
    def _keep(self, index: int, value: Any) -> None:
        self._results[index] = value
        self._note_results()

    # Stopping

    @override
    def _halt(self, index: int) -> None:
        self._stores = False
        super()._halt(index)

    # Statistics

    @override
    def _note_peaks(self, last: int) -> None:
        running, waiting = len(self.running), len(self.finished)
        held = running + waiting + (self.meter.last_settled == last)
        self.meter.note_peaks(running - self._aside + (last not in self.running), held, waiting)

    def _note_results(self) -> None:
        """Note how many results wait, after one has come while nothing was pumped."""
        waiting = len(self.finished)
        if waiting > self.meter.peak_buffered:
            self.meter.note_buffered(waiting)

    @override
    def close(self) -> None:
        super().close()
        self._discarded += len(self.finished)
        self._results.clear()
        del self.work, self.measured_work, self._errands  # they hold this window


class LazyTasks[T, U]:
    """Tasks that a task factory starts lazily: each begins in a later pass of the loop, or never, if cancelled before.

    Holds those that have not begun; `never_began(index, item)` is called for each that never will (gh-116048).
    """

    def __init__(self, scope: Scope, never_began: Callable[[int, T], None]) -> None:
        self._scope = scope
        self._never_began = never_began
        self._items: dict[asyncio.Task[None], tuple[int, T, AsyncFn[T, U]]] = {}
        self._waiting: dict[asyncio.Task[None] | None, None] = {}  # those that have begun too late in a turn, in order

    def __len__(self) -> int:
        return len(self._items)

    def note(
        self, task: asyncio.Task[None], call: Coroutine[Any, Any, None], index: int, item: T, work: AsyncFn[T, U]
    ) -> None:
        """Remember `task` and its `call`, unless it has begun already."""
        if inspect.getcoroutinestate(call) == inspect.CORO_CREATED:
            self._items[task] = index, item, work
            self._scope.unbegun += 1
            task.add_done_callback(self._done)

    async def begin(self) -> None:
        """Begin the current task after those before it; when the turn is over, in a later pass of the loop (P9)."""
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
