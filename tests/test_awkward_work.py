"""Work that does what work should not: cancels itself, swallows its cancellation, raises what is not its own."""

import asyncio
import contextlib
import itertools

import pytest

import penstock
from penstock import Retry, stream
from penstock.core import batches

grid = pytest.mark.grid


class Boom(Exception):
    pass


class Iterating:
    """An iterator that knows whether it was closed."""

    def __init__(self, items):
        self.items = iter(items)
        self.closed = False

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.items)

    def close(self):
        self.closed = True


@grid
async def test_a_timeout_of_works_own_is_not_taken_for_the_time_limit():
    """P5: the user's own exception object is raised."""
    error = TimeoutError("of the database")

    async def work(_):
        await asyncio.sleep(0)
        raise error

    with pytest.raises(TimeoutError) as raised:
        await stream([1]).map(work, timeout=10).drain()
    assert raised.value is error


@grid
async def test_an_iterator_without_items_is_no_failure_where_it_may_be_retried():
    """Its first output is asked for at once, so that a failure could be tried again; that there is none is an end."""
    retry = Retry(on=Boom)
    assert await stream([2, 0, 1]).flat_map(lambda n: iter(range(n)), retry=retry).to_list() == [0, 1, 0]


@grid
async def test_an_iterator_that_comes_after_the_stop_is_closed():
    """P4: also one whose first output was made already."""
    late = Iterating([1, 2])

    async def work(item):
        if item == 0:
            return [0]
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return late

    async with stream([0, 1]).flat_map(work, concurrency=2, retry=Retry(on=Boom)).open() as results:
        await anext(results)
        await asyncio.sleep(1)
    assert late.closed


@grid
async def test_an_input_that_fails_after_its_run_is_over_changes_nothing(clock):
    """P4: work that outlasts its grace is left behind, whatever it comes to."""

    async def work(item):
        if item == 0:
            return [0]
        end = clock.now + 20
        while clock.now < end:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(end - clock.now)
        raise Boom

    with pytest.warns(penstock.UnstoppedWorkWarning, match="item 1"):  # noqa: PT031 -- the leaving warns
        async with stream([0, 1]).flat_map(work, concurrency=2).open(grace=5) as results:
            await anext(results)
            await asyncio.sleep(1)
    stats = str(results.stats())
    await asyncio.sleep(100)
    assert str(results.stats()) == stats


@grid
@pytest.mark.parametrize("ordered", [True, False])
async def test_an_input_that_cancels_itself_while_it_waits_for_room_fails(ordered):
    """P5: a cancellation of its own accord is a failure; the room goes to the others."""

    async def work(item):
        yield item
        if item == 1:
            asyncio.current_task().cancel()
        yield item

    built = stream(range(4)).flat_map(work, concurrency=4, buffer=1, ordered=ordered, on_error="collect")
    async with built.open() as results:
        seen = []
        async for item in results:
            seen.append(item)
            await asyncio.sleep(0 if item else 1)
        assert [seen.count(item) for item in (0, 2, 3)] == [2, 2, 2]
        assert [type(failed.error) for failed in results.failures] == [penstock.WorkRaised]


@grid
async def test_a_batch_that_is_cancelled_between_its_halves_fails_as_a_whole(monkeypatch):
    """P5: nothing says whose fault it was, so that it is every item's."""
    time = itertools.count()
    monkeypatch.setattr(batches, "now", lambda: 1e9 + next(time))  # every turn is over

    async def work(items):
        if len(items) == 4:
            raise Boom
        asyncio.current_task().cancel()
        return items

    async with stream(range(4)).map_batches(work, 4, on_error="collect").open() as results:
        assert [item async for item in results] == []
        assert [type(failed.error) for failed in results.failures] == [penstock.WorkRaised] * 4


@grid
async def test_the_error_that_leaves_a_block_may_come_from_its_work_too():
    """P5: it is not noted on itself."""
    error = Boom()

    async def work(item):
        try:
            await asyncio.sleep(item * 9)
        except asyncio.CancelledError:
            raise error from None

    with pytest.raises(Boom) as raised:
        async with stream([0, 1]).map(work, concurrency=2).open() as results:
            await anext(results)
            await asyncio.sleep(1)
            raise error
    assert raised.value is error
    assert not any("cleanup also failed" in note for note in error.__notes__)


@grid
async def test_a_plain_function_may_give_an_awaitable_to_any_operator():
    """Whatever awaitable comes back is awaited, and shaped as a result is."""

    def is_odd(item):
        return asyncio.sleep(0, item % 2)

    assert await stream(range(4)).filter(is_odd).to_list() == [1, 3]
    assert await stream(range(4)).tap(is_odd).to_list() == [0, 1, 2, 3]


@grid
async def test_an_awaitable_that_nobody_will_await_is_closed():
    """Else Python would warn of a coroutine that was never awaited."""

    def broken(loop, coroutine, **_):
        raise Boom

    def later(_):
        return asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    for built in (stream([1]).map(later), stream([1]).tap(later)):
        loop.set_task_factory(broken)
        try:
            with pytest.raises(Boom):
                await built.drain()
        finally:
            loop.set_task_factory(factory)
