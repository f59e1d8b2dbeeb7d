"""The window of one place, without a buffer: while nothing runs and nothing waits, it is a loop.

High-level idea: whoever asks wants the next result, and only one call may run. So the item is taken, worked on and
handed over in the pull that asks, without the books of a pump; readers that take what is there (`ready_items`) have a
whole loop of that. A call that waits goes the way of every window (`pump`).
"""

from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from typing import Any, Final, cast, override

from penstock.core.clock import now
from penstock.core.outcome import Failed, Ok
from penstock.core.plan import DROPPED, MISSING, Later, Plan
from penstock.core.scope import DEEP, Scope
from penstock.core.stage import AT_ONCE, END, PENDING, Pulled, Stage
from penstock.core.window import Window

_TURN_IS_OVER: Final[Any] = object()

_NO_LOOP: Final[Iterator[Any]] = iter(())


class OnePlace[T, U](Window[T, U]):
    """Runs one call at once, and holds its result until that is handed on (P1, P2, P3, P5, P7, P9).

    Microseconds of processor time an item, beside those of `Window` with one place: a plain function 0.7 and 3.6, a
    lambda as a predicate 0.7 and 4.8, an async function that returns at once 1.6 and 4.2.
    """

    __slots__ = ("_begins_more", "_goes_on", "_keep_result", "_loop", "_must_look", "levels", "ready_items_last")

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

    def _worked_on(self, room: int) -> Iterator[U]:
        """Give results while each call returns at once; look anew, when it goes on, whether nothing else has begun."""
        items = self.upstream.ready_items(room)
        return self._worked_on_in_tasks(items) if self.plan.inline is None else self._worked_on_at_once(items)

    def _is_idle(self) -> bool:
        """Whether more may be started, and nothing runs and nothing waits."""
        return not (self._exhausted or self._pumping or self.running or self._results)

    def _worked_on_at_once(self, items: Iterable[T]) -> Iterator[U]:
        """Do what `_work_at_once` does for each; most calls are not timed and return a result, written out here."""
        inline: Any = self.plan.inline
        meter, order, copy = self.meter, self._order, self.scope.context.copy
        running, results = self.running, self._results
        value: Any
        timed = 0 if meter.slow or self.in_band else meter.next_sample
        for item in items:
            index = self._taken
            self._pumping = True
            try:
                if index >= timed:
                    value = self._work_at_once(item)
                    timed = 0 if meter.slow or self.in_band else meter.next_sample
                else:
                    self._taken = index + 1
                    context = copy()
                    try:
                        value = context.run(inline, item)
                    except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
                        self._raised(index, item, error)
                        value = self._result()
                    else:
                        if value is DROPPED or self._stopping or type(value) is Later:
                            value = self._made(index, item, value, context)
                        else:
                            order.head = index + 1
                            self._delivered += 1
            finally:
                self._pumping = False
            if value is not MISSING:
                if self._begins_more and not self._scheduled and not self._exhausted:
                    self._schedule()
                yield value
            if self._exhausted or running or results:
                return

    def _worked_on_in_tasks(self, items: Iterable[T]) -> Iterator[U]:
        """Do what `_work_in_task` does for each; most calls are not timed, and the loop starts them at once."""
        meter, order, task_of, work = self.meter, self._order, self._task_of, self.work
        running, results = self.running, self._results
        all_timed = self.in_band or self._errands is not None or self.scope.has_factory
        timed = 0 if meter.slow or all_timed else meter.next_sample
        for item in items:
            index = self._taken
            self._pumping = True
            try:
                if index >= timed:
                    value = self._work_in_task(item)
                    timed = 0 if meter.slow or all_timed else meter.next_sample
                else:
                    self._taken = index + 1
                    call = self._call(index, item, work)
                    try:
                        task = task_of(call)
                    except BaseException:
                        call.close()
                        raise
                    if not task.done():
                        running[index] = task
                        if self._stopping:
                            task.cancel(self.scope.reason)
                        return
                    value = results.pop(index, MISSING)
                    if value is not MISSING:
                        order.head = index + 1
                        self._delivered += 1
            finally:
                self._pumping = False
            if value is not MISSING:
                if self._begins_more and not self._scheduled and not self._exhausted:
                    self._schedule()
                yield value
            if self._exhausted or running or results:
                return

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
