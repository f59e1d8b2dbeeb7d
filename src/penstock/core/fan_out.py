"""The window of `flat_map`: an input becomes many outputs, and stays open until the last of them is handed on.

At most `concurrency` inputs are open. An async iterable is read by the task of its input, which needs a permit for each
output that it makes. There are `buffer` permits for all inputs together; besides them the head (unordered: every input)
may make one output when it has none. A plain iterable is read as its outputs are pulled.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, cast, override

from penstock.core.clock import now
from penstock.core.closing import aclose, close
from penstock.core.errors import AttemptTimeout, OptionError, as_failure
from penstock.core.limited import Hold, Limits
from penstock.core.outcome import Failed, Ok
from penstock.core.plan import MISSING, Call, Gate, Plan
from penstock.core.retry import Exhausted, retrying
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.core.window import LOOK, Window

PASSES: Final = 2
"""Passes of the loop between two rounds while an input has nothing: one to wake it, one for it to give an output."""

type Fan[U] = Iterable[U] | AsyncIterable[U]


AT_HAND: Final = (list, tuple, set, frozenset, dict, deque)
"""Iterables whose items are in memory already; what else there is (`range`, a query) may make them when it is read."""

EXHAUSTED: Final[Any] = object()
"""What an input gives when its last output has been taken."""


class Outputs[T, U]:
    """An open input and what it has come to so far."""

    __slots__ = (
        "complete",
        "failure",
        "handed_on",
        "held",
        "hold",
        "index",
        "item",
        "iterator",
        "limit",
        "making",
        "paused",
        "permit",
        "produced",
        "queued",
        "ready",
        "settled",
        "waiting",
    )

    def __init__(self, index: int, item: T) -> None:
        self.index: int = index
        self.item: T = item
        self.ready: deque[U] = deque()
        self.iterator: Iterator[U] | None = None
        self.waiting: int = 0  # of the outputs in `ready`, those that are counted
        self.paused: float = 0.0  # seconds of waiting for permits
        self.held: int = 0  # outputs that wait or are in the making; those of a collection are not counted
        self.hold: Hold | None = None
        self.making: bool = False
        self.produced: bool = False
        self.complete: bool = False  # whether nothing was cut off: its last output was made before the end of the run
        self.handed_on: bool = False
        self.queued: bool = False
        self.settled: bool = False
        self.failure: object = MISSING
        self.permit: asyncio.Future[None] | None = None
        self.limit: asyncio.Timeout | None = None

    def has_output(self) -> bool:
        """Whether `take` may give an output."""
        return bool(self.ready) or self.iterator is not None

    def spent(self) -> bool:
        """Whether the last output has been handed on."""
        return self.produced and not self.ready and self.iterator is None

    def take(self) -> Any:
        """Give the next output, MISSING if there is none yet, or EXHAUSTED."""
        if self.ready:
            return self.ready.popleft()
        if self.iterator is not None:
            return next(self.iterator, EXHAUSTED)
        return EXHAUSTED if self.produced else MISSING


class FanOut[T, U](Window[T, U]):
    """A stage whose work gives any number of outputs for an item (P1, P2, P5)."""

    def __init__(self, scope: Scope, upstream: Stage[T], plan: Plan[T, Any]) -> None:
        self.finished: dict[int, Outputs[T, U]] = {}  # every open input, whether or not it still runs
        bare = plan.replaced(retry=None, timeout=None, limits=None, gate=None)
        super().__init__(scope, upstream, bare, self.finished)
        self.meter.times_all = True
        self.head: int = 0
        self._ordered = plan.ordered is True
        self._timeout = plan.timeout
        self._buffer = plan.buffer
        self._held = 0
        self._holding = 0
        self._outputs_waiting = 0
        self._available: deque[Outputs[T, U]] = deque()
        self._making = 0  # inputs that make an output
        self._given = 0  # outputs in this round: one of each input that has some
        self._passes_due = 0
        self._waiting: dict[int, Outputs[T, U]] = {}
        self._attempt: Callable[[Outputs[T, U]], Awaitable[None]] = self._produce
        if plan.limits is not None:
            self._attempt = partial(self._produce_limited, plan.limits)
        self._may_retry = plan.retry is not None
        if plan.retry is not None:
            self._attempt = retrying(
                self._attempt, plan.retry, self._retry, self._may_repeat, self._start_over, stage=plan.name
            )
        if plan.gate is not None:
            self._attempt = partial(self._gated, plan.gate, self._attempt)

    def _may_repeat(self, outputs: Outputs[T, U]) -> bool:
        return not (outputs.handed_on or self._stopping)

    def _start_over(self, outputs: Outputs[T, U]) -> None:
        """Forget the outputs of an attempt that failed: they must not be handed on while the next one is waited for."""
        self._drop_outputs(outputs)
        self._grant(self.finished.get(self.head))

    @override
    def _room(self) -> int:
        return self.concurrency - len(self.finished) - self._kept_places

    # Producing

    @override
    def _start(self, item: T, work: Call[T, U]) -> None:
        index = self._taken
        self._taken = index + 1
        self.finished[index] = Outputs(index, item)
        self._run(index, item, work)

    @override
    def _starter(self) -> Callable[[T, Call[T, U]], None]:
        return self._start

    @override
    async def _call(self, index: int, item: T, work: Call[T, U]) -> None:
        outputs = self.finished[index]
        try:
            try:
                await self._attempt(outputs)
            except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
                await self._failed_call(index, item, error)
            else:
                self.running.pop(index, None)
                self._produced(outputs)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it ends the run
            self._crashed(index, error)

    async def _gated(
        self, gate: Gate[T], attempt: Callable[[Outputs[T, U]], Awaitable[None]], outputs: Outputs[T, U]
    ) -> None:
        known = await gate(outputs.item)
        if known is MISSING:
            await attempt(outputs)
        else:
            outputs.ready.extend(known)

    async def _produce_limited(self, limits: Limits, outputs: Outputs[T, U]) -> None:
        outputs.hold = Hold(limits, self.name, outputs.item, self.meter)
        await outputs.hold.during(self._produce, outputs)

    async def _produce(self, outputs: Outputs[T, U]) -> None:
        """Make one attempt: what an earlier one made and nobody took is forgotten."""
        self._drop_outputs(outputs)
        outputs.limit = asyncio.timeout(self._timeout)
        outputs.paused = 0.0
        began = self.scope.clock()
        try:
            async with outputs.limit:
                fan = await cast("Awaitable[Any]", self.work(outputs.item))
                if isinstance(fan, AsyncIterable):
                    await self._read(outputs, aiter(cast("AsyncIterable[U]", fan)))
                elif isinstance(fan, AT_HAND):
                    if not self._stopping:  # else it has swallowed its cancellation
                        outputs.ready.extend(cast("Iterable[U]", fan))
                elif isinstance(fan, Iterable):
                    await self._begin_reading(outputs, iter(cast("Iterable[U]", fan)))
                else:
                    raise OptionError(f"the function of stage {self.name!r} must return an iterable, got {fan!r}")
        except TimeoutError as error:
            if outputs.limit.expired():
                raise AttemptTimeout(f"timed out after {self._timeout:g} s") from error.__cause__
            raise
        self.meter.returned(began + outputs.paused)

    async def _begin_reading(self, outputs: Outputs[T, U], iterator: Iterator[U]) -> None:
        """Leave a plain iterator to be read by pulls; where it may be tried again, its first output is made here."""
        if self._may_retry and not self._stopping:
            await self._permission(outputs)
            try:
                outputs.ready.append(next(iterator))
            except BaseException as error:
                self._count(outputs, -1)
                if isinstance(error, StopIteration):
                    return
                raise
            finally:
                self._makes(outputs, making=False)
        outputs.iterator = iterator

    async def _read(self, outputs: Outputs[T, U], iterator: AsyncIterator[U]) -> None:
        try:
            while not self._stopping:  # else it has swallowed its cancellation
                await self._permission(outputs)
                try:
                    output = await anext(iterator)
                except BaseException:
                    self._count(outputs, -1)
                    raise
                finally:
                    self._makes(outputs, making=False)
                if self._stopping:  # it has swallowed its cancellation
                    self._count(outputs, -1)
                    return
                outputs.ready.append(output)
                self._made(outputs)
                if now() > self.scope.turn_ends:
                    await self.scope.pause()
        except StopAsyncIteration:
            pass
        finally:
            await aclose(iterator)

    def _made(self, outputs: Outputs[T, U]) -> None:
        self._count_waiting(outputs, len(outputs.ready))
        if not self._ordered and not outputs.queued:
            outputs.queued = True
            self._available.append(outputs)
        if self._asked:
            self._tell()

    def _produced(self, outputs: Outputs[T, U]) -> None:
        outputs.produced = True
        outputs.complete = outputs.iterator is None and not self._stopping
        if self._stopping and not outputs.ready:
            self._close_iterator(outputs)
            self._discard(outputs)
        elif outputs.spent():
            self._close_input(outputs)
        else:
            self._made(outputs)
        self._settled()

    # Permits

    async def _permission(self, outputs: Outputs[T, U]) -> None:
        """Wait until this input may make another output; its time stands still meanwhile, and it holds no limiter."""
        if self._may_make(outputs):
            self._permit(outputs)
            return
        loop, limit = self.scope.loop, outputs.limit
        assert limit is not None
        left = None if (when := limit.when()) is None else when - loop.time()
        limit.reschedule(None)
        outputs.permit = loop.create_future()
        paused = self.scope.clock()
        self._waiting[outputs.index] = outputs
        try:
            if outputs.hold is not None:
                outputs.hold.pause()
            await outputs.permit
            if outputs.hold is not None:
                await outputs.hold.resume()
        except asyncio.CancelledError:
            self._waiting.pop(outputs.index, None)
            if outputs.making:  # permitted and cancelled at once: give it back
                self._makes(outputs, making=False)
                self._count(outputs, -1)
            raise
        outputs.paused += self.scope.clock() - paused
        if left is not None:
            limit.reschedule(loop.time() + left)

    def _may_make(self, outputs: Outputs[T, U]) -> bool:
        if self._in_buffer() < self._buffer:
            return True
        return not outputs.held and (not self._ordered or outputs.index == self.head)

    def _in_buffer(self) -> int:
        """Count the outputs that take room in the buffer: all but one of the head (unordered: of each input)."""
        if not self._ordered:
            return self._held - self._holding
        head = self.finished.get(self.head)
        return self._held - (head is not None and head.held > 0)

    def _count(self, outputs: Outputs[T, U], change: int) -> None:
        had = outputs.held > 0
        outputs.held += change
        self._held += change
        self._holding += (outputs.held > 0) - had

    def _makes(self, outputs: Outputs[T, U], *, making: bool) -> None:
        self._making += making - outputs.making
        outputs.making = making

    def _count_waiting(self, outputs: Outputs[T, U], number: int) -> None:
        self._outputs_waiting += number - outputs.waiting
        outputs.waiting = number
        if self._outputs_waiting > self.meter.peak_buffered:
            self.meter.note_buffered(self._outputs_waiting)

    def _permit(self, outputs: Outputs[T, U]) -> None:
        waited = self._waiting.pop(outputs.index, None) is not None
        if waited and outputs.permit is not None:
            if outputs.permit.done():  # its task was cancelled and will not come for it
                return
            outputs.permit.set_result(None)
        self._makes(outputs, making=True)
        self._count(outputs, 1)

    def _grant(self, first: Outputs[T, U] | None) -> None:
        """Permit inputs that wait: `first` if it has no output, others as far as the buffer goes."""
        if self._stopping:
            return
        if first is not None and first.index in self._waiting and self._may_make(first):
            self._permit(first)
        while self._waiting and self._in_buffer() < self._buffer:
            self._permit(next(iter(self._waiting.values())))

    # Handing over

    @override
    def _hand_over(self) -> Any:
        while (outputs := self._first()) is not None:
            if 0 < self._given >= len(self._available) and not self._ordered and self._must_pass():
                return MISSING
            if (outputs.iterator is not None or not len(outputs.ready) & LOOK) and self._turn_is_over():
                return MISSING
            try:
                output = outputs.take()
            except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
                outputs.iterator = None
                self._raised(outputs.index, outputs.item, error)
                continue
            if output is MISSING:
                return MISSING
            self._count_waiting(outputs, min(outputs.waiting, len(outputs.ready)))
            if output is EXHAUSTED:
                outputs.complete = outputs.complete or outputs.iterator is not None
                outputs.iterator = None
                self._close_input(outputs)
                continue
            if output is outputs.failure:
                self._delivered += 1
                self._forget(outputs)
                return output
            outputs.handed_on = True
            self._given += 1
            if outputs.held > outputs.making:
                self._count(outputs, -1)
            if outputs.spent():
                self._close_input(outputs)
            else:
                self._requeue(outputs)
                self._grant(outputs)
            return Ok(output, outputs.index) if self.in_band else output
        return MISSING

    @override
    def _keep(self, index: int, value: Any) -> None:
        """Put the failure of an input behind its outputs."""
        outputs = self.finished[index]
        outputs.failure = value
        outputs.ready.append(value)
        self._made(outputs)

    @override
    def _has_next(self) -> bool:
        outputs = self._first()
        return outputs is not None and outputs.has_output() and (not self._passes_due or self._stopping)

    def _must_pass(self) -> bool:
        """Whether the loop is to have passes before the next round: an input that makes outputs may need them for one.

        As `merge` does: else one that has always an output would starve it.
        """
        if self._stopping:
            return False
        if not self._passes_due:
            self._pump(wanted=True)  # inputs that are not open yet have a share as well
            if not self._making:
                self._given = 0
                return False
            self._passes_due = PASSES
            self.scope.call_soon(self._passed)
        return True

    def _passed(self) -> None:
        if self._passes_due:
            self._passes_due -= 1
            if self._passes_due:
                self.scope.call_soon(self._passed)
            else:
                self._given = 0
                self._tell()

    def _first(self) -> Outputs[T, U] | None:
        """Find the input whose output is next."""
        if self._ordered:
            return self.finished.get(self.head)
        return self._available[0] if self._available else None

    def _requeue(self, outputs: Outputs[T, U]) -> None:
        """Give the other inputs their turn first."""
        if self._ordered:
            return
        self._available.popleft()
        outputs.queued = outputs.has_output()
        if outputs.queued:
            self._available.append(outputs)

    def _close_input(self, outputs: Outputs[T, U]) -> None:
        """Settle an input that has no output left."""
        if not outputs.settled:
            outputs.settled = True
            if outputs.handed_on:
                self._delivered += 1
            else:
                self._dropped += 1
            if outputs.complete and self.plan.on_through is not None:
                self.plan.on_through(outputs.item)
        self._forget(outputs)
        if not self._scheduled and not self._exhausted:
            self._schedule()

    @override
    def _raised(self, index: int, item: T, error: BaseException) -> None:
        outputs = self.finished.get(index)
        if outputs is not None:
            outputs.produced = True
            outputs.limit = None  # it knows the task, which may end with an error that leads here
            cause = as_failure(error.error if isinstance(error, Exhausted) else error)
            outputs.settled = not self.in_band or self._stopping or not isinstance(cause, Exception)
            if outputs.settled and not outputs.ready:
                self._forget(outputs)
        super()._raised(index, item, error)

    def _forget(self, outputs: Outputs[T, U]) -> None:
        self.finished.pop(outputs.index, None)
        self._drop_outputs(outputs)
        while self.head < self._taken and self.head not in self.finished:
            self.head += 1
        self._grant(self.finished.get(self.head))

    def _drop_outputs(self, outputs: Outputs[T, U]) -> None:
        self._count(outputs, outputs.making - outputs.held)
        outputs.ready.clear()
        outputs.failure = MISSING  # its traceback may lead to the frame that holds `outputs`
        self._count_waiting(outputs, 0)
        if outputs.queued:
            outputs.queued = False
            self._available.remove(outputs)

    # Statistics

    @override
    def _note_peaks(self, last: int) -> None:
        running = len(self.running) + (last not in self.running)
        self.meter.note_peaks(running, len(self.finished) + (last not in self.finished), self._outputs_waiting)

    @override
    def _note_results(self) -> None:
        """Do nothing: outputs are counted as they come."""

    @override
    def _count_finished(self) -> tuple[int, int]:
        inputs = list(self.finished.values())  # at one stroke: another thread may ask
        return sum(outputs.produced and not outputs.settled for outputs in inputs), self._outputs_waiting

    # Stopping

    @override
    def _discard_behind(self, index: int) -> None:
        """Keep outputs that are there and next in order; an iterator is not read any further."""
        lazy = [outputs for outputs in self.finished.values() if outputs.iterator is not None]
        last = min([index, *(outputs.index for outputs in lazy)])
        for outputs in lazy:
            self._close_iterator(outputs)
        for outputs in list(self.finished.values()):
            if self._ordered and outputs.index > last:
                self._drop_outputs(outputs)
            if outputs.produced and not outputs.ready and outputs.index != index:
                self._discard(outputs)

    def _close_iterator(self, outputs: Outputs[T, U]) -> None:
        iterator, outputs.iterator = outputs.iterator, None
        try:
            close(iterator)
        except BaseException as error:  # noqa: BLE001 -- raised from leaving, whatever it is
            failed = Failed(as_failure(error), outputs.index, outputs.item, self.name)
            self.scope.cleanup_failed(self._shown(failed))

    def _discard(self, outputs: Outputs[T, U]) -> None:
        if not outputs.settled:
            outputs.settled = True
            self._discarded += 1
        self._drop_outputs(outputs)
        self.finished.pop(outputs.index, None)  # it may be gone: what swallowed its cancellation came back late

    @override
    def close(self) -> None:
        super().close()
        self._passes_due = 0
        del self._attempt
        for outputs in list(self.finished.values()):
            self._discard(outputs)
