"""P3: results come in input order, or as they finish; `merge` is fair."""

import asyncio
import itertools
import random

from penstock import merge, parallel_map, stream
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


async def finish_later_than_the_next(item):
    """Of each ten, the first takes longest: as finished, they come backwards."""
    await asyncio.sleep(10 - item % 10)
    return item


BACKWARDS = list(range(9, -1, -1))

SEEN = {
    "iteration": lambda items: items.to_list(),
    "reduce": lambda items: items.reduce(lambda so_far, item: [*so_far, item], []),
    "take": lambda items: items.take(10).to_list(),
    "skip": lambda items: items.skip(0).to_list(),
    "take_while": lambda items: items.take_while(lambda _: True).to_list(),
    "skip_while": lambda items: items.skip_while(lambda _: False).to_list(),
    "distinct": lambda items: items.distinct().to_list(),
    "enumerate": lambda items: items.enumerate().map(lambda pair: pair[1]).to_list(),
    "batch": lambda items: items.batch(3).flatten().to_list(),
    "map_batches": lambda items: items.map_batches(lambda batch: batch, 3).to_list(),
    "zip": lambda items: items.zip(stream(range(10))).map(lambda pair: pair[0]).to_list(),
    "zipped": lambda items: stream(range(10)).zip(items).map(lambda pair: pair[1]).to_list(),
    "chain": lambda items: items.chain(stream([])).to_list(),
    "merge": lambda items: items.merge(stream([])).to_list(),
    "prefetch": lambda items: items.prefetch(3).to_list(),
    "map": lambda items: items.map(lambda item: item, concurrency=4).to_list(),
    "filter": lambda items: items.filter(lambda _: True, concurrency=4).to_list(),
    "through": lambda items: items.through(lambda same: same.tap(lambda _: None)).to_list(),
}

HANDED_ON = {
    "drain": lambda items: items.drain(),
    "count": lambda items: items.count(),
    "for_each": lambda items: items.for_each(lambda _: None),
    "for_each-4": lambda items: items.for_each(lambda _: None, concurrency=4),
    "map": lambda items: items.map(lambda item: item, concurrency=4).drain(),
    "flat_map": lambda items: items.flat_map(lambda item: [item, item]).drain(),
    "filter": lambda items: items.filter(lambda _: True).count(),
    "prefetch": lambda items: items.prefetch(3).drain(),
    "merge": lambda items: items.merge(stream([])).drain(),
    "chain": lambda items: items.chain(stream([])).count(),
    "unordered": lambda items: items.map(lambda item: item, ordered=False).to_list(),
}

SHOWN_TO_NOBODY = {
    "take": lambda items: items.take(10).drain(),
    "batch": lambda items: items.batch(5).count(),
    "map_batches": lambda items: items.map_batches(lambda batch: batch, 5).drain(),
    "enumerate": lambda items: items.enumerate().drain(),
    "zip": lambda items: items.zip(stream(range(10))).drain(),
    "distinct": lambda items: items.distinct().count(),
    "ordered": lambda items: items.map(lambda item: item, ordered=True).drain(),
}

STAGES = {
    "map": lambda items, ordered: items.map(finish_later_than_the_next, concurrency=10, ordered=ordered),
    "two": lambda items, ordered: items.map(finish_later_than_the_next, concurrency=10, ordered=ordered).tap(
        lambda _: None, concurrency=3
    ),
}


@grid(stage=STAGES, end=SEEN, ordered=[None, True])
async def test_by_default_results_are_in_order_where_that_can_be_seen(stage, end, ordered):
    assert await SEEN[end](STAGES[stage](stream(range(10)), ordered)) == list(range(10))


@grid(stage=STAGES)
async def test_by_default_the_first_result_is_that_of_the_first_item(stage):
    assert await STAGES[stage](stream(range(10)), None).first() == 0


def noting(seen):
    def note(item):
        seen.append(item)
        return item

    return note


@grid(end=HANDED_ON | SHOWN_TO_NOBODY, ordered=[None, True, False])
async def test_by_default_results_come_as_finished_where_nobody_sees_an_order(end, ordered):
    """`True` and `False` mean what they say; what groups, numbers or counts items sees their order by itself."""
    seen = []
    noted = stream(range(10)).map(finish_later_than_the_next, concurrency=10, ordered=ordered).tap(noting(seen))
    await (HANDED_ON | SHOWN_TO_NOBODY)[end](noted)
    in_order = end in SHOWN_TO_NOBODY if ordered is None else ordered
    assert seen == (list(range(10)) if in_order else BACKWARDS)


async def test_the_free_functions_have_the_default_of_their_methods():
    built = parallel_map(range(10), finish_later_than_the_next, concurrency=10)
    assert await built.to_list() == list(range(10))
    seen = []
    await built.for_each(noting(seen))
    assert seen == BACKWARDS


async def test_the_default_is_decided_when_a_run_is_opened():
    seen = []
    built = stream(range(10)).map(finish_later_than_the_next, concurrency=10).tap(noting(seen))
    for _ in range(2):
        assert await built.to_list() == seen == list(range(10))
        seen.clear()
        assert await built.count() == 10
        assert seen == BACKWARDS
        seen.clear()


async def test_nobody_waits_behind_a_head_whose_order_cannot_be_seen(clock):
    """An ideal window takes the sum of all latencies over 32."""
    chance = random.Random(1)
    naps = [min(chance.lognormvariate(0, 1), 5) for _ in range(500)]

    async def call(item):
        await asyncio.sleep(naps[item])

    await stream(range(500)).for_each(call, concurrency=32)
    assert clock.now < 1.3 * sum(naps) / 32
