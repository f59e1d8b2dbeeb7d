"""Traps 12, 13, 20a and 20d: cancellation, and what it may hit."""

import asyncio
import contextlib
import gc

import pytest

import penstock
from penstock.testing import Gauge, Scripted


async def test_trap_12_an_item_cancelled_before_its_first_step_vanishes():
    """Trap 12 (gh-116048): a task that is cancelled before its first step never runs: its item is in no book."""
    async with penstock.stream(range(8)).map(asyncio.sleep, concurrency=4).open() as items:
        waiting = asyncio.ensure_future(anext(items, None))
        await asyncio.sleep(0)
        await items.aclose()
        await waiting
    stage = items.stats()[-1]
    assert stage.in_flight == 0
    assert stage.taken == stage.delivered + stage.cancelled + stage.discarded


async def test_trap_12_a_coroutine_handed_to_a_task_that_never_begins():
    """Trap 12 (gh-116048): the coroutine that a plain function has returned is closed, not left "never awaited"."""

    def starts(seconds):
        return asyncio.sleep(seconds)

    async with penstock.stream([1, 2]).map(starts).open() as items:
        waiting = asyncio.ensure_future(anext(items, None))
        await asyncio.sleep(0)
        await items.aclose()
        await waiting
    gc.collect()
    assert items.stats()[-1].in_flight == 0


async def test_trap_12_others_cancel_a_task_before_its_first_step():
    """Trap 12 (gh-116048): nobody else cancels an item's task unnoticed: it fails, whether or not it has begun."""
    mine = asyncio.all_tasks()

    def cancels_the_first():
        yield 1
        for task in asyncio.all_tasks() - mine:
            task.cancel()
        yield 2

    with pytest.raises(penstock.WorkRaised):
        await penstock.stream(cancels_the_first).map(asyncio.sleep, concurrency=3).to_list()


async def test_trap_13_cancellation_is_swallowed():
    """Trap 13 (aioitertools): `except CancelledError: pass` made a cancelled run look like a finished one."""
    run = asyncio.create_task(penstock.stream([1] * 9).map(asyncio.sleep, concurrency=2).to_list())
    await asyncio.sleep(1.5)
    run.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await run
    assert run.cancelled()


async def test_trap_13_cancellation_is_retried():
    """Trap 13 (tenacity #529): a retry of everything retried the cancellation, and nothing could stop the task."""
    gauge = Gauge()
    results = penstock.stream([60]).map(
        gauge.wrap(asyncio.sleep), retry=penstock.Retry(on=BaseException, attempts=5), on_error="collect"
    )
    async with results.open() as items:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 1)
    assert (gauge.started, gauge.cancelled) == (1, 1)
    assert items.failures == ()
    assert items.stats()[-1].cancelled == 1


async def test_trap_13_cancellation_during_the_pause_of_a_retry(clock):
    """Trap 13 (tenacity #529): a run that is left while an item waits for its next attempt ends at once."""
    calls = []

    async def fails(number):
        calls.append(number)
        raise ConnectionError

    retry = penstock.Retry(on=ConnectionError, attempts=5, initial=60, max=60)
    async with penstock.stream([1]).map(fails, retry=retry).open() as items:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 1)
    assert calls == [1]
    assert clock.now == 1.0


async def test_trap_20a_a_second_cancellation_leaves_children_running(clock):
    """Trap 20a (several peers): cancelled again while it waited for stopped work, the run left that work behind."""
    source, gauge = Scripted(range(10), close_delay=1), Gauge()

    async def cleans_up(_):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(3)

    async def consume():
        async with penstock.stream(source).map(gauge.wrap(cleans_up), concurrency=3).open() as items:
            await anext(items)

    run = asyncio.create_task(consume())
    for _ in range(4):
        await asyncio.sleep(1)
        run.cancel()
    await asyncio.wait([run])
    assert run.cancelled()
    assert gauge.now == 0
    assert source.closed == 1
    assert clock.now == 5.0


async def test_trap_20a_a_cancellation_while_breaking_is_not_forgotten():
    """Trap 20a (several peers): a first cancellation that comes while `break` waits for the work is raised after it."""
    gauge = Gauge()

    async def cleans_up(number):
        try:
            await asyncio.sleep(60 if number else 0.5)
        finally:
            await asyncio.sleep(3 * number)

    async def consume():
        async with penstock.stream([0, 1]).map(gauge.wrap(cleans_up), concurrency=2).open() as items:
            async for _ in items:
                break

    run = asyncio.create_task(consume())
    await asyncio.sleep(1)
    run.cancel()
    await asyncio.wait([run])
    assert run.cancelled()
    assert gauge.now == 0


async def test_trap_20a_a_cancellation_at_the_end_leaves_nothing():
    """Trap 20a (several peers): a read to the end that is cancelled while the source closes waits for that too."""
    source = Scripted([1], close_delay=3)
    run = asyncio.create_task(penstock.stream(source).to_list())
    await asyncio.sleep(1)
    run.cancel()
    await asyncio.wait([run])
    assert run.cancelled()
    assert source.closed == 1


async def test_trap_20d_a_timed_out_anext_loses_its_item():
    """Trap 20d (inline `anext`): `wait_for(anext(run), ...)` lost the item when the call ran inside `anext`."""
    calls = []

    async def work(number):
        calls.append(number)
        await asyncio.sleep(1)
        return number

    seen = []
    async with penstock.stream(range(10)).map(work).open() as items:
        while len(seen) < 10:
            with contextlib.suppress(TimeoutError):
                seen.append(await asyncio.wait_for(anext(items), 0.3))
    assert seen == calls == list(range(10))


async def test_trap_20d_a_cancelled_anext_loses_what_came_at_the_same_moment():
    """Trap 20d (inline `anext`): an item that is ready in the moment of the cancellation stays for the next `anext`."""
    ready = asyncio.Event()

    async def work(number):
        await ready.wait()
        return number

    async with penstock.stream([7]).map(work).open() as items:
        waiting = asyncio.create_task(anext(items))
        await asyncio.sleep(1)
        ready.set()
        asyncio.get_running_loop().call_soon(waiting.cancel)
        await asyncio.sleep(1)
        left = [] if waiting.cancelled() else [waiting.result()]
        assert left + [item async for item in items] == [7]


async def test_trap_20d_a_timed_out_anext_loses_an_item_of_the_source():
    """Trap 20d (inline `anext`): a source without any work on top of it loses nothing either."""
    source = Scripted(range(5), delay=1)
    seen = []
    async with penstock.stream(source).batch(1).open() as items:
        while len(seen) < 5:
            with contextlib.suppress(TimeoutError):
                seen += await asyncio.wait_for(anext(items), 0.3)
    assert seen == list(range(5))
