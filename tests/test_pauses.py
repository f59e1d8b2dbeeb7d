"""Pauses of limits, what is settled afterwards, and what a service says of its limits."""

import asyncio
from contextlib import nullcontext
from datetime import timedelta

import pytest

import penstock
from penstock import Limiter, OptionError, RateLimit, Retry
from penstock.testing import Gauge

pytestmark = pytest.mark.grid


class Starts:
    """Work that takes a second, and when each item began."""

    def __init__(self, clock, seconds=1):
        self.clock = clock
        self.seconds = seconds
        self.at = {}
        self.gauge = Gauge()

    async def __call__(self, item):
        self.at[item] = self.clock.now
        with self.gauge:
            await asyncio.sleep(self.seconds)
        return item


async def pause(limit, after, seconds):
    await asyncio.sleep(after)
    limit.pause(seconds)


async def acquired(rate, clock, count):
    times = []
    for _ in range(count):
        await rate.acquire()
        times.append(clock.now)
    return times


# Limiters


async def test_whoever_shares_a_paused_limiter_starts_nothing_and_what_runs_goes_on(clock):
    limiter, one, other, by_hand = Limiter(4), Starts(clock), Starts(clock), []

    async def hand():
        await asyncio.sleep(1)
        async with limiter:
            by_hand.append(clock.now)

    pausing = asyncio.create_task(pause(limiter, 0.5, 10))
    await asyncio.gather(
        penstock.stream(range(4)).map(one, concurrency=2, limit=limiter).drain(),
        penstock.stream(range(4)).map(other, concurrency=2, limit=limiter).drain(),
        hand(),
    )
    await pausing
    starts = sorted([*one.at.values(), *other.at.values(), *by_hand])
    assert starts[:4] == [0, 0, 0, 0]
    assert starts[4] == 10.5
    assert (one.gauge.finished, other.gauge.finished, limiter.in_use, limiter.waiting) == (4, 4, 0, 0)


async def test_after_a_pause_a_limiter_begins_with_one_and_doubles(clock):
    """Slow start: one more for each that leaves."""
    limiter, starts = Limiter(8), Starts(clock)
    limiter.pause(5)
    await penstock.stream(range(31)).map(starts, concurrency=31, limit=limiter).drain()
    times = list(starts.at.values())
    assert [times.count(second) for second in range(5, 10)] == [1, 2, 4, 8, 8]
    assert limiter.limit == 8


async def test_nobody_slips_in_while_a_limiter_is_paused_though_it_is_free(clock):
    limiter = Limiter(2)
    limiter.pause(1)
    limiter.pause(timedelta(seconds=3))
    limiter.pause(2)
    async with limiter.hold(2):
        assert clock.now == 3.0
    async with limiter:
        assert clock.now == 3.0


async def test_a_limiter_that_is_resized_while_it_is_paused_stays_paused(clock):
    limiter = Limiter(2)
    limiter.pause(3)
    limiter.limit = 5
    async with limiter:
        assert clock.now == 3.0
    assert limiter.limit == 5


async def test_whoever_was_let_in_as_the_pause_began_waits_too(clock):
    """Granted and paused in one pass of the loop; the order of the line is kept."""
    limiter, times = Limiter(1), []

    async def hold(number):
        async with limiter:
            times.append((number, clock.now))

    async with limiter:
        tasks = [asyncio.create_task(hold(number)) for number in range(3)]
        await asyncio.sleep(1)
    limiter.pause(5)
    await asyncio.gather(*tasks)
    assert times == [(0, 6), (1, 6), (2, 6)]


async def test_a_wait_for_a_pause_that_is_cancelled_leaves_nothing(clock):
    """Also no timer: the fixture looks for one."""
    limiter, rate = Limiter(1), RateLimit(1, 1)
    limiter.pause(100)
    rate.pause(100)
    for waiting in (limiter.__aenter__, rate.acquire):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await waiting()
    assert (limiter.waiting, limiter.in_use) == (0, 0)


async def test_leaving_a_run_that_waits_for_a_pause(clock):
    limiter, starts = Limiter(1), Starts(clock)
    limiter.pause(100)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await penstock.stream(range(9)).map(starts, concurrency=3, limit=limiter).drain()
    assert (starts.at, limiter.waiting) == ({}, 0)


async def test_a_pause_of_one_key_is_not_one_of_the_others(clock):
    hosts, starts = Limiter(2, key=lambda item: item[0]), Starts(clock)
    hosts.pause(5, ("a", None))
    items = [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    await penstock.stream(items).map(starts, concurrency=1, buffer=9, limit=hosts, ordered=False).drain()
    assert starts.at == {("b", 0): 0, ("b", 1): 1, ("a", 0): 5, ("a", 1): 6}


@pytest.mark.parametrize("kind", [Limiter, RateLimit])
async def test_a_pause_of_all_keys_holds_for_keys_that_come_later(clock, kind):
    limit = Limiter(2, key=str) if kind is Limiter else RateLimit(2, 1, key=str)
    async with limit.hold(item="a") if kind is Limiter else nullcontext():
        limit.pause(5)
    starts = Starts(clock, 0)
    await penstock.stream("abc").map(starts, concurrency=3, limit=limit).drain()
    assert list(starts.at.values()) == [5, 5, 5]


# Rates


async def test_after_a_pause_the_rate_doubles_from_an_eighth_of_it(clock):
    rate = RateLimit(8, 1, burst=4)
    rate.pause(6)
    times = await acquired(rate, clock, 40)
    per_third = [sum(6 + 2 * third <= time < 8 + 2 * third for time in times) for third in range(4)]
    assert times[0] == 6.0
    assert per_third == [2, 4, 8, 16]


async def test_a_call_that_has_its_turn_and_waits_for_a_limiter_heeds_a_pause(clock):
    """It has waited for the rate before, and would start in the middle of the pause."""
    rate, limiter, starts = RateLimit(10, 1), Limiter(1), Starts(clock)
    pausing = asyncio.create_task(pause(rate, 0.5, 10))
    await penstock.stream(range(2)).map(starts, concurrency=2, limit=[rate, limiter]).drain()
    await pausing
    assert list(starts.at.values()) == [0, 10.5]


async def test_a_call_that_heeds_a_pause_late_holds_up_nobody_who_has_its_place(clock):
    """It gives back all that it has, also its turn at the rate: the call that comes into its place waits for that."""
    rate, limiter, starts = RateLimit(10, 1), Limiter(1), Starts(clock)
    by_key = Limiter(1, key=lambda item: item[0])
    async with limiter:
        pausing = asyncio.create_task(pause(rate, 0.5, 2))
        run = asyncio.create_task(
            penstock.stream(["a0", "a1", "b0"])
            .map(starts, concurrency=1, buffer=5, ordered=False, limit=[rate, limiter, by_key])
            .drain()
        )
        await asyncio.sleep(1)
    await run
    await pausing
    assert sorted(starts.at) == ["a0", "a1", "b0"]
    assert min(starts.at.values()) == 2.5


async def test_pauses_of_several_limits_are_all_heeded(clock):
    rate, limiter, starts = RateLimit(10, 1), Limiter(1), Starts(clock)
    rate.pause(3)
    limiter.pause(7)
    pausing = asyncio.create_task(pause(rate, 5, 4))
    await penstock.stream(range(1)).map(starts, limit=[rate, limiter]).drain()
    await pausing
    assert starts.at == {0: 9}


# Retries


class Throttled(Exception):
    def __init__(self, retry_after=None):
        super().__init__()
        self.retry_after = retry_after


@pytest.mark.parametrize("attempts", [1, 3])
async def test_a_failure_that_says_when_to_come_back_pauses_the_limit_for_all(clock, attempts):
    """Also one that is not tried again: the others must stay away all the same."""
    limiter, began = Limiter(3), []

    async def work(item):
        began.append((item, clock.now))
        await asyncio.sleep(1)
        if item == 0 and len(began) <= 3:
            raise Throttled(20)

    retry = Retry(on=Throttled, attempts=attempts, initial=0, pauses=limiter)
    await penstock.stream(range(6)).map(work, concurrency=3, limit=limiter, retry=retry, on_error="skip").drain()
    assert [time for _, time in began[:3]] == [0, 0, 0]
    assert all(time >= 21 for _, time in began[3:])


async def test_a_failure_that_does_not_say_so_pauses_nothing(clock):
    rate, tried = RateLimit(100, 1), []

    async def work(item):
        tried.append(clock.now)
        if len(tried) < 3:
            raise Throttled(None if len(tried) == 1 else 5)

    waits = Retry(on=Throttled, initial=1, jitter=0, pauses=[rate], wait=lambda error: error.retry_after)
    await penstock.stream([1]).map(work, limit=rate, retry=waits).drain()
    assert tried == [0, 1, 6]


@pytest.mark.parametrize("operator", ["map", "flat_map"])
async def test_a_failure_pauses_the_key_of_its_item(clock, operator):
    hosts, began = Limiter(2, key=lambda item: item[0]), {}

    async def work(item):
        began.setdefault(item, []).append(clock.now)
        if item == ("a", 0) and len(began[item]) == 1:
            raise Throttled(9)
        return [item]

    options = {"retry": Retry(on=Throttled, initial=0, pauses=hosts), "limit": hosts, "concurrency": 2, "buffer": 2}
    items = [("a", 0), ("b", 0), ("a", 1)]
    await getattr(penstock.stream(items), operator)(work, ordered=False, **options).drain()
    assert [began[item][-1] for item in items] == [9, 0, 9]


def test_what_cannot_be_paused_is_refused():
    with pytest.raises(
        OptionError, match="pauses must be a Limiter, a RateLimit, a Breaker or a sequence of them, got 3"
    ):
        Retry(on=KeyError, pauses=3)
    assert "pauses=" in repr(Retry(on=KeyError, pauses=Limiter(2)))
    assert "pauses" not in repr(Retry(on=KeyError))


@pytest.mark.parametrize("operator", ["map", "flat_map", "map_batches"])
async def test_the_key_of_a_pause_is_asked_of_the_item_that_users_know(operator):
    """Also where items are in envelopes, and nothing but the retry knows of the limit."""
    asked, tried = [], []
    hosts = Limiter(1, key=asked.append)

    async def call(item):
        tried.append(item)
        if len(tried) == 1:
            raise Throttled(1)
        return item if operator == "map_batches" else [item]

    retry = Retry(on=Throttled, initial=0, pauses=hosts)
    sized = {"map_batches": [1]}.get(operator, [])
    stream = getattr(penstock.stream(["item"]), operator)(call, *sized, retry=retry).with_metadata()
    assert len(await stream.to_list()) == 1
    assert asked == [tried[0]]


async def test_bad_pauses_are_refused():
    with pytest.raises(OptionError, match="seconds must be a finite number of seconds >= 0"):
        Limiter(1).pause(-1)


# Settling


async def test_true_usage_is_charged_after_an_estimate(clock):
    """10 units a second; 10 were estimated and 30 used: the next start pays for it."""
    rate = RateLimit(10, 1, burst=10)
    await rate.acquire(10)
    rate.settle(10, 30)
    await rate.acquire(10)
    assert clock.now == pytest.approx(3.0)


async def test_what_was_estimated_too_high_is_given_back_and_wakes_who_waits(clock):
    rate = RateLimit(10, 1)
    await rate.acquire(100)
    waiting = asyncio.create_task(rate.acquire(1))
    await asyncio.sleep(1)
    rate.settle(100, 20)
    await waiting
    assert clock.now == 2.0


async def test_over_a_long_run_the_units_used_keep_to_the_limit(clock):
    """Whatever the estimates are, also of attempts that fail."""
    tokens, used, failed = RateLimit(100, 1, burst=100, cost=lambda item: 10), [], set()
    retry = Retry(on=ConnectionError, initial=0)

    async def ask(item):
        await asyncio.sleep(0.1)
        used.append(5 + item % 40)
        tokens.settle(10, 5 + item % 40)
        if item % 7 == 0 and item not in failed:
            failed.add(item)
            raise ConnectionError

    await penstock.stream(range(200)).map(ask, concurrency=4, limit=tokens, retry=retry).drain()
    assert len(used) == 229
    assert clock.now == pytest.approx(sum(used) / 100, abs=2)


async def test_settling_by_key(clock):
    rate = RateLimit(1, 1, key=str)
    await rate.acquire(1, "a")
    rate.settle(1, 5, "a")
    await rate.acquire(1, "b")
    assert clock.now == 0.0
    await rate.acquire(1, "a")
    assert clock.now == 5.0
    with pytest.raises(OptionError, match="has a key, and there is no item"):
        rate.settle(1, 2)


async def test_what_was_paid_off_long_ago_is_no_credit(clock):
    """Given back late, it must not allow a burst."""
    rate = RateLimit(1, 1)
    await rate.acquire(50)
    await asyncio.sleep(100)
    rate.settle(50, 0)
    assert await acquired(rate, clock, 3) == [100, 101, 102]


# What a service says


async def test_a_limit_follows_the_number_that_the_service_says(clock):
    rate = RateLimit(1, 1)
    assert await acquired(rate, clock, 2) == [0, 1]
    rate.follow(limit=10)
    assert (rate.n, await acquired(rate, clock, 3)) == (10, pytest.approx([1, 1.1, 1.2]))


async def test_when_few_remain_starts_are_spaced_until_the_reset(clock):
    """Others use the same quota: 5 units are left for 50 seconds."""
    rate = RateLimit(100, 100)
    rate.follow(remaining=5, reset=50)
    times = await acquired(rate, clock, 8)
    assert sum(0 < time <= 50 for time in times) <= 5
    assert times[-1] - times[-2] == pytest.approx(1.0)


async def test_when_none_remain_the_limit_is_paused_until_the_reset(clock):
    rate = RateLimit(100, 100)
    rate.follow(remaining=0, reset=timedelta(seconds=30))
    assert (await acquired(rate, clock, 1)) == [30]


async def test_a_bucket_that_fills_up_evenly_is_no_reason_to_slow_down(clock):
    """80 of 100 are used, and it is full again in 80 seconds: it fills by 1 a second, which this limit keeps to."""
    rate = RateLimit(100, 100)
    rate.follow(limit=100, remaining=20, reset=80)
    assert await acquired(rate, clock, 3) == [0, 1, 2]


async def test_bad_numbers_of_a_service_are_refused():
    rate = RateLimit(1, 1)
    for wrong in ({"limit": 0}, {"remaining": -1, "reset": 1}, {"remaining": 1, "reset": -1}):
        with pytest.raises(OptionError):
            rate.follow(**wrong)
    with pytest.raises(OptionError, match="used must be"):
        rate.settle(1, -1)
