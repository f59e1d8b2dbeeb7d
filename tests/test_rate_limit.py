"""`RateLimit`: starts are evenly spaced, exactly, first come first served, and a cancelled wait costs nothing."""

import asyncio
import math
import re
from bisect import bisect_left
from contextlib import suppress
from datetime import timedelta
from time import monotonic

import pytest

import penstock
from penstock import OptionError, RateLimit, WrongLoopError

pytestmark = pytest.mark.grid


async def starts(rate, clock, costs):
    """When each of those who ask at once, in that order, may start."""
    log = []

    async def start(number, cost):
        await rate.acquire(cost)
        log.append((number, clock.now))

    async with asyncio.TaskGroup() as group:
        for number, cost in enumerate(costs):
            group.create_task(start(number, cost))
    assert [number for number, _ in log] == list(range(len(costs)))
    return [time for _, time in log]


def busiest(times, width):
    """The most starts in any window of that width, its end not included."""
    return max(bisect_left(times, time + width - 1e-9) - index for index, time in enumerate(times))


@pytest.mark.parametrize(("n", "per"), [(10, 1), (3, 1), (7, 60), (0.5, 1), (500, timedelta(minutes=1))])
async def test_starts_are_evenly_spaced(clock, n, per):
    seconds = per.total_seconds() if isinstance(per, timedelta) else per
    times = await starts(RateLimit(n, per), clock, [1] * 50)
    assert times == [pytest.approx(k * seconds / n, abs=1e-9) for k in range(50)]


@pytest.mark.slow
async def test_no_drift_over_a_hundred_thousand_starts(clock, place):
    """Sums of seconds would be off by more than this after so many."""
    count = 100_000 if place.tasks == "default" else 1_000
    rate = RateLimit(7, 3)
    for k in range(count):
        await rate.acquire()
        assert abs(clock.now - k * 3 / 7) < 1e-9


@pytest.mark.parametrize("burst", [1, 2, 5, 20])
async def test_a_burst_goes_at_once_and_no_window_has_more(clock, burst):
    """In any window of `per` seconds there are at most n + burst - 1 starts."""
    times = await starts(RateLimit(10, 1, burst=burst), clock, [1] * 60)
    assert times[:burst] == [0.0] * burst
    assert times == [pytest.approx(max(0, k - burst + 1) / 10, abs=1e-9) for k in range(60)]
    assert busiest(times, 1) == 10 + burst - 1


async def test_idle_time_is_saved_up_to_the_burst(clock):
    rate = RateLimit(1, 1, burst=3)
    assert await starts(rate, clock, [1] * 4) == [0, 0, 0, 1]
    await asyncio.sleep(1)  # one is saved, and one more a second later
    assert await starts(rate, clock, [1] * 3) == [2, 3, 4]
    await asyncio.sleep(100)
    assert await starts(rate, clock, [1] * 5) == [104, 104, 104, 105, 106]


async def test_without_a_burst_idle_time_is_not_saved(clock):
    rate = RateLimit(2, 1)
    assert await starts(rate, clock, [1]) == [0]
    await asyncio.sleep(100)
    assert await starts(rate, clock, [1] * 3) == [100, 100.5, 101]


async def test_a_late_start_keeps_its_distance_to_the_next(clock):
    """Who is late by a little makes the next one later: the distance is never smaller."""
    rate = RateLimit(1, 1)
    await rate.acquire()
    await asyncio.sleep(1.25)
    await rate.acquire()
    await rate.acquire()
    assert clock.now == 2.25


async def test_a_burst_keeps_the_average_though_starts_are_late(clock):
    rate = RateLimit(1, 1, burst=2)
    times = []
    for _ in range(20):
        await rate.acquire()
        times.append(clock.now)
        await asyncio.sleep(1.01 if len(times) % 2 else 0.9)
    assert times[-1] == pytest.approx(18.0, abs=0.3)


async def test_costs_take_as_long_as_they_are_large(clock):
    assert await starts(RateLimit(10, 1), clock, [1, 5, 2, 1]) == pytest.approx([0, 0.1, 0.6, 0.8])


async def test_a_cost_below_the_burst_needs_no_more_than_itself(clock):
    assert await starts(RateLimit(1, 1), clock, [1, 0.5, 0.5, 1]) == pytest.approx([0, 0.5, 1.0, 2.0])


async def test_a_cost_above_the_burst_waits_until_nothing_is_owed_and_is_paid_afterwards(clock):
    """It never blocks for ever, and the average stays exact."""
    rate = RateLimit(10, 1, burst=4)
    assert await starts(rate, clock, [2, 50, 1, 4]) == pytest.approx([0, 0.2, 4.9, 5.3])
    assert await starts(rate, clock, [1]) == pytest.approx([5.4])


async def test_a_cost_of_nothing_still_waits_for_its_turn(clock):
    rate = RateLimit(1, 1)
    assert await starts(rate, clock, [1, 0, 1, 0, 0, 1]) == [0, 0, 1, 1, 1, 2]
    assert await starts(rate, clock, [5, 0]) == [3, 7]  # what is owed is owed


async def test_first_come_first_served(clock):
    """A cheap one does not overtake an expensive one."""
    assert await starts(RateLimit(1, 1, burst=10), clock, [10, 10, 1]) == [0, 10, 11]


async def test_async_with_is_a_start(clock):
    rate = RateLimit(1, 2)
    for _ in range(3):
        async with rate:
            pass
    assert clock.now == 4.0
    async with rate, rate:  # nothing is held inside, so this is no nested use
        assert clock.now == 8.0


async def test_where_there_is_no_wait_nobody_else_has_a_turn():
    rate, ran = RateLimit(1, 1), []
    asyncio.get_running_loop().call_soon(ran.append, 1)
    await rate.acquire()
    assert ran == []


# Cancellation


async def test_a_cancelled_wait_costs_nothing(clock):
    rate = RateLimit(1, 1)
    await rate.acquire()
    for _ in range(5):
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await rate.acquire(1000)
    await rate.acquire()
    assert clock.now == 1.0


async def test_a_cancelled_head_hands_its_turn_on(clock):
    rate = RateLimit(1, 1)
    await rate.acquire()
    head = asyncio.ensure_future(rate.acquire(cost=3))
    second = asyncio.ensure_future(rate.acquire())
    await asyncio.sleep(0.5)
    head.cancel()
    await second
    assert clock.now == 1.0
    assert head.cancelled()


async def test_one_in_the_middle_that_is_cancelled_leaves_no_gap(clock):
    rate = RateLimit(1, 1)
    tasks = [asyncio.ensure_future(rate.acquire()) for _ in range(5)]
    await asyncio.sleep(0.5)
    tasks[3].cancel()
    await asyncio.wait(tasks)
    assert clock.now == 3.0


async def test_cancelled_when_its_turn_has_just_come_it_hands_on(clock):
    rate = RateLimit(1, 1)
    await rate._turn(1)
    second, third = (asyncio.ensure_future(rate.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    rate._charge(1)
    second.cancel()
    await third
    assert (clock.now, second.cancelled()) == (1.0, True)


# Rules


BAD = [0, -1, True, math.nan, math.inf, "1", None, [1]]


@pytest.mark.parametrize("value", BAD)
async def test_numbers_have_rules(value):
    for arguments, options, message in [
        ((value, 1), {}, f"n must be a finite number > 0, got {value!r}"),
        ((1, value), {}, f"per must be a finite number of seconds > 0 or a timedelta, got {value!r}"),
        ((1, 1), {"burst": value}, f"burst must be a finite number >= 1, got {value!r}"),
    ]:
        with pytest.raises(OptionError, match="^" + re.escape(message) + "$"):
            RateLimit(*arguments, **options)
    if value != 0 or value is True:
        with pytest.raises(OptionError, match=r"^cost must be a finite number >= 0, got "):
            await RateLimit(1, 1).acquire(value)


async def cost_later(item):
    return 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "name must be a non-empty str, got ''"),
        ({"cost": 3}, "cost must be callable, got 3"),
        ({"cost": cost_later}, "cost must be a plain function, got the async"),
    ],
)
def test_so_have_the_others(options, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        RateLimit(1, 1, **options)


def test_another_loop_is_refused_by_name(run):
    rate = RateLimit(500, 60, name="requests")
    run(rate.acquire())
    with pytest.raises(WrongLoopError, match=r"RateLimit\(500, 60, name='requests'\) belongs to the event loop"):
        run(rate.acquire())
    assert isinstance(WrongLoopError(), penstock.PenstockError)
    assert isinstance(WrongLoopError(), RuntimeError)


@pytest.mark.real_time
async def test_on_a_real_clock_no_start_is_early():
    """A loop that calls timers by milliseconds, as uvloop does, must not start anything too early."""
    rate, began = RateLimit(400, 1), monotonic()
    for k in range(20):
        await rate.acquire()
        assert monotonic() - began >= k / 400 - 1e-6


async def test_starts_that_are_due_together_need_no_pass_of_the_loop_each(clock):
    """A busy loop makes few passes: as many may start in one as the burst allows, and no more."""
    rate, started = RateLimit(10, 1, burst=5), []

    async def start(number):
        await rate.acquire()
        started.append(number)

    await rate.acquire(100)
    waiting = [asyncio.create_task(start(number)) for number in range(8)]
    await asyncio.sleep(1)
    rate.settle(100, 0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert started == [0, 1, 2, 3, 4]
    await asyncio.gather(*waiting)
    assert started == [*range(8)]
    assert clock.now == pytest.approx(1.3)


@pytest.mark.parametrize("burst", [1, 3])
async def test_what_is_promised_counts_though_it_has_not_started(clock, burst):
    """Those that wait for a limiter have their starts promised; one that is cancelled gives its own back."""
    rate, limiter, began = RateLimit(10, 1, burst=burst), penstock.Limiter(1), []

    async def work(item):
        began.append(clock.now)
        return item

    async with limiter:
        held = asyncio.create_task(penstock.stream(range(3)).map(work, concurrency=3, limit=[rate, limiter]).drain())
        await asyncio.sleep(5)
        others = asyncio.create_task(rate.acquire())
        await asyncio.sleep(1)
        assert (began, others.done()) == ([], False)
        held.cancel()
        await asyncio.wait([held])
    await others
    assert clock.now == 6
