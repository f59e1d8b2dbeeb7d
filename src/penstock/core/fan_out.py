"""The window of `flat_map`: an input gives many outputs, and stays open until the last of them is handed on.

At most `concurrency` inputs are open. An async iterable is read by the task of its input, which needs a permit for each
output. There are `buffer` permits for all inputs together; besides, the head may make one output when it has none
(unordered: each input may). A plain iterable is read as its outputs are pulled. See `docs/decisions.md`, "`flat_map`
counts inputs, and a buffer of outputs", and "Fairness takes two passes of the loop".
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sized
from enum import IntEnum
from types import AsyncGeneratorType
from typing import Any, Final, cast, override

from penstock.core.at_hand import AT_HAND
from penstock.core.calling import composed
from penstock.core.clock import now
from penstock.core.closing import aclose, close
from penstock.core.errors import OptionError, as_failure, is_fault_of_item
from penstock.core.meter import RARELY, WAITED
from penstock.core.outcome import Failed, Ok
from penstock.core.plan import MISSING, AsyncFn, Gate, Later, Plan
from penstock.core.pump import LOOK
from penstock.core.retry import Exhausted, in_time
from penstock.core.scope import Scope
from penstock.core.stage import Pulled, Stage
from penstock.core.stage_limits import Hold, Limits
from penstock.core.standby import Standby
from penstock.core.window import Caller

PASSES: Final = 2
"""Passes of the loop between two rounds while an input has no output: one wakes it, one lets it give an output."""


MOVED: Final = 1_000
"""Outputs of a collection that are handed on at one stroke: so many take 30 us."""

EXHAUSTED: Final[Any] = object()
"""What `Outputs.take` returns after the last output."""


class Phase(IntEnum):
    """How far an open input has come; phases only go up, but for AT_WORK and MAKING, which alternate."""

    AT_WORK = 0
    MAKING = 1  # an output, with a permit
    CUT_OFF = 2  # the call is over; as yet, or for good, its last output was not made
    WHOLE = 3  # the call is over, and its last output was made before the end of the run
    SETTLED = 4  # it has its outcome; outputs may still be handed on


class Outputs[T, U]:
    """An open input, with its outputs that wait."""

    __slots__ = (
        "failure",
        "given",
        "held",
        "hold",
        "index",
        "item",
        "iterator",
        "limit",
        "paused",
        "permit",
        "phase",
        "ready",
        "timed",
        "waiting",
        "work",
    )

    def __init__(self, index: int, item: T, work: AsyncFn[T, Any]) -> None:
        self.index: int = index
        self.item: T = item
        self.work: AsyncFn[T, Any] = work
        self.phase: Phase = Phase.AT_WORK
        self.ready: deque[U] = deque()
        self.iterator: Iterator[U] | None = None
        self.given: int = 0  # outputs that were handed on
        self.waiting: int = 0  # of the outputs in `ready`, those that are counted
        self.timed: bool = False  # whether its attempt is
        self.paused: float = 0.0  # seconds of waiting for permits
        self.held: int = 0  # outputs that wait or are in the making; those of a collection are not counted
        self.hold: Hold | None = None
        self.failure: object = MISSING
        self.permit: Standby | None = None
        self.limit: asyncio.Timeout | None = None

    @property
    def making(self) -> bool:
        """Whether an output is being made."""
        return self.phase is Phase.MAKING

    @property
    def produced(self) -> bool:
        """Whether its call is over."""
        return self.phase >= Phase.CUT_OFF

    def has_output(self) -> bool:
        """Whether `take` may return an output."""
        return bool(self.ready) or self.iterator is not None

    def spent(self) -> bool:
        """Whether the last output has been handed on."""
        return self.produced and not self.ready and self.iterator is None

    def take(self) -> Any:
        """Return the next output, MISSING if there is none yet, or EXHAUSTED."""
        if self.ready:
            return self.ready.popleft()
        if self.iterator is not None:
            return next(self.iterator, EXHAUSTED)
        return EXHAUSTED if self.produced else MISSING


class FanOut[T, U](Caller[T, U]):
    """Runs work that gives any number of outputs for an item (P1, P2, P5)."""

    __slots__ = (
        "_attempt",
        "_available",
        "_due",
        "_given",
        "_held",
        "_holding",
        "_inline",
        "_inputs",
        "_keep_output",
        "_making",
        "_ordered",
        "_outputs_waiting",
        "_passes_due",
        "_pulled",
        "_waiting",
        "head",
    )

    def __init__(self, scope: Scope, upstream: Stage[T], plan: Plan[T, Any]) -> None:
        super().__init__(scope, upstream, plan)
        self._keep_output: Callable[[Any], object] | None = None
        self._pulled: Any = MISSING  # what a head that stood by has made for a pull
        self._inputs: dict[int, Outputs[T, U]] = {}  # every open one, whether or not it still runs
        self.finished: Sized = self._inputs
        self.meter.times_all = plan.gate is not None  # what is known is no call: it cannot be told which was not timed
        self.head: int = 0
        self._ordered = plan.ordered is True or plan.concurrency == 1
        self._held = 0
        self._holding = 0
        self._outputs_waiting = 0
        self._available: OrderedDict[int, Outputs[T, U]] = OrderedDict()  # unordered: those with an output, by turns
        self._making = 0  # inputs that make an output
        self._given = 0  # outputs in this round: one of each input that has some
        self._passes_due = 0
        self._waiting: dict[int, Outputs[T, U]] = {}
        self._due: list[Outputs[T, U]] = []  # those that may have become able to make an output
        self._attempt: AsyncFn[Outputs[T, U], None] = composed(
            plan,
            self.meter,
            self._produce,
            may_retry=self._may_repeat,
            forget=self._start_over,
            given=lambda outputs: outputs.item,
            hold=self._hold,
            knowing=self._knowing,
        )
        self._inline: Callable[[T], Any] | None = plan.inline
        if scope.trace is not None:
            self._attempt = scope.trace.calls(self.name, self._attempt)
            if scope.trace.follows_items:
                self._inline = None

    def _may_repeat(self, outputs: Outputs[T, U]) -> bool:
        return not (outputs.given or self._stopping)

    def _start_over(self, outputs: Outputs[T, U]) -> None:
        """Forget the outputs of a failed attempt: none may be handed on while the next attempt is waited for."""
        self._drop_outputs(outputs)
        self._grant(self._inputs.get(self.head))

    @override
    def _room(self) -> int:
        return self.concurrency - len(self._inputs) - self._kept_places

    # Producing

    @override
    def _starting(self) -> tuple[Callable[[T, AsyncFn[T, U]], None], AsyncFn[T, U], AsyncFn[T, U]]:
        return self._open_input if self._inline is None else self._open_inline, self.plan.work, self.plan.work

    def _open_input(self, item: T, work: AsyncFn[T, U]) -> None:
        self._inputs[self._taken] = Outputs(self._taken, item, work)
        if self.scope.has_factory:
            self._start_as_the_loop_likes(item, work)
        else:
            self._start(item, work)

    def _open_inline(self, item: T, work: AsyncFn[T, U]) -> None:
        """Call a plain function at once; start a task only if what it gives must be awaited: 7 us an input less."""
        index = self._taken
        self._taken = index + 1
        outputs = self._inputs[index] = Outputs(index, item, work)
        began, context = self.scope.clock(), self.scope.context.copy()
        try:
            later = context.run(self._fan_inline, outputs)
        except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
            self._raised(index, item, error)
            return
        if later is not None:
            outputs.work = later
            self._run(index, item, later, context)
            return
        self.meter.returned(began)
        self._produced(outputs)

    def _fan_inline(self, outputs: Outputs[T, U]) -> Later[Any] | None:
        assert self._inline is not None
        fan = self._inline(outputs.item)
        if type(fan) is Later:
            return cast("Later[Any]", fan)
        if _is_async(fan):
            return Later(_given(fan))
        self._keep_fan(outputs, fan)
        return None

    @override
    async def _call(self, index: int, item: T, work: AsyncFn[T, U]) -> None:
        outputs = self._inputs[index]
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

    def _knowing(self, attempt: AsyncFn[Outputs[T, U], None], gate: Gate[T]) -> AsyncFn[Outputs[T, U], None]:
        async def call(outputs: Outputs[T, U]) -> None:
            known = await gate(outputs.item)
            if known is MISSING:
                await attempt(outputs)
            else:
                outputs.ready.extend(known)

        return call

    def _hold(self, limits: Limits, outputs: Outputs[T, U]) -> Hold:
        outputs.hold = Hold(limits, self.name, self.meter, outputs.item)
        return outputs.hold

    async def _produce(self, outputs: Outputs[T, U]) -> None:
        """Make one attempt, and first forget the outputs of the attempt before that nobody took."""
        self._drop_outputs(outputs)
        timeout = self.plan.timeout
        outputs.limit = None if timeout is None else asyncio.timeout(timeout)
        meter = self.meter
        outputs.timed = meter.times_all or meter.slow or outputs.index >= meter.next_sample
        began = 0.0
        if outputs.timed:
            meter.next_sample = outputs.index + RARELY
            outputs.paused = 0.0
            WAITED.set(0.0)
            began = self.scope.clock()
        if outputs.limit is None:
            await self._fan_out(outputs)
        else:
            await in_time(self._fan_out(outputs), outputs.limit, timeout)
        if outputs.timed:
            meter.returned(began + outputs.paused + WAITED.get())

    async def _fan_out(self, outputs: Outputs[T, U]) -> None:
        fan = await outputs.work(outputs.item)
        if _is_async(fan):
            await self._read(outputs, aiter(cast("AsyncIterable[U]", fan)))
            return
        self._keep_fan(outputs, fan)
        if outputs.iterator is not None and self.plan.retry is not None and not self._stopping:
            await self._make_first(outputs, outputs.iterator)

    def _keep_fan(self, outputs: Outputs[T, U], fan: object) -> None:
        """Keep the items of a collection, and any other plain iterable for pulls to read."""
        if isinstance(fan, AT_HAND):
            if not self._stopping:  # else it has swallowed its cancellation
                outputs.ready.extend(cast("Iterable[U]", fan))
        elif isinstance(fan, Iterable):
            outputs.iterator = iter(cast("Iterable[U]", fan))
        else:
            raise OptionError(f"the function of stage {self.name!r} must return an iterable, got {fan!r}")

    async def _make_first(self, outputs: Outputs[T, U], iterator: Iterator[U]) -> None:
        """Make the first output of a plain iterator where it can be retried."""
        outputs.iterator = None
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
        ready, was_pulled = (
            outputs.ready,
            False,
        )  # the frame of a failure keeps these: never the scope, which keeps failures
        try:
            while not self._stopping:  # else it has swallowed its cancellation
                if self._keep_output is None or outputs.held or outputs.index != self.head:
                    if self._may_make(outputs) and not was_pulled:
                        self._permit(outputs)
                    else:
                        await self._stand_by(outputs)
                try:
                    output = await anext(iterator)
                except BaseException:
                    self._give_back(outputs)
                    raise
                if self._stopping:  # it has swallowed its cancellation
                    self._give_back(outputs)
                    return
                was_pulled = outputs.phase is not Phase.MAKING and self._keep_now(outputs, output)
                if was_pulled:
                    continue
                if outputs.phase is Phase.MAKING:
                    self._makes(outputs, making=False)
                    ready.append(output)
                    self._made(outputs)
                if now() > self.scope.turn_ends:
                    await self.scope.pause()
        except StopAsyncIteration:
            pass
        finally:
            await aclose(iterator)

    def _keep_now(self, outputs: Outputs[T, U], output: U) -> bool:
        """Hand on an output of the head where it is made; return whether a pull has asked for this one only."""
        outputs.given += 1
        if not self.meter.peak_buffered:
            self.meter.note_buffered(1)
        value = Ok(output, outputs.index) if self.in_band else output
        if self._keep_output is None:
            self._pulled = value
            return True
        self._keep_output(value)
        return False

    def _give_back(self, outputs: Outputs[T, U]) -> None:
        """Give back the permit of an output that was not made."""
        if outputs.phase is Phase.MAKING:
            self._makes(outputs, making=False)
            self._count(outputs, -1)

    def _made(self, outputs: Outputs[T, U]) -> None:
        self._count_waiting(outputs, len(outputs.ready))
        if not self._ordered:
            self._available.setdefault(outputs.index, outputs)
        self._give()
        if self._asked:
            self._tell()

    @override
    def give_to(self, keep: Callable[[Any], object]) -> None:
        """Give outputs of an async generator as it makes them: waking its reader and it again takes 14 us an output."""
        if self._ordered and self.plan.retry is None:  # inputs take turns; what was given is not tried again
            self._keep_output = keep

    def _give(self) -> None:
        if (keep := self._keep_output) is None:
            return
        while (output := self._hand_over()) is not MISSING:
            if self.in_band and type(output) is Failed:
                self._delivered -= 1
                self._failed += 1
            keep(output)

    def _produced(self, outputs: Outputs[T, U]) -> None:
        outputs.phase = Phase.WHOLE if outputs.iterator is None and not self._stopping else Phase.CUT_OFF
        if self._stopping and not outputs.ready:
            self._close_iterator(outputs)
            self._discard(outputs)
        elif outputs.spent():
            self._close_input(outputs)
            self._give()
        else:
            self._made(outputs)
        self._settled()

    # Permits

    async def _permission(self, outputs: Outputs[T, U]) -> None:
        """Wait until this input may make another output; meanwhile its timeout stands still and it holds no limiter."""
        if self._may_make(outputs):
            self._permit(outputs)
        else:
            await self._stand_by(outputs)

    async def _stand_by(self, outputs: Outputs[T, U]) -> None:
        loop, limit = self.scope.loop, outputs.limit
        left = 0.0
        if limit is not None:
            left = cast("float", limit.when()) - loop.time()
            limit.reschedule(None)
        if outputs.permit is None or outputs.permit.is_cancelled:
            outputs.permit = Standby(loop)
        if outputs.timed:
            outputs.paused -= self.scope.clock()
        self._waiting[outputs.index] = outputs
        try:
            if outputs.hold is not None:
                outputs.hold.pause()
            await outputs.permit
            if outputs.hold is not None:
                await outputs.hold.resume()
        except asyncio.CancelledError:
            self._waiting.pop(outputs.index, None)
            self._give_back(outputs)  # if it was permitted and cancelled at once
            raise
        if outputs.timed:
            outputs.paused += self.scope.clock()
        if limit is not None:
            limit.reschedule(loop.time() + left)

    def _may_make(self, outputs: Outputs[T, U]) -> bool:
        if not outputs.held and (not self._ordered or outputs.index == self.head):
            return True
        return self._in_buffer() < self.plan.buffer

    def _in_buffer(self) -> int:
        """Count the outputs that take room in the buffer: all but one of the head, or, unordered, of each input."""
        if not self._ordered:
            return self._held - self._holding
        head = self._inputs.get(self.head)
        return self._held - (head is not None and head.held > 0)

    def _count(self, outputs: Outputs[T, U], change: int) -> None:
        had = outputs.held
        outputs.held = had + change
        self._held += change
        if not had or not outputs.held:
            self._holding += (outputs.held > 0) - (had > 0)

    def _makes(self, outputs: Outputs[T, U], *, making: bool) -> None:
        if making is not (outputs.phase is Phase.MAKING):
            self._making += 1 if making else -1
            outputs.phase = Phase.MAKING if making else Phase.AT_WORK

    def _count_waiting(self, outputs: Outputs[T, U], number: int) -> None:
        self._outputs_waiting += number - outputs.waiting
        outputs.waiting = number
        if self._outputs_waiting > self.meter.peak_buffered:
            self.meter.note_buffered(self._outputs_waiting)

    def _permit(self, outputs: Outputs[T, U]) -> None:
        self._makes(outputs, making=True)
        self._count(outputs, 1)

    def _grant(self, first: Outputs[T, U] | None) -> None:
        """Have inputs that wait make outputs in the next turn: `first` if it has none, others while there is room."""
        if not self._waiting or self._stopping:
            return
        if first is not None and first.index in self._waiting:
            self._due.append(first)
        if not self._scheduled and (self._due or self._in_buffer() < self.plan.buffer):
            self._schedule()

    @override
    def _pump(self, *, wanted: bool) -> None:
        """Let inputs that are open make outputs for which there is room; then open more."""
        if self._waiting and not self._pumping and not self._stopping:
            self._pumping = True
            try:
                self._let_make()
            finally:
                self._pumping = False
            if wanted and self._ordered and self._has_next():
                return
        super()._pump(wanted=wanted)

    def _let_make(self) -> None:
        while self._due:
            outputs = self._due.pop()
            if outputs.index in self._waiting and self._may_make(outputs):
                self._resume(outputs)
        while self._waiting and self._in_buffer() < self.plan.buffer:
            self._resume(next(iter(self._waiting.values())))

    def _resume(self, outputs: Outputs[T, U]) -> None:
        """Let an input that waits make an output now: a future would wake it in another pass of the loop."""
        del self._waiting[outputs.index]
        permit = outputs.permit
        assert permit is not None
        if not permit.is_cancelled:  # else its task will not come for it
            self._permit(outputs)
            permit.resume()

    # Handing over

    @override
    def pull(self, room: int) -> Pulled[U]:
        """Do what `Pump.pull` does; a head that stands by makes its next output at once, and it never waits."""
        head = self._inputs.get(self.head)
        if head is None or head.index not in self._waiting or not self._may_be_pulled(head):
            return super().pull(room)
        value = self._output_of(head)
        return super().pull(room) if value is MISSING else value

    def _may_be_pulled(self, head: Outputs[T, U]) -> bool:
        free = self._ordered and not (head.held or self._pumping or self._stopping)
        return free and now() <= self.scope.turn_ends

    def _output_of(self, head: Outputs[T, U]) -> Any:
        """Let a head that stands by go on: return its next output; MISSING if it has ended, or waits for something."""
        del self._waiting[head.index]
        assert head.permit is not None
        self._pumping = True
        try:
            head.permit.resume()
        finally:
            self._pumping = False
        value, self._pulled = self._pulled, MISSING
        if value is not MISSING:
            self._due.append(head)
            if not self._scheduled:
                self._schedule()
        elif self._keep_output is None and head.phase is Phase.AT_WORK and head.index not in self._waiting:
            self._permit(head)
        return value

    @override
    def _hand_over(self) -> Any:
        while (outputs := self._first()) is not None:
            if self._must_wait(outputs):
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
                if outputs.iterator is not None:
                    outputs.iterator = None
                    outputs.phase = Phase.WHOLE
                self._close_input(outputs)
                continue
            return self._handed_on(outputs, output)
        return MISSING

    def _handed_on(self, outputs: Outputs[T, U], output: Any) -> Any:
        """Count an output as handed on, and return it as it is handed on."""
        if output is outputs.failure:
            self._delivered += 1
            self._forget(outputs)
            return output
        outputs.given += 1
        self._given += 1
        if outputs.held > outputs.making:
            self._count(outputs, -1)
        if outputs.spent():
            self._close_input(outputs)
        else:
            self._requeue(outputs)
            self._grant(outputs)
        return Ok(output, outputs.index) if self.in_band else output

    @override
    def waiting(self) -> list[Any]:
        head = self._first() if self._ordered else None
        if head is None or not head.ready or (self.plan.retry is not None and not head.produced):
            return []  # what an attempt has made is forgotten if it fails
        if not self.in_band:
            return list(head.ready)
        return [output if output is head.failure else Ok(output, head.index) for output in head.ready]

    @override
    def hand_on(self, count: int) -> None:
        for _ in range(count):
            head = self._first()
            if head is None or not head.ready:  # the run is closed
                return
            output = head.ready.popleft()
            self._count_waiting(head, min(head.waiting, len(head.ready)))
            if type(self._handed_on(head, output)) is Failed and self.in_band:
                self._delivered -= 1
                self._failed += 1

    @override
    def ready_items(self, room: int) -> Iterator[U]:
        """Hand on outputs of a collection, but for the last one, with which its input closes: `pull` gives that."""
        outputs = self._at_hand()
        while room and outputs is not None and len(outputs.ready) > 1:  # who reads may stop early: the rest waits on
            room -= 1
            yield self._take(outputs, 1)[0]
            if now() > self.scope.turn_ends:
                return

    @override
    def ready_list(self, room: int) -> list[U]:
        outputs = self._at_hand()
        return [] if outputs is None else self._take(outputs, min(room, len(outputs.ready) - 1, MOVED))

    def _at_hand(self) -> Outputs[T, U] | None:
        """Return the input that is next, if the rest of its outputs is a collection of several and the turn lasts."""
        outputs = self._first() if self._ordered or self.concurrency == 1 else None
        if outputs is None or outputs.phase is not Phase.WHOLE or outputs.held or self.in_band:
            return None
        # no look at the clock for nothing: a slow machine would spin
        return None if len(outputs.ready) <= 1 or self._turn_is_over() else outputs

    def _take(self, outputs: Outputs[T, U], count: int) -> list[U]:
        """Hand on `count` of several outputs that are there."""
        ready = outputs.ready
        taken = [ready.popleft() for _ in range(count)]
        outputs.given += count
        self._given += count
        self._count_waiting(outputs, min(outputs.waiting, len(ready)))
        return taken

    @override
    def _keep(self, index: int, value: Any) -> None:
        """Put the failure of an input behind its outputs."""
        outputs = self._inputs[index]
        outputs.failure = value
        outputs.ready.append(value)
        self._made(outputs)

    @override
    def _has_next(self) -> bool:
        outputs = self._first()
        return outputs is not None and outputs.has_output() and (not self._passes_due or self._stopping)

    def _must_wait(self, outputs: Outputs[T, U]) -> bool:
        """Whether other work gets the loop before `outputs` gives its next output."""
        if 0 < self._given >= len(self._available) and not self._ordered and self._must_pass():
            return True
        return (outputs.iterator is not None or not len(outputs.ready) & LOOK) and self._turn_is_over()

    def _must_pass(self) -> bool:
        """Whether the loop must pass before the next round, so that an input that is making an output gets its turn.

        Without this, an input that always has an output would starve it; `merge` does the same.
        """
        if self._stopping:
            return False
        if not self._passes_due:
            self._pump(wanted=True)  # inputs that are not open yet have a share as well
            if not self._making and not self._unbegun:
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
        """Return the input whose output is next."""
        if self._ordered:
            return self._inputs.get(self.head)
        return next(iter(self._available.values()), None)

    def _requeue(self, outputs: Outputs[T, U]) -> None:
        """Let the other inputs go first."""
        if self._ordered:
            return
        if outputs.has_output():
            self._available.move_to_end(outputs.index)
        else:
            del self._available[outputs.index]

    def _close_input(self, outputs: Outputs[T, U]) -> None:
        """Settle an input that has no output left."""
        if outputs.phase is not Phase.SETTLED:
            if outputs.given:
                self._delivered += 1
            else:
                self._dropped += 1
            is_whole = outputs.phase is Phase.WHOLE
            outputs.phase = Phase.SETTLED
            if is_whole and self.plan.on_through is not None:
                self.plan.on_through(outputs.item)
        self._forget(outputs)
        if not self._scheduled and not self._exhausted:
            self._schedule()

    @override
    def _raised(self, index: int, item: T, error: BaseException) -> None:
        outputs = self._inputs.get(index)
        if outputs is not None:
            outputs.limit = None  # it knows the task, which may end with an error that leads here
            cause = as_failure(error.error if isinstance(error, Exhausted) else error)
            settled = not self.in_band or self._stopping or not is_fault_of_item(cause)
            outputs.phase = Phase.SETTLED if settled else Phase.CUT_OFF
            if settled and not outputs.ready:
                self._forget(outputs)
        super()._raised(index, item, error)

    def _forget(self, outputs: Outputs[T, U]) -> None:
        self._inputs.pop(outputs.index, None)
        self._drop_outputs(outputs)
        while self.head < self._taken and self.head not in self._inputs:
            self.head += 1
        self._grant(self._inputs.get(self.head))

    def _drop_outputs(self, outputs: Outputs[T, U]) -> None:
        self._count(outputs, outputs.making - outputs.held)
        outputs.ready.clear()
        outputs.failure = MISSING  # its traceback may lead to the frame that holds `outputs`
        self._count_waiting(outputs, 0)
        self._available.pop(outputs.index, None)

    # Statistics

    @override
    def _note_peaks(self, last: int) -> None:
        running = len(self.running) + (last not in self.running)
        self.meter.note_peaks(running, len(self._inputs) + (last not in self._inputs), self._outputs_waiting)

    @override
    def _count_finished(self) -> tuple[int, int]:
        inputs = list(self._inputs.values())  # at one stroke: another thread may ask
        return sum(outputs.phase in {Phase.CUT_OFF, Phase.WHOLE} for outputs in inputs), self._outputs_waiting

    # Stopping

    @override
    def _discard_behind(self, index: int) -> None:
        """Keep outputs that are there and next in order; stop reading iterators."""
        lazy = [outputs for outputs in self._inputs.values() if outputs.iterator is not None]
        last = min([index, *(outputs.index for outputs in lazy)])
        for outputs in lazy:
            self._close_iterator(outputs)
        for outputs in list(self._inputs.values()):
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
        self._drop_outputs(outputs)
        if outputs.phase is not Phase.SETTLED:
            outputs.phase = Phase.SETTLED
            self._discarded += 1
        self._inputs.pop(outputs.index, None)  # it may be gone: what swallowed its cancellation came back late

    @override
    def close(self) -> None:
        super().close()
        self._keep_output = None
        self._passes_due = 0
        self._due.clear()
        del self._attempt, self._inline
        for outputs in list(self._inputs.values()):
            self._discard(outputs)


def _is_async(fan: object) -> bool:
    """Whether it is an async iterable; a list or an async generator is known in a tenth of the time."""
    kind: type[object] = type(fan)
    return kind is AsyncGeneratorType or (kind not in AT_HAND and isinstance(fan, AsyncIterable))


async def _given[F](fan: F) -> F:
    return fan
