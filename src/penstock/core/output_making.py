"""How an open input of `flat_map` makes outputs: its call, and the reading of what that gives.

An async iterable is read by the task of its input, which needs a permit for each output (`permits`). A plain iterable
is read as its outputs are pulled (`fan_out`).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextvars import Context
from types import AsyncGeneratorType
from typing import Any, cast, override

from penstock.core.at_hand import AT_HAND
from penstock.core.calling import composed
from penstock.core.clock import now
from penstock.core.closing import aclose
from penstock.core.errors import OptionError
from penstock.core.meter import WAITED
from penstock.core.open_input import AT_WORK, MAKING, Outputs, Unbegun
from penstock.core.outcome import Ok
from penstock.core.permits import Permits
from penstock.core.plan import MISSING, AsyncFn, Gate, Later, Plan
from penstock.core.retry import in_time
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.core.stage_limits import Hold, Limits
from penstock.core.standby import Standby
from penstock.core.window import Caller


class OutputMaker[T, U](Caller[T, U]):
    """Opens inputs, and has each make its outputs.

    Beside what a caller asks, its window defines what becomes of outputs that were made (`_made`), of an input that has
    made its last one (`_produced`), and of outputs that are not to be handed on (`_drop_outputs`).
    """

    __slots__ = (
        "_attempt",
        "_inline",
        "_is_pulled",
        "_keep_output",
        "_ordered",
        "_permits",
        "_pulled",
        "_reads_alone",
        "_spare",
    )

    def __init__(self, scope: Scope, upstream: Stage[T], plan: Plan[T, Any]) -> None:
        super().__init__(scope, upstream, plan)
        self._keep_output: Callable[[Any], object] | None = None
        self._pulled: Any = MISSING  # what a head that stood by has made for a pull
        self._ordered = plan.ordered is True or plan.concurrency == 1
        self._permits: Permits[T, U] = Permits(plan.buffer, ordered=self._ordered)
        self.meter.times_all = plan.gate is not None  # what is known is no call: it cannot be told which was not timed
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
        self._spare: Standby | Unbegun | None = None  # of a task that is over
        self._is_pulled = False  # whether a pull asks the head for an output right now
        self._reads_alone = scope.trace is None and not scope.has_factory
        if scope.trace is not None:
            self._attempt = scope.trace.calls(self.name, self._attempt)
            if scope.trace.follows_items:
                self._inline = None

    def _made(self, outputs: Outputs[T, U]) -> None:
        """Hand on outputs that an input has made, or keep them until they are pulled."""
        raise NotImplementedError

    def _produced(self, outputs: Outputs[T, U]) -> None:
        """Close an input whose call is over, once its last output is handed on."""
        raise NotImplementedError

    def _drop_outputs(self, outputs: Outputs[T, U]) -> None:
        """Forget the outputs of an input that were not handed on."""
        raise NotImplementedError

    # Calling

    def _may_repeat(self, outputs: Outputs[T, U]) -> bool:
        return not (outputs.given or self._stopping)

    def _start_over(self, outputs: Outputs[T, U]) -> None:
        """Forget the outputs of a failed attempt: none may be handed on while the next attempt is waited for."""
        self._drop_outputs(outputs)
        if self._permits.waiting:
            self._grant(self._permits.first())

    @override
    def _starting(self) -> tuple[Callable[[T, AsyncFn[T, U]], None], AsyncFn[T, U], AsyncFn[T, U]]:
        return self._open_input if self._inline is None else self._open_inline, self.plan.work, self.plan.work

    def _open_input(self, item: T, work: AsyncFn[T, U]) -> None:
        self._permits.inputs[self._taken] = Outputs(self._taken, item, work)
        if self.scope.has_factory:
            self._start_as_the_loop_likes(item, work)
        else:
            self._start(item, work)

    def _open_inline(self, item: T, work: AsyncFn[T, U]) -> None:
        """Call a plain function at once; start a task only if what it gives must be awaited: 7 us an input less."""
        index = self._taken
        self._taken = index + 1
        outputs = self._permits.inputs[index] = Outputs(index, item, work)
        context, meter = self.scope.context.copy(), self.meter
        timed = index >= meter.next_sample or meter.slow or meter.times_all
        began = self.scope.clock() if timed else 0.0
        inline = self._inline
        assert inline is not None
        later: Later[Any] | None = None
        try:
            fan: Any = context.run(inline, item)
            kind: object = type(fan)  # pyright: ignore[reportUnknownVariableType] -- of a generator of anything
            reads_alone = kind is AsyncGeneratorType and self._reads_alone and not timed
            if not reads_alone:
                later = context.run(self._later, outputs, fan)
        except BaseException as error:  # noqa: BLE001 -- any exception is the item's outcome
            self._raised(index, item, error)
            return
        if reads_alone:
            if self._goes_straight(outputs):
                self._begin(outputs, fan, context)
                if self._pulled is MISSING and self._is_pulled:
                    self._let_wait(outputs)
            else:
                self._begin_with_permit(outputs, fan, context)
            return
        if later is not None:
            outputs.work = later
            self._run(index, item, later, context)
            return
        if timed:
            meter.note_sample(index)
            meter.returned(began)
        self._produced(outputs)

    def _later(self, outputs: Outputs[T, U], fan: object) -> Later[Any] | None:
        """Keep what plain code has given; return what must still be awaited."""
        if type(fan) is Later:
            return cast("Later[Any]", fan)
        if _is_async(fan):
            return Later(_given(fan))
        self._keep_fan(outputs, fan)
        return None

    def _begin_with_permit(self, outputs: Outputs[T, U], generator: AsyncGenerator[U], context: Context) -> None:
        """Begin to read a generator within this call if it may make an output, else when it may."""
        permits = self._permits
        if permits.may_make(outputs):
            permits.give(outputs)
            self._begin(outputs, generator, context)
        else:
            unbegun = Unbegun(outputs, generator, context, self._begin, self._never_read)
            outputs.permit = self.running[outputs.index] = unbegun
            permits.waiting[outputs.index] = outputs

    def _let_wait(self, outputs: Outputs[T, U]) -> None:
        """Let an input that a pull has asked, and that waits for something, make its output with a permit."""
        goes_on = outputs.phase is AT_WORK and outputs.index not in self._permits.waiting
        if goes_on and self._keep_output is None:
            self._permits.give(outputs)

    def _goes_straight(self, outputs: Outputs[T, U]) -> bool:
        """Whether the next output of an input is handed on where it is made, and needs no permit.

        What a pull opens is the head.
        """
        return self._is_pulled or self._is_kept(outputs)

    def _is_kept(self, outputs: Outputs[T, U]) -> bool:
        """Whether the next output goes to a reader of all, whenever it is made."""
        return self._keep_output is not None and not outputs.held and outputs.index == self._permits.head

    def _begin(self, outputs: Outputs[T, U], generator: AsyncGenerator[U], context: Context) -> None:
        """Read a generator, which may make an output, in a task of its own, until it waits or has made it."""
        index = outputs.index
        reading = self._call(index, outputs.item, generator)
        try:
            task = self._task_of(reading, context=context)
        except BaseException:
            reading.close()
            raise
        if task.done():
            return
        self.running[index] = task
        if self._stopping:
            task.cancel(self.scope.reason)

    def _never_read(self, outputs: Outputs[T, U]) -> None:
        """Settle an input that was cancelled before its generator was read."""
        del self.running[outputs.index]
        self._permits.waiting.pop(outputs.index, None)
        self._raised(outputs.index, outputs.item, asyncio.CancelledError())

    @override
    async def _call(self, index: int, item: T, work: Any) -> None:
        """Do what every caller does; `work` may be a generator, which is read then."""
        outputs = self._permits.inputs[index]
        try:
            try:
                if type(work) is AsyncGeneratorType:
                    await self._read(outputs, work, work)
                    if outputs.permit is not None:
                        self._spare = outputs.permit
                else:
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
            meter.note_sample(outputs.index)
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
            iterator = aiter(cast("AsyncIterable[U]", fan))
            await self._read(outputs, iterator, _Iterable(iterator), self._permission(outputs))
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
            self._permits.made(outputs)
        except StopIteration:
            return
        finally:
            self._permits.give_back(outputs)
        outputs.iterator = iterator

    async def _read(
        self, outputs: Outputs[T, U], iterator: Any, made: Any, permission: Awaitable[None] | None = None
    ) -> None:
        """Read an iterator, which `made` gives, to the end.

        Without `permission` the first output needs none, or has it already.
        The frame of a failure keeps what is named here: never the scope, which keeps failures.
        """
        try:
            if permission is not None:
                await permission
                if self._stopping:  # it has swallowed its cancellation, here and below
                    return
            async for output in made:
                if self._stopping:
                    return
                if (wait := self._made_one(outputs, output)) is not None:
                    await wait
                    if self._stopping:
                        return
        finally:
            if outputs.phase is MAKING:
                self._permits.give_back(outputs)
            if getattr(iterator, "ag_frame", iterator) is not None:
                self._permits.waiting.pop(outputs.index, None)  # if it was cancelled there
                await aclose(iterator)

    def _made_one(self, outputs: Outputs[T, U], output: U) -> Awaitable[None] | None:
        """Keep an output, or hand it on where it is made; return what its task awaits before it makes the next one."""
        if outputs.phase is MAKING:
            self._permits.made(outputs)
            outputs.ready.append(output)
            self._made(outputs)
            if now() > self.scope.turn_ends:
                return self._pause(outputs)
            return None if self._is_kept(outputs) else self._permission(outputs)
        outputs.given += 1
        if not self.meter.peak_buffered:
            self.meter.note_buffered(1)
        value = Ok(output, outputs.index) if self.in_band else output
        if self._keep_output is not None:
            self._keep_output(value)
            return self._pause(outputs) if now() > self.scope.turn_ends else None
        self._pulled = value
        is_bare = outputs.limit is None and outputs.hold is None and not outputs.timed
        return self._bare_permit(outputs) if is_bare else self._stand_by(outputs)

    async def _pause(self, outputs: Outputs[T, U]) -> None:
        await self.scope.pause()
        await self._permission(outputs)

    # Standing by

    async def _permission(self, outputs: Outputs[T, U]) -> None:
        """Wait until this input may make another output; meanwhile its timeout stands still and it holds no limiter."""
        if self._stopping or self._is_kept(outputs) or outputs.making:  # a pull may have asked before this attempt
            return
        if self._permits.may_make(outputs):
            self._permits.give(outputs)
        else:
            await self._stand_by(outputs)

    def _bare_permit(self, outputs: Outputs[T, U]) -> Standby:
        """Give what a task awaits for its permit; it stands by from now on."""
        permit = outputs.permit or self._spare
        self._spare = None
        if type(permit) is not Standby or permit.is_cancelled:
            permit = Standby(self.scope.loop)
        outputs.permit = permit
        self._permits.waiting[outputs.index] = outputs
        return permit

    async def _stand_by(self, outputs: Outputs[T, U]) -> None:
        loop, limit = self.scope.loop, outputs.limit
        left = 0.0
        if limit is not None:
            left = cast("float", limit.when()) - loop.time()
            limit.reschedule(None)
        if outputs.timed:
            outputs.paused -= self.scope.clock()
        permit = self._bare_permit(outputs)
        try:
            if outputs.hold is not None:
                outputs.hold.pause()
            await permit
            if outputs.hold is not None:
                await outputs.hold.resume()
        except asyncio.CancelledError:
            self._permits.waiting.pop(outputs.index, None)
            self._permits.give_back(outputs)  # if it was permitted and cancelled at once
            raise
        if outputs.timed:
            outputs.paused += self.scope.clock()
        if limit is not None:
            limit.reschedule(loop.time() + left)

    def _grant(self, first: Outputs[T, U] | None) -> None:
        """Have inputs that wait make outputs in the next turn: `first` if it has none, others while there is room."""
        if not self._stopping and self._permits.due(first) and not self._scheduled:
            self._schedule()

    @override
    def _pump(self, *, wanted: bool) -> None:
        """Let inputs that are open make outputs for which there is room; then open more."""
        if self._permits.waiting and not self._pumping and not self._stopping:
            self._pumping = True
            try:
                for outputs in self._permits.next_ones():
                    self._resume(outputs)
                    if now() > self.scope.turn_ends:
                        self._schedule()
                        break
            finally:
                self._pumping = False
            if wanted and self._ordered and self._has_next():
                return
        super()._pump(wanted=wanted)

    def _resume(self, outputs: Outputs[T, U]) -> None:
        """Let an input that waited make an output now: a future would wake it in another pass of the loop."""
        permit = outputs.permit
        assert permit is not None
        if not permit.is_cancelled:  # else its task will not come for it
            if not self._is_kept(outputs):
                self._permits.give(outputs)
            permit.resume()


def _is_async(fan: object) -> bool:
    """Whether it is an async iterable; a list or an async generator is known in a tenth of the time."""
    kind: type[object] = type(fan)
    return kind is AsyncGeneratorType or (kind not in AT_HAND and isinstance(fan, AsyncIterable))


async def _given[F](fan: F) -> F:
    return fan


class _Iterable[U](AsyncIterable[U]):
    """Stands in for an async iterator, which need not be iterable itself."""

    __slots__ = ("_iterator",)

    def __init__(self, iterator: AsyncIterator[U]) -> None:
        self._iterator = iterator

    @override
    def __aiter__(self) -> AsyncIterator[U]:
        return self._iterator
