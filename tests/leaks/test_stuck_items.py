"""P7, trap 5: an item that is stuck grows nothing while ten thousand others pass it, or a hundred thousand.

Measured is every container that can be reached from the stages of the run, in numbers of entries, and the memory blocks
of the process. Not on the grid: how tasks start changes how fast items pass, not what is kept of them.
"""

import asyncio
import gc
import itertools
import sys
import types
from collections import OrderedDict, deque

import pytest

from penstock import merge, stream, testing

pytestmark = pytest.mark.slow


PASSING = 10_000
"""Enough to see a leak of one entry in 400 items."""

FAR = 100_000
HOUR = 3600.0
CONTAINERS = dict, list, set, deque, OrderedDict, tuple
NOT_OF_A_RUN = (type, types.ModuleType, types.CodeType, types.BuiltinFunctionType, types.GetSetDescriptorType)


def entries(roots):
    """The entries of all containers that can be reached from `roots`, but for what modules and classes hold."""
    seen, todo, total, largest = set(), list(roots), 0, 0
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, NOT_OF_A_RUN):
            continue
        seen.add(id(thing))
        if isinstance(thing, types.FunctionType):
            todo += [cell.cell_contents for cell in thing.__closure__ or ()]  # not its module's names
            continue
        if isinstance(thing, CONTAINERS):
            if isinstance(thing, dict) and "__builtins__" in thing:
                continue
            total += len(thing)
            largest = max(largest, len(thing))
        todo += gc.get_referents(thing)
    return total, largest


class Measure:
    """What a run holds, after a thousand items and after all of them."""

    def __init__(self):
        self.taken = []

    def take(self, run):
        gc.collect()
        self.taken.append((*entries(run._scope.stages), sys.getallocatedblocks()))

    def assert_flat(self):
        (total, _, blocks), (total_later, largest, blocks_later) = self.taken
        assert total_later <= total + 20
        assert largest < 1_000
        assert blocks_later <= blocks + 500


async def passed(built, first=1_000, count=PASSING):
    """Read so many results while one item is stuck, and measure twice."""
    measure = Measure()
    async with built.open() as run:
        for number in range(count):
            if number == first:
                measure.take(run)
            if number % 1_000 == 0:
                await asyncio.sleep(1)  # or the clock finds that no time goes by
            await anext(run)
        measure.take(run)
    measure.assert_flat()


async def lost(built, calls, first=1_000, count=PASSING):
    """Let so many items be lost behind a head that is stuck, and measure twice."""
    measure = Measure()
    async with built.open() as run:
        reading = asyncio.create_task(anext(run))
        for number in (first, count):
            while calls.seen < number:  # noqa: ASYNC110 -- what it waits for is work, in virtual time
                await asyncio.sleep(1)
            measure.take(run)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    measure.assert_flat()


async def stuck_at_first(item):
    await asyncio.sleep(HOUR**3 if item == 0 else 0)
    return item


async def several(item):
    await stuck_at_first(item)
    for number in range(3):
        yield number


async def batch_of(items):
    await stuck_at_first(items[0])
    return items


def numbers():
    return stream(itertools.count())


PASSED_BY = {
    "map": lambda: numbers().map(stuck_at_first, concurrency=3, buffer=2, ordered=False),
    "map, with a time limit": lambda: numbers().map(stuck_at_first, concurrency=3, ordered=False, timeout=HOUR**3),
    "filter": lambda: numbers().filter(stuck_at_first, concurrency=3, buffer=2, ordered=False),
    "flat_map of generators": lambda: numbers().flat_map(several, concurrency=3, buffer=4, ordered=False),
    "flat_map of lists": lambda: numbers().flat_map(one_in_a_list, concurrency=3, buffer=2, ordered=False),
    "map_batches": lambda: numbers().map_batches(batch_of, 4, concurrency=3, buffer=2, ordered=False),
    "merge, one source stuck": lambda: merge(numbers(), stream([0]).map(stuck_at_first)),
    "merge, behind windows": lambda: merge(
        numbers().map(stuck_at_first, concurrency=3, ordered=False), stream([0]).map(stuck_at_first)
    ),
}


async def one_in_a_list(item):
    return [await stuck_at_first(item)]


@pytest.mark.parametrize(
    ("name", "count"), [*((name, PASSING) for name in PASSED_BY), pytest.param("map", FAR, marks=pytest.mark.slow)]
)
def test_what_passes_a_stuck_item_leaves_nothing_behind(name, count):
    """Without order, all others pass it."""
    testing.run(passed(PASSED_BY[name](), count=count))


class Calls:
    """Work that is stuck at item 0 and gives no result for the others but one, which waits in order."""

    def __init__(self, how, count):
        self.seen = 0
        self.how, self.count = how, count

    async def __call__(self, item):
        self.seen += 1
        if item == 0:
            await asyncio.sleep(HOUR**3)
        if self.seen > self.count:
            await asyncio.sleep(HOUR**3)
        await asyncio.sleep(0.01)
        if item != 5 and self.how == "failed":
            raise KeyError(item)
        return item == 5

    async def batch(self, items):
        for item in items:
            await self(item)
        return items


def lost_behind(calls, operator):
    options = {"concurrency": 3, "buffer": 4}
    if operator == "filter":
        return numbers().filter(calls, **options)
    if operator == "map":
        return numbers().map(calls, on_error="skip", **options)
    if operator == "flat_map":

        async def outputs(item):
            if await calls(item):
                yield item

        return numbers().flat_map(outputs, on_error="skip", **options)
    return numbers().map_batches(calls.batch, 1, on_error="skip", **options)


@pytest.mark.parametrize(
    ("operator", "how", "count"),
    [
        ("filter", "dropped", PASSING),
        ("filter", "failed", PASSING),
        ("map", "failed", PASSING),
        ("map_batches", "failed", PASSING),
        ("flat_map", "failed", PASSING),
        pytest.param("filter", "dropped", FAR, marks=pytest.mark.slow),
    ],
)
def test_what_is_lost_behind_a_stuck_head_leaves_nothing_behind(operator, how, count, caplog):
    """In order, with a buffer that holds a result: what is dropped or fails behind the head is settled and gone."""
    caplog.set_level("CRITICAL", "penstock")  # or pytest keeps what is logged
    calls = Calls(how, count)
    if operator == "filter" and how == "failed":
        built = numbers().filter(calls, on_error="skip", concurrency=3, buffer=4)
    else:
        built = lost_behind(calls, operator)
    testing.run(lost(built, calls, count=count))


@pytest.mark.quick
def test_a_container_that_grows_is_seen():
    """The measure is no blind one."""
    grown = []

    async def keeps(item):
        grown.append(item)
        return await stuck_at_first(item)

    with pytest.raises(AssertionError):
        testing.run(passed(numbers().map(keeps, concurrency=3, ordered=False), count=3_000))
