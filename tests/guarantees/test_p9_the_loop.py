"""P9: between calls that never suspend, other tasks get a turn at least every 10 ms.

The clock by which runs measure their turns is a fake that only the calls move on: nothing depends on the machine.
"""

import asyncio
import itertools
import random

from penstock import merge, stream
from penstock.testing import Scripted

from .grids import AS_GIVEN, ORDERS, grid
from .operators import THREADED, WORKING, in_list, itself, truth

MILLISECOND = 0.001
LONGEST = 0.010


class Rival:
    """Another task of the loop, which notes when it gets its turns."""

    def __init__(self, clock):
        self.clock = clock
        self.turns = []
        self.task = asyncio.ensure_future(self.run())

    async def run(self):
        while True:
            self.turns.append(self.clock.now)
            await asyncio.sleep(0)

    async def longest_wait(self):
        """The longest time between two turns, until now."""
        self.task.cancel()
        await asyncio.wait([self.task])
        times = [*self.turns, self.clock.now]
        return max(after - before for before, after in itertools.pairwise(times))


async def longest_wait(clock, built, count):
    """How long a rival waits at most while `count` results are read and nothing suspends."""
    rival = Rival(clock)
    await asyncio.sleep(0)
    began = clock.now
    async with built.open() as results:
        for _ in range(count):
            await anext(results)
    spent = clock.now - began
    assert spent > 5 * LONGEST, "the calls took no time: the test proves nothing"
    return round(await rival.longest_wait(), 6)


def busy(clock, seconds=MILLISECOND):
    """A call that takes time and never suspends."""

    async def call(item):
        clock.now += seconds

    return call


def plain_busy(clock, seconds=MILLISECOND):
    def call(item):
        clock.now += seconds

    return call


def busy_items(clock, seconds=MILLISECOND):
    for number in itertools.count():
        clock.now += seconds
        yield number


async def async_busy_items(clock, seconds=MILLISECOND):
    for number in busy_items(clock, seconds):
        yield number


def endless():
    return Scripted(itertools.count())


@grid(operator=WORKING, ordered=ORDERS, size=[(1, 0), (3, 2), (50, 50)], source_of=[itertools.count, endless])
async def test_others_get_their_turns_between_calls_that_return_at_once(operator, ordered, size, source_of, turn_clock):
    options = {"concurrency": size[0], "buffer": size[1], "ordered": ordered}
    built = operator.build(stream(source_of), busy(turn_clock), **options)
    assert await longest_wait(turn_clock, built, 55) <= LONGEST


@grid(operator=THREADED, ordered=ORDERS)
async def test_others_get_their_turns_between_inline_calls(operator, ordered, turn_clock):
    for buffer in (0, 50):
        built = operator.build(stream(itertools.count()), plain_busy(turn_clock), buffer=buffer, ordered=ordered)
        assert await longest_wait(turn_clock, built, 200) <= LONGEST


@grid(ordered=AS_GIVEN)
async def test_others_get_their_turns_while_everything_is_dropped(ordered, turn_clock):
    async def keep_one_in_a_hundred(item):
        turn_clock.now += MILLISECOND
        return item % 100 == 99

    def plain_keep_one_in_a_hundred(item):
        turn_clock.now += MILLISECOND
        return item % 100 == 99

    def no_outputs(item):
        turn_clock.now += MILLISECOND
        return iter([item] if item % 100 == 99 else [])

    for built in (
        stream(itertools.count()).filter(keep_one_in_a_hundred, concurrency=4, ordered=ordered),
        stream(itertools.count()).filter(plain_keep_one_in_a_hundred, ordered=ordered),
        stream(itertools.count()).flat_map(no_outputs, ordered=ordered),
    ):
        assert await longest_wait(turn_clock, built, 3) <= LONGEST


@grid(ordered=ORDERS)
async def test_others_get_their_turns_in_a_chain_of_stages(ordered, turn_clock):
    options = {"concurrency": 4, "buffer": 20, "ordered": ordered}
    built = stream(itertools.count())
    for _ in range(4):
        built = built.map(itself(busy(turn_clock)), **options)
    built = built.filter(truth(busy(turn_clock)), **options).flat_map(in_list(busy(turn_clock)), **options)
    assert await longest_wait(turn_clock, built, 100) <= LONGEST


@grid(source_of=[busy_items, async_busy_items])
async def test_others_get_their_turns_when_the_source_is_what_takes_time(source_of, turn_clock):
    def source():
        return source_of(turn_clock)

    for built in (
        stream(source),
        stream(source).take(10**6),
        stream(source).batch(1),
        merge(source),
        merge(source, source),
        stream(source).map(lambda item: item, concurrency=50, buffer=50),
        stream(source).tap(plain_busy(turn_clock)),
    ):
        assert await longest_wait(turn_clock, built, 200) <= LONGEST
    assert await longest_wait(turn_clock, stream(source).batch(100), 2) <= LONGEST


async def test_others_get_their_turns_between_the_outputs_of_one_input(turn_clock):
    for ordered in (True, False):
        for outputs in (lambda _: busy_items(turn_clock), lambda _: async_busy_items(turn_clock)):
            built = stream([1]).flat_map(outputs, buffer=50, ordered=ordered)
            assert await longest_wait(turn_clock, built, 200) <= LONGEST


WAITING = 300
"""Results that wait when they are read."""

STOCKED = {
    "map": lambda ordered: stream(range(WAITING)).map(at_once, concurrency=1, buffer=WAITING, ordered=ordered),
    "return": lambda ordered: stream(range(WAITING)).map(
        at_once, buffer=WAITING, ordered=ordered, on_error="return", concurrency=2
    ),
    "map_batches": lambda ordered: stream(range(WAITING)).map_batches(unchanged, WAITING, ordered=ordered),
    "prefetch": lambda _: stream(range(WAITING)).prefetch(WAITING),
    "flat_map": lambda ordered: stream([0]).flat_map(lambda _: [0] * WAITING, ordered=ordered),
    "flat_map, range": lambda ordered: stream([0]).flat_map(lambda _: range(WAITING), ordered=ordered),
    "flatten": lambda _: stream([[0] * WAITING]).flatten(),
    "flatten, two": lambda _: stream([range(WAITING), [0] * WAITING]).flatten(),
    "batch": lambda ordered: stream(range(2 * WAITING)).map(at_once, buffer=WAITING, ordered=ordered).batch(2),
}


@grid(built=STOCKED, ordered=ORDERS)
async def test_others_get_their_turns_while_results_that_wait_are_read(built, ordered, turn_clock):
    """What takes time is the consumer, which never suspends."""
    async with STOCKED[built](ordered).open() as results:
        await anext(results)
        for _ in range(50):
            await asyncio.sleep(0)
        rival = Rival(turn_clock)
        await asyncio.sleep(0)
        for _ in range(WAITING - 1):
            turn_clock.now += MILLISECOND / 4
            await anext(results)
        assert await rival.longest_wait() <= LONGEST


async def test_others_get_their_turns_while_two_runs_are_busy(turn_clock):
    """Each run keeps its half of the time."""

    async def consume():
        await stream(range(100)).map(itself(busy(turn_clock)), concurrency=4).drain()

    rival = Rival(turn_clock)
    await asyncio.gather(consume(), consume())
    assert await rival.longest_wait() <= 2 * LONGEST


@grid(operator=WORKING, ordered=ORDERS, source_of=[range, Scripted], seed=[1, 2])
async def test_a_turn_given_in_the_middle_of_anything_loses_nothing(operator, ordered, source_of, seed, turn_clock):
    """The clock runs by itself: the run gives way at other places for each seed."""
    chance = random.Random(seed)
    turn_clock.step = lambda: 0.002 * chance.random()

    async def call(item):
        if chance.random() < 0.5:
            await asyncio.sleep(chance.choice([0, chance.random()]))

    source = range(15) if source_of is range else Scripted(range(15))
    options = {"concurrency": chance.choice([1, 2, 5]), "buffer": chance.choice([0, 3]), "ordered": ordered}
    built = merge(operator.build(stream(source), call, **options), []).batch(3, within=5).flatten()
    items = await built.to_list()
    assert (items if ordered else sorted(items)) == list(range(15))


PIPELINES = {
    "source": stream,
    "take": lambda source: stream(source).take(10**6),
    "batch": lambda source: stream(source).batch(3).flatten(),
    "merge": lambda source: merge(source, source),
    "map": lambda source: stream(source).map(itself(at_once), concurrency=3),
    "inline": lambda source: stream(source).tap(print_nothing, buffer=3),
    "flat_map": lambda source: stream(source).flat_map(lambda item: iter([item])),
}


async def at_once(item):
    return item


async def unchanged(items):
    return items


def print_nothing(item):
    pass


@grid(pipeline=PIPELINES, source_of=[busy_items, async_busy_items], passes=range(6))
async def test_stop_in_the_middle_of_a_turn_ends_the_run(pipeline, source_of, passes, turn_clock):
    """Whichever pass of the loop it comes in, also while the run gives way to others."""
    async with PIPELINES[pipeline](lambda: source_of(turn_clock)).open() as items:

        async def stop():
            for _ in range(passes):
                await asyncio.sleep(0)
            items.stop()

        stopping = asyncio.ensure_future(stop())
        async for _ in items:
            pass
        await stopping
    assert [stage.in_flight for stage in items.stats()] == [0] * len(items.stats())


async def test_a_clock_that_stands_at_the_end_of_each_turn_stops_nobody(turn_clock):
    """P2, P9: who looks at the clock though nothing is there uses up the turn, and would look for ever."""
    turn_clock.step = lambda: 0.002

    async def waits(item):
        await asyncio.sleep(item)
        return item

    for items in ([], [0], [0, 1]):
        built = stream(iter(items)).flat_map(lambda item: iter([item]), concurrency=2).tap(lambda _: None, buffer=2)
        assert await built.filter(lambda _: True, concurrency=4, buffer=2).to_list() == items
        assert await stream(iter(items)).map(waits, concurrency=2).map(abs, buffer=1).map(abs).to_list() == items
        built = stream(iter(items)).flat_map(lambda item: iter([item])).flat_map(lambda item: [item])
        assert await built.map(waits, concurrency=2).to_list() == items
