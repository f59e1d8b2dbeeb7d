"""The scripted source plays its script and keeps its books."""

import asyncio
import contextlib
import itertools

import pytest

from penstock.testing import Scripted

pytestmark = pytest.mark.grid


async def read(source, count=None):
    reader = aiter(source)
    try:
        return [await anext(reader) for _ in range(count)] if count is not None else [item async for item in reader]
    finally:
        await reader.aclose()


async def test_it_yields_its_items_and_counts_them():
    source = Scripted("abc")
    assert await read(source) == ["a", "b", "c"]
    assert (source.taken, source.opened, source.closed) == (3, 1, 1)


async def test_items_are_read_lazily():
    source = Scripted(itertools.count())
    assert await read(source, 3) == [0, 1, 2]
    assert source.taken == 3


async def test_each_reading_plays_the_script_again():
    source = Scripted("ab")
    assert await read(source) == await read(source) == ["a", "b"]
    assert (source.taken, source.opened, source.closed) == (4, 2, 2)


async def test_without_a_delay_it_never_suspends():
    source = Scripted("abc")
    turns = []
    asyncio.get_running_loop().call_soon(turns.append, "other")
    assert await read(source) == ["a", "b", "c"]
    assert turns == []
    await asyncio.sleep(0)


async def test_a_delay_of_zero_is_one_turn_of_the_loop(clock):
    turns = []
    asyncio.get_running_loop().call_soon(turns.append, "other")
    assert await read(Scripted("a", delay=0)) == ["a"]
    assert turns == ["other"]
    assert clock.now == 0.0


@pytest.mark.parametrize(("delay", "times"), [(2, [2.0, 4.0, 6.0]), (lambda index: index or None, [0.0, 1.0, 3.0])])
async def test_delays_come_before_items(clock, delay, times):
    reader = aiter(Scripted("abc", delay=delay))
    assert [clock.now async for _ in reader] == times
    await reader.aclose()


async def test_it_fails_where_it_is_told_to():
    error = OSError("mine")
    source = Scripted("abc", fail_at=2, error=error)
    with pytest.raises(OSError, match="mine") as raised:
        await read(source)
    assert raised.value is error
    assert (source.taken, source.closed) == (2, 1)


async def test_its_own_error_names_the_item():
    with pytest.raises(RuntimeError, match="the script fails at item 1"):
        await read(Scripted("abc", fail_at=1))


async def test_it_falls_silent_for_ever(clock):
    source = Scripted("abc", silent_after=2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1e6):
            await read(source)
    assert (source.taken, source.closed, clock.now) == (2, 1, 1e6)


async def test_a_read_can_ignore_its_cancellation_for_a_while(clock):
    task = asyncio.create_task(read(Scripted("abc", silent_after=1, ignore_cancel=3)))
    for seconds in (1, 1):
        await asyncio.sleep(seconds)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.now == 4.0


async def test_closing_can_take_its_time_and_raise(clock):
    error = OSError("on close")
    source = Scripted("abc", close_delay=2, close_error=error)
    reader = aiter(source)
    await anext(reader)
    with pytest.raises(OSError, match="on close"):
        await reader.aclose()
    assert (source.closed, clock.now) == (1, 2.0)


async def test_closing_during_a_read_raises_as_generators_do():
    """Trap 11."""
    reader = aiter(Scripted("abc", delay=1))
    task = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0.5)
    with pytest.raises(RuntimeError, match="already running"):
        await reader.aclose()
    assert await task == "a"
    await reader.aclose()


async def test_it_knows_who_pulled_and_who_closed():
    """Trap 20b: a second task at the same iterator shows."""
    source = Scripted("abc")
    reader = aiter(source)

    async def pull():
        await anext(reader)

    await asyncio.create_task(pull())
    await asyncio.create_task(pull())
    assert len(source.pulled_by) == 2
    await anext(reader)
    await reader.aclose()
    assert len(source.pulled_by) == 3
    assert source.closed_by in source.pulled_by


async def test_one_task_that_reads_and_closes_has_one_name():
    source = Scripted("abc", delay=1)
    await asyncio.gather(read(source))
    assert source.pulled_by == {source.closed_by}


async def test_all_that_is_taken_is_unsettled_until_it_is_settled():
    source = Scripted(range(10))
    reader = aiter(source)
    for _ in range(4):
        await anext(reader)
    assert (source.unsettled, source.peak_unsettled) == (4, 4)
    source.settle()
    source.settle(2)
    await anext(reader)
    assert (source.unsettled, source.peak_unsettled) == (2, 4)
    with pytest.raises(ValueError, match="count must be at most the 2 unsettled items, got 3"):
        source.settle(3)
    await reader.aclose()


async def test_reading_through_settling_settles():
    source = Scripted(range(5))
    reader = aiter(source)
    assert [item async for item in source.settling(reader)] == [0, 1, 2, 3, 4]
    assert (source.settled, source.unsettled, source.peak_unsettled) == (5, 0, 1)
    await reader.aclose()


def test_the_plain_source_plays_the_same_script():
    source = Scripted("abcd", fail_at=2, close_error=OSError("on close"))
    reader = iter(source.sync())
    assert [next(reader), next(reader)] == ["a", "b"]
    with pytest.raises(RuntimeError, match="the script fails at item 2"):
        next(reader)
    with pytest.raises(StopIteration):
        next(reader)
    with pytest.raises(OSError, match="on close"):
        reader.close()
    assert (source.taken, source.opened, source.closed) == (2, 1, 1)
    assert source.pulled_by == {source.closed_by} == {"thread 'MainThread' #1"}


async def test_the_plain_source_waits_in_its_thread(clock):
    source = Scripted("abc", delay=2, close_delay=1)

    def read_plain():
        reader = iter(source.sync(clock))
        with contextlib.closing(reader):
            return [(item, clock.now) for item in reader]

    assert await asyncio.to_thread(read_plain) == [("a", 2.0), ("b", 4.0), ("c", 6.0)]
    assert clock.now == 9.0


def test_a_plain_source_that_cannot_wait_is_refused():
    with pytest.raises(ValueError, match="clock must be given when the script has delays"):
        Scripted("abc", delay=1).sync()
    with pytest.raises(ValueError, match="silent_after must be None, got 1"):
        Scripted("abc", silent_after=1).sync()
