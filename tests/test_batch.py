"""`batch`."""

import asyncio
from datetime import timedelta

import pytest

import penstock
from penstock.testing import Gauge, Scripted


@pytest.mark.parametrize(
    ("count", "size", "batches"),
    [
        (0, 3, []),
        (1, 3, [[0]]),
        (3, 3, [[0, 1, 2]]),
        (7, 3, [[0, 1, 2], [3, 4, 5], [6]]),
        (3, 1, [[0], [1], [2]]),
        (2, 100, [[0, 1]]),
    ],
)
@pytest.mark.parametrize("within", [None, 60])
@pytest.mark.parametrize("kind", ["iterator", "async"])
async def test_batches_of_a_size(count, size, batches, within, kind):
    source = range(count) if kind == "iterator" else Scripted(range(count))
    assert await penstock.stream(source).batch(size, within=within).to_list() == batches


@pytest.mark.parametrize("ordered", [True, False])
async def test_batches_of_what_flat_map_gives(ordered):
    """Outputs of a list are taken together, the last one alone: with it, its input closes."""
    lengths = [0, 1, 2, 5, 0, 3, 1, 4]
    run = penstock.stream(lengths).flat_map(lambda length: [*range(length)], ordered=ordered).batch(3).open()
    async with run as batches:
        outputs = [output for length in lengths for output in range(length)]
        wanted = [outputs[first : first + 3] for first in range(0, len(outputs), 3)]
        given = [await anext(batches), await anext(batches)]
        _, flat, batch = run.stats().stages
        assert (flat.taken, flat.buffered, batch.delivered) == (4, 2, 6)
        assert given + [batch async for batch in batches] == wanted
    _, flat, batch = run.stats().stages
    assert (flat.delivered, flat.dropped, flat.in_flight) == (6, 2, 0)
    assert (batch.delivered, batch.in_flight) == (len(outputs), 0)


async def test_a_batch_is_the_consumers_own():
    async with penstock.stream(range(4)).batch(2).open() as items:
        first = await anext(items)
        first.append("mine")
        assert await anext(items) == [2, 3]


async def test_a_batch_is_handed_over_before_anything_more_is_pulled():
    """P1: it holds what its batch holds, no more."""
    source = Scripted(range(20))
    async with penstock.stream(source).batch(4).open() as items:
        for count in (4, 8, 12):
            await anext(items)
            await asyncio.sleep(60)
            assert source.taken == count


@pytest.mark.parametrize("within", [0.5, timedelta(milliseconds=500)])
async def test_a_batch_is_handed_on_within_its_time(clock, within):
    source = Scripted(range(5), delay=0.2)
    batches = [(round(clock.now, 6), batch) async for batch in penstock.stream(source).batch(10, within=within)]
    assert batches == [(0.7, [0, 1, 2]), (1.2, [3, 4])]


async def test_nothing_is_read_while_the_consumer_works(clock):
    source = Scripted(range(6), delay=0.2)
    batches = []
    async with penstock.stream(source).batch(2, within=1).open() as items:
        async for batch in items:
            batches.append((round(clock.now, 6), batch))
            await asyncio.sleep(10)
    assert batches == [(0.4, [0, 1]), (10.8, [2, 3]), (21.2, [4, 5])]


async def test_batches_feed_a_map():
    gauge = Gauge()

    async def total(numbers):
        await asyncio.sleep(1)
        return sum(numbers)

    results = penstock.stream(range(10)).batch(3).map(gauge.wrap(total), concurrency=2)
    assert await results.to_list() == [3, 12, 21, 9]
    assert gauge.peak == 2


async def test_batches_of_what_a_map_finishes(clock):
    async def work(number):
        await asyncio.sleep(number)
        return number

    results = penstock.stream([3, 1, 2, 8]).map(work, concurrency=4, ordered=False).batch(2, within=4)
    assert [(clock.now, batch) async for batch in results] == [(2.0, [1, 2]), (7.0, [3]), (8.0, [8])]


async def test_stop_hands_on_the_partial_batch():
    source = Scripted(range(9), silent_after=3)
    async with penstock.stream(source).batch(5).open() as items:
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.sleep(1)
        items.stop()
        assert await waiting == [0, 1, 2]
        assert [batch async for batch in items] == []


async def test_what_is_left_in_a_batch_is_discarded():
    """P5: items of a batch that is never handed on are counted."""
    source = Scripted(range(9), silent_after=3)
    async with penstock.stream(source).batch(5).open() as items:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 1)
    stage = items.stats()["batch(5)"]
    assert (stage.taken, stage.delivered, stage.discarded, stage.in_flight) == (3, 0, 3, 0)


async def test_nested_batches():
    assert await penstock.stream(range(5)).batch(2).batch(2).to_list() == [[[0, 1], [2, 3]], [[4]]]


async def test_flatten_undoes_batch():
    assert await penstock.stream(range(10)).batch(3).flatten().to_list() == list(range(10))
