"""Wrong implementations, each a small patch of the real one, and the file of tests that must reject it.

A pytest plugin: `PENSTOCK_TWIN=name pytest -p twins ...` runs tests against the twin of that name.
"""

import asyncio
import os
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass

from penstock.core import clock as clocks
from penstock.core import open_runs
from penstock.core import scope as scopes
from penstock.core.batches import _Bad, _Halving
from penstock.core.errors import as_failure
from penstock.core.fan_out import FanOut
from penstock.core.meter import Meter, Wait
from penstock.core.order import OrderedWindow, UnorderedWindow
from penstock.core.outcome import Failed
from penstock.core.plan import DROPPED
from penstock.core.policy import Tolerance
from penstock.core.retry import Retry
from penstock.core.scope import Scope
from penstock.core.source import AsyncIteratorStage, IteratorStage
from penstock.core.stage import END, PENDING
from penstock.core.window import Window
from penstock.engines.threads import Threads
from penstock.ops.combine import Merge
from penstock.ops.group import Batch
from penstock.ops.operator import Operator
from penstock.ops.select import Take
from penstock.run import Run


@dataclass(frozen=True)
class Twin:
    """A wrong implementation: what it gets wrong, how, and which tests see it."""

    wrong: str
    patch: Callable[[], None]
    rejected_by: str


TWINS: dict[str, Twin] = {}


def twin(wrong, rejected_by):
    def register(patch):
        TWINS[patch.__name__] = Twin(wrong, patch, rejected_by)
        return patch

    return register


@twin("starts one call too many (streamable, SPDL: n+1 running)", "guarantees/test_p1_bound.py")
def naive_limiter():
    room = Window._room
    Window._room = lambda self: room(self) + 1


@twin(
    "counts what runs, not what is undelivered (mpire, pypeln): the reorder buffer grows", "guarantees/test_p1_bound.py"
)
def unbounded_reorder():
    Window._room = lambda self: self.concurrency - len(self.running)


@twin("leaves the calls running that were in flight (streamable after break)", "guarantees/test_p4_leaving.py")
def no_cancel():
    def halt(self, index):
        self._stopping = self._exhausted = True
        self._discard_behind(index)
        self.running.clear()
        self.upstream.stop()
        self._tell()

    Window._halt = halt


@twin("holds a finished result until the source gives another item (streamable)", "guarantees/test_p2_progress.py")
def result_held_for_the_source():
    def tell(self):
        waits = not self._exhausted and self._taken < self.concurrency
        if self._asked and not waits and (self._has_next() or self._is_over()):
            self._asked = False
            self.on_ready()

    Window._tell = tell


@twin("takes None for no result (pypeln)", "guarantees/test_p6_values.py")
def drops_none():
    returned = Window._returned
    Window._returned = lambda self, index, value: returned(self, index, DROPPED if value is None else value)


@twin("swallows the cancellation of whoever waits (aioitertools)", "guarantees/test_p8_cancellation.py")
def swallows_cancel():
    wait = Run._wait

    async def wait_on(self, stage):
        while True:
            try:
                return await wait(self, stage)
            except asyncio.CancelledError:
                continue

    Run._wait = wait_on


@twin("backs off linearly and calls it exponential", "test_retry.py")
def linear_backoff():
    Retry.backoff = lambda self, failures: min(self.max, self.initial * failures)


@twin("charges an item's failure to the item before it", "guarantees/test_p5_outcomes.py")
def blames_the_neighbour():
    raised = Window._raised
    Window._raised = lambda self, index, item, error: raised(self, max(index - 1, 0), item, error)


@twin("raises the last failure, not the first (golang #27837)", "guarantees/test_p5_outcomes.py")
def masks_the_first_failure():
    def fail(self, failed):
        if self.failure is not None:
            self.keep(self.failure)
        self.failure = failed

    Scope.fail = fail
    Window._fail = lambda self, failed: (self.scope.fail(failed), self._halt(failed.index))


@twin("reads one item further than asked (ZIO: take pulls n+1)", "guarantees/test_p1_bound.py")
def take_reads_on():
    pull = Take.pull

    def pull_and_look(self, room):
        item = pull(self, room)
        if self._left == 0 and item is not END:
            self.upstream.pull(1)
        return item

    stop = IteratorStage.stop
    IteratorStage.stop = lambda self: None if not self.scope.closing else stop(self)
    Take.pull = pull_and_look


@twin("always asks the first source first: the others starve (aiostream, 1000 to 0)", "guarantees/test_p3_order.py")
def unfair_merge():
    def pull(self, room):
        for upstream in list(self._upstreams):
            item = upstream.pull(1)
            if item is PENDING:
                self._asked = True
                continue
            if item is not END:
                self._taken += 1
                self._delivered += 1
                return item
        return PENDING if self._asked else END

    Merge.pull = pull


@twin("keeps the loop for as long as calls return at once", "guarantees/test_p9_the_loop.py")
def never_yields():
    Scope.begin_turn = lambda self: setattr(self, "turn_ends", float("inf"))
    init = Scope.__init__

    def begin(self, grace):
        init(self, grace)
        self.turn_ends = float("inf")

    Scope.__init__ = begin


@twin("retries what was cancelled (tenacity #529)", "guarantees/test_p8_cancellation.py")
def retries_cancellation():
    import penstock.core.window as windows  # noqa: PLC0415 -- its name is what is patched

    def retrying(work, retry, on_retry, may_retry=None, **_):
        async def attempts(item):
            for _ in range(retry.attempts - 1):
                try:
                    return await work(item)
                except BaseException:  # noqa: BLE001 -- what is wrong with it
                    on_retry()
            return await work(item)

        return attempts

    windows.retrying = retrying


@twin("closes the source from the task that leaves", "guarantees/test_p4_leaving.py")
def closes_in_the_wrong_task():
    release = AsyncIteratorStage.release

    def release_elsewhere(self):
        async def close():
            await self._iterator_of_twin.aclose()

        if getattr(self, "_iterator_of_twin", None) is not None:
            self._twin_task = asyncio.get_running_loop().create_task(close())
        release(self)

    read = AsyncIteratorStage._read

    async def read_and_show(self, iterator):
        self._iterator_of_twin = iterator
        await read(self, iterator)

    AsyncIteratorStage.release = release_elsewhere
    AsyncIteratorStage._read = read_and_show


@twin("forgets what it could not hand on (an item without an outcome)", "guarantees/test_p5_outcomes.py")
def loses_the_books():
    OrderedWindow._discard_behind = lambda self, index: self.finished.clear()
    UnorderedWindow.close = lambda self: self.finished.clear()


@twin("counts a sibling's cancellation as the item's failure", "guarantees/test_p8_cancellation.py")
def cancelled_is_failed():
    def raised(self, index, item, error):
        self._failed += 1
        failed = Failed(as_failure(error), index, item, self.name)
        if self._stopping:
            self.scope.keep(failed)
        else:
            self._fail(failed)
        self._settled()

    Window._raised = raised


@twin("keeps a slot for each item behind a stuck head, though it was dropped", "guarantees/test_p7_cost.py")
def slots_pile_up():
    returned = Window._returned

    def keep_slot(self, index, value):
        self.__dict__.setdefault("_slots", []).append((index, [None] * 8))
        returned(self, index, value)

    Window._returned = keep_slot


@twin("starts the batch's timer when the batch before it left (Benthos, Pekko)", "test_batch.py")
def timer_from_the_last_batch():
    hand_over = Batch._hand_over

    def hand_over_and_rewind(self):
        items = hand_over(self)
        if self._within is not None:
            self._timer = self.scope.loop.call_later(self._within, self._time_is_up)
        return items

    Batch._hand_over = hand_over_and_rewind


@twin("gives up waiting at a second cancellation (20a)", "guarantees/test_p4_leaving.py")
def leaves_at_the_second_cancel():
    import penstock.run as runs  # noqa: PLC0415 -- its name is what is patched

    async def wait(future):
        await asyncio.shield(future)

    scopes.outlast = runs.outlast = wait


@twin("lets every input of a flat_map run ahead", "guarantees/test_p1_bound.py")
def flat_map_runs_ahead():
    FanOut._may_make = lambda self, outputs: True


@twin("gives up a whole list for one bad item", "test_map_batches_failing.py")
def one_bad_item_costs_a_list():
    async def call(self, items):
        try:
            return await self.first(items)
        except Exception as error:  # noqa: BLE001 -- as the real one
            return [_Bad(error, 1)] * len(items)

    _Halving.__call__ = call


@twin("tries again after the run was left", "test_retry.py")
def retries_after_leaving():
    import penstock.core.window as windows  # noqa: PLC0415 -- its name is what is patched

    real = windows.retrying
    windows.retrying = lambda work, retry, on_retry, may_retry=None, **name: real(work, retry, on_retry, **name)


@twin("reads a source that blocks on the loop", "test_sources_in_threads.py")
def blocks_the_loop():
    async def read(self, limit, fn, *args):
        return fn(*args)

    Threads.run = read


@twin("counts the wait for a slow head as one for the consumer", "test_stats.py")
def blames_the_consumer():
    wait_for = Meter.wait_for
    Meter.wait_for = lambda self, what: wait_for(self, Wait.CONSUMER if what is Wait.HEAD else what)


@twin("times every call, which costs a tenth of a fast one", "test_stats.py")
def always_looks_at_the_clock():
    Meter.samples = lambda self, taken: True
    Meter.slow = property(lambda self: True, lambda self, value: None)


@twin("drains streams inside the work too, and so cuts items short", "test_signals.py")
def drains_what_is_in_flight():
    opened = open_runs.opened
    open_runs.opened = lambda run: Context().run(opened, run)


@twin("counts as started what was cancelled before its first step", "test_core_clock.py")
def starts_what_never_began():
    raised = Window._raised

    def never_began(self, index, item):
        del self.running[index]
        raised(self, index, item, asyncio.CancelledError())

    Window._never_began = never_began


@twin("measures by a clock that ticks every millisecond", "test_core_clock.py")
def coarse_clock():
    clocks.clock_of = scopes.clock_of = lambda loop: loop.time


@twin("puts up with one failure more than max_failures says", "test_on_error.py")
def one_failure_more():
    exceeded = Tolerance.exceeded
    Tolerance.exceeded = lambda self, failed, settled: exceeded(self, failed - 1, settled)


@twin("begins more before it tells the stage below of what has finished", "guarantees/test_p2_progress.py")
def pumps_before_telling():
    def take_turn(self):
        self._scheduled = False
        self._pump(wanted=False)
        self._tell()

    Window.take_turn = take_turn


@twin("serves the stages next to the source first, however much has finished below", "guarantees/test_p2_progress.py")
def upstream_first():
    schedule = Scope.schedule

    def schedule_reversed(self, stage):
        self.stages = {each: abs(rank) for each, rank in self.stages.items()}
        schedule(self, stage)

    Scope.schedule = schedule_reversed


@twin("keeps to the order though nobody can see it", "guarantees/test_p3_order.py")
def always_in_order():
    Operator.shows_order = lambda self, in_order: self.ordered is not False


@twin("hands on as finished though the order can be seen", "guarantees/test_p3_order.py")
def forgets_who_sees_the_order():
    Operator.shows_order = lambda self, in_order: in_order


def pytest_configure(config):
    """Put the twin in the place of the real thing."""
    TWINS[os.environ["PENSTOCK_TWIN"]].patch()
