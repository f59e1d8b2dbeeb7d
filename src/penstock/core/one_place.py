"""The window of one place, without a buffer: while nothing runs and nothing waits, it is a loop.

High-level idea: whoever asks wants the next result, and only one call may run. So the item is taken, worked on and
handed over in the pull that asks, without the books of a pump; readers that take what is there (`ready_items`) have a
whole loop of that. A call that waits goes the way of every window (`pump`).
"""

from collections.abc import Iterator
from typing import Any, Final, override

from penstock.core.clock import now
from penstock.core.outcome import Failed
from penstock.core.plan import MISSING, Plan
from penstock.core.scope import DEEP, Scope
from penstock.core.stage import END, PENDING, Pulled, Stage
from penstock.core.window import Window

_TURN_IS_OVER: Final[Any] = object()


class OnePlace[T, U](Window[T, U]):
    """Runs one call at once, and holds its result until that is handed on (P1, P2, P3, P5, P7, P9).

    Microseconds of processor time an item, beside those of `Window` with one place: a plain function 1.2 and 3.6, a
    lambda as a predicate 1.4 and 4.8, an async function that returns at once 1.8 and 4.2.
    """

    __slots__ = ("_must_look", "levels")

    looks_at_the_clock = True
    has_ready_items = True

    def __init__(self, scope: Scope, upstream: Stage[T], plan: Plan[T, U]) -> None:
        super().__init__(scope, upstream, plan)
        self._must_look = not upstream.looks_at_the_clock
        self.levels: int = upstream.levels + 1 if isinstance(upstream, OnePlace) else 1

    @staticmethod
    def fits(plan: Plan[Any, Any]) -> bool:
        """Whether a plan asks for no more than one place."""
        return plan.concurrency == 1 and not plan.buffer and plan.adaptive is None and not plan.keyed

    @override
    def pull(self, room: int) -> Pulled[U]:
        if not self._is_idle() or self.scope.is_deep:
            return super().pull(room)
        self._pumping = True
        try:
            value = self.scope.enter(self._work_on_next)
        finally:
            self._pumping = False
        if value is PENDING:
            self._asked = True
            if not self._scheduled:
                self._note_wait()
            return value
        if value is _TURN_IS_OVER:
            return super().pull(room)
        if value is END:
            self._exhausted = True
            return value
        if not self._scheduled and not self._exhausted:
            self._schedule()
        return value  # type: ignore[no-any-return] # a U; Any spares a cast per item

    def _work_on_next(self) -> Any:
        """Work on items until one has a result; return that, PENDING, END or that the turn is over."""
        start, call, following = self._starting()
        while not self._exhausted:
            if self._must_look and now() > self.scope.turn_ends:
                return _TURN_IS_OVER
            item = self.upstream.pull(1)
            if item is PENDING or item is END:
                return item
            start(item, call)
            value = self._result()
            if value is not MISSING:
                return value
            if self.running:
                return PENDING
            call = following
        return END

    @override
    def ready_items(self, room: int) -> Iterator[U]:
        if not self.scope.is_entered or self.levels > DEEP or not self._is_idle():
            yield from super().ready_items(room)
            return
        start, call, following = self._starting()
        for item in self.upstream.ready_items(room):
            self._pumping = True
            try:
                start(item, call)
            finally:
                self._pumping = False
            value = self._result()
            if value is not MISSING:
                if not self._scheduled and not self._exhausted:
                    self._schedule()
                yield value
            if not self._is_idle():
                return
            call = following

    def _is_idle(self) -> bool:
        """Whether more may be started, and nothing runs and nothing waits."""
        return not (self._exhausted or self._pumping or self.running or self._results)

    def _result(self) -> Any:
        """Remove and count the result of the call that was started last; MISSING if there is none, or none yet."""
        order, taken = self._order, self._taken
        value = self._results.pop(taken - 1, MISSING)
        if value is MISSING:
            if not self.meter.peak_running:
                self.meter.note_peaks(1, 1, 0)
            return MISSING
        if not self.meter.peak_buffered:
            self.meter.note_peaks(1, 1, 1)
        order.head = taken
        if self.in_band and type(value) is Failed:
            self._failed += 1
        else:
            self._delivered += 1
        return value

    @override
    def take_turn(self) -> None:
        if (
            self.running and not self._results and not self._stopping
        ):  # the place is taken, and there is nothing to tell
            self._scheduled = False
        else:
            super().take_turn()
