"""The window of `map_batches`: one call for many items, one outcome for each item.

Each item keeps its own index, so order, errors and counters are those of items; a call is known by its first index.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import Any, override

from penstock.core.calling import composed
from penstock.core.clock import now
from penstock.core.errors import FatalError, OptionError, ResultCountError, as_failure
from penstock.core.log import LOG
from penstock.core.outcome import Failed, Ok
from penstock.core.plan import MISSING, AsyncFn, Gate, Plan
from penstock.core.retry import Exhausted, thread_back
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.core.stats import StageStats
from penstock.core.window import Window


@dataclass(frozen=True, slots=True)
class _Bad:
    """An item that failed when it stood alone; a class of its own, as a result may be anything (P6)."""

    error: BaseException
    attempts: int


class BatchWindow[T](Window[list[T], Any]):
    """Calls work with lists of up to `plan.size` items, and expects a result for each (P1, P3, P5)."""

    __slots__ = ("_starting_call",)

    def __init__(self, scope: Scope, upstream: Stage[list[T]], plan: Plan[list[T], Any]) -> None:
        super().__init__(scope, upstream, plan)
        self._starting_call = False

    @override
    def _calls(self, attempt: AsyncFn[list[T], Any]) -> tuple[AsyncFn[list[T], Any], AsyncFn[list[T], Any]]:
        self.meter.times_all = True
        call = self._composed(self.meter.timing(attempt))
        return call, call

    @override
    def _composed(self, attempt: AsyncFn[list[T], Any]) -> AsyncFn[list[T], Any]:
        return composed(
            self.plan,
            self.meter,
            attempt,
            may_retry=lambda _: not self._stopping,
            room=self.waiting_room,
            control=self.control,
            divided=self._halving,
            knowing=_knowing,
        )

    def _halving(self, first: AsyncFn[list[T], Any], once: AsyncFn[list[T], Any]) -> AsyncFn[list[T], Any]:
        return _Halving(self, first, once, lambda: self._stopping, self.plan.on_error == "raise", self._miscounted)

    def _miscounted(self, error: ResultCountError, items: int) -> None:
        """Count a call with a wrong number of results, and log the first one: halving may hide it."""
        if not self.meter.miscounted:
            what = "its items are called in halves" if items > 1 else "the item fails"
            LOG.warning("stage %r: %s; %s", self.name, error, what)
        self.meter.miscounted += 1

    @override
    def _room(self) -> int:
        return min(self.places - len(self.running), (self.bound - self._held()) // self.plan.size)

    def _held(self) -> int:
        return self._taken - self._delivered - self._dropped - self._failed - self._cancelled - self._discarded

    # Running

    @override
    def _starting(
        self,
    ) -> tuple[Callable[[list[T], AsyncFn[list[T], Any]], None], AsyncFn[list[T], Any], AsyncFn[list[T], Any]]:
        return self._start_list, self.work, self.work

    def _start_list(self, items: list[T], work: AsyncFn[list[T], Any]) -> None:
        first = self._taken
        self._taken = first + len(items)
        self.meter.note_peaks(len(self.running) - self._aside + 1, self._held(), self._count_finished()[1])
        self._starting_call = True
        try:
            self._run(first, items, work)
        finally:
            self._starting_call = False
        self._note_results()

    @override
    async def _call(self, index: int, item: list[T], work: AsyncFn[list[T], Any]) -> None:
        try:
            try:
                outcomes = await work(item)
            except BaseException as error:  # noqa: BLE001 -- any exception is the outcome of the items
                self.running.pop(index, None)
                self._raised(index, item, error)
                return
            await self._settle(index, partial(self._came_to, index, item, outcomes), thread_left_by(outcomes))
            outcomes.clear()  # the traceback of a failure leads to the frames that hold this list
        except Exception as error:  # noqa: BLE001 -- whatever it is, it ends the run
            self._crashed(index, error)

    @override
    def _never_began(self, index: int, item: list[T]) -> None:
        self.meter.never_began += len(item) - 1
        super()._never_began(index, item)

    # Settling

    def _came_to(self, first: int, items: list[T], outcomes: Sequence[Any]) -> None:
        """Settle the items of a call; items that were not tried, as one before them failed, count as cancelled."""
        if _Bad in map(type, outcomes):
            self._settle_each(first, items, outcomes)
        elif self._stopping:
            self._discarded += len(outcomes)
        else:
            results = (Ok(each, index) for index, each in enumerate(outcomes, first)) if self.in_band else outcomes
            self._order.keep_all(first, results)
        self._cancelled += len(items) - len(outcomes)
        if not self._pumping:
            self._note_results()
            self._settled()

    def _settle_each(self, first: int, items: list[T], outcomes: Sequence[Any]) -> None:
        for index, outcome in enumerate(outcomes, first):
            if isinstance(outcome, _Bad):
                error = as_failure(outcome.error)
                self._fail(Failed(error, index, items[index - first], self.name, outcome.attempts))
            elif self._stopping:
                self._discarded += 1
            else:
                self._results[index] = Ok(outcome, index) if self.in_band else outcome

    @override
    def _raised(self, index: int, item: list[T], error: BaseException) -> None:
        """Settle the items of a call whose error is the fault of none of them."""
        if self._stopping and isinstance(error, asyncio.CancelledError):
            self._came_to(index, item, [])
            return
        bad = _Bad(as_failure(error), 1)
        self._came_to(index, item, [bad] if self._stopping or self.plan.on_error == "raise" else [bad] * len(item))

    # Statistics

    @override
    def _note_peaks(self, last: int) -> None:
        """Do nothing: peaks are noted at each call."""

    @override
    def stats(self) -> StageStats:
        return replace(super().stats(), running=len(self.running) - self._aside + self._starting_call)


@dataclass(frozen=True, slots=True)
class _Halving[T]:
    """Calls `first`; if that fails, calls `once` on each half of the items, until the bad items stand alone.

    With `to_the_first`, nothing is tried after the first bad item; while `may_not()` is true, nothing more is tried.
    """

    stage: Stage[Any]  # not its scope: the frames of a failure lead here, and the scope keeps failures
    first: AsyncFn[list[T], Any]
    once: AsyncFn[list[T], Any]
    may_not: Callable[[], bool]
    to_the_first: bool
    on_miscount: Callable[[ResultCountError, int], None]

    async def __call__(self, items: list[T]) -> list[Any]:
        """Give a result or a `_Bad` for each item that was tried."""
        outcomes: list[Any] = []
        await self._try(self.first, items, 1, outcomes)
        return outcomes

    async def _try(self, call: AsyncFn[list[T], Any], items: list[T], attempts: int, outcomes: list[Any]) -> bool:
        """Append the outcomes of `items` to `outcomes`; return whether to go on. This is attempt `attempts` of each."""
        if outcomes and (back := thread_left_by(outcomes)) is not None:
            await back()
        if attempts > 1 and now() > self.stage.scope.turn_ends:
            await asyncio.sleep(0)
            self.stage.scope.begin_turn()
        try:
            outcomes += await call(items)
        except BaseException as error:
            if self.may_not() and isinstance(error, asyncio.CancelledError):
                raise
            bad = _Bad(error.error, error.attempts) if isinstance(error, Exhausted) else _Bad(error, attempts)
        else:
            return not self.may_not()  # it may have swallowed its cancellation
        if isinstance(bad.error, ResultCountError) and not self.may_not():
            self.on_miscount(bad.error, len(items))
        no_items_fault = isinstance(bad.error, OptionError | FatalError)
        whole = not isinstance(bad.error, Exception) or no_items_fault
        fatal = whole and not isinstance(as_failure(bad.error), Exception)
        stop = self.to_the_first or fatal or self.may_not()
        attempts, middle = bad.attempts + 1, len(items) // 2
        if whole or not middle or self.may_not():
            outcomes += [bad] * (1 if stop else len(items))
            del bad  # its traceback leads to this frame
            return not stop
        back = thread_back(bad.error)
        del bad  # the traceback of a later failure leads to this frame
        if back is not None:
            await back()
        return await self._try(self.once, items[:middle], attempts, outcomes) and await self._try(
            self.once, items[middle:], attempts, outcomes
        )


def _knowing[T](work: AsyncFn[list[T], list[Any]], gate: Gate[list[T]]) -> AsyncFn[list[T], list[Any]]:
    """Wrap `work`: call it only on items whose results the gate does not know."""

    async def call(items: list[T]) -> list[Any]:
        known: Any = await gate(items)
        if known is MISSING:
            return await work(items)
        unknown = [item for item, found in zip(items, known, strict=True) if found is MISSING]
        tried = await work(unknown) if unknown else []
        if (back := thread_left_by(tried)) is not None:  # what is known may stand behind it, and so hide it
            await back()
        rest = iter(tried)
        outcomes = (next(rest, MISSING) if found is MISSING else found for found in known)
        return list(takewhile(lambda outcome: outcome is not MISSING, outcomes))

    return call


def thread_left_by(outcomes: Sequence[Any]) -> Callable[[], Awaitable[None]] | None:
    """Return what waits for the thread that the call left running; None if there is none."""
    last = outcomes[-1] if outcomes else None
    return thread_back(last.error) if isinstance(last, _Bad) else None
