"""`take`."""

import asyncio

import pytest

import penstock
from penstock.testing import Gauge, Scripted


@pytest.mark.parametrize(("count", "taken"), [(0, 0), (1, 1), (3, 3), (10, 5)])
@pytest.mark.parametrize("kind", ["iterator", "async"])
async def test_take_hands_on_that_many(kind, count, taken):
    """P2: it asks upstream for exactly that many."""
    script = Scripted(range(5))
    source = script if kind == "async" else script.sync()
    assert await penstock.stream(source).take(count).to_list() == list(range(taken))
    assert script.taken == taken
    assert script.closed == script.opened <= 1


async def test_take_of_an_endless_source():
    def numbers():
        number = 0
        while True:
            yield number
            number += 1

    assert await penstock.stream(numbers).take(4).to_list() == [0, 1, 2, 3]


async def test_take_of_take():
    source = Scripted(range(100))
    assert await penstock.stream(source).take(5).take(3).to_list() == [0, 1, 2]
    assert source.taken == 3
    assert await penstock.stream(range(100)).take(3).take(5).to_list() == [0, 1, 2]


async def test_take_after_map_cancels_what_runs():
    gauge = Gauge()

    async def work(number):
        await asyncio.sleep(number)
        return number

    assert await penstock.stream([1, 2, 60, 60]).map(gauge.wrap(work), concurrency=4).take(2).to_list() == [1, 2]
    assert (gauge.finished, gauge.cancelled, gauge.now) == (2, 2, 0)


async def test_take_after_filter_reads_on_until_it_has_enough():
    source = Scripted(range(100))
    assert await penstock.stream(source).filter(lambda number: number % 10 == 9).take(2).to_list() == [9, 19]
    assert source.taken == 20


async def test_take_closes_the_source_when_the_run_ends():
    """P4: the run ends after the last item, whether or not the source would go on."""
    source = Scripted(range(9), delay=lambda index: 60.0 if index > 2 else None)
    assert await asyncio.wait_for(penstock.stream(source).take(3).to_list(), 1) == [0, 1, 2]
    assert source.closed == 1


async def test_take_before_batch_and_after():
    assert await penstock.stream(range(100)).take(5).batch(2).to_list() == [[0, 1], [2, 3], [4]]
    source = Scripted(range(100))
    assert await penstock.stream(source).batch(2).take(2).to_list() == [[0, 1], [2, 3]]
    assert source.taken == 4


async def test_an_error_before_the_last_item_is_raised():
    source = Scripted(range(9), fail_at=2)
    with pytest.raises(RuntimeError, match="the script fails at item 2"):
        await penstock.stream(source).take(3).to_list()


async def test_an_error_after_the_last_item_is_never_reached():
    assert await penstock.stream(Scripted(range(9), fail_at=3)).take(3).to_list() == [0, 1, 2]


async def test_stats_of_take():
    async with penstock.stream(range(9)).take(2).open() as items:
        assert [item async for item in items] == [0, 1]
    stage = items.stats()["take(2)"]
    assert (stage.taken, stage.delivered, stage.in_flight) == (2, 2, 0)
