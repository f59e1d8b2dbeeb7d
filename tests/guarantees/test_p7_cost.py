"""P7: O(1) amortised work per item, O(concurrency + buffer) memory; nothing accumulates, nothing is left."""

import asyncio
import contextlib
import gc
import itertools
import random
import sys
import weakref

import pytest

from penstock import Retry, merge, stream, testing
from penstock.testing import Scripted

from .grids import ORDERS, SIZES, grid
from .operators import MODELLED, OPERATORS, WINDOWS, WORKING, itself, truth

HOUR = 3600.0


class Item:
    """An item that knows how many of its kind are alive."""

    alive = 0

    def __init__(self, number):
        self.number = number
        Item.alive += 1

    def __del__(self):
        Item.alive -= 1


@contextlib.contextmanager
def no_collector():
    """What only the garbage collector frees counts as kept: trap 20."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def objects():
    gc.collect()
    return len(gc.get_objects())


async def objects_after(results, count):
    for _ in range(count):
        await anext(results)
    for _ in range(20):  # until all that may wait does
        await asyncio.sleep(0)
    return objects()


@grid(operator=OPERATORS)
async def test_a_stuck_item_does_not_grow_anything_over_hundreds_of_others(operator):
    """Trap 5: unordered, one call hangs for ever while the others pass it."""

    async def stuck_first(item):
        await asyncio.sleep(0 if item else HOUR)

    options = {"concurrency": 3, "buffer": 2, "ordered": False}
    source = Scripted(itertools.count())
    async with operator.build(stream(source), stuck_first, **options).open() as results:
        before, after = await objects_after(results, 50), await objects_after(results, 150)
    assert after - before <= 2


@grid(operator=WINDOWS)
async def test_a_stuck_head_does_not_grow_anything_over_hundreds_that_are_lost_behind_it(operator, caplog):
    """In order, items that fail behind a stuck head are settled, and nothing of them is kept."""
    caplog.set_level("CRITICAL", "penstock")  # or pytest keeps what is logged
    counted = []

    async def stuck_first(item):
        if item == 0:
            await asyncio.sleep(HOUR)
        if item in (100, 1_000):
            counted.append(objects())
        if item > 1_000:
            await asyncio.sleep(HOUR)
        raise KeyError

    options = {"concurrency": 3, "buffer": 2, "on_error": "skip"}
    async with operator.build(stream(itertools.count()), stuck_first, **options).open() as results:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(results), 1)
    assert counted[1] - counted[0] <= 2


@grid(operator=OPERATORS)
async def test_a_long_run_holds_no_more_than_a_short_one(operator):
    async def call(item):
        await asyncio.sleep(0)

    options = {"concurrency": 5, "buffer": 5, "timeout": 60, "retry": Retry(on=KeyError)}
    async with operator.build(stream(Scripted(itertools.count())), call, **options).open() as results:
        before, after = await objects_after(results, 48), await objects_after(results, 160)  # one call in 16 is timed
    assert after - before <= 2


@grid(operator=WORKING, ordered=ORDERS, size=SIZES)
async def test_items_are_let_go_as_soon_as_they_are_settled(operator, ordered, size):
    """What is alive is what the bound allows, and the one that the consumer holds."""

    async def call(item):
        await asyncio.sleep(0.001)

    # an iterator that is still open holds the item that the consumer holds too
    limit = operator.places(**size) + (0 if operator.settles_late else 1)
    with no_collector():
        async with operator.build(stream(map(Item, range(20))), call, ordered=ordered, **size).open() as results:
            async for item in results:
                await asyncio.sleep(1)
                assert Item.alive <= limit
                del item
        assert Item.alive == 0


ENDS = ("end", "break", "failure", "cancellation")


async def leave(built, how):
    async with built.open() as results:
        async for item in results:
            if how == "break":
                break
            del item


@grid(operator=OPERATORS, ordered=ORDERS, how=ENDS)
async def test_after_a_run_nothing_of_it_is_alive(operator, ordered, how):
    """Without the help of the garbage collector: no cycle ties items, results or errors to the run (trap 20)."""

    def items():
        yield from map(Item, range(6 if how == "end" else 1_000))

    async def call(item):
        await asyncio.sleep(HOUR if how == "cancellation" and item.number else 0.25)
        if how == "failure" and item.number == 2:
            raise KeyError

    with no_collector():
        built = operator.build(stream(items), call, concurrency=3, buffer=2, ordered=ordered)
        consumer = asyncio.ensure_future(leave(built, how))
        if how == "cancellation":
            await asyncio.sleep(1)
            consumer.cancel()
        await asyncio.wait([consumer])
        assert how != "failure" or isinstance(consumer.exception(), KeyError)
        del consumer, built
        await asyncio.sleep(0)
        assert Item.alive == 0


@grid(ordered=ORDERS)
async def test_the_failure_that_was_raised_is_let_go(ordered):
    class Boom(Exception):
        pass

    async def call(item):
        if item == 3:
            raise Boom

    with no_collector():
        try:
            await stream(range(9)).map(call, concurrency=2, ordered=ordered).to_list()
        except Boom as error:
            alive = weakref.ref(error)
        assert alive() is None


@grid(ordered=ORDERS)
async def test_thousands_of_failures_are_counted_and_the_newest_thousand_kept(ordered):
    async def call(item):
        raise KeyError(item)

    options = {"concurrency": 3, "ordered": ordered, "on_error": "collect", "name": "work"}
    async with stream(range(2_500)).map(call, **options).open() as results:
        assert [item async for item in results] == []
    assert results.stats()["work"].failed == 2_500
    assert [failure.index for failure in results.failures] == list(range(1_500, 2_500))


async def test_the_notes_of_a_failure_do_not_grow_with_the_others():
    class Boom(Exception):
        pass

    async def call(item):
        raise KeyError(item)

    async def last(item):
        raise Boom

    built = stream(range(3_001)).map(lambda item: item if item == 3_000 else call(item), on_error="collect")
    with pytest.raises(Boom) as raised:
        await built.tap(last).to_list()
    assert len(raised.value.__notes__) < 20
    assert "2990 more failed" in raised.value.__notes__[-1]


class Steps:
    """Counts the lines, jumps and resumptions of the core: a measure of work that a busy machine does not disturb."""

    TOOL = 4

    def __init__(self):
        self.count = 0

    def __enter__(self):
        monitoring, events = sys.monitoring, sys.monitoring.events
        monitoring.use_tool_id(self.TOOL, "steps")
        kinds = events.LINE, events.PY_START, events.PY_RESUME, events.JUMP, events.BRANCH
        for kind in kinds:
            monitoring.register_callback(self.TOOL, kind, self._step)
        monitoring.set_events(self.TOOL, sum(kinds))
        monitoring.restart_events()
        return self

    def __exit__(self, *_):
        sys.monitoring.set_events(self.TOOL, 0)
        sys.monitoring.free_tool_id(self.TOOL)

    def _step(self, code, *_):
        if "/penstock/core/" not in code.co_filename and "/penstock/ops/" not in code.co_filename:
            return sys.monitoring.DISABLE
        self.count += 1
        return None


def steps_per_item(built, items):
    """The work of a whole run. Not a coroutine test: what is counted is the same on every loop."""
    with Steps() as steps:
        testing.run(built.drain())
    return steps.count / items


def assert_constant(costs):
    """From the smallest window to the largest, an item costs no more than a quarter more."""
    assert max(costs) <= 1.25 * costs[0], costs


@pytest.mark.slow
@pytest.mark.parametrize("operator", WORKING, ids=str)
@pytest.mark.parametrize("ordered", ORDERS, ids=str)
def test_the_work_per_item_does_not_grow_with_the_window(operator, ordered):
    costs = []
    for concurrency in (8, 128):
        chance = random.Random(1)

        async def call(item, chance=chance):
            await asyncio.sleep(chance.random())

        options = {"concurrency": concurrency, "buffer": concurrency, "ordered": ordered}
        costs.append(steps_per_item(operator.build(stream(range(400)), call, **options), 400))
    assert_constant(costs)


@pytest.mark.slow
@pytest.mark.parametrize("operator", MODELLED, ids=str)
@pytest.mark.parametrize("ordered", ORDERS, ids=str)
def test_the_work_per_item_does_not_grow_behind_a_stuck_head(operator, ordered):
    """One result waits behind item 0, and all others fail: each must settle in O(1)."""
    costs = []
    for concurrency in (8, 128):

        async def call(item, concurrency=concurrency):
            if item < concurrency // 2:
                await asyncio.sleep(HOUR)
            elif item > concurrency // 2:
                await asyncio.sleep(0)
                raise KeyError

        options = {"concurrency": concurrency, "buffer": 8, "ordered": ordered, "on_error": "skip"}
        costs.append(steps_per_item(operator.build(stream(range(700)), call, **options), 700))
    assert_constant(costs)


def test_the_work_per_item_does_not_grow_with_the_length_of_a_run():
    async def call(item):
        await asyncio.sleep(0)

    for built in (
        lambda items: stream(items).map(itself(call), concurrency=4),
        lambda items: stream(items).filter(truth(call), concurrency=4, ordered=False),
        lambda items: stream(items).batch(5).flatten(),
        lambda items: merge(items, []),
    ):
        assert_constant([steps_per_item(built(range(count)), count) for count in (100, 1_000)])


@pytest.mark.slow
@pytest.mark.parametrize("ordered", ORDERS, ids=str)
def test_the_work_per_output_does_not_grow_with_the_outputs_of_an_input(ordered):
    async def outputs(count):
        for number in range(count):
            yield number

    costs = []
    for count in (400, 1_200):
        built = stream([count, count]).flat_map(outputs, concurrency=2, buffer=50, ordered=ordered)
        costs.append(steps_per_item(built, 2 * count))
    assert_constant(costs)


@grid(ordered=ORDERS)
async def test_calls_that_return_at_once_do_not_recurse(ordered):
    """Trap 20c."""

    async def at_once(item):
        return item

    for built in (
        stream(range(1_100)).map(at_once, concurrency=3, ordered=ordered),
        stream(Scripted(range(1_100))).filter(truth(at_once), concurrency=3, ordered=ordered),
        stream(range(1_100)).map(at_once, ordered=ordered).tap(at_once, concurrency=2, ordered=ordered).batch(7),
        stream([[]] * 1_100).flatten(),
        stream(range(1_100)).filter(lambda _: False, ordered=ordered),
        stream(range(1_100)).flat_map(lambda _: iter(()), concurrency=3, ordered=ordered),
    ):
        await built.drain()


async def test_many_runs_leave_nothing_on_a_long_lived_loop():
    async def call(item):
        await asyncio.sleep(0)

    async def some_runs(count):
        for _ in range(count):
            async with stream(Scripted(range(9))).map(itself(call), concurrency=3, timeout=9).open() as results:
                await anext(results)
            assert await stream(range(3)).map(itself(call), concurrency=2).batch(2, within=9).to_list() == [[0, 1], [2]]
        return objects()

    before, after = await some_runs(10), await some_runs(50)
    assert after - before <= 2
