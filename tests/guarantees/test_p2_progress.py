"""P2: a finished result is handed on as soon as order allows; the source is never read ahead of a free place."""

import asyncio
import itertools
import random

import pytest

from penstock import merge, parallel_filter, parallel_map, stream
from penstock.testing import Gauge, Scripted

from .grids import AS_GIVEN, ORDERS, SIZES, SOURCES, grid
from .model import schedule
from .operators import MODELLED, WORKING, itself, truth

HOUR = 3600.0


async def arrivals(results, clock):
    """Each result with the second at which it was handed on."""
    return [(result, clock.now) async for result in results]


@grid(operator=WORKING, ordered=ORDERS, size=SIZES[::2], passes=[0, 1])
async def test_results_of_a_slow_source_arrive_when_its_items_do(operator, ordered, size, passes, clock):
    """Trap 2: a result does not wait for the source's next item."""

    async def soon(item):
        for _ in range(passes):
            await asyncio.sleep(0)

    source = Scripted(range(4), delay=1)
    async with operator.build(stream(source), soon, ordered=ordered, **size).open() as results:
        assert await arrivals(results, clock) == [(0, 1.0), (1, 2.0), (2, 3.0), (3, 4.0)]


@grid(operator=MODELLED, ordered=ORDERS, read=SOURCES, size=SIZES)
async def test_calls_start_and_results_arrive_exactly_when_the_model_says(operator, ordered, read, size, clock):
    """Random durations of calls, and a consumer that is away for random whiles."""
    chance = random.Random(str(size))
    durations = [chance.expovariate(1) for _ in range(30)]
    pauses = [chance.random() * chance.choice([0.01, 1]) / size["concurrency"] for _ in range(30)]
    starts, deliveries = [], []

    async def call(item):
        starts.append(clock.now)
        await asyncio.sleep(durations[item])

    async with operator.build(stream(read(Scripted(range(30)))), call, ordered=ordered, **size).open() as results:
        async for result in results:
            deliveries.append((result, clock.now))
            await asyncio.sleep(pauses[len(deliveries) - 1])
    concurrency, places = size["concurrency"], operator.places(**size)
    expected = schedule(durations, pauses, concurrency=concurrency, places=places, ordered=ordered)
    assert (starts, deliveries) == expected


@grid(ordered=AS_GIVEN, function=[(parallel_map, itself), (parallel_filter, truth)])
async def test_the_free_functions_keep_the_schedule_of_their_methods(ordered, function, clock):
    chance = random.Random(3)
    durations = [chance.random() for _ in range(30)]

    async def call(item):
        await asyncio.sleep(durations[item])

    parallel, shape = function
    async with parallel(range(30), shape(call), concurrency=3, ordered=ordered, buffer=2).open() as results:
        got = await arrivals(results, clock)
    assert got == schedule(durations, [0.0] * 30, concurrency=3, places=5, ordered=ordered is not False)[1]


class Asked:
    """A source that counts how far it is asked ahead of what is settled."""

    def __init__(self, count):
        self.items = iter(range(count))
        self.asked = self.settled = self.peak = 0

    def ask(self):
        self.asked += 1
        self.peak = max(self.peak, self.asked - self.settled)
        return next(self.items)


class AskedAsync(Asked):
    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            item = self.ask()
        except StopIteration:
            raise StopAsyncIteration from None
        await asyncio.sleep(0)
        return item


class AskedSync(Asked):
    def __iter__(self):
        return self

    def __next__(self):
        return self.ask()


@grid(operator=WORKING, ordered=ORDERS, source_of=[AskedAsync, AskedSync], size=SIZES[::2])
async def test_the_source_is_not_asked_ahead_of_a_free_place(operator, ordered, source_of, size):
    async def call(item):
        await asyncio.sleep(0.001)

    source = source_of(15)
    async with operator.build(stream(source), call, ordered=ordered, **size).open() as results:
        assert source.asked == 0
        async for _ in results:
            source.settled += 1
            await asyncio.sleep(1)
    assert source.peak == operator.places(**size)


@grid(source_of=[AskedAsync, AskedSync])
async def test_a_source_without_a_stage_is_asked_when_its_consumer_asks(source_of):
    source = source_of(5)
    async with stream(source).open() as items:
        async for item in items:
            await asyncio.sleep(1)
            assert source.asked == item + 1


@grid(operator=WORKING, ordered=ORDERS)
async def test_a_result_that_is_there_is_handed_on_without_a_wait(operator, ordered):
    async def call(item):
        await asyncio.sleep(1)

    async with operator.build(stream(range(9)), call, concurrency=2, buffer=2, ordered=ordered).open() as results:
        await anext(results)
        await asyncio.sleep(10)
        with pytest.raises(StopIteration) as returned:
            anext(results).__await__().send(None)
        assert returned.value.value == 1


async def test_flat_map_hands_on_outputs_as_they_are_made(clock):
    async def ticks(item):
        for number in range(3):
            await asyncio.sleep(1)
            yield item, number

    async with stream("ab").flat_map(ticks).open() as results:
        in_order = [((i, n), 1.0 + n + 3 * ("ab".index(i))) for i in "ab" for n in range(3)]
        assert await arrivals(results, clock) == in_order
    began = clock.now
    async with stream("ab").flat_map(ticks, concurrency=2, ordered=False).open() as results:
        as_made = [((i, n), began + 1.0 + n) for n in range(3) for i in "ab"]
        assert await arrivals(results, clock) == as_made


async def test_paused_inputs_of_flat_map_go_on_when_the_buffer_has_room(clock):
    """Each output takes a second; the head makes its own, and one of the inputs behind it fills the buffer."""
    made = {item: [] for item in "abcd"}

    async def outputs(item):
        for number in range(3):
            await asyncio.sleep(1)
            made[item].append(clock.now)
            yield item, number

    async with stream("abcd").flat_map(outputs, concurrency=3, buffer=1).open() as results:
        when = [now for _, now in await arrivals(results, clock)]
    assert made == {"a": [1.0, 2.0, 3.0], "b": [1.0, 4.0, 5.0], "c": [4.0, 6.0, 7.0], "d": [6.0, 8.0, 9.0]}
    assert when == [1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 5.0, 6.0, 7.0, 7.0, 8.0, 9.0]


async def test_flat_map_of_a_ready_iterable_hands_on_at_once(clock):
    async def outputs(item):
        await asyncio.sleep(1)
        return [item] * 2

    async with stream("ab").flat_map(outputs, concurrency=2).open() as results:
        assert await arrivals(results, clock) == [("a", 1.0), ("a", 1.0), ("b", 1.0), ("b", 1.0)]


async def test_a_batch_is_handed_on_when_full_when_due_and_at_the_end(clock):
    """Trap 31, 32: the time counts from the first item of each batch; a full batch does not wait; none is empty."""
    arrive = [10.0, 10.4, 10.6, 10.7, 10.8, 30.0, 30.1, 50.0]
    gaps = [after - before for before, after in zip([0.0, *arrive], arrive, strict=False)]
    source = Scripted(range(8), delay=lambda index: gaps[index] if index < 8 else 0.25)
    async with stream(source).batch(3, within=0.5).open() as batches:
        got = [(batch, pytest.approx(now)) for batch, now in await arrivals(batches, clock)]
    assert got == [([0, 1], 10.5), ([2, 3, 4], 10.8), ([5, 6], 30.5), ([7], 50.25)]


async def test_a_batch_of_an_always_ready_source_is_full_and_asks_no_further():
    """A batch is handed over before anything more is pulled."""
    source = AskedAsync(9)
    async with stream(source).batch(3, within=HOUR).open() as batches:
        async for batch in batches:
            await asyncio.sleep(1)
            assert len(batch) == 3
            assert source.asked == batch[-1] + 1


async def test_a_due_batch_is_handed_on_while_its_upstream_is_busy(clock):
    async def slow_from_two(item):
        await asyncio.sleep(HOUR if item >= 2 else 0)
        return item

    async with stream(range(3)).map(slow_from_two).batch(10, within=5).open() as batches:
        assert await arrivals(batches, clock) == [([0, 1], 5.0), ([2], HOUR)]


@grid(read=SOURCES)
async def test_take_ends_with_its_last_item_and_stops_upstream_before_it(read, clock):
    """Trap 7: nothing is asked of the source after the n-th; calls that run are cancelled before it is handed over."""
    stopped, source, gauge = [], Scripted(range(100)), Gauge()

    async def call(item):
        try:
            await asyncio.sleep(1 if item < 3 else HOUR)
        except asyncio.CancelledError:
            stopped.append((item, clock.now))
            raise
        return item

    async with stream(read(source)).map(gauge.wrap(call), concurrency=3).take(3).open() as results:
        assert [await anext(results) for _ in range(3)] == [0, 1, 2]
        await asyncio.sleep(0)
        assert clock.now == 1.0
        assert gauge.now == 0
        assert sorted(stopped) == [(item, 1.0) for item in range(3, source.taken)]
        with pytest.raises(StopAsyncIteration):
            await anext(results)


async def test_take_does_not_wait_for_a_source_that_falls_silent(clock):
    source = Scripted(range(100), silent_after=3)
    assert await stream(source).take(3).to_list() == [0, 1, 2]
    assert clock.now == 0.0


async def test_take_of_nothing_reads_nothing():
    source = Scripted(range(9), silent_after=0)
    assert await stream(source).take(0).to_list() == []
    assert (source.opened, source.taken) == (0, 0)


async def test_a_merge_hands_on_each_item_when_it_arrives(clock):
    fast, slow = Scripted("abcd", delay=1), Scripted("xy", delay=1.5)
    async with merge(fast, slow).open() as items:
        assert await arrivals(items, clock) == [
            ("a", 1.0),
            ("x", 1.5),
            ("b", 2.0),
            *[("y", 3.0), ("c", 3.0)],
            ("d", 4.0),
        ]


@grid(ordered=AS_GIVEN)
async def test_a_chain_hands_on_without_delay_between_its_stages(ordered, clock):
    async def call(item):
        await asyncio.sleep(0.25)
        return item

    options = {"concurrency": 2, "ordered": ordered}
    built = (
        stream(Scripted(range(4), delay=1)).map(call, **options).tap(call, **options).filter(itself(call), **options)
    )
    async with built.map(lambda item: item).open() as results:
        assert await arrivals(results, clock) == [(item, item + 1.75) for item in range(1, 4)]


def test_every_operator_of_the_table_is_named_once():
    names = [each.name for each in WORKING]
    assert len(set(names)) == len(names)


@grid(ordered=AS_GIVEN, concurrency=[1, 100])
async def test_the_first_result_of_an_endless_source_takes_one_call(ordered, concurrency, clock):
    gauge = Gauge()

    async def call(item):
        await asyncio.sleep(1)
        return item

    results = stream(itertools.count).map(gauge.wrap(call), concurrency=concurrency, ordered=ordered)
    assert await results.first() == 0
    assert clock.now == 1.0
    assert gauge.started == concurrency


FIRST = {
    "first": lambda results: results.first(),
    "take(1)": lambda results: results.take(1).to_list(),
}


class Slow:
    """Work and sources that block the loop for 20 ms, by the clock of turns; counts how often."""

    def __init__(self, turn_clock, seconds=0.02):
        self.turn_clock = turn_clock
        self.seconds = seconds
        self.calls = 0

    def __call__(self, item):
        self.calls += 1
        self.turn_clock.now += self.seconds
        return item

    async def in_task(self, item):
        return self(item)

    def pair(self, item):
        return [self(item)]

    def outputs(self, item):
        yield self(item)
        yield self(item)

    async def async_outputs(self, item):
        yield self(item)
        yield self(item)

    def one_by_one(self, items):
        return [self(item) for item in items]

    def source(self):
        for item in range(9):
            yield self(item)

    async def async_source(self):
        for item in range(9):
            yield self(item)


def numbers():
    return stream(range(9))


ABOVE = {
    "map": lambda slow: numbers().map(slow.__call__),
    "map-buffer": lambda slow: numbers().map(slow.__call__, buffer=4),
    "map-unordered": lambda slow: numbers().map(slow.__call__, ordered=False, buffer=2),
    "map-inline-4": lambda slow: numbers().map(slow.__call__, engine="inline", concurrency=4),
    "map-lambda-4": lambda slow: numbers().map(lambda item: slow(item), concurrency=4),
    "map-async-4": lambda slow: numbers().map(slow.in_task, concurrency=4, buffer=4, ordered=False),
    "map-callable": lambda slow: numbers().map(slow),
    "filter": lambda slow: numbers().filter(lambda item: slow(item) >= 0),
    "tap": lambda slow: numbers().tap(slow.__call__, concurrency=2, engine="inline"),
    "map_batches": lambda slow: numbers().map_batches(slow.one_by_one, 1, concurrency=3, engine="inline"),
    "flat_map": lambda slow: numbers().flat_map(slow.pair, concurrency=3, engine="inline"),
    "flat_map-iterator": lambda slow: numbers().flat_map(slow.outputs),
    "flat_map-iterators": lambda slow: numbers().flat_map(slow.outputs, concurrency=3, ordered=False, engine="inline"),
    "flat_map-async": lambda slow: numbers().flat_map(slow.async_outputs),
    "source": lambda slow: stream(slow.source),
    "async-source": lambda slow: stream(slow.async_source),
}

BELOW = {
    "nothing": lambda items: items,
    "map": lambda items: items.map(lambda item: item),
    "map-plain": lambda items: items.map(operator_itself),
    "map-4": lambda items: items.map(lambda item: item, concurrency=4),
    "map-unordered": lambda items: items.map(lambda item: item, concurrency=4, buffer=2, ordered=False),
    "filter": lambda items: items.filter(lambda _: True, concurrency=2),
    "tap": lambda items: items.tap(lambda _: None),
    "flat_map": lambda items: items.flat_map(lambda item: [item, item], concurrency=2),
    "flat_map-iterator": lambda items: items.flat_map(lambda item: iter([item]), concurrency=2, ordered=False),
    "flatten": lambda items: items.map(lambda item: [item]).flatten(),
    "map_batches": lambda items: items.map_batches(lambda batch: batch, 1, concurrency=4),
    "enumerate": lambda items: items.enumerate().map(lambda pair: pair[1]),
    "take": lambda items: items.take(5),
    "take-one": lambda items: items.take(1),
    "skip": lambda items: items.skip(0),
    "take_while": lambda items: items.take_while(lambda _: True),
    "skip_while": lambda items: items.skip_while(lambda _: False),
    "distinct": lambda items: items.distinct(),
    "batch": lambda items: items.batch(1).flatten(),
    "batch-within": lambda items: items.batch(1, within=1).flatten(),
    "merge": lambda items: items.merge(stream([])),
    "merge-ready": lambda items: items.merge(numbers().skip(9)),
    "chain": lambda items: items.chain(numbers()),
    "chained": lambda items: stream([]).chain(items),
    "zip": lambda items: items.zip(numbers()).map(lambda pair: pair[0]),
    "prefetch": lambda items: items.prefetch(4),
    "through": lambda items: items.through(lambda same: same.map(lambda item: item)),
}


def operator_itself(item):
    return item


SEVERAL = {"map-lambda-4", "map-async-4", "map_batches", "flat_map", "flat_map-iterator", "flat_map-iterators"}
SEVERAL |= {"map-4", "map-unordered", "filter"}
"""Stages that begin several calls in one pass of the loop, if a task factory starts tasks lazily."""


@pytest.mark.slow
@grid(above=ABOVE, below=BELOW, depth=[1, 5], end=["first"])
async def test_nothing_is_called_again_before_a_finished_result_is_handed_on(
    above, below, depth, end, turn_clock, place
):
    """Whoever pumps tells the stage below before it begins more, also when a call or a source blocks the loop."""
    slow = Slow(turn_clock)
    built = ABOVE[above](slow)
    for _ in range(depth):
        built = BELOW[below](built)
    await FIRST[end](built)
    assert slow.calls == 1 or (place.tasks == "lazy" and SEVERAL & {above, below})


@grid(above=ABOVE.keys() - {"async-source"}, below=BELOW, end=["take(1)"])
async def test_the_first_result_of_quick_work_takes_one_call(above, below, end, turn_clock, place):
    """Not only where the clock says that a call was slow."""
    slow = Slow(turn_clock, seconds=0)
    await FIRST[end](BELOW[below](ABOVE[above](slow)))
    assert slow.calls == 1 or place.tasks == "lazy"


async def test_a_source_that_blocks_lets_the_loop_go_round_for_results_that_take_some_passes(turn_clock):
    """As those of threads do: it was read four times before the first of them was handed on."""

    async def call(item):
        for _ in range(3):
            await asyncio.sleep(0)
        return item

    slow = Slow(turn_clock)
    async with stream(slow.source).map(call, concurrency=9).open() as results:
        assert await anext(results) == 0
        assert slow.calls <= 2
