"""P5, errors in time: what is still handed on after a failure, what is stopped, what is discarded, and when."""

import asyncio

import pytest

from penstock import merge, stream
from penstock.testing import Gauge, Scripted

from .grids import AS_GIVEN, ORDERS, SOURCES, grid
from .operators import MODELLED, WORKING, itself

HOUR = 3600.0


class Boom(Exception):
    pass


class Times:
    """Calls that take the given seconds, and when each was cancelled."""

    def __init__(self, clock, seconds, fails_at=None):
        self.clock, self.seconds, self.fails_at = clock, seconds, fails_at
        self.cancelled = {}
        self.error = Boom()

    async def __call__(self, item):
        try:
            await asyncio.sleep(self.seconds[item] if item < len(self.seconds) else HOUR)
        except asyncio.CancelledError:
            self.cancelled[item] = self.clock.now
            raise
        if item == self.fails_at:
            raise self.error

    async def call(self, item):
        await self(item)


async def read_until_failure(results, clock, *, away=0.0):
    """What was handed on and when, and when the failure came; the consumer is away after the first item."""
    got = []
    try:
        async for result in results:
            got.append((result, clock.now))
            if len(got) == 1:
                await asyncio.sleep(away)
    except Boom as error:
        return got, clock.now, error
    raise AssertionError("the run ended without its failure")


@grid(operator=MODELLED, ordered=ORDERS)
async def test_what_is_finished_and_next_is_handed_on_before_the_failure_is_raised(operator, ordered, clock):
    """Item 3 fails at 4 s while the consumer is away: items 1 and 2 are finished, item 4 stands behind."""
    times = Times(clock, [1, 2, 3, 4, 2.5, HOUR], fails_at=3)
    options = {"concurrency": 6, "buffer": 6, "ordered": ordered, "name": "work"}
    async with operator.build(stream(Scripted(range(99))), times.call, **options).open() as results:
        got, raised_at, error = await read_until_failure(results, clock, away=9)
        stats = results.stats()["work"]
    assert error is times.error
    assert raised_at == 10.0
    assert got == [(item, 1.0 if item == 0 else 10.0) for item in ([0, 1, 2] if ordered else [0, 1, 4, 2])]
    assert set(times.cancelled.values()) == {4.0}
    assert (stats.delivered, stats.failed, stats.discarded) == (len(got), 1, 1 if ordered else 0)
    assert stats.cancelled == len(times.cancelled) == stats.taken - 5


@grid(operator=MODELLED, ordered=ORDERS)
async def test_results_behind_a_running_item_are_discarded(operator, ordered, clock):
    """Item 0 runs when item 2 fails: in order nothing is next; else item 1 is handed on when the consumer comes."""
    times = Times(clock, [HOUR, 1, 2, 1.5], fails_at=2)
    options = {"concurrency": 4, "ordered": ordered, "name": "work"}
    async with operator.build(stream(range(4)), times.call, **options).open() as results:
        got, raised_at, _ = await read_until_failure(results, clock)
        stats = results.stats()["work"]
    assert raised_at == 2.0
    assert got == ([] if ordered else [(1, 1.0), (3, 1.5)])
    assert times.cancelled == {0: 2.0}
    assert (stats.delivered, stats.discarded) == ((0, 2) if ordered else (2, 0))


@grid(operator=WORKING, ordered=ORDERS, read=SOURCES)
async def test_a_failure_stops_everything_upstream_at_once(operator, ordered, read, clock):
    """Also while the consumer is away; nothing is taken or started after."""
    times = Times(clock, [1, 2], fails_at=1)
    upstream = Times(clock, [0, 0, 0])
    source = Scripted(range(99))
    built = stream(read(source)).tap(upstream.call, concurrency=4)
    async with operator.build(built, times.call, concurrency=2, buffer=2, ordered=ordered).open() as results:
        assert await anext(results) == 0
        await asyncio.sleep(0.5)
        taken = source.taken
        await asyncio.sleep(9)
        assert source.taken == taken
        assert set(times.cancelled.values()) <= {2.0}
        assert set(upstream.cancelled.values()) == {2.0}
        assert sorted(upstream.cancelled) == list(range(3, taken))
        with pytest.raises(Boom):
            await anext(results)
    assert source.closed == 1


@grid(operator=WORKING, ordered=AS_GIVEN)
async def test_stages_downstream_finish_what_they_have_taken(operator, ordered, clock):
    """To them it is a failing source: 0, 1 and 2 are on their way when item 3 fails upstream at 2 s."""
    upstream = Times(clock, [1, 1, 1, 1, HOUR, HOUR], fails_at=3)
    gauge = Gauge()

    async def call(item):
        await asyncio.sleep(5)

    built = stream(Scripted(range(99))).tap(upstream.call, concurrency=3)
    options = {"concurrency": 5, "buffer": 5, "ordered": ordered, "name": "work"}
    async with operator.build(built, gauge.wrap(call), **options).open() as results:
        got, raised_at, error = await read_until_failure(results, clock)
        stats = results.stats()["work"]
    assert error is upstream.error
    assert got == [(0, 6.0), (1, 6.0), (2, 6.0)]
    assert raised_at == 6.0
    assert set(upstream.cancelled.values()) == {2.0}
    assert (stats.taken, stats.delivered) == (3, 3)
    assert (gauge.finished, gauge.cancelled) == (3, 0)


@grid(operator=MODELLED, ordered=ORDERS)
async def test_a_second_failure_downstream_is_noted_on_the_first(operator, ordered, clock):
    upstream = Times(clock, [1, 1, 1, 1], fails_at=3)
    downstream = Times(clock, [5, 5, 5], fails_at=1)
    built = stream(Scripted(range(99))).tap(upstream.call, concurrency=3, name="up")
    options = {"concurrency": 5, "ordered": ordered, "name": "down"}
    async with operator.build(built, downstream.call, **options).open() as results:
        got, raised_at, error = await read_until_failure(results, clock)
    assert error is upstream.error
    assert [item for item, _ in got] == [0]
    assert raised_at == 6.0
    assert [failure.error for failure in results.failures] == [downstream.error]
    assert any("stage 'down', item 1" in note for note in error.__notes__)


@grid(operator=WORKING, ordered=ORDERS, read=SOURCES)
async def test_a_failing_source_gives_all_that_it_gave_before(operator, ordered, read, clock):
    error = Boom()
    source = Scripted(range(9), fail_at=4, error=error)

    async def call(item):
        await asyncio.sleep(2)

    options = {"concurrency": 3, "buffer": 3, "ordered": ordered}
    async with operator.build(stream(read(source)), call, **options).open() as results:
        got, _, raised = await read_until_failure(results, clock)
    assert raised is error
    assert [item for item, _ in got] == [0, 1, 2, 3]
    assert any("item 4" in note and "'source'" in note for note in error.__notes__)
    assert source.closed == 1


async def test_a_partial_batch_goes_before_the_failure(clock):
    """Trap 33."""
    for within in (None, HOUR):
        began = clock.now
        error = Boom()
        source = Scripted(range(9), fail_at=5, error=error, delay=1)
        async with stream(source).batch(3, within=within).open() as batches:
            got, raised_at, raised = await read_until_failure(batches, clock)
        assert raised is error
        assert got == [([0, 1, 2], began + 3), ([3, 4], began + 6)]
        assert raised_at == began + 6


async def test_the_other_sources_of_a_merge_hand_on_what_is_finished_and_stop(clock):
    error = Boom()
    failing = Scripted([], fail_at=0, delay=1, error=error)
    work = Times(clock, [0, 0, 0, HOUR])
    other = stream(Scripted(range(99))).map(itself(work.call), concurrency=2, buffer=4)
    async with merge(failing, other).open() as items:
        assert await anext(items) == 0
        got, raised_at, raised = await read_until_failure(items, clock, away=9)
    assert raised is error
    assert raised_at == 9.0
    assert got == [(1, 0.0), (2, 9.0)]
    assert list(work.cancelled) == [3, 4]
    assert failing.closed == 1


async def test_outputs_made_before_a_failure_are_handed_on_before_it(clock):
    error = Boom()

    async def outputs(item):
        yield item, 0
        await asyncio.sleep(1)
        yield item, 1
        if item == "b":
            raise error
        await asyncio.sleep(1)

    async with stream("abc").flat_map(outputs, concurrency=3, buffer=9).open() as results:
        got, raised_at, raised = await read_until_failure(results, clock)
    assert raised is error
    assert raised_at == 1.0
    assert got == [(("a", 0), 0.0), (("a", 1), 1.0)]


async def test_outputs_of_the_head_are_handed_on_before_its_failure(clock):
    error = Boom()

    async def outputs(item):
        for number in range(3):
            yield number
        raise error

    async with stream("abc").flat_map(outputs, buffer=9).open() as results:
        got, _, raised = await read_until_failure(results, clock, away=5)
    assert raised is error
    assert [output for output, _ in got] == [0, 1, 2]


@grid(ordered=AS_GIVEN)
async def test_a_failed_run_is_over(ordered):
    times = Boom()

    async def call(item):
        if item == 2:
            raise times

    async with stream(range(9)).tap(call, ordered=ordered).open() as results:
        assert [await anext(results), await anext(results)] == [0, 1]
        with pytest.raises(Boom):
            await anext(results)
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(results)


async def test_what_take_does_not_want_may_fail_unseen(clock):
    times = Times(clock, [1, 1, 1, 2], fails_at=3)
    async with stream(range(9)).tap(times.call, concurrency=5).take(3).open() as results:
        assert [item async for item in results] == [0, 1, 2]
    assert results.failures == ()
    assert set(times.cancelled.values()) == {1.0}


@grid(operator=WORKING, ordered=ORDERS, read=SOURCES)
async def test_stop_takes_nothing_more_and_delivers_what_is_in_flight(operator, ordered, read, clock):
    source = Scripted(range(99))

    async def call(item):
        await asyncio.sleep(1 + item % 3)

    async with operator.build(
        stream(read(source)), call, concurrency=4, buffer=2, ordered=ordered, name="work"
    ).open() as results:
        got = [await anext(results)]
        results.stop()
        results.stop()
        taken = source.taken
        got += [result async for result in results]
        stats = results.stats()["work"]
    assert sorted(got) == list(range(taken))
    assert source.taken == taken
    assert source.closed == 1
    assert (stats.taken, stats.delivered, stats.cancelled, stats.discarded) == (taken, taken, 0, 0)


async def test_stop_ends_a_run_that_waits_for_a_silent_source():
    async with stream(Scripted(range(9), silent_after=2)).tap(print_nothing).open() as items:
        assert [await anext(items), await anext(items)] == [0, 1]
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.sleep(1)
        items.stop()
        with pytest.raises(StopAsyncIteration):
            await waiting


def print_nothing(item):
    pass


async def test_stop_hands_on_the_partial_batch_and_all_sources_of_a_merge(clock):
    sources = [Scripted("abcdefgh", delay=1), Scripted("ABCDEFGH", delay=1.5)]
    async with merge(*sources).batch(3).open() as batches:
        got = [await anext(batches)]
        asyncio.get_running_loop().call_later(1.75, batches.stop)
        got += [batch async for batch in batches]
    given = sorted(item for batch in got for item in batch)
    assert given == sorted("abcdefgh"[: sources[0].taken] + "ABCDEFGH"[: sources[1].taken])
    assert clock.now == 2.0 + 1.75


async def test_stop_before_the_first_item_reads_nothing():
    source = Scripted(range(9))
    async with stream(source).tap(print_nothing).open() as items:
        items.stop()
        assert [item async for item in items] == []
    assert source.taken == 0


@grid(ordered=ORDERS)
async def test_a_failure_after_stop_is_raised(ordered, clock):
    times = Times(clock, [1, 2, 3], fails_at=1)
    async with stream(range(9)).tap(times.call, concurrency=3, ordered=ordered).open() as items:
        assert await anext(items) == 0
        items.stop()
        got, raised_at, _ = await read_until_failure(items, clock)
    assert (got, raised_at) == ([], 2.0)
