"""P1: calls running <= concurrency; items taken and not settled <= concurrency + buffer; both bounds are reached."""

import asyncio
import random

from penstock import Retry, merge, stream
from penstock.testing import Gauge, Scripted

from .grids import AS_GIVEN, ORDERS, SIZES, SOURCES, grid, read_all
from .operators import OPERATORS, THREADED, WINDOWS, WORKING, itself

HOUR = 3600.0


def random_sleeper(seed):
    """A call that returns at once, after a pass of the loop, or after a while."""
    chance = random.Random(seed)

    async def call(item):
        if (seconds := chance.choice([None, 0.0, chance.random(), 10 * chance.random()])) is not None:
            await asyncio.sleep(seconds)

    return call


def calls_at_once(operator, *, concurrency, buffer, ordered):
    """How many calls run at most: in `flat_map` of async iterables each needs a permit for its output."""
    if operator.asks_first and ordered:
        return min(concurrency, 1 + buffer)
    return concurrency


@grid(operator=OPERATORS, ordered=ORDERS, size=SIZES[::2])
async def test_calls_that_run_reach_the_concurrency_and_never_exceed_it(operator, ordered, size):
    gauge = Gauge()
    call = gauge.wrap(random_sleeper(str(size)))
    await operator.build(stream(range(30)), call, ordered=ordered, **size).drain()
    assert gauge.started == 30
    assert gauge.peak == calls_at_once(operator, ordered=ordered, **size)


@grid(operator=WINDOWS, ordered=ORDERS, size=SIZES)
async def test_the_peak_that_a_run_reports_is_the_peak_that_was(operator, ordered, size):
    gauge = Gauge()
    call = gauge.wrap(random_sleeper(str(size)))
    results, _, _ = await read_all(operator.build(stream(range(25)), call, ordered=ordered, **size))
    assert results.stats()[-1].peak_running == gauge.peak


@grid(ordered=ORDERS, concurrency=[1, 5])
async def test_the_peak_of_calls_that_return_at_once_is_one(ordered, concurrency, place):
    """Lazy tasks have their places before they run."""

    async def at_once(item):
        return item

    for fn in (at_once, lambda item: item):
        results, _, _ = await read_all(stream(range(9)).map(fn, concurrency=concurrency, ordered=ordered))
        assert results.stats()[-1].peak_running == (concurrency if place.tasks == "lazy" else 1)


@grid(ordered=ORDERS)
async def test_the_peak_of_inline_calls_is_one(ordered):
    def inline(item):
        return item

    results, _, _ = await read_all(stream(range(9)).map(inline, ordered=ordered, buffer=3))
    assert results.stats()[-1].peak_running == 1


@grid(operator=WORKING, read=SOURCES, size=SIZES)
async def test_a_slow_head_does_not_unbound_the_window(operator, read, size, clock):
    """Trap 1: item 0 is slow, a thousand behind it are fast."""

    async def slow_first(item):
        await asyncio.sleep(0 if item else HOUR)

    source = Scripted(range(1_000))
    async with operator.build(stream(read(source)), slow_first, **size).open() as results:
        assert await anext(results) == 0
        assert clock.now == HOUR
        # at concurrency 1 the head has the only place for calls
        assert source.peak_unsettled == (1 if size["concurrency"] == 1 else operator.places(**size))


@grid(operator=WORKING, ordered=ORDERS, read=SOURCES, size=SIZES[::2])
async def test_a_slow_consumer_does_not_unbound_the_window(operator, ordered, read, size):
    async def call(item):
        await asyncio.sleep(0.001)

    source = Scripted(range(20))
    async with operator.build(stream(read(source)), call, ordered=ordered, **size).open() as results:
        async for _ in source.settling(results):
            await asyncio.sleep(1)
    assert source.peak_unsettled == operator.places(**size)


@grid(operator=WORKING, ordered=ORDERS, size=SIZES[::2])
async def test_random_schedules_keep_the_bound_at_every_moment(operator, ordered, size):
    chance = random.Random(str(size))
    source = Scripted(range(40), delay=lambda _: chance.choice([None, 0, chance.random() / 4]))
    built = operator.build(stream(source), random_sleeper(str(size)), ordered=ordered, **size)
    async with built.open() as results:
        async for _ in source.settling(results):
            if chance.random() < 0.2:
                await asyncio.sleep(20 * chance.random())
    assert source.peak_unsettled == operator.places(**size)


@grid(operator=WORKING, ordered=ORDERS)
async def test_waiting_retries_keep_their_places(operator, ordered, clock):
    """Every call fails at 1 s, waits 10 s, and succeeds at 12 s: nobody else starts in its place meanwhile."""
    tries = []

    async def second_time_lucky(item):
        tries.append((item, clock.now))
        await asyncio.sleep(1)
        if [number for number, _ in tries].count(item) == 1:
            raise ConnectionError

    source = Scripted(range(4))
    retry = Retry(on=ConnectionError, initial=10, jitter=0)
    options = {"concurrency": 2, "buffer": 2, "ordered": ordered, "retry": retry}
    async with operator.build(stream(source), second_time_lucky, **options).open() as results:
        assert sorted([each async for each in source.settling(results)]) == [0, 1, 2, 3]
    assert source.peak_unsettled == operator.places(2, 0)
    assert tries == [(0, 0.0), (1, 0.0), (0, 11.0), (1, 11.0), (2, 12.0), (3, 12.0), (2, 23.0), (3, 23.0)]


@grid(operator=WINDOWS, ordered=AS_GIVEN)
async def test_timeouts_free_their_places_one_for_one(operator, ordered, clock):
    source, starts = Scripted(range(6)), []

    async def hang(item):
        starts.append((item, clock.now))
        try:
            await asyncio.sleep(HOUR)
        finally:
            source.settle()

    options = {"concurrency": 2, "buffer": 2, "ordered": ordered, "timeout": 1, "on_error": "skip"}
    await operator.build(stream(source), hang, **options).drain()
    assert starts == [(0, 0.0), (1, 0.0), (2, 1.0), (3, 1.0), (4, 2.0), (5, 2.0)]
    assert source.peak_unsettled == 2


@grid(operator=THREADED, ordered=ORDERS)
async def test_a_thread_that_timed_out_keeps_its_place_until_it_is_back(operator, ordered, clock):
    """Trap 42b. The source refuses to give an item while both threads are out: its place is not there."""
    gauge = Gauge()

    def five_items():
        for item in range(5):
            assert clock.now in (0.0, 10.0), "an item was taken into a place that a thread still holds"
            yield item

    def work(item):
        with gauge:
            clock.sleep(10 if item < 2 else 0)

    options = {"concurrency": 2, "ordered": ordered, "timeout": 1, "on_error": "skip"}
    try:
        async with operator.build(stream(five_items()), work, **options).open(grace=100) as results:
            assert sorted([each async for each in results]) == [2, 3, 4]
            assert clock.now == 10.0
            assert results.stats()[1].failed == 2
        assert gauge.peak == 2
    finally:
        await asyncio.sleep(100)


@grid(operator=THREADED, ordered=ORDERS)
async def test_calls_in_threads_reach_the_concurrency_and_never_exceed_it(operator, ordered, clock):
    gauge, chance = Gauge(), random.Random(7)
    naps = [chance.random() for _ in range(30)]

    def work(item):
        with gauge:
            clock.sleep(naps[item])

    source = Scripted(range(30))
    async with operator.build(stream(source), work, concurrency=5, buffer=2, ordered=ordered).open() as results:
        async for _ in source.settling(results):
            pass
    assert gauge.peak == 5
    assert source.peak_unsettled <= operator.places(5, 2)


async def test_the_bound_of_a_pipeline_is_the_sum_of_its_stages():
    async def call(item):
        await asyncio.sleep(0.001)
        return item

    source = Scripted(range(100))
    built = stream(source).map(call, concurrency=2, buffer=1).tap(call, concurrency=5).filter(itself(call), buffer=3)
    async with built.open() as results:
        async for item in results:
            source.settle(item + 1 - source.settled)
            await asyncio.sleep(1)
    assert source.peak_unsettled == (2 + 1) + 5 + (1 + 3)


@grid(ordered=AS_GIVEN)
async def test_a_drop_frees_its_place_behind_a_slow_head(ordered, clock):
    """An ordered filter goes on with the items behind a slow first one as long as it drops them."""
    source, done = Scripted(range(300)), []

    async def keep(item):
        await asyncio.sleep(0 if item else HOUR)
        done.append(item)
        if item:
            source.settle()
        return item == 0

    assert await stream(source).filter(keep, concurrency=2, ordered=ordered).to_list() == [0]
    assert done == [*range(1, 300), 0]
    assert source.peak_unsettled == 2
    assert clock.now == HOUR


@grid(within=[None, 0.5])
async def test_a_batch_holds_what_it_shows(within):
    source = Scripted(range(30))
    async with stream(source).batch(3, within=within).open() as batches:
        async for batch in batches:
            source.settle(len(batch))
            await asyncio.sleep(1)
    assert source.peak_unsettled == 3


async def test_a_merge_holds_one_item_of_each_source():
    sources = [Scripted([name] * 20, delay=delay) for name, delay in (("a", None), ("b", 0), ("c", 0.3))]
    async with merge(*map(stream, sources)).open() as items:
        async for item in items:
            sources["abc".index(item)].settle()
            await asyncio.sleep(1)
    assert [source.peak_unsettled for source in sources] == [1, 1, 1]
    assert [source.taken for source in sources] == [20, 20, 20]


@grid(read=SOURCES, count=[0, 1, 7])
async def test_take_takes_exactly_what_it_gives(count, read):
    """Trap 7."""
    source = Scripted(range(100))
    assert await stream(read(source)).take(count).to_list() == list(range(count))
    assert source.taken == count


@grid(read=SOURCES)
async def test_take_before_map_bounds_the_calls(read):
    gauge, source = Gauge(), Scripted(range(100))

    async def call(item):
        await asyncio.sleep(1)
        return item

    assert await stream(read(source)).take(3).map(gauge.wrap(call), concurrency=5, buffer=5).to_list() == [0, 1, 2]
    assert (gauge.started, source.taken) == (3, 3)
    assert gauge.peak == 3


@grid(concurrency=[2, 5], buffer=[0, 1, 3])
async def test_flat_map_holds_no_more_outputs_behind_the_head_than_its_buffer(concurrency, buffer, clock):
    """In order, inputs behind the head hold at most `buffer` finished outputs together, then pause."""
    made = []

    async def outputs(item):
        if item == 0:
            await asyncio.sleep(HOUR)
        for number in range(3):
            made.append((item, clock.now))
            yield item, number

    async with stream(range(8)).flat_map(outputs, concurrency=concurrency, buffer=buffer).open() as results:
        assert await anext(results) == (0, 0)
        assert len([item for item, when in made if item and when < HOUR]) == buffer
        assert [each async for each in results] == [(item, n) for item in range(8) for n in range(3)][1:]


@grid(concurrency=[1, 2, 5], buffer=[0, 3])
async def test_flat_map_unordered_holds_one_output_of_each_open_input_and_its_buffer(concurrency, buffer):
    made, given, waiting = [], [], []

    async def outputs(item):
        for number in range(10):
            made.append((item, number))
            yield item, number

    options = {"concurrency": concurrency, "buffer": buffer, "ordered": False}
    async with stream(range(8)).flat_map(outputs, **options).open() as results:
        async for each in results:
            given.append(each)
            await asyncio.sleep(1)
            waiting.append(len(made) - len(given))
    assert max(waiting) == concurrency + buffer
    assert sorted(given) == sorted(made) == [(item, n) for item in range(8) for n in range(10)]
