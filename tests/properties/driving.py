"""Runs schedules, and says what must be true of them: the properties."""

import asyncio
import warnings
from contextlib import suppress

import pytest

from penstock import AttemptTimeout, UnstoppedWorkWarning, testing
from penstock.core import one_place
from penstock.core.errors import PenstockError

from .building import Boom, build
from .list_code import expected, plain, whole
from .schedules import GRACE, ONE_FOR_ONE, STOPPING, WORKING
from .watching import Witness, look_after_each_callback, turns


class Left(Exception):
    """Raised by a consumer."""


class Reader:
    """Reads a run as its script says, and keeps what it got."""

    def __init__(self, run, script):
        self.run, self.script = run, script
        self.given = []

    async def read(self):
        kind, amount = (self.script.leave or (None, None))[:2]
        async with self.run:
            if kind == "timeout":
                async with asyncio.timeout(amount):
                    await self._read_items(None, None)
            else:
                await self._read_items(kind, amount)

    async def _read_items(self, kind, most):
        while kind not in {"break", "error", "aclose"} or len(self.given) < most:
            try:
                self.given.append(await self._next())
            except StopAsyncIteration:
                return
            pause = self.script.pauses[len(self.given) % len(self.script.pauses)]
            if pause is not None:
                await asyncio.sleep(pause)
        if kind == "error":
            raise Left
        if kind == "aclose":
            await self.run.aclose()
            with suppress(StopAsyncIteration):
                self.given.append(await anext(self.run))

    async def _next(self):
        """The next item; patience that has run out loses nothing (P5)."""
        if self.script.patience is None:
            return await anext(self.run)
        while True:
            try:
                return await asyncio.wait_for(anext(self.run), self.script.patience)
            except TimeoutError as error:
                if isinstance(error, PenstockError):
                    raise
                await asyncio.sleep(0.2)


class Drive:
    """One run of one schedule: what it gave, how it ended, what was seen meanwhile."""

    def __init__(self, schedule):
        self.schedule = schedule
        self.error = None
        self.cancelled_in_time = False

    async def main(self, *, lazy):
        loop = asyncio.get_running_loop()
        self.witness = witness = Witness(loop.clock, lazy=lazy)
        self.run = witness.run = build(self.schedule, witness).open(grace=GRACE)
        self.reader = Reader(self.run, self.schedule.consumer)
        look_after_each_callback(loop, witness.look)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UnstoppedWorkWarning)
            reading = asyncio.create_task(self.reader.read())
            await self._interfere(reading)
            await asyncio.wait([reading])
        witness.over = True
        self.warnings = [str(each.message) for each in caught]
        self.left_running = [work.name for work in witness.works if work.running]
        delay = max((boundary.script.close_delay or 0 for boundary in witness.sources), default=0)
        just = loop.clock.now - delay - 0.002  # timers of uvloop are whole milliseconds
        self.used_up_the_grace = any((work.ended_at or 0) >= just for work in witness.works)
        self.was_cancelled = reading.cancelled()
        self.error = None if self.was_cancelled else reading.exception()
        del reading
        self.check_the_end()
        before = self._started()
        await asyncio.sleep(200)
        assert self._started() == before, "something started after the end"
        assert not any(work.running for work in witness.works)
        assert not witness.violations, witness.violations

    async def _interfere(self, reading):
        leave = self.schedule.consumer.leave
        if leave is None or leave[0] not in {"cancel", "cancel twice", "stop"}:
            return
        kind, seconds, passes, *again = leave
        await asyncio.sleep(seconds)
        for _ in range(passes):
            await asyncio.sleep(0)
        if kind == "stop":
            self.run.stop()
            return
        self.cancelled_in_time = reading.cancel()
        if again:
            if again[0] is not None:
                await asyncio.sleep(again[0])
            reading.cancel()

    def _started(self):
        works, sources = self.witness.works, self.witness.sources
        return [len(work.begun) for work in works], [source.source.taken for source in sources]

    # What must be true at every end

    def check_the_end(self):
        witness = self.witness
        assert not witness.violations, witness.violations
        assert self.was_cancelled == self.cancelled_in_time, "P8: a cancellation was swallowed, or came from nowhere"
        given = list(map(plain, self.reader.given))
        assert given == list(map(plain, witness.last.given)), "P5: what was handed on is not what was received"
        self.check_work_left_behind()
        self.check_sources()
        for stage in self.run.stats():
            if not self.left_running:
                assert stage.in_flight == stage.running == stage.buffered == 0, stage
            outcomes = stage.delivered + stage.dropped + stage.failed + stage.cancelled + stage.discarded
            assert stage.taken == outcomes + stage.in_flight, stage

    def check_work_left_behind(self):
        """P4: work that outlives the grace is named in one warning, and nothing else is.

        Work that comes back in the instant in which the grace ends may be named, and so may the closing of a source
        that takes longer than what other work has left of the grace.
        """
        if not self.used_up_the_grace:
            assert len(self.warnings) == bool(self.left_running), (self.warnings, self.left_running)
        assert bool(self.left_running) <= len(self.warnings) <= 1
        for name in self.left_running:
            assert repr(name) in self.warnings[0], (name, self.warnings)

    def check_sources(self):
        """P4: each source was closed once, by the one that read it."""
        for boundary in self.witness.sources:
            source = boundary.source
            assert source.opened <= 1, "a source was opened twice"
            assert source.closed == source.opened, (boundary.script, source.opened, source.closed)
            if boundary.script.kind != "plain" and source.pulled_by:
                assert source.pulled_by == {source.closed_by}, (source.pulled_by, source.closed_by)


def run(schedule, place, judge):
    """Run a schedule at a place of the grid, and have `judge(drive)` say what else must be true of it."""
    drive = Drive(schedule)
    with turns(schedule.turn), pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_place, "TRUST", 1)  # or schedules are too short for calls that are bare
        testing.run(drive.main(lazy=place.tasks != "default"), loop=place.loop, tasks=place.tasks)
    judge(drive)


# Properties


def equals_list_code(drive):
    """P1, P3, P5: read to its end, a run gives what list code gives, whatever fails and whoever waits meanwhile."""
    if drive.error is not None:
        raise drive.error
    drive.witness.laws(complete=True)
    wanted = whole(drive.schedule)
    if wanted is not None:
        assert list(map(plain, drive.reader.given)) == wanted
    _failures_are_kept(drive)


def _failures_are_kept(drive):
    """P5: `failures` holds those of "collect", each once, with its own index, item and attempts."""
    kept = [failed for failed in drive.run.failures if failed.stage.split()[0] in WORKING]
    for place, boundary in enumerate(drive.witness.steps):
        step = boundary.step
        if step.kind not in WORKING:
            continue
        stopped = any(lower.step.kind in STOPPING for lower in drive.witness.steps[place + 1 :])
        own = [failed for failed in kept if failed.stage == boundary.work.name]
        inputs = list(map(plain, boundary.inputs[0].given))
        assert not own or step.on_error == "collect" or stopped, (step, own)
        assert len({failed.index for failed in own}) == len(own)
        for failed in own:
            assert plain(failed.item) == inputs[failed.index], (step, failed)
            assert isinstance(failed.error, Boom | AttemptTimeout)
            assert failed.attempts == step.attempts or step.kind.startswith("batches"), (step, failed)


def raises_the_first_failure(drive):
    """P3, P5: in order, what was finished before the failure is given and no more; the error is the work's own."""
    witness = drive.witness
    failing = next(each for each in witness.steps if each.work and each.step.on_error == "raise")
    inputs = list(map(plain, failing.inputs[0].given))
    place = witness.steps.index(failing)
    witness.laws(complete=drive.error is None)
    if drive.error is None:
        assert failing.work.first_failure is None
        return
    _is_named(drive.error, failing, inputs)
    _goes_on_below(witness, place)
    work = failing.work
    if failing.step.kind in ONE_FOR_ONE and failing.step.kind != "thread" and failing.step.timeout is None:
        assert drive.error is work.first_failure
        done = work.done_before_failure
        in_order = next(index for index in range(len(inputs) + 1) if index not in done)
        given = list(map(plain, failing.given))
        if failing.step.ordered:
            assert given == expected(failing.step, inputs[:in_order]), "not what was finished and next in order"
        else:
            wanted = expected(failing.step, [inputs[index] for index in done])
            assert sorted(map(str, given)) == sorted(map(str, wanted)), "not all that was finished"


def _can_fail(step):
    return step.kind in WORKING and any(
        act.failures or (step.timeout and (act.delay or 0) > step.timeout) for act in step.acts
    )


def _is_named(error, failing, inputs):
    """The error says which stage and which item it is of, and that is right."""
    assert isinstance(error, Boom | AttemptTimeout), error
    places = [note for note in error.__notes__ if note.startswith(f"penstock: stage {failing.work.name!r}, item ")]
    assert len(places) == 1, error.__notes__
    if isinstance(error, Boom) and not failing.step.kind.startswith("batches"):
        index = int(places[0].split(", item ")[1].split(",")[0])
        assert inputs[index] == plain(error.args[1]), (places, error.args)


def _goes_on_below(witness, place):
    """What the steps below had taken is finished and delivered."""
    lower = Witness(witness.clock, lazy=True)
    lower.steps = witness.steps[place + 1 :]
    lower.laws(complete=True)


def leaves_nothing(drive):
    """P3, P4, P5, P8: left at any moment by any road: no work, no open source; what was given is as in list code."""
    leave = drive.schedule.consumer.leave[0]
    raising = any(each.step.on_error == "raise" and _can_fail(each.step) for each in drive.witness.steps)
    allowed = {"error": (Left,), "timeout": (TimeoutError,)}.get(leave, ()) + (Boom, AttemptTimeout) * raising
    assert drive.error is None or isinstance(drive.error, allowed), drive.error
    drive.witness.laws(complete=False)


def finishes_what_was_taken(drive):
    """P5: told to stop, a run takes nothing more, and what it took goes its way to the end."""
    if drive.error is not None:
        raise drive.error
    drive.witness.laws(complete=True)
