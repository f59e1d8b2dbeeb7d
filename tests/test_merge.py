"""`merge`, as an operator and as a function."""

import asyncio
import time

import pytest

import penstock
from penstock.core.clock import TURN
from penstock.testing import Gauge, Scripted


async def test_merge_gives_all_items_of_all_sources():
    merged = penstock.merge(range(3), Scripted(range(10, 13), delay=1), penstock.stream(range(20, 23)))
    assert sorted(await merged.to_list()) == [0, 1, 2, 10, 11, 12, 20, 21, 22]


async def test_merge_keeps_the_order_of_each_source():
    merged = penstock.merge(Scripted(range(10), delay=0.3), Scripted(range(100, 110), delay=0.2))
    items = await merged.to_list()
    assert [item for item in items if item < 100] == list(range(10))
    assert [item for item in items if item >= 100] == list(range(100, 110))


async def test_merge_hands_on_items_as_they_come(clock):
    merged = penstock.merge(Scripted("ab", delay=2), Scripted("xyz", delay=1.5))
    arrivals = [(clock.now, item) async for item in merged]
    assert arrivals == [(1.5, "x"), (2.0, "a"), (3.0, "y"), (4.0, "b"), (4.5, "z")]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
async def test_merge_of_any_number(count):
    assert sorted(await penstock.merge(*([index] for index in range(count))).to_list()) == list(range(count))


async def test_the_operator_does_what_the_function_does():
    stream = penstock.stream([1, 2]).merge(penstock.stream([3]), penstock.stream([4, 5]))
    assert sorted(await stream.to_list()) == [1, 2, 3, 4, 5]
    assert await penstock.stream([1, 2]).merge().to_list() == [1, 2]


async def test_merge_of_a_stream_with_itself():
    """Each opens its source anew."""
    numbers = penstock.stream(range(3)).map(str)
    assert sorted(await numbers.merge(numbers).to_list()) == ["0", "0", "1", "1", "2", "2"]


async def test_merge_of_merges():
    inner = penstock.merge([1], [2])
    assert sorted(await penstock.merge(inner, inner, [3]).to_list()) == [1, 1, 2, 2, 3]


async def test_merge_ends_when_all_have_ended(clock):
    merged = penstock.merge([], Scripted([1], delay={0: 5.0}.get), [])
    assert await merged.to_list() == [1]
    assert clock.now == 5.0


async def test_work_of_merged_streams_runs_side_by_side(clock):
    async def work(number):
        await asyncio.sleep(1)
        return number

    first, second = (penstock.stream(range(4)).map(work, concurrency=2) for _ in range(2))
    assert len(await penstock.merge(first, second).to_list()) == 8
    assert clock.now == 2.0


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_an_error_of_one_source_ends_the_merge(asynchronous):
    """P5: what the others have finished is handed on, then it raises; all are closed."""
    fails, goes_on = Scripted(range(5), fail_at=2), Scripted(range(100, 200), delay=60)
    seen = []

    async def read():
        merged = penstock.merge(fails if asynchronous else fails.sync(), goes_on)
        async with merged.open() as items:
            async for item in items:
                seen.append(item)  # noqa: PERF401 -- a comprehension would lose them at the error

    with pytest.raises(RuntimeError, match="the script fails at item 2"):
        await read()
    assert seen == [0, 1]
    assert (fails.closed, goes_on.closed) == (1, 1)


async def test_a_failure_of_work_stops_the_other_streams():
    """P5: at once: calls of the other streams are cancelled."""
    gauge = Gauge()

    async def fails(number):
        await asyncio.sleep(1)
        raise ValueError(number)

    failing = penstock.stream([7]).map(fails)
    others = penstock.stream([60] * 9).map(gauge.wrap(asyncio.sleep), concurrency=2)
    with pytest.raises(ValueError, match="7"):
        await failing.merge(others).to_list()
    assert (gauge.started, gauge.cancelled) == (2, 2)


async def test_collected_failures_of_all_streams_are_kept():
    async def fails(number):
        raise ValueError(number)

    first, second = (penstock.stream([number]).map(fails, on_error="collect", name=str(number)) for number in (1, 2))
    async with first.merge(second).open() as items:
        assert [item async for item in items] == []
    assert sorted(failed.stage for failed in items.failures) == ["1", "2"]


async def test_stop_stops_all_sources():
    sources = [Scripted(range(100), delay=1), Scripted(range(100), delay=2)]
    async with penstock.merge(*sources).open() as items:
        seen = [await anext(items) for _ in range(3)]
        items.stop()
        seen += [item async for item in items]
    assert len(seen) == sum(source.taken for source in sources)
    assert [source.closed for source in sources] == [1, 1]


def takes_a_turn_each(count):
    """Items that take longer to make than a run may keep the loop for itself."""
    for number in range(count):
        end = time.perf_counter() + 2 * TURN
        while time.perf_counter() < end:
            pass
        yield number


async def test_stop_while_a_source_gives_back_the_loop():
    """P9: a source that waits for its next turn when it is stopped still says that it has ended."""
    async with penstock.merge(takes_a_turn_each(3), takes_a_turn_each(3)).open() as items:
        await anext(items)
        items.stop()
        assert len([item async for item in items]) <= 1


async def test_a_failure_while_another_source_gives_back_the_loop():
    """P9: likewise when another source of the merge fails."""
    fails = Scripted([], fail_at=0)
    with pytest.raises(RuntimeError, match="the script fails at item 0"):
        await penstock.merge(takes_a_turn_each(3), takes_a_turn_each(3), fails.sync()).to_list()


async def test_a_source_that_was_consumed_is_refused():
    numbers = iter(range(3))
    assert await penstock.stream(numbers).to_list() == [0, 1, 2]
    stream = penstock.stream(numbers)
    await stream.to_list()
    with pytest.raises(penstock.SourceConsumedError):
        penstock.merge(stream, [1]).open()


async def test_one_iterator_twice_is_refused():
    stream = penstock.stream(iter(range(3)))
    with pytest.raises(penstock.SourceConsumedError):
        await penstock.merge(stream, stream).to_list()


async def test_a_source_that_cannot_be_opened_closes_those_that_were():
    """P4: the function of the second source raises: the file of the first is closed all the same."""
    script = Scripted(range(3))

    def raises():
        raise OSError("no such thing")

    with pytest.raises(OSError, match="no such thing"):
        await penstock.merge(iter(script.sync()), raises).to_list()
    assert script.closed == 1


async def test_stats_of_merge():
    async with penstock.merge(range(3), range(2)).open() as items:
        assert len([item async for item in items]) == 5
    stage = items.stats()["merge"]
    assert (stage.taken, stage.delivered, stage.in_flight) == (5, 5, 0)
