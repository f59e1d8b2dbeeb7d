"""P4: leaving by any road stops and awaits all work, then closes the source once, in the task that pulled it."""

import asyncio
import itertools
import math
import warnings
from contextlib import aclosing, suppress

import pytest

from penstock import UnclosedStreamWarning, UnstoppedWorkWarning, merge, stream
from penstock.testing import Gauge, Scripted

from .operators import OPERATORS, ORDERS, THREADED, grid, itself, named, read_all

FOREVER = math.inf


class Left(Exception):
    """Raised by the body of a consumer, or by work."""


class Source(Scripted):
    """Notes how many calls still ran when it was closed."""

    def __init__(self, gauge, items, **script):
        super().__init__(items, **script)
        self.gauge = gauge
        self.running_when_closed = None

    def record_close(self):
        super().record_close()
        self.running_when_closed = self.gauge.now


class Site:
    """A stream over work: `quick` items take a second each, the others never end, and stopping takes a second."""

    def __init__(self, operator, clock, *, sync=False, count=1_000, quick=4, fails_at=None, **options):
        self.clock, self.gauge = clock, Gauge()
        self.quick, self.fails_at = quick, fails_at
        self.source = Source(self.gauge, range(count))
        items = stream(self.source.sync() if sync else self.source)
        self.stream = operator.build(items, self.gauge.wrap(self.call), **options)
        self.left, self.left_at, self.others = asyncio.Event(), None, None

    async def call(self, item):
        try:
            await asyncio.sleep(1 if item < self.quick else FOREVER)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            raise
        if item == self.fails_at:
            self.leave()
            raise Left

    def leave(self):
        """Note the moment, and how many calls are under way that will have to be stopped."""
        self.left.set()
        self.left_at = self.clock.now
        self.others = self.gauge.now - (self.fails_at is not None)

    async def check(self, *, sync):
        """Nothing runs, nothing starts, the source is closed as promised, and no time went by once work had stopped."""
        assert self.clock.now == self.left_at + (1 if self.others else 0)
        assert self.gauge.now == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert self.source.closed == self.source.opened == 1
        assert self.source.running_when_closed == 0
        assert sync or self.source.pulled_by == {self.source.closed_by}
        started = self.gauge.started, self.source.taken
        await asyncio.sleep(100)
        assert (self.gauge.started, self.source.taken) == started


async def by_end(site):
    async with site.stream.open() as results:
        async for _ in results:
            site.leave()


async def by_break(site):
    async with site.stream.open() as results:
        async for _ in results:
            site.leave()
            break


async def by_exception_in_the_body(site):
    error = Left()

    async def consume():
        async with site.stream.open() as results:
            async for _ in results:
                site.leave()
                raise error

    with pytest.raises(Left) as raised:
        await consume()
    assert raised.value is error


async def by_failing_work(site):
    _, _, error = await read_all(site.stream)
    assert isinstance(error, Left)


async def by_cancellation_in_anext(site):
    consumer = asyncio.create_task(site.stream.drain())
    await asyncio.sleep(20)
    site.leave()
    consumer.cancel()
    await asyncio.wait([consumer])
    assert consumer.cancelled()


async def by_cancellation_in_the_body(site):
    async def consume():
        async with site.stream.open() as results:
            await anext(results)
            await asyncio.sleep(FOREVER)

    consumer = asyncio.create_task(consume())
    await asyncio.sleep(20)
    site.leave()
    consumer.cancel()
    await asyncio.wait([consumer])
    assert consumer.cancelled()


async def by_timeout(site):
    asyncio.get_running_loop().call_later(20, site.leave)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(20):
            await site.stream.drain()


async def by_aclose(site):
    results = site.stream.open()
    await anext(results)
    site.leave()
    await results.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(results)
    await results.aclose()


async def by_aclose_in_another_task(site):
    async def consume():
        async for _ in results:
            pass

    results = site.stream.open()
    consumer = asyncio.create_task(consume())
    await asyncio.sleep(20)
    site.leave()
    await results.aclose()
    left = site.clock.now
    await consumer
    assert site.clock.now == left


async def by_generator_exit(site):
    async def generate():
        async with site.stream.open() as results:
            async for result in results:
                yield result

    async with aclosing(generate()) as generated:
        await anext(generated)
        site.leave()


async def by_first(site):
    await site.stream.first()
    site.left_at, site.others = site.clock.now - 1, 1


async def by_stop(site):
    """`stop()` takes nothing more and waits for what is in flight, which `aclose()` then cuts short."""
    async with site.stream.open() as results:
        await anext(results)
        results.stop()
        taken = site.source.taken
        await asyncio.sleep(20)
        assert site.source.taken == taken
        site.leave()


ROADS = {
    by_end: {"count": 4},
    by_break: {},
    by_exception_in_the_body: {},
    by_failing_work: {"fails_at": 2},
    by_cancellation_in_anext: {},
    by_cancellation_in_the_body: {},
    by_timeout: {},
    by_aclose: {},
    by_aclose_in_another_task: {},
    by_generator_exit: {},
    by_first: {"quick": 2},
    by_stop: {},
}


@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.__name__)
async def test_leaving_stops_all_work_and_closes_the_source_once(road, clock):
    """Trap 9. On every road, for every operator, ordered or not, over async and plain sources."""
    sizes = [(False, 1, 0), (False, 5, 2), (True, 5, 2)]
    for operator, ordered, (sync, concurrency, buffer) in itertools.product(OPERATORS, (True, False), sizes):
        options = {"concurrency": concurrency, "buffer": buffer, "ordered": ordered}
        with named(operator=operator, sync=sync, **options):
            site = Site(operator, clock, sync=sync, **ROADS[road], **options)
            await road(site)
            await site.check(sync=sync)


@grid(operator=OPERATORS, sync=[False, True])
async def test_leaving_before_the_first_item_reads_nothing(operator, sync, clock):
    site = Site(operator, clock, sync=sync)
    async with site.stream.open():
        pass
    assert (site.source.opened, site.source.taken, site.gauge.started) == (0, 0, 0)


async def test_an_iterator_that_was_passed_in_is_closed_although_it_was_never_read():
    closed = []

    class Iterator:
        def __aiter__(self):
            return self

        async def __anext__(self):
            raise AssertionError

        async def aclose(self):
            closed.append("async")

    class Plain:
        def __iter__(self):
            return self

        def __next__(self):
            raise AssertionError

        def close(self):
            closed.append("sync")

    for source in (Iterator(), Plain()):
        async with stream(source).open():
            pass
    assert closed == ["async", "sync"]


@grid(ordered=ORDERS)
async def test_a_plain_iterator_that_counts_as_false_is_closed(ordered):
    class Countdown:
        left, closed = 3, 0

        def __iter__(self):
            return self

        def __next__(self):
            if not self.left:
                raise StopIteration
            self.left -= 1
            return self.left

        def __len__(self):
            return self.left

        def close(self):
            self.closed += 1

    async def call(item):
        return item

    class Holder:
        def __iter__(self):
            return countdown

    countdown = Countdown()
    assert await stream(Holder()).map(call, ordered=ordered).to_list() == [2, 1, 0]
    assert countdown.closed == 1


@grid(operator=OPERATORS, ordered=ORDERS)
async def test_cancellations_while_waiting_are_remembered_and_leave_nothing_running(operator, ordered, clock):
    """Trap 20a."""
    site = Site(operator, clock, concurrency=3, ordered=ordered)
    consumer = asyncio.create_task(site.stream.drain())
    asyncio.get_running_loop().call_at(20, site.leave)
    for when in (20, 20.25, 20.5, 20.75):
        asyncio.get_running_loop().call_at(when, consumer.cancel)
    await asyncio.wait([consumer])
    assert consumer.cancelled()
    assert site.others > 0
    await site.check(sync=False)


@grid(operator=OPERATORS)
async def test_a_cancellation_while_leaving_after_a_break_is_raised_when_all_has_stopped(operator, clock):
    site = Site(operator, clock, concurrency=3, ordered=False, quick=2)
    consumer = asyncio.create_task(by_break(site))
    await site.left.wait()
    await asyncio.sleep(0.25)
    consumer.cancel()
    await asyncio.wait([consumer])
    assert consumer.cancelled()
    await site.check(sync=False)


@grid(operator=OPERATORS)
async def test_a_cancellation_while_a_failed_run_ends_is_raised_when_all_has_stopped(operator, clock):
    site = Site(operator, clock, concurrency=3, ordered=False, fails_at=1)
    consumer = asyncio.create_task(site.stream.drain())
    await site.left.wait()
    await asyncio.sleep(0.25)
    consumer.cancel()
    await asyncio.wait([consumer])
    assert consumer.cancelled()
    await site.check(sync=False)


async def test_a_timeout_that_is_cancelled_while_leaving_is_a_cancellation(clock):
    site = Site(OPERATORS[0], clock, concurrency=2)
    consumer = asyncio.create_task(by_timeout(site))
    asyncio.get_running_loop().call_at(20.5, consumer.cancel)
    await asyncio.wait([consumer])
    assert consumer.cancelled()
    assert clock.now == 21.0


@grid(ordered=ORDERS)
async def test_work_that_ignores_cancellation_gets_its_grace_then_a_warning_that_names_it(ordered, clock):
    """Trap 16."""
    back = []

    async def stubborn(item):
        if item:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(FOREVER)
            await asyncio.sleep(60 * item)
            back.append((item, clock.now))

    source = Scripted(range(3))
    options = {"concurrency": 3, "ordered": ordered, "name": "slow stage"}
    with pytest.warns(UnstoppedWorkWarning, match=r"still running 7 s .*stage 'slow stage', items 1, 2") as warned:
        async with stream(source).map(stubborn, **options).open(grace=7) as results:
            await anext(results)
    assert len(warned) == 1
    assert clock.now == 7.0
    assert source.closed == 1
    assert results.stats()["slow stage"].in_flight == 2
    await asyncio.sleep(200)
    assert back == [(1, 60.0), (2, 120.0)]


async def test_a_source_that_ignores_cancellation_gets_its_grace_then_a_warning_that_names_it(clock):
    source = Scripted(range(9), delay=lambda index: 100 if index else 0, ignore_cancel=50)
    items = stream(source).open(grace=7)
    await anext(items)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(items), 1)
    with pytest.warns(UnstoppedWorkWarning, match="'source'"):
        await items.aclose()
    assert clock.now == 8.0
    await asyncio.sleep(100)
    assert source.closed == 1


async def test_a_source_that_closes_after_its_grace_comes_back_in_peace(clock):
    source = Scripted(range(9), close_delay=10)
    with pytest.warns(UnstoppedWorkWarning, match="closing of 'source'"):
        async with stream(source).open(grace=3) as items:
            await anext(items)
    assert clock.now == 3.0
    await asyncio.sleep(100)
    assert source.closed == 1


async def test_work_that_stops_within_its_grace_is_not_warned_of(clock):
    site = Site(OPERATORS[0], clock, concurrency=3, quick=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with site.stream.open(grace=1.5) as results:
            await anext(results)
    assert clock.now == 2.0


@grid(operator=THREADED, ordered=ORDERS)
async def test_threads_are_waited_for(operator, ordered, clock):
    """Trap 17: a thread cannot be stopped; leaving waits until it is back."""
    gauge = Gauge()

    def call(item):
        with gauge:
            clock.sleep(3 if item else 1)

    source = Source(gauge, range(100))
    async with operator.build(stream(source), call, concurrency=3, ordered=ordered).open(grace=10) as results:
        await anext(results)
        started = gauge.started
    assert clock.now == 3.0 + (started > 3)
    assert gauge.now == 0
    assert (source.closed, source.running_when_closed) == (1, 0)
    await asyncio.sleep(100)
    assert gauge.started == started


@grid(operator=THREADED)
async def test_cancellation_while_threads_run_waits_for_them(operator, clock):
    gauge = Gauge()

    def call(item):
        with gauge:
            clock.sleep(8)

    async def consume():
        async with operator.build(stream(range(100)), call, concurrency=3).open(grace=20) as results:
            await anext(results)

    consumer = asyncio.create_task(consume())
    for seconds in (1, 2, 3):
        asyncio.get_running_loop().call_later(seconds, consumer.cancel)
    await asyncio.wait([consumer])
    assert consumer.cancelled()
    assert clock.now == 8.0
    assert (gauge.now, gauge.started) == (0, 3)


class Tidy:
    """A source that needs three seconds to clean up when its read is cancelled."""

    def __init__(self, clock, ready):
        self.clock, self.left, self.log = clock, ready, []

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.left:
            self.left -= 1
            return self.left
        try:
            await asyncio.sleep(FOREVER)
        except asyncio.CancelledError:
            self.log.append(("cancelled", self.clock.now))
            await asyncio.sleep(3)
            self.log.append(("clean", self.clock.now))
            raise

    async def aclose(self):
        self.log.append(("closed", self.clock.now))


async def test_the_clean_up_of_a_source_is_not_cancelled_again_when_a_stage_fails(clock):
    async def fail(item):
        await asyncio.sleep(1)
        raise Left

    source = Tidy(clock, ready=1)
    with pytest.raises(Left):
        await stream(source).map(fail, concurrency=2).to_list()
    assert source.log == [("cancelled", 1.0), ("clean", 4.0), ("closed", 4.0)]


async def test_the_clean_up_of_a_source_is_not_cancelled_again_after_take(clock):
    async def call(item):
        await asyncio.sleep(1)

    source = Tidy(clock, ready=1)
    await stream(source).map(call, concurrency=2).tap(itself(call), concurrency=2).take(1).to_list()
    assert source.log == [("cancelled", 2.0), ("clean", 5.0), ("closed", 5.0)]


async def test_the_clean_up_of_a_source_is_not_cancelled_again_by_stop_and_leaving(clock):
    source = Tidy(clock, ready=1)
    async with stream(source).open() as items:
        await anext(items)
        waiting = asyncio.create_task(anext(items))
        await asyncio.sleep(1)
        items.stop()
        items.stop()
        await asyncio.sleep(1)
    assert source.log == [("cancelled", 1.0), ("clean", 4.0), ("closed", 4.0)]
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_closing_a_source_is_awaited_and_not_disturbed_by_cancellation(clock):
    source = Scripted(range(9), close_delay=2)

    async def consume():
        async with stream(source).open() as items:
            await anext(items)

    consumer = asyncio.create_task(consume())
    asyncio.get_running_loop().call_at(1, consumer.cancel)
    await asyncio.wait([consumer])
    assert consumer.cancelled()
    assert (source.closed, clock.now) == (1, 2.0)


async def test_all_sources_of_a_merge_are_closed_each_by_its_own_task(clock):
    """Trap 11: also one that is silent."""
    sources = [Scripted("ab"), Scripted("xy", delay=1), Scripted([], silent_after=0)]
    async with merge(*sources).open() as items:
        assert [await anext(items) for _ in range(4)] == ["a", "b", "x", "y"]
    assert [source.closed for source in sources] == [1, 1, 1]
    assert all(source.pulled_by == {source.closed_by} for source in sources)


@grid(operator=OPERATORS)
async def test_reading_to_the_end_without_async_with_leaves_nothing(operator, clock):
    site = Site(operator, clock, count=4, concurrency=3)
    async for _ in site.stream:
        site.leave()
    await site.check(sync=False)


@grid(operator=OPERATORS)
async def test_an_abandoned_iteration_stops_and_warns(operator, clock):
    """PEP 533: that is when it is collected."""
    site = Site(operator, clock, concurrency=3)

    async def abandon():
        async for _ in site.stream:
            return

    with pytest.warns(UnclosedStreamWarning, match=r"async with stream\.open\(\) as items"):
        await abandon()
    await asyncio.sleep(2)
    assert site.gauge.now == 0
    assert site.source.closed == 1


async def test_a_run_that_was_never_read_is_dropped_without_a_word():
    source = Scripted(range(9))
    stream(source).open()
    async with stream(source).open():
        pass
    assert source.opened == 0


async def test_calls_upstream_and_downstream_are_stopped_together(clock):
    gauges = [Gauge() for _ in range(3)]
    stopped = []

    def call_of(gauge):
        async def call(item):
            try:
                await asyncio.sleep(1 if item == 0 else 50)
            except asyncio.CancelledError:
                stopped.append(clock.now)
                raise
            return item

        return gauge.wrap(call)

    source = Scripted(range(1_000))
    first, second, third = map(call_of, gauges)
    built = stream(source).map(first, concurrency=4, ordered=False).flat_map(in_list_of(second), concurrency=2)
    async with built.tap(third, concurrency=3).open() as results:
        assert await anext(results) == 0
        running = sum(gauge.now for gauge in gauges)
    assert stopped == [3.0] * running
    assert [gauge.now for gauge in gauges] == [0, 0, 0]
    assert source.closed == 1


def in_list_of(call):
    async def outputs(item):
        return [await call(item)]

    return outputs


async def test_a_run_may_be_left_twice():
    source = Scripted(range(9))
    async with stream(source).open() as items:
        await anext(items)
        await items.aclose()
        await items.aclose()
    await items.aclose()
    assert source.closed == 1
