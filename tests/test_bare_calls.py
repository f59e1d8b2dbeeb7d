"""Calls of one place that return at once are bare: the task of an item runs the coroutine of the work itself.

What the tests of `map` say of an item holds here of one behind many that have returned at once.
"""

import asyncio
import gc
import inspect
import weakref
from contextvars import ContextVar

import pytest

import penstock
from penstock import stream
from penstock.core.one_place import TRUST

pytestmark = pytest.mark.grid

LATE = 3 * TRUST - 3  # by then, calls are bare
ITEMS = 4 * TRUST
PLACES = pytest.mark.parametrize("concurrency", [1, TRUST])
MARK = ContextVar("MARK", default=None)


class Boom(Exception):
    pass


def at_the_late_one(does):
    """Return work that gives its item back, and first awaits `does()` if it is the late one."""

    async def work(item):
        if item == LATE:
            await does()
        return item

    return work


def may_be_bare(concurrency):
    return concurrency == 1 and asyncio.get_running_loop().get_task_factory() is None  # which starts tasks as it likes


@PLACES
async def test_late_ones_are_bare(concurrency):
    """Or the tests below test nothing."""

    async def work(_):
        return asyncio.current_task().get_coro().__name__

    names = await stream(range(ITEMS)).map(work, concurrency=concurrency).to_list()
    assert (names[LATE] == "work") is may_be_bare(concurrency)
    assert names[0] != "work"


def others():
    return [item for item in range(ITEMS) if item != LATE]


@PLACES
@pytest.mark.parametrize("ordered", [True, False])
async def test_one_that_waits_is_settled_once_and_in_order(concurrency, ordered):
    """P3, P5: a task that is not over when it was begun tells of its end."""

    async def waits():
        await asyncio.sleep(1)

    built = stream(range(ITEMS)).map(at_the_late_one(waits), concurrency=concurrency, ordered=ordered)
    async with built.open() as run:
        seen = [item async for item in run]
    assert seen == list(range(ITEMS)) if ordered or concurrency == 1 else seen == [*others(), LATE]
    assert run.stats()[-1].delivered == ITEMS


@PLACES
async def test_one_that_fails_after_a_wait_fails(concurrency):
    """P5."""

    async def fails():
        await asyncio.sleep(1)
        raise Boom

    built = stream(range(ITEMS)).map(at_the_late_one(fails), concurrency=concurrency, on_error="collect")
    async with built.open() as run:
        assert [item async for item in run] == others()
    assert [(type(failed.error), failed.index) for failed in run.failures] == [(Boom, LATE)]


@PLACES
async def test_one_that_waits_is_stopped_and_awaited_when_the_run_is_left(concurrency):
    """P4."""
    stopped = []

    async def waits():
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            stopped.append(True)

    async with stream(range(ITEMS)).map(at_the_late_one(waits), concurrency=concurrency).open() as run:
        async for item in run:
            if item == LATE - 1:
                break
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(run)
    assert stopped == [True]
    stage = run.stats()[-1]
    assert (stage.cancelled, stage.in_flight) == (1, 0)


@PLACES
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopAsyncIteration, Boom])
async def test_whatever_one_raises_is_raised_and_nothing_is_said_of_its_task(concurrency, kind):
    """P5: a task that ends the program raises it where it is begun (gh-128550), and would report it, too."""

    async def raises():
        raise kind

    with pytest.raises(penstock.WorkRaised if kind in {GeneratorExit, StopAsyncIteration} else kind) as raised:
        await stream(range(ITEMS)).map(at_the_late_one(raises), concurrency=concurrency).to_list()
    assert f"item {LATE}" in raised.value.__notes__[0]


@PLACES
async def test_one_that_cancels_its_own_task_and_returns_at_once_fails_if_it_is_bare(concurrency):
    """P5, P8: asyncio drops the value of such a task."""

    async def cancels():
        asyncio.current_task().cancel()

    built = stream(range(ITEMS)).map(at_the_late_one(cancels), concurrency=concurrency, on_error="collect")
    async with built.open() as run:
        seen = [item async for item in run]
    assert seen == (others() if may_be_bare(concurrency) else list(range(ITEMS)))
    assert [type(failed.error) for failed in run.failures] == [penstock.WorkRaised] * (ITEMS - len(seen))


@PLACES
async def test_work_that_does_not_take_an_item_fails(concurrency):
    """P5: the call itself raises, there is no coroutine."""

    async def takes_none():
        """Do nothing."""

    built = stream(range(ITEMS)).map(takes_none, concurrency=concurrency, on_error="return")
    assert [type(each.error) for each in await built.to_list()] == [TypeError] * ITEMS
    built = stream(range(ITEMS)).map(takes_none, concurrency=concurrency, on_error="collect")
    async with built.open() as run:
        assert [item async for item in run] == []
    assert [type(failed.error) for failed in run.failures] == [TypeError] * ITEMS


@PLACES
async def test_what_makes_an_awaitable_is_called_in_the_task_of_its_item(concurrency):
    """Only what runs nothing when it is called may be called outside of the task."""

    def makes(item):
        task, before = asyncio.current_task(), MARK.get()
        MARK.set(item)

        async def rest():
            return before is None and MARK.get() == item and task is asyncio.current_task()

        return rest()

    made = inspect.markcoroutinefunction(makes)
    assert all(await stream(range(ITEMS)).map(made, concurrency=concurrency).to_list())


@PLACES
async def test_one_that_ends_the_run_is_the_last(concurrency):
    """P4: nothing begins after `abort`."""
    seen = []

    async def work(item):
        seen.append(item)
        if item == LATE:
            run.abort()
        return item

    async with stream(range(ITEMS)).map(work, concurrency=concurrency).open() as run:
        assert [item async for item in run] == list(range(LATE))
    assert seen[-1] == LATE
    stage = run.stats()[-1]
    assert (stage.delivered, stage.discarded, stage.in_flight) == (LATE, 1, 0)


@PLACES
async def test_nothing_of_one_that_fails_stays(concurrency):
    """P7: neither its task nor the traceback of its error holds anything, without the garbage collector."""
    alive = weakref.WeakSet()

    class Watched(Exception):
        def __init__(self):
            super().__init__()
            alive.add(self)

    async def work(item):
        alive.add(asyncio.current_task())
        if item >= LATE:
            raise Watched

    gc.collect()
    gc.disable()
    try:
        await stream(range(ITEMS)).map(work, concurrency=concurrency, on_error="skip").drain()
        await asyncio.sleep(1)
        assert not alive
    finally:
        gc.enable()


@PLACES
async def test_its_filter_drops_and_its_results_are_wrapped(concurrency):
    """P5, P6."""

    async def is_even(item):
        return item % 2 == 0

    assert await stream(range(ITEMS)).filter(is_even, concurrency=concurrency).to_list() == list(range(0, ITEMS, 2))
    built = stream(range(ITEMS)).map(is_even, concurrency=concurrency, on_error="return")
    assert await built.to_list() == [penstock.Ok(item % 2 == 0, item) for item in range(ITEMS)]
