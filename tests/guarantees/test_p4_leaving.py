"""P4: leaving by any road stops and awaits all work, then closes the source; nothing starts after."""

import asyncio
import itertools
from contextlib import aclosing

import pytest

from penstock import UnclosedStreamWarning, stream
from penstock.testing import Gauge, Scripted

from .grids import ORDERS, grid, named, read_all
from .operators import OPERATORS, in_list
from .sites import FOREVER, Left, Site


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
    sizes = [(False, 5, 2), (True, 1, 0)]
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
    built = stream(source).map(first, concurrency=4, ordered=False).flat_map(in_list(second), concurrency=2)
    async with built.tap(third, concurrency=3).open() as results:
        assert await anext(results) == 0
        running = sum(gauge.now for gauge in gauges)
    assert stopped == [3.0] * running
    assert [gauge.now for gauge in gauges] == [0, 0, 0]
    assert source.closed == 1


async def test_a_run_may_be_left_twice():
    source = Scripted(range(9))
    async with stream(source).open() as items:
        await anext(items)
        await items.aclose()
        await items.aclose()
    await items.aclose()
    assert source.closed == 1
