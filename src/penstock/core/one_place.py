"""The window of one place, without a buffer: while nothing runs and nothing waits, it is a loop.

High-level idea: whoever asks wants the next result, and only one call may run. So the item is taken, worked on and
handed over in the pull that asks, without the books of a pump; readers that take what is there (`ready_items`) have a
whole loop of that. A call that waits goes the way of every window (`pump`).

Where calls return at once, the next ones are bare: the task of an item runs the coroutine of the work itself, and the
loop settles the item. A task is made before it is begun, as what ends the program (`SystemExit`) is raised by what
begins it, and nobody would have the task, which reports it then. See `docs/decisions.md`, "A task per item".
"""

from asyncio import Task
from collections.abc import Callable, Iterator
from contextvars import Context
from functools import partial
from inspect import CO_COROUTINE
from types import FunctionType, MethodType
from typing import Any, Final, cast, override

from penstock.core.clock import now
from penstock.core.outcome import Failed, Ok
from penstock.core.plan import DROPPED, MISSING, Later, Plan
from penstock.core.scope import DEEP, Scope
from penstock.core.stage import AT_ONCE, END, PENDING, Pulled, Stage
from penstock.core.window import Window

_TURN_IS_OVER: Final[Any] = object()

TRUST: Final = 64
"""Calls in a row that return at once before the next ones are bare: one that waits then costs what 13 have saved."""

_NO_LOOP: Final[Iterator[Any]] = iter(())


class OnePlace[T, U](Window[T, U]):
    """Runs one call at once, and holds its result until that is handed on (P1, P2, P3, P5, P7, P9).

    Microseconds of processor time an item, beside those of `Window` with one place: a plain function 0.7 and 3.6, a
    lambda as a predicate 0.7 and 4.8, an async function that returns at once 1.4 and 4.2.
    """

    __slots__ = (
        "_begin",
        "_begins_more",
        "_goes_on",
        "_keep_result",
        "_last_waited",
        "_loop",
        "_may_be_bare",
        "_must_look",
        "levels",
        "ready_items_last",
    )

    looks_at_the_clock = True
    has_ready_items = True

    def __init__(self, scope: Scope, upstream: Stage[T], plan: Plan[T, U]) -> None:
        super().__init__(scope, upstream, plan.replaced(ordered=True))  # with one place, there is one order
        self._must_look = not upstream.looks_at_the_clock
        self._begins_more = True  # in a turn, if nobody has asked for the next result until then
        self._keep_result: Callable[[Any], object] | None = None  # of a reader that takes all
        self.levels: int = upstream.levels + 1 if isinstance(upstream, OnePlace) else 1
        self.ready_items_last: bool = upstream.ready_items_last and self.levels <= DEEP
        self._goes_on = False
        self._loop: Iterator[U] = _NO_LOOP
        self._begin: Callable[[Task[Any], Any], None] = partial(
            cast("Any", Task).__init__, loop=scope.loop, eager_start=True
        )
        self._last_waited = -1
        self._may_be_bare = (
            plan.inline is None
            and self._errands is None
            and not scope.has_factory
            and all(map(makes_coroutines, (self.work, self.measured_work)))
        )

    @staticmethod
    def fits(plan: Plan[Any, Any]) -> bool:
        """Whether a plan asks for no more than one place."""
        return plan.concurrency == 1 and not plan.buffer and plan.adaptive is None and not plan.keyed

    @override
    def pull(self, room: int) -> Pulled[U]:
        if self._results:
            value = self._result()
            if value is MISSING:
                return super().pull(room)
        elif self._exhausted or self._pumping or self.running or self.scope.depth > DEEP:
            return super().pull(room)
        else:
            self._pumping = True
            try:
                value = self.scope.enter(self._next)
            finally:
                self._pumping = False
        if value is PENDING:
            self._asked = True
            if not self._scheduled and (self.meter.waits_for or not self.running):
                self._note_wait()
            return value
        if value is _TURN_IS_OVER:
            return super().pull(room)
        if value is END:
            self._exhausted = True
            return value
        if self._begins_more and not self._scheduled and not self._exhausted:
            self._schedule()
        return value  # type: ignore[no-any-return] # a U; Any spares a cast per item

    @override
    def give_to(self, keep: Callable[[Any], object]) -> None:
        """Give the result of a call that has waited where the call ends: to wake its reader takes a quarter more."""
        self._keep_result = keep
        self._begins_more = False  # who takes all asks at once, and the turn would find the place taken

    def _next(self) -> Any:
        """Go on with the loop where the last pull has left it, an eighth less than a pull of each; or work on items."""
        if self._goes_on:
            self._goes_on = False
            self._loop = self._worked_on(AT_ONCE)
        value = next(self._loop, MISSING)
        if value is not MISSING:
            return value
        return PENDING if self.running else self._work_on_next()

    def _work_on_next(self) -> Any:
        """Work on items until one has a result; return that, PENDING, END or that the turn is over."""
        pull, must_look = self.upstream.pull, self._must_look
        work_on = self._work_in_task if self.plan.inline is None else self._work_at_once
        while not self._exhausted:
            if must_look and now() > self.scope.turn_ends:
                return _TURN_IS_OVER
            item = pull(1)
            if item is PENDING or item is END:
                return item
            value = work_on(item)
            if value is not MISSING:
                self._goes_on = self.ready_items_last and self._begins_more  # else `ready_items` is asked
                return value
            if self.running:
                return PENDING
        return END

    @override
    def ready_items(self, room: int) -> Iterator[U]:
        if not self.scope.depth or self.levels > DEEP or not self._is_idle():
            return super().ready_items(room)
        return self._worked_on(room)

    def _worked_on(self, room: int) -> Iterator[U]:  # noqa: C901, PLR0912 -- the loop that calls nothing of this file
        """Give results while each call returns at once; look anew, when it goes on, whether nothing else has begun.

        It does what `work_on` does for each. Most calls are not timed and return a result: that is written out here,
        for a plain function in a context of its own, and for a bare call.
        """
        inline: Any = self.plan.inline
        work: Any = self.work
        work_on = self._work_in_task if inline is None else self._work_at_once
        copy, begin = self.scope.context.copy, self._begin
        new: Any = Task.__new__
        context: Context = self.scope.context
        task: Any = None
        running, results = self.running, self._results
        value: Any
        stop = self._written_out_to()
        for item in self.upstream.ready_items(room):
            index = self._taken
            self._pumping = True
            try:
                if index >= stop:
                    value = work_on(item)
                    stop = self._written_out_to()
                else:
                    self._taken = index + 1
                    try:
                        if inline is not None:
                            context = copy()
                            value = context.run(inline, item)
                        else:
                            task = new(Task)
                            begin(task, work(item))
                            if not task.done():
                                self._waits_bare(index, item, task)
                                return
                            value = task.result()
                    except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
                        self._raised_bare(index, item, task, error)
                        task = None  # it holds the error, and the traceback of that leads here
                        value = self._result()
                    else:
                        if value is DROPPED or self._stopping or (inline is not None and type(value) is Later):
                            value = self._made(index, item, value, context)
                        else:
                            self._delivered += 1  # the order has nothing to keep, and looks itself once it has
            finally:
                self._pumping = False
            if value is not MISSING:
                if self._begins_more and not self._scheduled and not self._exhausted:
                    self._schedule()
                yield value
            if self._exhausted or running or results:
                return

    def _written_out_to(self) -> int:
        """Return the index from which on a call needs all of `_work_in_task` or `_work_at_once`: it is timed, say."""
        if self.meter.slow or self.in_band:
            return 0
        is_bare = self._may_be_bare and self._taken - self._last_waited > TRUST
        return self.meter.next_sample if is_bare or self.plan.inline is not None else 0

    def _is_idle(self) -> bool:
        """Whether more may be started, and nothing runs and nothing waits."""
        return not (self._exhausted or self._pumping or self.running or self._results)

    def _work_at_once(self, item: T) -> Any:
        """Do what `_start_inline` does, and return the result; MISSING if there is none, or none yet."""
        index, meter = self._taken, self.meter
        self._taken = index + 1
        assert self.plan.inline is not None
        began = self.scope.clock() if index >= meter.next_sample or meter.slow else None
        context = self.scope.context.copy()
        try:
            value: Any = context.run(self.plan.inline, item)
        except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
            self._raised(index, item, error)
            return self._result()
        if began is not None:
            meter.note_sample(index)
            self._returned_inline(began)
        return self._made(index, item, value, context)

    def _made(self, index: int, item: T, value: Any, context: Context) -> Any:
        """Count what a call made, and return the result; MISSING if there is none, or none yet."""
        if type(value) is Later:
            self._run(index, item, cast("Later[U]", value), context)
            return self._result()
        if value is DROPPED or self._stopping:
            self._returned(index, item, value)
            return self._result()
        if not self.meter.peak_buffered:
            self.meter.note_peaks(1, 1, 1)
        self._order.head = self._taken
        self._delivered += 1
        return Ok(value, index) if self.in_band else value

    def _work_in_task(self, item: T) -> Any:
        """Start a call, and return its result; MISSING if there is none, or none yet."""
        meter, work = self.meter, self.work
        if self._taken >= meter.next_sample or meter.slow:
            meter.note_sample(self._taken)
            work = self.measured_work
        if self._errands is not None:
            self._start_errand(item, work)
        elif self.scope.has_factory:
            self._start_as_the_loop_likes(item, work)
        else:
            self._start(item, work)
        return self._result()

    # Bare calls

    def _raised_bare(self, index: int, item: T, task: Task[Any] | None, error: BaseException) -> None:
        """Settle the item of a bare call, or of one without a task, that raised at once."""
        if task is not None and task.done() and not task.cancelled():
            task.exception()  # what ends the program came before it was asked for, and the task would report it
        self._raised(index, item, error)

    def _waits_bare(self, index: int, item: T, task: Task[Any]) -> None:
        """Have the item of a bare call that waits settled when its task is over, a pass of the loop after that."""
        task.add_done_callback(partial(self._ended_bare, index, item))
        self.running[index] = task
        if self._stopping:
            task.cancel(self.scope.reason)

    def _ended_bare(self, index: int, item: T, task: Task[Any]) -> None:
        try:
            settling = self.scope.spawn(self._call(index, item, Later(task)))
        except Exception as error:  # noqa: BLE001 -- whatever it is, it ends the run
            self._crashed(index, error)
            return
        if not settling.done():  # it keeps the place until a thread is back
            self.running[~index] = settling

    def _result(self) -> Any:
        """Remove and count the result of the call that was started last; MISSING if there is none, or none yet."""
        taken, meter = self._taken, self.meter
        value = self._results.pop(taken - 1, MISSING)
        if value is MISSING:
            if not meter.peak_running:
                meter.note_peaks(1, 1, 0)
            return MISSING
        if not meter.peak_buffered:
            meter.note_peaks(1, 1, 1)
        self._order.head = taken
        if self.in_band and type(value) is Failed:
            self._failed += 1
        else:
            self._delivered += 1
        return value

    @override
    def _stored(self) -> None:
        """Tell of the result of a call that has waited."""
        self._last_waited = self._taken
        if not self.meter.peak_buffered:
            self.meter.note_peaks(1, 1, 1)
        if self._asked and self._keep_result is None:
            self._asked = False
            self.on_ready()
        else:
            self._settled()

    @override
    def _settled(self) -> None:
        """Go on for a reader that takes all and waits, with a look at what is there; else do what every window does."""
        if (keep := self._keep_result) is None or not self._asked or self._pumping or self._stopping:
            super()._settled()
            return
        self._asked = False
        self.scope.begin_turn()
        while (value := self.pull(1)) is not PENDING:
            if value is END:
                self.on_ready()
                return
            keep(value)

    @override
    def take_turn(self) -> None:
        self._loop = _NO_LOOP  # its reader does something else, and it holds the item and the result of the last pull
        if self.running and not self._results and not self._stopping:  # the place is taken, with nothing to tell
            self._scheduled = False
        else:
            super().take_turn()

    @override
    def close(self) -> None:
        super().close()
        self._loop = _NO_LOOP  # it holds this window
        self._keep_result = None


def makes_coroutines(work: Callable[..., Any]) -> bool:
    """Whether a call of `work` runs nothing of it and gives a coroutine: an `async def`, maybe bound or partial."""
    while isinstance(work, partial | MethodType):
        work = work.func if isinstance(work, partial) else work.__func__
    return isinstance(work, FunctionType) and bool(work.__code__.co_flags & CO_COROUTINE)
