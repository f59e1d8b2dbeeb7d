"""Sources that are read in a thread, some items ahead."""

import asyncio
import threading

import pytest

import penstock
from penstock.durable.ledger import Identity
from penstock.engines.thread_source import AHEAD
from penstock.sources.read_ahead import read_ahead

pytestmark = [pytest.mark.real_time, pytest.mark.grid]


def reading(read, **options):
    """A stream over what `read()` gives."""
    return read_ahead("source", lambda _: read(), Identity("numbers", key=int, version=str), **options)


async def settled(seen):
    """Wait until a list that a thread appends to grows no more."""
    before = -1
    while len(seen) != before:
        before = len(seen)
        for _ in range(1000):
            await asyncio.sleep(0)


async def test_what_was_read_is_there_while_the_thread_waits_for_more():
    """P2: an item is not held until the source yields again."""
    gate = threading.Event()

    def read():
        yield 1
        yield 2
        gate.wait()
        yield 3

    async with reading(read).open() as items:
        assert [await anext(items), await anext(items)] == [1, 2]
        gate.set()
        assert [item async for item in items] == [3]


async def test_it_is_read_a_bounded_number_of_items_ahead():
    seen = []

    def read():
        for number in range(10 * AHEAD):
            seen.append(number)
            yield number

    async with reading(read).open() as items:
        await anext(items)
        await settled(seen)
        assert len(seen) <= 2 * AHEAD + 1
        for number in range(1, 3 * AHEAD):
            assert await anext(items) == number
        await settled(seen)
        assert 3 * AHEAD <= len(seen) <= 5 * AHEAD + 1


async def test_large_items_are_read_few_ahead():
    seen = []

    def read():
        for number in range(100):
            seen.append(number)
            yield number

    async with reading(read, size=lambda _: 3_000_000).open() as items:
        await anext(items)
        await settled(seen)
        assert len(seen) <= 5
        assert [item async for item in items] == list(range(1, 100))


async def test_it_is_closed_in_the_thread_that_read_it():
    threads = []

    def read():
        threads.append(threading.current_thread())
        try:
            yield from range(1000)
        finally:
            threads.append(threading.current_thread())

    stream = reading(read)
    async with stream.open() as items:
        assert await anext(items) == 0
    assert threads[0] is threads[1] is not threading.main_thread()
    assert await stream.count() == 1000
    assert threads[2] is threads[3] is not threads[0]
    assert not threads[2].is_alive()


async def test_leaving_waits_for_a_thread_that_is_inside_its_source():
    """P4: also when it is left by a cancellation; nothing is read any more then."""
    inside, gate, seen = threading.Event(), threading.Event(), []

    def read():
        yield 0
        inside.set()
        gate.wait()
        seen.append("back")
        yield 1

    async with asyncio.timeout(10), reading(read).open() as items:
        await anext(items)
        await asyncio.to_thread(inside.wait)
        asyncio.get_running_loop().call_later(0.02, gate.set)
    assert seen == ["back"]


async def test_a_thread_that_does_not_come_back_is_left_behind_with_a_warning():
    gate = threading.Event()
    threads = []

    def read():
        threads.append(threading.current_thread())
        yield 0
        gate.wait()
        yield 1

    with pytest.warns(penstock.UnstoppedWorkWarning, match="closing of 'source'"):
        async with reading(read).open(grace=0.01) as items:
            await anext(items)
    gate.set()
    threads[0].join()
    await asyncio.sleep(0.01)


async def test_a_run_that_was_never_read_starts_no_thread():
    def read():
        yield pytest.fail("it was read")

    async with reading(read).open():
        pass


async def test_a_thread_that_cannot_be_started_fails_the_run(monkeypatch):
    """Nobody waits for it to close what it has not opened."""

    def start(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="can't start new thread"):
        patch.setattr(threading.Thread, "start", start)
        async with reading(lambda: iter_of(3)).open(grace=0.01) as items:
            await anext(items)


async def test_an_error_of_the_source_is_raised_after_what_was_read():
    error = OSError("disk")

    def read():
        yield 1
        raise error

    async with reading(read).open() as items:
        assert await anext(items) == 1
        with pytest.raises(OSError, match="disk") as raised:
            await anext(items)
    assert raised.value is error
    assert "stage 'source'" in raised.value.__notes__[0]


@pytest.mark.parametrize("early", [True, False])
async def test_an_error_of_closing_is_raised(early):
    def read():
        try:
            yield from range(4 * AHEAD)
        finally:
            raise OSError("closing")

    with pytest.raises(OSError, match="closing"):
        async with reading(read).open() as items:
            async for _ in items:
                if early:
                    break


async def test_a_run_that_is_stopped_does_not_go_through_what_was_read_ahead():
    """What is under way is finished, and nothing else: there may be hours of work in 256 files."""
    begun = []

    async def work(number):
        begun.append(number)
        await asyncio.sleep(0.001)
        return number

    async with reading(lambda: iter_of(1000)).map(work, concurrency=3).open() as items:
        assert await anext(items) == 0
        items.stop()
        under_way = len(begun)
        rest = [item async for item in items]
    assert len(begun) == under_way == 1 + len(rest)
    source = items.stats().stages[0]
    assert source.taken == source.delivered + source.discarded


async def test_every_item_has_one_outcome():
    """P5: what was read ahead and not handed on is discarded."""
    async with reading(lambda: iter_of(1000)).map(abs, concurrency=3).open() as items:
        for _ in range(10):
            await anext(items)
    source = items.stats().stages[0]
    assert source.taken == source.delivered + source.discarded
    assert source.delivered >= 10


def iter_of(number):
    yield from range(number)
