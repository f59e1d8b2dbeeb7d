"""P3: results come in input order, or as they finish; `merge` is fair."""

import asyncio
import itertools
import random

from penstock import merge, stream
from penstock.testing import Scripted

from .grids import ORDERS, SIZES, SOURCES, grid
from .operators import OPERATORS, THREADED, WORKING, itself


async def read_items(operator, built):
    async with built.open() as results:
        return [item async for result in results for item in operator.items(result)]


@grid(operator=OPERATORS, read=SOURCES, size=SIZES[::2])
async def test_ordered_results_are_in_input_order(operator, read, size):
    chance = random.Random(str(size))

    async def call(item):
        if chance.random() < 0.8:
            await asyncio.sleep(chance.choice([0, chance.random()]))

    built = operator.build(stream(read(Scripted(range(25)))), call, **size)
    assert await read_items(operator, built) == list(range(25))


@grid(operator=OPERATORS, size=SIZES[::2])
async def test_unordered_results_are_in_the_order_of_finishing(operator, size):
    chance, finished = random.Random(str(size)), []

    async def call(item):
        await asyncio.sleep(chance.random())
        finished.append(item)

    built = operator.build(stream(range(25)), call, ordered=False, **size)
    assert await read_items(operator, built) == finished
    assert sorted(finished) == list(range(25))


@grid(operator=THREADED, ordered=ORDERS)
async def test_order_holds_for_work_in_threads(operator, ordered, clock):
    chance, finished = random.Random(5), []
    naps = [chance.random() for _ in range(20)]

    def call(item):
        clock.sleep(naps[item])
        finished.append(item)

    results = await read_items(operator, operator.build(stream(range(20)), call, concurrency=4, ordered=ordered))
    assert results == (list(range(20)) if ordered else finished)
    assert sorted(finished) == list(range(20))
    assert finished != list(range(20))


@grid(operator=WORKING, size=SIZES)
async def test_order_holds_over_failures(operator, size):
    """The head may be an item that gives nothing."""
    chance = random.Random(str(size))
    lost = set(chance.sample(range(25), 15))

    async def call(item):
        await asyncio.sleep(chance.random())
        if item in lost:
            raise ValueError(item)

    built = operator.build(stream(range(25)), call, on_error="skip", **size)
    assert await built.to_list() == [item for item in range(25) if item not in lost]


@grid(size=SIZES)
async def test_order_holds_over_drops(size):
    chance = random.Random(str(size))

    async def keep(item):
        await asyncio.sleep(chance.random())
        return item % 3 == 0

    assert await stream(range(40)).filter(keep, **size).to_list() == list(range(0, 40, 3))


async def test_a_batch_keeps_order_and_loses_nothing_at_its_borders():
    for size in (1, 2, 3, 7, 100):
        batches = await stream(Scripted(range(20), delay=0)).batch(size, within=1).to_list()
        assert [item for batch in batches for item in batch] == list(range(20))
        assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
        assert 1 <= len(batches[-1]) <= size


READY = {
    "sync": lambda name: Scripted(itertools.repeat(name)).sync(),
    "async": lambda name: Scripted(itertools.repeat(name)),
    "inline": lambda name: stream(itertools.repeat(name)).map(plain),
    "window": lambda name: stream(itertools.repeat(name)).map(itself(at_once), concurrency=3, buffer=3),
    "merge": lambda name: merge(itertools.repeat(name), itertools.repeat(name)),
}


def plain(item):
    return item


async def at_once(item):
    pass


@grid(pair=[*itertools.combinations_with_replacement(READY, 2)])
async def test_two_sources_that_are_always_ready_take_turns(pair):
    """Trap 30: one item each, exactly, however unlike they are."""
    async with merge(*(READY[kind](name) for kind, name in zip(pair, "ab", strict=True))).open() as items:
        given = "".join([await anext(items) for _ in range(100)])
    assert given in ("ab" * 50, "ba" * 50)


@grid(kind=["sync", "async", "window"])
async def test_many_sources_that_are_always_ready_take_turns(kind):
    async with merge(*(READY[kind](name) for name in "abcde")).open() as items:
        rounds = ["".join([await anext(items) for _ in range(5)]) for _ in range(20)]
    assert {"".join(sorted(each)) for each in rounds} == {"abcde"}


@grid(kind=READY)
async def test_an_always_ready_source_does_not_delay_a_slow_one(kind, clock):
    """What arrived while the consumer was away is handed on next."""
    seen, slow = [], Scripted("xyz", delay=lambda index: 0.95 if index else 0.05)
    async with merge(READY[kind]("a"), slow).open() as items:
        for _ in range(33):
            seen.append(await anext(items))
            await asyncio.sleep(0.1)
    assert [index for index, item in enumerate(seen) if item != "a"] == [1, 11, 21]


@grid(kind=READY)
async def test_a_source_that_takes_a_pass_of_the_loop_is_not_starved(kind):
    """One pass to wake it and one to get its item: in each, the other may give one."""
    async with merge(READY[kind]("a"), Scripted(itertools.repeat("b"), delay=0)).open() as items:
        given = "".join([await anext(items) for _ in range(90)])
    assert "aaaa" not in given


async def test_a_merge_reads_one_item_ahead_of_each_source(clock):
    """P2's one exception: while the consumer is away, each source fetches its next item."""
    async with merge(Scripted("ab", delay=1), Scripted("xy", delay=1)).open() as items:
        assert await anext(items) in "ax"
        await asyncio.sleep(9)
        assert {await anext(items), await anext(items)} in ({"b", "x"}, {"a", "y"})
        assert clock.now == 10.0


async def test_a_merge_ends_when_all_have_ended():
    assert sorted(await merge("ab", Scripted("cd", delay=1), [], stream("ef")).to_list()) == list("abcdef")
    assert await merge().to_list() == []
    assert await merge([], Scripted([])).to_list() == []


async def test_a_merge_keeps_the_order_of_each_source():
    chance = random.Random(11)
    sources = [
        Scripted([(name, number) for number in range(30)], delay=lambda _: chance.choice([None, 0, chance.random()]))
        for name in "abc"
    ]
    merged = await merge(*sources).to_list()
    for name in "abc":
        assert [number for source, number in merged if source == name] == list(range(30))
