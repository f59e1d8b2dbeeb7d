"""The ways in which a run can go, for every operator: after each of them nothing of it may be left.

A row of ENDINGS is `await ending(site)`. It makes one run over the items of the site, sees to it that the run ended as
its name says, and lets go of it.
"""

import asyncio
import contextlib
import warnings
import weakref

from penstock import AttemptTimeout, Retry, UnclosedStreamWarning, UnstoppedWorkWarning, WorkRaised, merge, stream
from penstock.core.scope import Scope
from penstock.core.stage import Stage
from penstock.run import Run

from ..guarantees.operators import (  # noqa: TID252 -- tests are no package to name
    OPERATORS,
    THREADED,
    Operator,
    itself,
    one_by_one,
    truth,
)

HOUR = 3600.0
MANY = 1_000
"""Items of a run that is not to come to its end."""


class Item:
    """A thing that a weak reference can watch."""

    def __init__(self, number):
        self.number = number


class Broken(Exception):
    """Holds an item, as the errors of users do."""


class Watched:
    """What must die with its run: items, errors, stages, scopes and handles."""

    def __init__(self):
        self._alive = weakref.WeakSet()
        self.seen = 0

    def add(self, thing):
        self._alive.add(thing)
        self.seen += 1
        return thing

    def items(self, count):
        for number in range(count):
            yield self.add(Item(number))

    def alive(self):
        return [f"{type(thing).__name__} {getattr(thing, 'name', '')}" for thing in self._alive]

    def forget(self):
        self._alive.clear()
        self.seen = 0

    def watch_runs(self, monkeypatch):
        """Add every scope, stage and handle that is made from now on."""
        for kind in (Scope, Stage, Run):
            monkeypatch.setattr(kind, "__init__", self._adding(kind.__init__))

    def _adding(self, init):
        def made(thing, *args, **kwargs):
            self.add(thing)
            init(thing, *args, **kwargs)

        return made


class Ends:
    """A `with` block that must end with an error of that kind, and forgets it: `pytest.raises` keeps it."""

    def __init__(self, kind):
        self.kind = kind

    def __enter__(self):
        pass

    def __exit__(self, kind, _, __):
        assert kind is not None, f"no {self.kind.__name__} was raised"
        return issubclass(kind, self.kind)


class Site:
    """Where a run is made: an operator, its order, and what watches its items. `tick` is the time that work takes."""

    def __init__(self, operator, watched, clock=None, *, ordered=True, tick=1.0):
        self.operator, self.watched, self.clock = operator, watched, clock
        self.ordered, self.tick = ordered, tick

    def built(self, call, *, count=7, source=None, **options):
        items = stream(self.watched.items(count)) if source is None else source
        return self.operator.build(items, call, **{"concurrency": 2, "buffer": 1, "ordered": self.ordered, **options})

    def error(self, item=None):
        return self.watched.add(Broken(item))

    async def passes(self, item):
        await asyncio.sleep(self.tick * (item.number % 3))

    async def waits(self, _):
        await asyncio.sleep(self.tick)

    def failing(self, *numbers):
        async def call(item):
            await asyncio.sleep(self.tick)
            if item.number in numbers:
                raise self.error(item)

        return call

    def stuck_after(self, number):
        async def call(item):
            await asyncio.sleep(HOUR if item.number >= number else self.tick)

        return call


async def drained(built, **options):
    """Read to the end; gives the numbers of results and of failures that were kept."""
    results = 0
    async with built.open(**options) as run:
        async for _ in run:
            results += 1
    return results, len(run.failures)


async def read_to_the_end(site):
    results, _ = await drained(site.built(site.passes))
    assert results


async def empty(site):
    _, failures = await drained(site.built(site.passes, count=0))
    assert failures == 0


async def never_read(site):
    async with site.built(site.passes).open():
        pass


async def left_by_break(site):
    async with site.built(site.stuck_after(4), count=MANY).open() as run:
        async for _ in run:
            break


async def closed_by_hand(site):
    run = site.built(site.stuck_after(4), count=MANY).open()
    await anext(run)
    await run.aclose()


async def left_by_an_error(site):
    with Ends(Broken):
        async with site.built(site.stuck_after(4), count=MANY).open() as run:
            async for item in run:
                raise site.error(item)


async def failed(site):
    with Ends(Broken):
        await drained(site.built(site.failing(3)))


async def failed_in_one_tick(site):
    with Ends(Broken):
        await drained(site.built(site.failing(0, 1)))


async def skipped(site):
    await drained(site.built(site.failing(0, 2, 3), on_error="skip"))


async def collected(site):
    assert (await drained(site.built(site.failing(0, 2, 3), on_error="collect")))[1] == 3


async def too_many_failures(site):
    with Ends(Broken):
        await drained(site.built(site.failing(0, 2, 3), on_error="collect", max_failures=1))


async def returned(site):
    """`flatten` cannot read a `Failed`: there, the run fails instead."""
    with contextlib.suppress(Exception):
        await drained(site.built(site.failing(0, 2, 3), on_error="return"))


async def retried(site):
    tried = set()

    async def call(item):
        await asyncio.sleep(site.tick)
        if item.number not in tried:
            tried.add(item.number)
            raise site.error(item)

    results, _ = await drained(site.built(call, retry=Retry(on=Broken, initial=site.tick)))
    assert results


async def given_up(site):
    retry = Retry(on=Broken, attempts=2, initial=site.tick)
    with Ends(Broken):
        await drained(site.built(site.failing(*range(7)), retry=retry))


async def given_up_and_collected(site):
    retry = Retry(on=Broken, attempts=2, initial=site.tick)
    assert (await drained(site.built(site.failing(0, 4), retry=retry, on_error="collect")))[1] == 2


async def left_while_a_retry_waits(site):
    retry = Retry(on=Broken, initial=HOUR, max=HOUR, jitter=0)
    async with site.built(site.failing(4, 5), count=MANY, retry=retry).open() as run:
        async for _ in run:
            break


async def in_time(site):
    results, _ = await drained(site.built(site.passes, timeout=HOUR))
    assert results


async def timed_out(site):
    with Ends(AttemptTimeout):
        await drained(site.built(site.stuck_after(3), timeout=10))


async def timed_out_at_every_try(site):
    retry = Retry(on=TimeoutError, attempts=2)
    built = site.built(site.stuck_after(3), timeout=10, retry=retry, on_error="collect")
    assert (await drained(built))[1] == 4


async def timed_out_and_converted(site):
    async def call(item):
        try:
            await asyncio.sleep(HOUR)
        except asyncio.CancelledError as cut:
            raise site.error(item) from cut

    with Ends((AttemptTimeout, Broken)):
        await drained(site.built(call, timeout=10))


async def cancelled(site):
    reading = asyncio.create_task(drained(site.built(site.stuck_after(3), count=MANY)))
    for _ in range(20):
        await asyncio.sleep(site.tick)
    reading.cancel()
    with Ends(asyncio.CancelledError):
        await reading


async def left_by_a_deadline(site):
    with Ends(TimeoutError):
        async with asyncio.timeout(20):
            await drained(site.built(site.stuck_after(3), count=MANY))


async def read_after_a_cancelled_read(site):
    async with site.built(site.waits).open() as run:
        reading = asyncio.create_task(anext(run))
        await asyncio.sleep(0)
        if reading.cancel():  # else it has its result: an eager one of a stage that does not call `waits`
            with Ends(asyncio.CancelledError):
                await reading
        del reading
        assert [item async for item in run]


async def stopped(site):
    async with site.built(site.passes, count=MANY).open() as run:
        await anext(run)
        run.stop()
        assert len([item async for item in run]) < MANY // 10


async def abandoned(site):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnclosedStreamWarning)
        run = aiter(site.built(site.stuck_after(4), count=MANY))
        await anext(run)
        del run
        for _ in range(20):
            await asyncio.sleep(site.tick)


async def source_failed(site):
    def items():
        yield from site.watched.items(3)
        raise site.error()

    with Ends(Broken):
        await drained(site.built(site.passes, source=stream(items)))


async def async_source_failed(site):
    async def items():
        for item in site.watched.items(3):
            await asyncio.sleep(site.tick)
            yield item
        raise site.error()

    with Ends(Broken):
        await drained(site.built(site.passes, source=stream(items)))


async def async_source_left(site):
    async def items():
        for item in site.watched.items(4):
            yield item
        await asyncio.sleep(HOUR)

    async with site.built(site.passes, source=stream(items)).open() as run:
        await anext(run)


async def closing_the_source_failed(site):
    def items():
        try:
            yield from site.watched.items(MANY)
        finally:
            raise site.error()

    with Ends(Broken):
        async with site.built(site.stuck_after(4), source=stream(items)).open() as run:
            await anext(run)


async def stopping_the_work_failed(site):
    async def call(item):
        try:
            await asyncio.sleep(HOUR if item.number >= 4 else site.tick)
        except asyncio.CancelledError:
            raise site.error(item) from None

    with contextlib.suppress(Broken):  # a stage that is one item ahead has no call to stop
        async with site.built(call, count=MANY).open() as run:
            await anext(run)


async def cancelled_itself(site):
    async def call(item):
        await asyncio.sleep(site.tick)
        raise asyncio.CancelledError

    with Ends(WorkRaised):
        await drained(site.built(call))


async def outlasted_its_grace(site):
    end = site.clock.now + 100

    async def call(item):
        if item.number < 4:
            return
        while site.clock.now < end:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(end - site.clock.now)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnstoppedWorkWarning)
        async with site.built(call, count=MANY).open(grace=5) as run:
            await anext(run)
            await asyncio.sleep(site.tick)
    await asyncio.sleep(200)


async def source_in_a_thread(site):
    source = stream(site.watched.items(5), engine="thread")
    results, _ = await drained(site.built(site.passes, source=source))
    assert results


async def source_in_a_thread_left(site):
    source = stream(site.watched.items(MANY), engine="thread")
    async with site.built(site.passes, source=source).open() as run:
        await anext(run)


async def source_in_a_thread_failed(site):
    def items():
        yield from site.watched.items(3)
        raise site.error()

    with Ends(Broken):
        await drained(site.built(site.passes, source=stream(items, engine="thread")))


ENDINGS = (
    read_to_the_end,
    empty,
    never_read,
    left_by_break,
    closed_by_hand,
    left_by_an_error,
    failed,
    failed_in_one_tick,
    skipped,
    collected,
    too_many_failures,
    returned,
    retried,
    given_up,
    given_up_and_collected,
    left_while_a_retry_waits,
    in_time,
    timed_out,
    timed_out_at_every_try,
    timed_out_and_converted,
    cancelled,
    left_by_a_deadline,
    read_after_a_cancelled_read,
    stopped,
    abandoned,
    source_failed,
    async_source_failed,
    async_source_left,
    closing_the_source_failed,
    stopping_the_work_failed,
    cancelled_itself,
    source_in_a_thread,
    source_in_a_thread_left,
    source_in_a_thread_failed,
    outlasted_its_grace,
)

TIMELESS = tuple(
    ending
    for ending in ENDINGS
    if ending
    not in {timed_out, timed_out_at_every_try, timed_out_and_converted, left_by_a_deadline, outlasted_its_grace}
)
"""Those in which no time has to pass: with a tick of 0 they run on a loop in real time."""


# In threads: there, work is plain functions, which nobody can interrupt.


def in_threads(site, call, **options):
    return site.built(call, engine="thread", **options)


def slow_after(site, number):
    def call(item):
        site.clock.sleep(30 if item.number >= number else 1)

    return call


def plain_failing(site, *numbers):
    def call(item):
        if item.number in numbers:
            raise site.error(item)

    return call


async def threads_to_the_end(site):
    results, _ = await drained(in_threads(site, plain_failing(site)))
    assert results


async def threads_left_by_break(site):
    async with in_threads(site, slow_after(site, 4), count=MANY).open(grace=HOUR) as run:
        await anext(run)


async def threads_failed(site):
    with Ends(Broken):
        await drained(in_threads(site, plain_failing(site, 3)))


async def threads_skipped(site):
    await drained(in_threads(site, plain_failing(site, 0, 2, 3), on_error="skip"))


async def threads_given_up(site):
    retry = Retry(on=Broken, attempts=2)
    assert (await drained(in_threads(site, plain_failing(site, 0, 4), retry=retry, on_error="collect")))[1] == 2


async def threads_timed_out(site):
    with Ends(AttemptTimeout):
        await drained(in_threads(site, slow_after(site, 3), timeout=10), grace=HOUR)


async def threads_timed_out_at_every_try(site):
    retry = Retry(on=TimeoutError, attempts=2)
    built = in_threads(site, slow_after(site, 5), timeout=10, retry=retry, on_error="collect")
    assert (await drained(built))[1] == 2


async def threads_cancelled(site):
    with Ends(TimeoutError):
        async with asyncio.timeout(20):
            await drained(in_threads(site, slow_after(site, 3), count=MANY), grace=HOUR)


THREAD_ENDINGS = (
    threads_to_the_end,
    threads_left_by_break,
    threads_failed,
    threads_skipped,
    threads_given_up,
    threads_timed_out,
    threads_timed_out_at_every_try,
    threads_cancelled,
)


# Operators beside those of the table: calls for many items, which are halved, and stages in a row and side by side.


def batches_of_four(items, call, **options):
    return items.map_batches(one_by_one(call), 4, **options)


def several_stages(items, call, **options):
    worked = items.filter(truth(call), **options).map(itself(call), **options)
    return worked.flat_map(lambda item: iter([item]), concurrency=2).batch(2, within=HOUR).flatten().prefetch(2)


def side_by_side(items, call, **options):
    worked = items.map(itself(call), **options)
    others = stream(range(3)).map(lambda number: asyncio.sleep(0, number), concurrency=2)
    return merge(worked, others).zip(stream(range(MANY)))


COMPOSED = (
    Operator("map_batches-of-4", batches_of_four, None),
    Operator("stages in a row", several_stages, None, settles_late=True),
    Operator("stages side by side", side_by_side, None, items=lambda pair: [pair[0]]),
)

ALL_OPERATORS = OPERATORS + COMPOSED
SPREAD = (
    tuple(each for each in OPERATORS if each.name in {"filter", "flat_map-iterator", "flat_map-async", "batch-within"})
    + COMPOSED
)
"""One of each kind of stage."""


def plain_batches(items, call, **options):
    return items.map_batches(lambda batch: [call(item) or item for item in batch], 4, **options)


THREAD_OPERATORS = (*THREADED, Operator("map_batches-plain", plain_batches, None, in_threads=True))
