"""The window of `map_batches`: one call for many items, an outcome for each of them.

Items keep an index each, so that order, errors and books are those of items; a call is known by the index of its first.
"""

from asyncio import CancelledError
from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any, override

from penstock.core.errors import OptionError, as_failure
from penstock.core.order import OrderedWindow, UnorderedWindow
from penstock.core.outcome import Failed, Ok
from penstock.core.plan import Call, Plan
from penstock.core.retry import Exhausted, thread_back, timed
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.core.stats import StageStats
from penstock.core.window import Window


@dataclass(frozen=True, slots=True)
class _Bad:
    """An item that failed although it stood alone; a result may be anything else (P6)."""

    error: BaseException
    attempts: int


class BatchWindow[T](Window[list[T], Any]):
    """A stage whose work takes lists of up to `plan.size` items and gives a result for each (P1, P3, P5)."""

    def __init__(self, scope: Scope, upstream: Stage[list[T]], plan: Plan[list[T], Any], finished: Sized) -> None:
        super().__init__(scope, upstream, plan, finished)
        self.bound *= plan.size
        once = self.meter.timing(plan.work if plan.timeout is None else timed(plan.work, plan.timeout))
        self.work = self.measured_work = _Halving(self.measured_work, once, plan.on_error == "raise")
        self.meter.times_all = True

    @override
    def _room(self) -> int:
        return min(self.concurrency - len(self.running), (self.bound - self._held()) // self.plan.size)

    def _held(self) -> int:
        return self._taken - self._delivered - self._dropped - self._failed - self._cancelled - self._discarded

    # Running

    @override
    def _start(self, item: list[T], work: Call[list[T], Any]) -> None:
        first = self._taken
        self._taken = first + len(item)
        held = self._held()
        self._run(first, item, work)
        self.meter.note_peaks(len(self.running) + (first not in self.running), held, self._count_finished()[1])

    _start_as_the_loop_likes = _start

    @override
    async def _call(self, index: int, item: list[T], work: Call[list[T], Any]) -> None:
        try:
            outcomes = await work(item)
        except BaseException as error:  # noqa: BLE001 -- any exception is the outcome of the items
            self.running.pop(index, None)
            self._raised(index, item, error)
        else:
            self.running.pop(index, None)
            self._came_to(index, item, outcomes)
            outcomes.clear()  # the traceback of a failure leads to the frames that hold this list

    @override
    def _never_began(self, index: int, item: list[T]) -> None:
        self.meter.never_began += len(item) - 1
        super()._never_began(index, item)

    # Settling

    def _came_to(self, first: int, items: list[T], outcomes: Sequence[Any]) -> None:
        """Settle the items of a call; those that it left untried, as one before them failed, are cancelled."""
        for index, outcome in enumerate(outcomes, first):
            if isinstance(outcome, _Bad):
                error = as_failure(outcome.error)
                self._fail(Failed(error, index, items[index - first], self.name, outcome.attempts))
            elif self.stopping:
                self._discarded += 1
            else:
                self._keep(index, Ok(outcome, index) if self.in_band else outcome)
        self._cancelled += len(items) - len(outcomes)
        if not self._pumping:
            self._note_results()
            self._settled()

    @override
    def _raised(self, index: int, item: list[T], error: BaseException) -> None:
        """Settle the items of a call that raised what cannot be the fault of one of them."""
        if self.stopping and isinstance(error, CancelledError):
            self._came_to(index, item, [])
            return
        bad = _Bad(as_failure(error), 1)
        self._came_to(index, item, [bad] if self.stopping or self.plan.on_error == "raise" else [bad] * len(item))

    # Statistics

    @override
    def _note_peaks(self, last: int) -> None:
        """Do nothing: peaks are noted call by call."""

    @override
    def stats(self) -> StageStats:
        return replace(super().stats(), running=len(self.running))


class OrderedBatches[T](OrderedWindow[list[T], Any], BatchWindow[T]):
    """Hands results on in the order of their items (P3)."""


class UnorderedBatches[T](UnorderedWindow[list[T], Any], BatchWindow[T]):
    """Hands results on as their calls finish, those of one call in order."""


@dataclass(frozen=True, slots=True)
class _Halving[T]:
    """Calls `first`; when that fails, `once` on each half of the items, and so on until the bad ones stand alone.

    With `to_the_first`, nothing is tried after the first bad item.
    """

    first: Call[list[T], Any]
    once: Call[list[T], Any]
    to_the_first: bool

    async def __call__(self, items: list[T]) -> list[Any]:
        """A result or a `_Bad` for each item, up to the first bad one if that is enough."""
        outcomes: list[Any] = []
        await self._try(self.first, items, 1, outcomes)
        return outcomes

    async def _try(self, call: Call[list[T], Any], items: list[T], attempts: int, outcomes: list[Any]) -> None:
        """Add the outcomes of `items` to `outcomes`; this attempt is so many-th of each."""
        try:
            outcomes += await call(items)
        except OptionError:  # the fault of the function
            raise
        except Exception as error:  # noqa: BLE001 -- any other exception may be the fault of one item
            bad = _Bad(error.error, error.attempts) if isinstance(error, Exhausted) else _Bad(error, attempts)
        else:
            return
        if (back := thread_back(bad.error)) is not None:
            await back()
        attempts, middle = bad.attempts + 1, len(items) // 2
        if not middle:
            outcomes.append(bad)
        del bad  # its traceback, or that of a later failure, leads to this frame
        for half in (items[:middle], items[middle:]) if middle else ():
            await self._try(self.once, half, attempts, outcomes)
            if self.to_the_first and isinstance(outcomes[-1], _Bad):
                break
