"""P5: a cancelled `anext` loses nothing, and two at once raise."""

import asyncio
import random

import pytest

from penstock import ConcurrentReadError, merge, stream
from penstock.testing import Scripted

from .grids import ORDERS, SIZES, assert_balanced, grid
from .operators import OPERATORS


class Boom(Exception):
    pass


def outcome_of(task, got):
    """File what a cancelled or finished `anext` came to; whether the run is over."""
    if task.cancelled():
        return False
    if isinstance(task.exception(), StopAsyncIteration):
        return True
    got.append(task.result())
    return False


@grid(operator=OPERATORS, ordered=ORDERS, size=SIZES[::2])
async def test_an_anext_cancelled_after_any_number_of_steps_loses_nothing(operator, ordered, size):
    chance, got, over = random.Random(str(size)), [], False

    async def call(item):
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)

    source = Scripted(range(15), delay=lambda _: chance.choice([None, 0]))
    async with operator.build(stream(source), call, ordered=ordered, **size).open() as results:
        while not over:
            task = asyncio.ensure_future(anext(results))
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            over = outcome_of(task, got)
    items = [item for result in got for item in operator.items(result)]
    assert (items if ordered else sorted(items)) == list(range(15))


@grid(operator=OPERATORS, ordered=ORDERS, size=SIZES[::4])
async def test_an_anext_that_timed_out_loses_nothing(operator, ordered, size):
    """Trap 20d; also when the time is up at the very instant at which the result comes."""
    chance, got = random.Random(str(size)), []

    async def call(item):
        await asyncio.sleep(chance.choice([0.125, 0.25, 0.5]))

    source = Scripted(range(15), delay=lambda _: chance.choice([None, 0, 0.25]))
    async with operator.build(stream(source), call, ordered=ordered, **size).open() as results:
        while True:
            try:
                got.append(await asyncio.wait_for(anext(results), chance.choice([0.0625, 0.125, 0.25])))
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
    items = [item for result in got for item in operator.items(result)]
    assert (items if ordered else sorted(items)) == list(range(15))


async def test_a_cancelled_anext_loses_neither_the_failure_nor_the_end(clock):
    """Cancelled while the run, at its end, waits for work and source to be closed."""
    for error in (Boom(), None):
        began = clock.now
        source = Scripted(range(3), close_delay=2, fail_at=3 if error else None, error=error)
        async with stream(source).open() as items:
            assert [await anext(items) for _ in range(3)] == [0, 1, 2]
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(items), 0.5)
            with pytest.raises(Boom if error else StopAsyncIteration) as raised:
                await anext(items)
            assert clock.now == began + 2
            assert error is None or raised.value is error
            with pytest.raises(StopAsyncIteration):
                await anext(items)


async def test_a_due_batch_that_a_merge_holds_is_not_lost():
    """While the consumer is away a batch is due, and then its upstream has more: the merge is told twice."""

    async def at_once(item):
        return item

    late_second = Scripted(range(8), delay=lambda index: 1 if index == 1 else None)
    batches = stream(late_second).map(at_once, concurrency=3, buffer=6).batch(3, within=0.5)
    got = []
    async with merge(batches, Scripted("ab", delay=lambda index: 100 * index)).open() as results:
        async for result in results:
            got.append(result)
            await asyncio.sleep(10)
    assert [item for item in got if isinstance(item, str)] == ["a", "b"]
    assert [item for batch in got if isinstance(batch, list) for item in batch] == list(range(8))
    assert_balanced(results.stats())


@grid(operator=OPERATORS, ordered=ORDERS)
async def test_two_anext_at_once_raise_and_disturb_nothing(operator, ordered):
    async def call(item):
        await asyncio.sleep(1)

    async with operator.build(stream(range(4)), call, ordered=ordered).open() as results:
        first = asyncio.ensure_future(anext(results))
        await asyncio.sleep(0.5)
        for _ in range(2):
            with pytest.raises(ConcurrentReadError):
                await anext(results)
        got = [await first, *[result async for result in results]]
    assert [item for result in got for item in operator.items(result)] == [0, 1, 2, 3]


async def test_two_anext_at_once_raise_while_the_run_ends():
    async with stream(Scripted([], close_delay=2)).open() as items:
        first = asyncio.ensure_future(anext(items))
        await asyncio.sleep(1)
        with pytest.raises(ConcurrentReadError):
            await anext(items)
        with pytest.raises(StopAsyncIteration):
            await first
