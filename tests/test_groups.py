"""Groups of calls: how they are made, and that nothing of them shows in order, bounds, errors, retries or timeouts."""

import asyncio
import gc
import pickle
import random
from collections import Counter
from functools import partial

import pytest

import penstock
from penstock import tasks, testing
from penstock.engines import Threads
from penstock.engines.cluster.cluster_engine import LONGEST, ROUND_TRIPS, SHORTEST, RoundTrip
from penstock.engines.engine import Slots
from penstock.engines.groups import FRUITLESS, LARGEST, WINDOW, Groups
from penstock.testing import Scripted

from .grouping import Grouping

grid = pytest.mark.grid
blindness = pytest.mark.parametrize("blind", [False, True], ids=["seen", "blind"])


def same(item):
    return item


async def arrivals(items, clock):
    return [(item, round(clock.now, 6)) async for item in items]


def sizes(engine):
    return [len(group) for group in engine.sent]


# How groups are made


@grid
@blindness
async def test_as_many_calls_travel_together_as_take_the_target(blind, clock):
    engine = Grouping(1, blind=blind)
    assert await penstock.stream(range(61)).map(same, engine=engine).to_list() == list(range(61))
    assert sizes(engine) == [1, 10, 10, 10, 10, 10, 10]


async def test_what_calls_take_is_known_for_each_function(clock):
    """A stage of slow calls does not have those of another one go alone."""
    engine = Grouping(1, takes=lambda item: 2.0 if item < 0 else 0.1)
    stream = penstock.stream(range(9)).map(lambda item: -1 - item, engine=engine)
    assert sorted(await stream.map(same, engine=engine).to_list()) == list(range(-9, 0))
    slow, quick = (Grouping(1, takes=engine.takes) for _ in range(2))
    await penstock.stream(range(-9, 0)).map(same, engine=slow).drain()
    await penstock.stream(range(9)).map(same, engine=quick).drain()
    assert max(sizes(slow)) == 1
    assert max(sizes(quick)) > 1


async def test_an_expensive_first_call_is_outweighed(clock):
    """It loads something, say."""
    engine = Grouping(1, takes=lambda item: 0.1 if item else 2.0)
    await penstock.stream(range(400)).map(same, engine=engine).drain()
    assert sizes(engine)[-2] > 7


async def test_what_calls_took_long_ago_counts_less(clock):
    engine = Grouping(1, takes=lambda item: 0.01 if item < 3000 else 0.5)
    await penstock.stream(range(6000)).map(same, engine=engine).drain()
    assert max(sizes(engine)) > WINDOW // 2
    assert sizes(engine)[-2] <= 3


async def test_all_slots_get_their_share(clock):
    """The window is divided among them, and so is what waits."""
    engine = Grouping(4, takes=lambda _: 0.001)
    await penstock.stream(range(400)).map(same, engine=engine, concurrency=40).drain()
    assert 7 < max(sizes(engine)) <= 10
    engine = Grouping(4, takes=lambda _: 0.001)
    await penstock.stream(range(24)).map(same, engine=engine, concurrency=2000).drain()
    assert sizes(engine) == [1, 1, 1, 1, 5, 5, 5, 5]


async def test_a_group_has_its_most_calls(clock):
    """P9: its answers come in one pass of the loop."""
    engine = Grouping(1, takes=lambda _: 1e-6)
    await penstock.stream(range(4000)).map(same, engine=engine, concurrency=2000).drain()
    assert max(sizes(engine)) == LARGEST


@grid
@pytest.mark.parametrize("depth", [1, 2])
async def test_nothing_waits_for_company(depth, clock):
    engine = Grouping(1, depth=depth)
    stream = penstock.stream(Scripted(range(5), delay=1)).map(same, engine=engine)
    async with stream.open() as items:
        assert await arrivals(items, clock) == [(0, 1.1), (1, 2.1), (2, 3.1), (3, 4.1), (4, 5.1)]


async def test_while_calls_are_small_the_next_group_waits_at_the_worker(clock):
    engine = Grouping(1, depth=2)
    async with penstock.stream(range(99)).map(same, engine=engine, concurrency=20).open() as items:
        await anext(items)
        await asyncio.sleep(0.5)
        assert len(engine.under_way) == 2
    engine = Grouping(1, depth=2, takes=lambda _: 3.0)
    async with penstock.stream(range(99)).map(same, engine=engine, concurrency=20).open() as items:
        await anext(items)
        await asyncio.sleep(0.5)
        assert len(engine.under_way) == 1


async def test_only_a_whole_group_waits_behind_another_one(clock):
    """It would not begin sooner there, and groups that were once small would stay small; an idle worker gets any."""
    engine = Grouping(1, depth=2, takes=lambda _: 0.01)
    async with penstock.stream(range(400)).map(same, engine=engine, concurrency=40).open() as items:
        async for _ in items:
            await asyncio.sleep(0.001)  # they leave places one by one
    assert Counter(sizes(engine)[6:-6]).most_common(1)[0][0] == 20
    engine = Grouping(2, depth=2)
    await penstock.stream(range(3)).map(same, engine=engine).drain()
    assert sizes(engine) == [1, 1, 1]


@pytest.mark.parametrize(("places", "calls"), [(300, 150), (384, 128), (512, 170)])
async def test_where_groups_are_large_the_next_one_is_ready(places, calls, clock):
    """A worker need not wait until what it has returned is read."""
    engine = Grouping(2, takes=lambda _: 1e-6)
    async with penstock.stream(range(5000)).map(same, engine=engine, concurrency=places).open() as items:
        async for _ in items:
            pass
    assert Counter(sizes(engine)).most_common(1)[0][0] == calls


@pytest.mark.parametrize("retry", [None, penstock.Retry(on=OSError)], ids=["errands", "tasks"])
async def test_places_that_are_refilled_make_whole_groups(retry, clock):
    """A part that went alone would come back as a part: groups would stay in pieces, and a hop is dear."""
    engine = Grouping(2, takes=lambda item: 0.001 * (1 + item // 37 % 3))
    stream = penstock.stream(range(600)).map(same, engine=engine, concurrency=40, ordered=False, retry=retry)
    assert await stream.count() == 600
    assert len(engine.sent) == 32  # the first two are of one call, the next ones of 19


async def test_the_target_may_change(clock):
    """An engine may measure what a hop costs."""
    engine = Grouping(1)
    async with penstock.stream(range(200)).map(same, engine=engine).open() as items:
        for _ in range(20):
            await anext(items)
        engine.group_seconds = 3.0
        assert [item async for item in items] == list(range(20, 200))
    assert sizes(engine)[:3] == [1, 10, 10]
    assert sizes(engine)[-2] == 30


def test_the_target_of_a_cluster_follows_its_shortest_round_trip_of_late():
    """Within bounds, as a result may wait four times as long; one that was long by chance counts little."""
    trip = RoundTrip()
    assert trip.group_seconds == SHORTEST
    for seconds, target in ((0.0005, SHORTEST), (9.0, SHORTEST), (0.001, SHORTEST)):
        trip.note(seconds)
        assert trip.group_seconds == target
    for _ in range(30):
        trip.note(0.002)
    assert trip.group_seconds == ROUND_TRIPS * 0.002 == 0.04
    for _ in range(30):
        trip.note(0.5)
    assert trip.group_seconds == LONGEST


async def test_without_a_number_there_are_64_places_a_slot(clock):
    engine = Grouping(3)
    async with penstock.stream(range(500)).map(same, engine=engine).open() as items:
        await anext(items)
    assert items.stats()[-1].concurrency == 3 * WINDOW
    async with penstock.stream(range(500)).map(same, engine=engine, concurrency=2).open() as items:
        await anext(items)
    assert items.stats()[-1].peak_running == items.stats()[-1].concurrency == 2


async def test_stages_and_runs_share_the_slots(clock):
    engine = Grouping(2, takes=lambda _: 2.0)
    stream = penstock.stream(range(4)).map(same, engine=engine).map(same, engine=engine)
    assert await asyncio.gather(stream.to_list(), stream.to_list()) == [list(range(4))] * 2
    assert clock.now == 2.0 * 16 / 2


# P2


@grid
@pytest.mark.parametrize("depth", [1, 2])
async def test_a_slow_call_does_not_hold_its_neighbours(depth, clock):
    """P2: what is finished is handed on, and what is not begun goes to another worker."""
    engine = Grouping(2, depth=depth, takes=lambda item: 3600.0 if item == 30 else 0.1)
    async with penstock.stream(range(60)).map(same, engine=engine, concurrency=60, ordered=False).open() as items:
        seen = await arrivals(items, clock)
    assert [item for item, _ in seen][-1] == 30
    assert seen[-2][1] < 10
    assert engine.recalled
    assert engine.stopped == 0
    assert sorted(item for item, _ in engine.began) == list(range(60))


async def test_what_waits_behind_a_slow_call_at_the_worker_is_taken_back(clock):
    """With two groups a slot: the second one is not bound to its worker."""
    engine = Grouping(2, depth=2, takes=lambda item: 3600.0 if item == 9 else 0.5)
    async with penstock.stream(range(40)).map(same, engine=engine, concurrency=8, ordered=False).open() as items:
        seen = await arrivals(items, clock)
    assert seen[-1] == (9, seen[-1][1])
    assert seen[-2][1] < 40


# Time limits


@grid
@pytest.mark.parametrize("depth", [1, 2])
async def test_a_late_call_fails_alone_at_its_deadline(depth, clock):
    """Its time begins with it; the others do not see that their group was stopped."""
    engine = Grouping(1, depth=depth, takes=lambda item: 50.0 if item == 5 else 0.1, dies=2.0)
    stream = penstock.stream(range(12)).map(same, engine=engine, timeout=3, on_error="collect")
    async with stream.open() as items:
        seen = await arrivals(items, clock)
    assert [item for item, _ in seen] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    (failed,) = items.failures
    assert isinstance(failed.error, penstock.AttemptTimeout)
    assert (failed.index, str(failed.error)) == (5, "timed out after 3 s")
    assert sorted(item for item, _ in engine.began) == list(range(12))
    assert engine.stopped == 1
    assert clock.now == pytest.approx(11 * 0.1 + 3 + 2)
    assert items.stats()[-1].in_flight == 0


@grid
@blindness
async def test_waiting_for_a_worker_is_no_part_of_the_timeout(blind, clock):
    engine = Grouping(1, takes=lambda _: 3.0, blind=blind)
    stream = penstock.stream(range(6)).map(same, engine=engine, timeout=4)
    assert await stream.to_list() == list(range(6))
    assert clock.now == 18


async def test_waiting_in_a_group_is_no_part_of_the_timeout(clock):
    engine = Grouping(1)
    assert await penstock.stream(range(40)).map(same, engine=engine, timeout=0.2).to_list() == list(range(40))
    assert max(sizes(engine)) == 10
    assert not engine.stopped


async def test_a_call_that_took_too_long_is_late_even_if_it_came_back(clock):
    """It was in a group that nobody looked at in time."""

    class Slow(Grouping):
        def peek(self, answers, /):
            return None if any(call.arguments == (3,) for call in self._of(answers)[1].calls) else super().peek(answers)

    engine = Slow(1, takes=lambda item: 0.3 if item == 3 else 0.1)
    stream = penstock.stream(range(6)).map(same, engine=engine, timeout=0.25, on_error="collect")
    async with stream.open() as items:
        assert [item async for item in items] == [0, 1, 2, 4, 5]
    assert [failed.index for failed in items.failures] == [3]


@grid
async def test_an_engine_that_says_nothing_makes_slow_calls_again_alone(clock):
    """Then it is known since when each runs: only the late one fails."""
    engine = Grouping(1, takes=lambda item: 50.0 if item == 5 else 0.1, blind=True)
    stream = penstock.stream(range(12)).map(same, engine=engine, timeout=6, on_error="collect")
    async with stream.open() as items:
        assert [item async for item in items] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert [failed.index for failed in items.failures] == [5]
    assert clock.now == pytest.approx(0.1 + 6 + 10 * 0.1 + 6)


@grid
@blindness
async def test_a_retry_waits_until_the_late_call_is_over(blind, clock):
    engine = Grouping(2, takes=lambda _: 10.0, dies=2.0, blind=blind)
    retry = penstock.Retry(on=penstock.AttemptTimeout, attempts=2, initial=1, jitter=0)
    with pytest.raises(penstock.AttemptTimeout):
        await penstock.stream([1]).map(same, engine=engine, timeout=3, retry=retry).to_list()
    assert clock.now == 3 + 2 + 1 + 3 + 2
    assert len(engine.began) == 2


# Leaving and cancelling


@grid
@blindness
@pytest.mark.parametrize("depth", [1, 2])
async def test_leaving_stops_what_runs_and_takes_back_what_waits(blind, depth, clock):
    """P4: nothing is under way, and nothing begins after."""
    engine = Grouping(2, depth=depth, dies=2.0, blind=blind)
    async with penstock.stream(range(999)).map(same, engine=engine).open() as items:
        await anext(items)
        await asyncio.sleep(0.55)
        began = len(engine.began)
    assert not engine.under_way
    assert len(engine.began) == began
    assert clock.now < 3
    stats = items.stats()[-1]
    assert stats.taken == stats.delivered + stats.cancelled + stats.discarded
    await asyncio.sleep(100)
    assert len(engine.began) == began


@grid
@blindness
async def test_another_run_on_the_engine_does_not_see_that_one_is_left(blind, clock):
    """Its calls were in the same groups."""
    engine = Grouping(1, blind=blind)
    both = [penstock.stream(range(20)).map(same, engine=engine, concurrency=20) for _ in range(2)]
    reading = [asyncio.create_task(each.to_list()) for each in both]
    await asyncio.sleep(0.55)
    reading[0].cancel()
    assert await reading[1] == list(range(20))
    assert reading[0].cancelled()
    assert not engine.under_way


async def test_a_call_that_waits_in_the_queue_just_leaves(clock):
    engine = Grouping(1, takes=lambda _: 5.0)
    stream = penstock.stream(range(3)).map(same, engine=engine)
    first = asyncio.create_task(stream.to_list())
    await asyncio.sleep(1)
    second = asyncio.create_task(stream.to_list())
    await asyncio.sleep(1)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert clock.now == 2
    assert not engine.stopped
    assert await first == [0, 1, 2]
    assert len(engine.began) == 3


async def test_calls_that_are_cancelled_leave_nothing_in_the_queue(clock):
    """P7: as long as the only worker is stuck."""
    engine = Grouping(1, takes=lambda _: 1000.0)
    stream = penstock.stream(range(50)).map(same, engine=engine)
    first = asyncio.create_task(penstock.stream([1]).map(same, engine=engine).to_list())
    for _ in range(20):
        await asyncio.sleep(0.1)
        reading = asyncio.create_task(stream.to_list())
        await asyncio.sleep(0.1)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert not engine.line(Groups)._queue
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first


@grid
async def test_a_failure_stops_its_siblings(clock):
    def fails(item):
        if item == 3:
            raise ValueError("mine")
        return item

    engine = Grouping(2, takes=lambda item: 0.1 if item < 10 else 100.0)
    with pytest.raises(ValueError, match="mine"):
        await penstock.stream(range(99)).map(fails, engine=engine).to_list()
    assert clock.now < 10
    assert not engine.under_way


@grid
async def test_one_bad_item_does_not_fail_its_group(clock):
    def fails(item):
        if item % 5 == 3:
            raise ValueError(item)
        return item

    engine = Grouping(1)
    async with penstock.stream(range(30)).map(fails, engine=engine, on_error="collect").open() as items:
        assert [item async for item in items] == [item for item in range(30) if item % 5 != 3]
    assert [failed.index for failed in items.failures] == [3, 8, 13, 18, 23, 28]
    assert max(sizes(engine)) == 10


# Workers that die


@grid
@blindness
@pytest.mark.parametrize("depth", [1, 2])
async def test_the_call_that_kills_its_worker_twice_is_named_and_the_others_go_on(blind, depth, clock):
    """P5: what was finished before it does not run again where that is known; no neighbour is blamed."""
    engine = Grouping(1, depth=depth, kills=lambda item: item == 7, blind=blind)
    async with penstock.stream(range(30)).map(same, engine=engine, on_error="collect").open() as items:
        assert [item async for item in items] == [item for item in range(30) if item != 7]
    (failed,) = items.failures
    assert isinstance(failed.error, penstock.WorkerLost)
    assert str(failed.error) == "same(7) ran twice, and its worker died both times: killed by signal 9"
    assert (failed.index, failed.attempts) == (7, 1)
    assert engine.dead == 2
    assert [7] in engine.sent
    began = [item for item, _ in engine.began]
    if not blind:
        assert sorted(began) == sorted([*range(30), 7])


@grid
async def test_a_death_by_chance_is_not_seen(clock):
    """It is no attempt, and no failure."""
    chance = iter([False] * 5 + [True] + [False] * 99)
    engine = Grouping(2, kills=lambda _: next(chance))
    async with penstock.stream(range(40)).map(same, engine=engine).open() as items:
        assert [item async for item in items] == list(range(40))
    assert engine.dead == 1
    assert items.stats()[-1].retried == 0


async def test_a_killer_may_be_tried_again(clock):
    """`retry=` sees a failure like any other: two workers for each attempt."""
    deaths = iter([True, True, False])
    engine = Grouping(1, kills=lambda _: next(deaths))
    retry = penstock.Retry(on=penstock.WorkerLost, jitter=0)
    assert await penstock.stream([1]).map(same, engine=engine, retry=retry).to_list() == [1]
    engine = Grouping(1, kills=lambda _: True)
    with pytest.raises(penstock.WorkerLost):
        await penstock.stream([1]).map(same, engine=engine, retry=retry).to_list()
    assert engine.dead == 2 * 3


async def test_a_killer_whose_argument_cannot_be_shown(clock):
    class Bad:
        def __repr__(self):
            raise RuntimeError("no")

    engine = Grouping(1, kills=lambda _: True)
    with pytest.raises(penstock.WorkerLost, match="Bad, whose repr raised RuntimeError"):
        await penstock.stream([Bad()]).map(same, engine=engine).to_list()


async def test_workers_that_never_begin_end_the_run(clock):
    """They cannot load something, say: they are not started for ever."""

    class Dead(Grouping):
        def submit(self, calls, /):
            self.sent.append(calls)
            answers = asyncio.get_running_loop().create_future()
            answers.set_result([])
            return answers

    engine = Dead(1)
    with pytest.raises(
        penstock.WorkerLost, match=r"17 workers in a row of Grouping\(1\) died before they began a call"
    ):
        await penstock.stream(range(9)).map(same, engine=engine).to_list()
    assert FRUITLESS < len(engine.sent) < FRUITLESS + 4


@grid
async def test_a_call_that_is_stopped_and_kills_is_over(clock):
    """P8: cancelled by its caller, it is no failure."""

    class Dies(Grouping):
        def _killed(self, worker):
            worker.timer = None
            self._die(worker)

    engine = Dies(1, takes=lambda _: 100.0, dies=1.0)
    reading = asyncio.create_task(penstock.stream([1]).map(same, engine=engine).to_list())
    await asyncio.sleep(1)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert clock.now == 2


# What is counted


async def test_latency_is_what_calls_take_where_they_run(clock):
    engine = Grouping(1)
    async with penstock.stream(range(64)).map(same, engine=engine).open(timing=True) as items:
        await asyncio.sleep(100)
        assert [item async for item in items] == list(range(64))
    latency = items.stats()[-1].latency
    assert latency.samples == 64
    assert latency.p50 == pytest.approx(0.1, rel=0.05)
    assert latency.p99 == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("name", ["flat_map", "map_batches"])
async def test_latency_of_lists(name, clock):
    engine = Grouping(1)
    stream = penstock.stream(range(40))
    stream = (
        stream.flat_map(lambda item: [item], engine=engine)
        if name == "flat_map"
        else stream.map_batches(same, 4, engine=engine, concurrency=8)
    )
    async with stream.open() as items:
        assert [item async for item in items] == list(range(40))
    assert items.stats()[-1].latency.p99 == pytest.approx(0.1, rel=0.05)


# Tasks


def seven():
    return 7


def fails():
    raise ValueError("mine")


@pytest.mark.parametrize("make", [lambda: Grouping(2, depth=2), lambda: Threads(2), lambda: "thread", lambda: "inline"])
async def test_tasks_on_an_engine(make, clock):
    """Plain functions run there, what is async stays on the loop."""
    engine = make()

    async def there(number):
        await asyncio.sleep(number)
        return number

    given = [seven, partial(same, 1), partial(there, 2), lambda: 3]
    assert await tasks.gather(given, concurrency=3, engine=engine) == [7, 1, 2, 3]
    outcomes = await tasks.settle([seven, fails, seven], concurrency=2, engine=engine)
    assert [type(outcome) for outcome in outcomes] == [penstock.Ok, penstock.Failed, penstock.Ok]
    assert [outcome.value for outcome in await tasks.retry_failed([seven], rounds=1, concurrency=1, engine=engine)] == [
        7
    ]
    executor = tasks.TaskExecutor(2, engine=engine)
    for number in range(5):
        executor.add(partial(same, number))
    assert [done.result for done in await executor.run()] == list(range(5))
    if isinstance(engine, Grouping):
        assert len(engine.began) == 2 + 3 + 1 + 5
    elif isinstance(engine, Threads):
        assert engine.line(Slots).in_use == 0
        await engine.aclose()


async def test_small_tasks_travel_together(clock):
    engine = Grouping(1)
    assert await tasks.gather([partial(same, 1) for _ in range(41)], concurrency=40, engine=engine) == [1] * 41
    assert max(sizes(engine)) == 10


@pytest.mark.parametrize("make", [lambda: Grouping(1, takes=lambda _: 3.0), None], ids=["groups", "threads"])
async def test_waiting_is_no_part_of_the_time_of_a_task(make, clock):
    engine = Threads(1) if make is None else make()
    executor = tasks.TaskExecutor(4, engine=engine, timeout=4, retry=None)
    for _ in range(4):
        executor.add(partial(clock.sleep, 3.0) if make is None else seven)
    assert all(done.success for done in await executor.run())
    assert clock.now == 12
    if make is None:
        await engine.aclose()


async def test_a_task_that_kills_is_named(clock):
    engine = Grouping(1, kills=lambda _: True)
    with pytest.raises(penstock.WorkerLost, match=r"^same\(\) ran twice"):
        await tasks.gather([partial(same, 1)], concurrency=2, engine=engine)


@pytest.mark.parametrize("value", ["fast", 3, Threads])
def test_what_is_no_engine_for_tasks(value):
    with pytest.raises(penstock.OptionError, match="engine must be None, 'inline', "):
        tasks.TaskExecutor(engine=value)
    with pytest.raises(penstock.OptionError, match="engine must be None, 'inline', "):
        asyncio.run(tasks.gather([seven], concurrency=1, engine=value))


# What may go wrong


async def test_what_submitting_raises_is_the_failure_of_its_calls(clock):
    class Refuses(Grouping):
        def submit(self, calls, /):
            if any(call.arguments == (3,) for call in calls):
                raise OSError("cannot send")
            return super().submit(calls)

    with pytest.raises(OSError, match="cannot send"):
        await penstock.stream(range(5)).map(same, engine=Refuses(1)).to_list()


def test_an_engine_with_groups_belongs_to_its_loop():
    engine = Grouping(2, takes=lambda _: 0.0)
    stream = penstock.stream(range(3)).map(same, engine=engine)
    assert asyncio.run(stream.to_list()) == [0, 1, 2]
    with pytest.raises(penstock.WrongLoopError, match=r"Grouping\(2\) belongs to the event loop of its first use"):
        asyncio.run(stream.to_list())


async def test_nothing_of_a_run_is_held_after_it(clock):
    """Trap 20: errors, results and items are let go without the garbage collector."""

    class Item:
        def __init__(self, number):
            self.number = number

    def fails(item):
        if item.number == 3:
            raise ValueError(item)
        return item

    engine = Grouping(1)
    gc.collect()
    gc.disable()
    try:
        async with penstock.stream(range(20)).map(Item).map(fails, engine=engine, on_error="skip").open() as items:
            async for item in items:
                del item
        del items
        engine.sent.clear()
        engine.began.clear()
        assert [each for each in gc.get_objects() if isinstance(each, Item)] == []
    finally:
        gc.enable()


# All of it at once


class Chance:
    """A run of random calls on a random engine: what may take long, die, be late, be tried again, be left."""

    def __init__(self, seed):
        self.draw = random.Random(seed)
        self.killers = {item for item in range(80) if self.rarely(0.03)} if self.rarely(0.3) else set()
        slow, deaths = self.draw.choice([0, 0.01, 0.1]), self.draw.choice([0, 0, 0.02, 0.2])
        self.engine = Grouping(
            self.draw.randint(1, 3),
            depth=self.draw.randint(1, 2),
            takes=lambda _: self.draw.choice([3.0, 300.0] if self.rarely(slow) else [0.001, 0.01, 0.1, 0.5]),
            kills=lambda item: item in self.killers or self.rarely(deaths),
            dies=self.draw.choice([0.0, 0.05, 2.0]),
            blind=self.rarely(0.4),
        )

    def rarely(self, share):
        return self.draw.random() < share

    def options(self):
        draw = self.draw
        options = {"ordered": draw.choice([True, False]), "buffer": draw.choice([0, 3]), "on_error": "collect"}
        if self.rarely(0.5):
            options["concurrency"] = draw.choice([1, 2, 5, 40, 300])
        if self.rarely(0.4):
            options["timeout"] = draw.choice([0.05, 0.7, 5.0])
        if self.rarely(0.4):
            on = draw.choice([Exception, penstock.WorkerLost, penstock.AttemptTimeout])
            options["retry"] = penstock.Retry(on=on, attempts=3, deadline=draw.choice([None, 20]))
        return options

    async def run(self):
        count, leave_after, seen = self.draw.randint(1, 80), self.draw.choice([None, None, 3]), []
        stream = penstock.stream(range(count)).map(same, engine=self.engine, **self.options())
        async with stream.open(grace=1e6) as items:
            async for item in items:
                seen.append(item)
                if len(seen) == leave_after:
                    break
                if self.rarely(0.1):
                    await asyncio.sleep(1)
        stats = items.stats()[-1]
        assert stats.in_flight == 0
        assert stats.taken == stats.delivered + stats.failed + stats.cancelled + stats.discarded
        assert len(set(seen)) == len(seen)
        if leave_after is None:
            assert {*seen, *(failed.index for failed in items.failures)} == {*range(count)}
        assert all(isinstance(failed.error, penstock.AttemptTimeout | penstock.WorkerLost) for failed in items.failures)

    async def some_runs(self):
        runs = [asyncio.create_task(self.run()) for _ in range(self.draw.randint(1, 3))]
        if self.rarely(0.4):
            await asyncio.sleep(self.draw.choice([0, 0.3, 2, 40]))
            runs[0].cancel()
        ended = await asyncio.gather(*runs, return_exceptions=True)
        assert [error for error in ended if error and not isinstance(error, asyncio.CancelledError)] == []
        groups = self.engine.line(Groups)
        assert not groups._queue
        assert groups._used == 0
        assert not self.engine.under_way


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 120, 40))
def test_random_calls_on_random_engines(start):
    """P1, P5: one outcome for each item, and nothing is left, whatever comes together."""
    for seed in range(start, start + 40):
        try:
            testing.run(
                Chance(seed).some_runs(), loop="asyncio", tasks=random.Random(seed).choice([*testing.TASK_FACTORIES])
            )
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


class Pickling(Grouping):
    """Sends calls as they are given."""

    def submit(self, calls):
        return super().submit(pickle.loads(pickle.dumps(calls)))


async def test_an_engine_may_pickle_the_calls_that_it_is_given(clock):
    """What waits for their answers stays here."""
    assert await penstock.stream(range(9)).map(same, engine=Pickling(2)).to_list() == list(range(9))
