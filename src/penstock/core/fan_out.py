"""The window of `flat_map`: an input gives many outputs, and stays open until the last of them is handed on.

At most `concurrency` inputs are open. How they make outputs stands in `output_making`, which of them may in `permits`,
and how they take turns where the order does not matter in `fair_turns`. Here outputs are handed on and inputs closed.
"""

from collections.abc import Callable, Iterator, Sized
from typing import Any, Final, override

from penstock.core.clock import now
from penstock.core.closing import close
from penstock.core.errors import as_failure, is_fault_of_item
from penstock.core.fair_turns import FairTurns
from penstock.core.open_input import CUT_OFF, EXHAUSTED, SETTLED, WHOLE, Outputs
from penstock.core.outcome import Failed, Ok
from penstock.core.output_making import OutputMaker
from penstock.core.plan import MISSING, Plan
from penstock.core.pump import LOOK
from penstock.core.retry import Exhausted
from penstock.core.scope import DEEP, Scope
from penstock.core.stage import END, PENDING, Pulled, Stage

MOVED: Final = 1_000
"""Outputs of a collection that are handed on at one stroke: so many take 30 us."""


class FanOut[T, U](OutputMaker[T, U]):
    """Runs work that gives any number of outputs for an item (P1, P2, P5)."""

    __slots__ = ("_inputs", "_must_look", "_outputs_waiting", "_turns")

    def __init__(self, scope: Scope, upstream: Stage[T], plan: Plan[T, Any]) -> None:
        super().__init__(scope, upstream, plan)
        self._inputs: dict[int, Outputs[T, U]] = self._permits.inputs
        self.finished: Sized = self._inputs
        self._must_look = not upstream.looks_at_the_clock
        self._outputs_waiting = 0
        self._turns: FairTurns[T, U] | None = None if self._ordered else FairTurns(scope, self._tell)

    @override
    def _room(self) -> int:
        return self.concurrency - len(self._inputs) - self._kept_places

    # Made outputs

    @override
    def _made(self, outputs: Outputs[T, U]) -> None:
        self._count_waiting(outputs, len(outputs.ready))
        if self._turns is not None:
            self._turns.has_output(outputs)
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

    @override
    def _produced(self, outputs: Outputs[T, U]) -> None:
        if outputs.iterator is None and not self._stopping:
            outputs.phase = WHOLE
            if not outputs.ready:
                self._close_input(outputs)
                if self._keep_output is not None and self._inputs:
                    self._give()
                if not self._pumping:
                    self._settled()
                return
        else:
            outputs.phase = CUT_OFF
        if self._stopping and not outputs.ready:
            self._close_iterator(outputs)
            self._discard(outputs)
        else:
            self._made(outputs)
        self._settled()

    def _count_waiting(self, outputs: Outputs[T, U], number: int) -> None:
        self._outputs_waiting += number - outputs.waiting
        outputs.waiting = number
        if self._outputs_waiting > self.meter.peak_buffered:
            self.meter.note_buffered(self._outputs_waiting)

    # Handing over

    @override
    def pull(self, room: int) -> Pulled[U]:
        """Do what `Pump.pull` does; a head whose call does not wait makes its next output at once: it need not wait."""
        if not self._ordered or self._pumping or self._stopping:
            return super().pull(room)
        self._pumping = self._is_pulled = True
        try:
            must_wait = self._make_for_pull()
        finally:
            self._pumping = self._is_pulled = False
        value, self._pulled = self._pulled, MISSING
        if value is not MISSING:
            if not self._scheduled:
                self._schedule()
            return value  # type: ignore[no-any-return] # a U; Any spares a cast per item
        if not must_wait:
            return super().pull(room)
        self._asked = True  # another pull of the stage above would ask all stages twice
        self._burst = 1
        if not self._scheduled:
            self._note_wait()
        return PENDING

    def _make_for_pull(self) -> bool:
        """Let heads go on, one after the other, until one has made an output, which is `_pulled` then, or waits.

        Return whether none is open, and none can be for now.
        """
        permits, scope = self._permits, self.scope
        while (head := permits.inputs.get(permits.head)) is not None:
            if head.held or head.index not in permits.waiting or now() > scope.turn_ends:
                return False
            del permits.waiting[head.index]
            head.permit.resume()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess] -- what waits has one
            if self._pulled is not MISSING:
                return False
            self._let_wait(head)
        if self._inline is None or self._exhausted or scope.depth > DEEP:
            return False
        return scope.enter(self._open_heads)

    def _open_heads(self) -> bool:
        """Open inputs as long as none is open, so that each is the head; return what `_make_for_pull` does."""
        inputs = self._inputs
        while not inputs:
            room = self.concurrency - self._kept_places
            if room <= 0:
                return True
            if self._must_look and now() > self.scope.turn_ends:
                self._schedule()
                return True
            item = self.upstream.pull(room)
            if item is PENDING:
                return True
            if item is END:
                self._exhausted = True
                return False
            self._open_inline(item, self.plan.work)
            if not self.meter.peak_running:
                self._note_peaks(self._taken - 1)
        return False

    @override
    def _fill(self, room: int, count: int) -> bool:
        """Do what `Pump._fill` does; for a reader of all, inputs that are over at once are a loop: 0.7 us less."""
        if self._keep_output is None or self._inline is None or self._inputs:
            return super()._fill(room, count)
        return not self._open_heads() and not self._exhausted

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
                    outputs.phase = WHOLE
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
        if outputs.held > outputs.making:
            self._permits.count(outputs, -1)
        if outputs.spent():
            self._close_input(outputs)
        elif self._permits.waiting:
            self._grant(outputs)
        if self._turns is not None:
            self._turns.gave(outputs)
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
        outputs = self._first() if self._ordered else None
        if outputs is None or outputs.phase is not WHOLE or outputs.held or self.in_band:
            return None
        # no look at the clock for nothing: a slow machine would spin
        return None if len(outputs.ready) <= 1 or self._turn_is_over() else outputs

    def _take(self, outputs: Outputs[T, U], count: int) -> list[U]:
        """Hand on `count` of several outputs that are there."""
        ready = outputs.ready
        taken = [ready.popleft() for _ in range(count)]
        outputs.given += count
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
        return outputs is not None and outputs.has_output() and (self._stopping or self._may_go_on())

    def _must_wait(self, outputs: Outputs[T, U]) -> bool:
        """Whether other work gets the loop before `outputs` gives its next output."""
        if self._turns is not None and self._turns.is_over() and self._must_pass(self._turns):
            return True
        return (outputs.iterator is not None or not len(outputs.ready) & LOOK) and self._turn_is_over()

    def _must_pass(self, turns: FairTurns[T, U]) -> bool:
        """Whether the loop must pass before the next round, so that an input that is making an output gets its turn."""
        if self._stopping:
            return False
        if turns.may_go_on():
            self._pump(wanted=True)  # inputs that are not open yet have a share as well
            if not self._permits.making and not self._unbegun:
                turns.begin()
                return False
            turns.let_pass()
        return True

    def _may_go_on(self) -> bool:
        return self._turns is None or self._turns.may_go_on()

    def _first(self) -> Outputs[T, U] | None:
        """Return the input whose output is next."""
        return self._permits.first() if self._turns is None else self._turns.first()

    def _close_input(self, outputs: Outputs[T, U]) -> None:
        """Settle an input that has no output left."""
        if outputs.phase is not SETTLED:
            if outputs.given:
                self._delivered += 1
            else:
                self._dropped += 1
            is_whole = outputs.phase is WHOLE
            outputs.phase = SETTLED
            if is_whole and self.plan.on_through is not None:
                self.plan.on_through(outputs.item)
        self._forget(outputs)
        if not (self._scheduled or self._exhausted or self._pumping):
            self._schedule()

    @override
    def _raised(self, index: int, item: T, error: BaseException) -> None:
        outputs = self._inputs.get(index)
        if outputs is not None:
            outputs.limit = None  # it knows the task, which may end with an error that leads here
            cause = as_failure(error.error if isinstance(error, Exhausted) else error)
            settled = not self.in_band or self._stopping or not is_fault_of_item(cause)
            outputs.phase = SETTLED if settled else CUT_OFF
            if settled and not outputs.ready:
                self._forget(outputs)
        super()._raised(index, item, error)

    def _forget(self, outputs: Outputs[T, U]) -> None:
        permits = self._permits
        permits.forget(outputs.index, self._taken)
        if outputs.held or outputs.ready or outputs.waiting or self._turns is not None:
            self._drop_outputs(outputs)
        outputs.failure = MISSING  # its traceback may lead to the frame that holds `outputs`
        if permits.waiting:
            self._grant(permits.first())

    @override
    def _drop_outputs(self, outputs: Outputs[T, U]) -> None:
        if outputs.held:
            self._permits.let_go(outputs)
        outputs.ready.clear()
        if outputs.waiting:
            self._count_waiting(outputs, 0)
        outputs.failure = MISSING  # its traceback may lead to the frame that holds `outputs`
        if self._turns is not None:
            self._turns.leave(outputs)

    # Statistics

    @override
    def _note_peaks(self, last: int) -> None:
        running = len(self.running) + (last not in self.running)
        self.meter.note_peaks(running, len(self._inputs) + (last not in self._inputs), self._outputs_waiting)

    @override
    def _count_finished(self) -> tuple[int, int]:
        inputs = list(self._inputs.values())  # at one stroke: another thread may ask
        return sum(outputs.phase in {CUT_OFF, WHOLE} for outputs in inputs), self._outputs_waiting

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
        if outputs.phase is not SETTLED:
            outputs.phase = SETTLED
            self._discarded += 1
        self._inputs.pop(outputs.index, None)  # it may be gone: what swallowed its cancellation came back late

    @override
    def close(self) -> None:
        super().close()
        self._keep_output = None
        self._permits.close()
        if self._turns is not None:
            self._turns.close()
        del self._attempt, self._inline
        for outputs in list(self._inputs.values()):
            self._discard(outputs)
