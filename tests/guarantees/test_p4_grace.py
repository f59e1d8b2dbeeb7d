"""P4: what ignores its cancellation gets its grace, then a warning; threads are waited for."""

import asyncio
import warnings
from contextlib import suppress

import pytest

from penstock import UnstoppedWorkWarning, stream
from penstock.testing import Gauge, Scripted

from .grids import ORDERS, grid
from .operators import OPERATORS, THREADED
from .sites import FOREVER, Site, Source


@grid(ordered=ORDERS)
async def test_work_that_ignores_cancellation_gets_its_grace_then_a_warning_that_names_it(ordered, clock):
    """Trap 16."""
    back = []

    async def stubborn(item):
        if not item:
            await asyncio.sleep(1)  # else it is handed on before the others have begun (P2)
        else:
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
    assert clock.now == 8.0
    assert source.closed == 1
    assert results.stats()["slow stage"].in_flight == 2
    await asyncio.sleep(200)
    assert back == [(1, 61.0), (2, 121.0)]


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


async def test_all_stages_with_work_that_is_left_behind_are_named():
    """Trap 16."""

    async def stubborn(item):
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    async def first(item):
        return await stubborn(item) if item else item

    run = stream(range(2)).map(first, name="first").map(stubborn, name="second").open(grace=2)
    with suppress(TimeoutError):
        await asyncio.wait_for(anext(run), 1)
    with pytest.warns(UnstoppedWorkWarning, match="left behind: stage 'first', item 1; stage 'second', item 0$"):
        await run.aclose()
    await asyncio.sleep(60)
