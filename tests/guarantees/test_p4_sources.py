"""P4: the source is closed exactly once, by the task that read it, and its cleanup is not disturbed."""

import asyncio

import pytest

from penstock import merge, stream
from penstock.testing import Scripted

from .grids import ORDERS, grid
from .operators import itself
from .sites import FOREVER, Left


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
