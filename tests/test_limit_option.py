"""`limit=`: what a stage holds and is charged, when, and that it is given back on every way out."""

import asyncio
import re
from contextlib import suppress

import pytest

import penstock
from penstock import Limiter, NestedLimitError, OptionError, RateLimit, Retry, WrongLoopError
from penstock.testing import Gauge

pytestmark = pytest.mark.grid

both_orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


async def slow(item):
    await asyncio.sleep(1)
    return item


async def slow_list(items):
    await asyncio.sleep(1)
    return items


def twice_in_one(item):
    return [item, item]


def apply(operator, stream, gauge, clock, **options):
    """`stream` with one stage whose calls take a second and are counted by `gauge`."""

    async def outputs(item):
        with gauge:
            await asyncio.sleep(1)
            yield item

    def blocking(item):
        with gauge:
            clock.sleep(1)
        return item

    if operator == "map_batches":
        return stream.map_batches(gauge.wrap(slow_list), 2, **options)
    if operator == "flat_map":
        return stream.flat_map(outputs, **options)
    if operator == "thread":
        return stream.map(blocking, engine="thread", **options)
    return getattr(stream, operator)(gauge.wrap(slow), **options)


OPERATORS = ["map", "filter", "tap", "flat_map", "map_batches", "thread"]
on_every_operator = pytest.mark.parametrize("operator", OPERATORS)


# Limiters


@both_orders
@on_every_operator
async def test_calls_at_once_are_limited(clock, operator, ordered):
    gauge, limiter = Gauge(), Limiter(2)
    options = {"concurrency": 4, "ordered": ordered, "buffer": 4}
    stream = apply(operator, penstock.stream(range(1, 9)), gauge, clock, limit=limiter, **options)
    assert sorted(await stream.to_list()) == list(range(1, 9))
    assert gauge.peak == 2
    assert clock.now == (2.0 if operator == "map_batches" else 4.0)
    assert (limiter.in_use, limiter.waiting) == (0, 0)


async def test_for_each_has_the_option(clock):
    gauge, limiter = Gauge(), Limiter(1)
    await penstock.stream(range(3)).for_each(gauge.wrap(slow), concurrency=3, limit=limiter)
    assert (gauge.peak, clock.now) == (1, 3.0)


async def test_plain_functions_inline_are_limited(clock):
    """They take the way that can wait."""
    rate = RateLimit(1, 1)
    numbers = penstock.stream(range(3))
    assert await numbers.map(lambda number: -number, limit=rate).to_list() == [0, -1, -2]
    assert clock.now == 2.0
    assert await numbers.filter(bool, limit=rate).to_list() == [1, 2]
    assert await numbers.flat_map(twice_in_one, limit=rate).to_list() == [0, 0, 1, 1, 2, 2]
    assert clock.now == 8.0


async def test_stages_and_runs_share_a_limiter(clock):
    gauge, limiter = Gauge(), Limiter(2)
    work = gauge.wrap(slow)
    chain = penstock.stream(range(6)).map(work, concurrency=3, limit=limiter).map(work, concurrency=3, limit=limiter)

    async def function():
        async with limiter:
            await work(1)

    results = await asyncio.gather(chain.to_list(), chain.to_list(), function(), function())
    assert results == [[*range(6)], [*range(6)], None, None]
    assert (gauge.peak, gauge.finished) == (2, 26)
    assert limiter.in_use == 0


async def test_a_cost_is_the_weight_of_an_item(clock):
    limiter, running, peak = Limiter(5, cost=lambda item: item), 0, 0

    async def work(item):
        nonlocal running, peak
        running += item
        peak = max(peak, running)
        await asyncio.sleep(1)
        running -= item

    await penstock.stream([2, 2, 2, 5, 1, 4]).for_each(work, concurrency=6, limit=limiter)
    assert (peak, clock.now) == (5, 4.0)


async def test_a_cost_is_given_the_list_of_map_batches():
    seen = []
    limiter = Limiter(9, cost=lambda items: seen.append(items) or sum(items))
    await penstock.stream([1, 2, 3]).map_batches(slow_list, 2, limit=limiter).drain()
    assert seen == [[1, 2], [3]]


async def test_a_resized_limiter_holds_for_what_is_under_way(clock):
    gauge, limiter = Gauge(), Limiter(1)
    async with penstock.stream(range(10)).map(gauge.wrap(slow), concurrency=5, limit=limiter).open() as items:
        await anext(items)
        limiter.limit = 3
        assert [item async for item in items] == list(range(1, 10))
    assert (gauge.peak, clock.now) == (3, 4.0)


# Rates


@both_orders
@on_every_operator
async def test_starts_are_spaced(clock, operator, ordered):
    gauge, rate = Gauge(), RateLimit(2, 1)
    options = {"concurrency": 6, "ordered": ordered, "buffer": 6}
    stream = apply(operator, penstock.stream(range(1, 7)), gauge, clock, limit=rate, **options)
    assert sorted(await stream.to_list()) == list(range(1, 7))
    assert clock.now == (2.0 if operator == "map_batches" else 3.5)


async def test_requests_and_tokens_together(clock):
    """Every call is charged to both, and starts when both allow it."""
    starts = []
    limits = [RateLimit(1, 1), RateLimit(10, 1, cost=lambda item: item)]

    async def work(item):
        starts.append(clock.now)

    await penstock.stream([5, 30, 1, 1, 20, 1]).for_each(work, concurrency=6, limit=limits)
    assert starts == pytest.approx([0, 1, 4, 5, 6, 8])


@pytest.mark.parametrize("rate_first", [True, False])
async def test_starts_are_spaced_also_when_a_limiter_was_the_bottleneck(clock, rate_first):
    """The rate is charged when the call starts, not when the rate would have allowed it: no burst after the wait."""
    starts, limiter, rate = [], Limiter(1), RateLimit(1, 1)

    async def work(item):
        starts.append(clock.now)

    async with asyncio.TaskGroup() as group:
        limits = [rate, limiter] if rate_first else [limiter, rate]
        await limiter.__aenter__()
        group.create_task(penstock.stream(range(3)).for_each(work, concurrency=3, limit=limits))
        await asyncio.sleep(10)
        assert starts == []
        await limiter.__aexit__()
    assert starts == [10, 11, 12]


async def test_waiting_for_a_rate_holds_no_limiter(clock):
    """Another stage can use the limiter meanwhile."""
    limiter, rate = Limiter(1), RateLimit(1, 100)
    await rate.acquire()
    waiting = asyncio.ensure_future(penstock.stream([1]).map(slow, limit=[limiter, rate]).to_list())
    await asyncio.sleep(1)
    assert limiter.in_use == 0
    await penstock.stream([1, 2]).map(slow, limit=limiter).drain()
    assert clock.now == 3.0
    await waiting
    assert clock.now == 101.0


async def test_two_stages_with_the_same_limits_in_another_order_do_not_wait_for_each_other(clock):
    """All limits have one order, whatever that of the option is."""
    a, b, rate = Limiter(1), Limiter(1), RateLimit(1, 0.5)
    one = penstock.stream(range(5)).map(slow, concurrency=3, limit=[a, rate, b])
    other = penstock.stream(range(5)).map(slow, concurrency=3, limit=(b, a, rate))
    assert await asyncio.gather(one.to_list(), other.to_list()) == [[*range(5)]] * 2
    assert clock.now == 10.0


async def test_nor_do_they_when_both_limiters_are_free_at_once(clock):
    """Each stage would be granted the one that it names first, and wait for the other's."""
    a, b = Limiter(1), Limiter(1)
    async with a, b:
        one = asyncio.ensure_future(penstock.stream([1]).map(slow, limit=[a, b]).to_list())
        other = asyncio.ensure_future(penstock.stream([2]).map(slow, limit=[b, a]).to_list())
        await asyncio.sleep(1)
        assert (a.waiting, b.waiting) == (2, 0)
    assert await asyncio.gather(one, other) == [[1], [2]]
    assert clock.now == 3.0


# Timeouts, retries, statistics


async def test_waiting_is_outside_timeout_and_latency(clock):
    limiter = Limiter(1)
    async with penstock.stream(range(5)).map(slow, concurrency=5, limit=limiter, timeout=1.5).open() as items:
        assert [item async for item in items] == list(range(5))
    latency = items.stats()["map(slow)"].latency
    assert (clock.now, latency.samples) == (5.0, 5)
    assert latency.p99 == pytest.approx(1.0, rel=0.03)


async def test_a_timeout_gives_the_limiter_back(clock):
    limiter = Limiter(1)
    stream = penstock.stream([9, 0.5, 9, 0.5]).map(
        asyncio.sleep, concurrency=4, limit=limiter, timeout=1, on_error="skip"
    )
    assert await stream.to_list() == [None, None]
    assert (clock.now, limiter.in_use) == (3.0, 0)


async def test_a_waiting_retry_holds_no_limiter_and_is_charged_again(clock):
    """One charge per attempt, behind those who wait already; meanwhile others hold the limiter."""
    limiter, rate, log = Limiter(1), RateLimit(1, 1), []

    async def work(item):
        log.append((clock.now, item))
        await asyncio.sleep(0.5)
        if item == "bad":
            raise ConnectionError

    retry = Retry(on=ConnectionError, initial=2.2, factor=1, jitter=0)
    options = {"concurrency": 4, "limit": [limiter, rate], "retry": retry, "on_error": "skip"}
    await penstock.stream(["bad", *"abc"]).for_each(work, **options)
    assert log == [(0, "bad"), (1, "a"), (2, "b"), (3, "c"), (4, "bad"), (pytest.approx(6.7), "bad")]
    assert limiter.in_use == 0


async def test_every_attempt_is_a_start(clock):
    rate, starts = RateLimit(1, 1), []

    async def work(item):
        starts.append(clock.now)
        raise ConnectionError

    retry = Retry(on=ConnectionError, attempts=4, initial=0)
    await penstock.stream([1]).map(work, limit=rate, retry=retry, on_error="skip").drain()
    assert starts == [0, 1, 2, 3]


def tried(operator, work, **options):
    """An unordered stage that comes to what `work(number)` does, for three numbers at once."""
    options |= {"concurrency": 3, "ordered": False}

    async def of_list(numbers):
        return [await work(number) for number in numbers]

    async def outputs(number):
        yield await work(number)

    stream = penstock.stream(range(3))
    if operator == "map_batches":
        return stream.map_batches(of_list, 1, **options)
    return stream.flat_map(outputs, **options) if operator == "flat_map" else stream.map(work, **options)


on_those_with_retries_of_their_own = pytest.mark.parametrize("operator", ["map", "flat_map", "map_batches"])


@on_those_with_retries_of_their_own
async def test_the_deadline_counts_from_the_first_try_and_not_from_the_wait_before_it(operator, clock):
    """Who had to wait for a limit for longer than the deadline is tried again, as the others are."""
    limiter, log = Limiter(1), []

    async def fails_once(number):
        log.append((clock.now, number))
        if len(log) <= 3:
            raise ConnectionError
        return number

    retry = Retry(on=ConnectionError, initial=5, jitter=0, deadline=5)
    stream = tried(operator, fails_once, limit=limiter, retry=retry)
    async with limiter:
        results = asyncio.ensure_future(stream.to_list())
        await asyncio.sleep(100)
    assert await results == [0, 1, 2]
    assert log == [(100, 0), (100, 1), (100, 2), (105, 0), (105, 1), (105, 2)]


@on_those_with_retries_of_their_own
async def test_a_try_that_would_wait_for_a_limit_beyond_the_deadline_is_not_begun(operator, clock, turn_clock):
    """At the deadline its item fails with what its last try raised; it leaves the line, and is charged nothing."""
    limiter, rate, log = Limiter(1), RateLimit(1, 10), []

    async def fails(number):
        log.append((clock.now, number))
        raise ConnectionError(number)

    retry = Retry(on=ConnectionError, initial=0, deadline=25)
    stream = tried(operator, fails, limit=[limiter, rate], retry=retry, on_error="collect")
    async with stream.open() as items:
        assert [item async for item in items] == []
    assert log == [(0, 0), (10, 1), (20, 2), (30, 1), (40, 2)]
    assert [(str(failed.error), failed.attempts) for failed in items.failures] == [("0", 1), ("1", 2), ("2", 2)]
    assert (clock.now, limiter.in_use, limiter.waiting) == (45, 0, 0)
    await rate.acquire()
    assert clock.now == 50


async def test_a_try_that_gives_up_its_wait_for_a_limiter_leaves_its_turn_at_the_rate(clock):
    """Others that use the rate go on; one that waits behind it holds them up no longer."""
    limiter, rate = Limiter(1), RateLimit(1, 1)

    async def fails_and_is_overtaken(_):
        overtaking.append(asyncio.ensure_future(limiter.run(asyncio.sleep, 100)))
        raise ConnectionError

    overtaking = []
    retry = Retry(on=ConnectionError, initial=1, jitter=0, deadline=25)
    await penstock.stream([1]).map(fails_and_is_overtaken, limit=[limiter, rate], retry=retry, on_error="skip").drain()
    assert clock.now == 25
    await rate.acquire()
    assert (clock.now, limiter.in_use) == (25, 1)
    await asyncio.gather(*overtaking)


async def test_a_try_that_got_its_limit_in_time_may_take_longer_than_the_deadline(clock):
    async def work(number):
        if clock.now == 0:
            raise ConnectionError
        await asyncio.sleep(60)
        return number

    retry = Retry(on=ConnectionError, initial=0, deadline=25)
    assert await penstock.stream([1]).map(work, limit=RateLimit(1, 10), retry=retry).to_list() == [1]
    assert clock.now == 70


async def test_a_timeout_of_the_work_is_no_deadline(clock):
    async def work(_):
        raise TimeoutError("mine")

    retry = Retry(on=TimeoutError, attempts=3, initial=0, deadline=25)
    with pytest.raises(TimeoutError, match="mine") as raised:
        await penstock.stream([1]).map(work, limit=RateLimit(1, 10), retry=retry).to_list()
    assert raised.value.__notes__ == ["penstock: stage 'map(work)', item 0, attempt 3"]


async def test_a_waiting_retry_keeps_its_place(clock):
    """P1: there are two places, and one of them belongs to the item that waits."""
    limiter, log = Limiter(1), []

    async def work(item):
        log.append((clock.now, item))
        await asyncio.sleep(1)
        if log == [(0, "bad")]:
            raise ConnectionError

    retry = Retry(on=ConnectionError, initial=10, jitter=0)
    options = {"concurrency": 2, "limit": limiter, "retry": retry, "ordered": False}
    await penstock.stream(["bad", *"abc"]).map(work, **options).drain()
    assert log == [(0, "bad"), (1, "a"), (2, "b"), (3, "c"), (11, "bad")]


# Threads


async def test_a_thread_that_timed_out_keeps_the_limiter_until_it_is_back(clock):
    """With a limit of 1 and retries, there are never two at once."""
    gauge, limiter = Gauge(), Limiter(1)

    def work(item):
        with gauge:
            clock.sleep(3)

    retry = Retry(on=TimeoutError, attempts=2, initial=0)
    options = {"concurrency": 4, "timeout": 1, "retry": retry, "limit": limiter, "on_error": "collect"}
    async with penstock.stream(range(4)).map(work, **options).open() as items:
        assert [item async for item in items] == []
    assert len(items.failures) == 4
    assert (gauge.peak, gauge.finished, limiter.in_use) == (1, 8, 0)
    assert clock.now == 24.0


@pytest.mark.parametrize("fails", ["on", "wait"])
async def test_so_it_does_if_the_retry_itself_fails(clock, fails):
    """A predicate that raises, or a wait that does, must not lose the thread that is to be waited for."""
    gauge, limiter = Gauge(), Limiter(1)

    def work(item):
        with gauge:
            clock.sleep(3)

    def broken(error):
        raise KeyError("broken")

    retry = Retry(on=broken) if fails == "on" else Retry(on=TimeoutError, wait=broken)
    options = {"concurrency": 2, "timeout": 1, "retry": retry, "limit": limiter, "on_error": "collect"}
    async with penstock.stream(range(3)).map(work, **options).open() as items:
        assert [item async for item in items] == []
    assert [type(failed.error) for failed in items.failures] == [KeyError] * 3
    assert (gauge.peak, limiter.in_use, clock.now) == (1, 0, 9.0)


async def test_a_list_in_a_thread_that_timed_out_is_halved_when_the_thread_is_back(clock):
    gauge, limiter = Gauge(), Limiter(1)

    def work(items):
        with gauge:
            clock.sleep(3 if len(items) > 1 else 0.5)
        return items

    stream = penstock.stream(range(4)).map_batches(work, 2, engine="thread", concurrency=2, timeout=1, limit=limiter)
    assert await stream.to_list() == [0, 1, 2, 3]
    assert (gauge.peak, limiter.in_use, clock.now) == (1, 0, 8.0)


# flat_map


async def test_outputs_are_made_under_the_limiter(clock):
    gauge, limiter = Gauge(), Limiter(2)

    async def pages(item):
        for number in range(3):
            with gauge:
                await asyncio.sleep(1)
            yield item, number

    stream = penstock.stream(range(4)).flat_map(pages, concurrency=4, buffer=20, limit=limiter, ordered=False)
    assert len(await stream.to_list()) == 12
    assert (gauge.peak, limiter.in_use, clock.now) == (2, 0, 6.0)


async def test_who_waits_for_room_holds_no_limiter(clock):
    """Else the head, tried again, would wait for one that waits for the head to be through."""
    limiter, failed = Limiter(1), []

    async def pages(item):
        await asyncio.sleep(1)
        if item == 0 and not failed:
            failed.append(item)
            raise ConnectionError
        yield item

    retry = Retry(on=ConnectionError, initial=5, jitter=0)
    stream = penstock.stream(range(3)).flat_map(pages, concurrency=3, limit=limiter, retry=retry)
    assert await stream.to_list() == [0, 1, 2]
    assert limiter.in_use == 0


async def test_a_stage_below_can_use_the_limiter_of_a_flat_map(clock):
    """What is made waits for the stage below, and that waits for the limiter."""
    limiter, gauge = Limiter(1), Gauge()

    async def pages(item):
        for number in range(3):
            with gauge:
                await asyncio.sleep(1)
            yield number

    stream = (
        penstock.stream(range(2)).flat_map(pages, concurrency=2, limit=limiter).map(gauge.wrap(slow), limit=limiter)
    )
    assert await stream.to_list() == [0, 1, 2, 0, 1, 2]
    assert (gauge.peak, limiter.in_use, clock.now) == (1, 0, 12.0)


async def test_waiting_for_room_and_the_limiter_is_outside_the_timeout(clock):
    limiter = Limiter(1)

    async def pages(item):
        for number in range(3):
            await asyncio.sleep(1)
            yield number

    async with penstock.stream(range(2)).flat_map(pages, concurrency=2, limit=limiter, timeout=3.5).open() as items:
        async for _ in items:
            async with limiter:
                await asyncio.sleep(10)
    assert items.stats()["flat_map(pages)"].latency.p99 == pytest.approx(3.0, rel=0.03)


# Leaving


@on_every_operator
@pytest.mark.parametrize("at", [0.5, 1.5])
async def test_leaving_gives_back_what_items_held(clock, operator, at):
    """Whether they run or wait, for the limiter or the rate: nothing leaks, and others can go on."""
    gauge, limiter, rate = Gauge(), Limiter(2), RateLimit(2, 1)
    stream = apply(operator, penstock.stream(range(100)), gauge, clock, limit=[limiter, rate], concurrency=6)
    with suppress(TimeoutError):
        async with asyncio.timeout(at), stream.open() as items:
            await items.__anext__()
            await asyncio.sleep(100)
    assert (gauge.now, limiter.in_use, limiter.waiting) == (0, 0, 0)
    async with asyncio.timeout(1), limiter.hold(2), rate:
        pass


async def test_a_failure_gives_back_what_its_siblings_held():
    limiter = Limiter(2)

    async def work(item):
        await asyncio.sleep(item)
        raise KeyError(item)

    with pytest.raises(KeyError):
        await penstock.stream([5, 1, 1, 1]).map(work, concurrency=4, limit=limiter).drain()
    assert (limiter.in_use, limiter.waiting) == (0, 0)


async def test_a_cancelled_wait_is_no_failure():
    limiter = Limiter(1)
    async with limiter:
        async with penstock.stream(range(3)).map(slow, concurrency=3, limit=limiter).open() as items:
            reading = asyncio.ensure_future(anext(items))
            await asyncio.sleep(1)
            reading.cancel()
        stage = items.stats()["map(slow)"]
    assert (stage.taken, stage.cancelled, stage.failed) == (3, 3, 0)


# Errors


def raising(item):
    raise KeyError(item)


@pytest.mark.parametrize(
    ("limit", "error", "message"),
    [
        (lambda: Limiter(3, cost=raising), KeyError, "'item'"),
        (lambda: RateLimit(3, 1, cost=raising), KeyError, "'item'"),
        (lambda: Limiter(3, cost=lambda _: 0), OptionError, "cost(item) must be an int >= 1, got 0"),
        (lambda: Limiter(3, cost=lambda _: 1.5), OptionError, "cost(item) must be an int >= 1, got 1.5"),
        (lambda: Limiter(3, cost=lambda _: None), OptionError, "cost(item) must be an int >= 1, got None"),
        (lambda: Limiter(3, cost=lambda _: 4), OptionError, "weight must be at most the limit of Limiter(3), 3, got 4"),
        (lambda: RateLimit(3, 1, cost=lambda _: -1), OptionError, "cost(item) must be a finite number >= 0, got -1"),
        (lambda: RateLimit(3, 1, cost=lambda _: "1"), OptionError, "cost(item) must be a finite number >= 0, got '1'"),
    ],
)
async def test_a_wrong_cost_is_the_failure_of_its_item(limit, error, message):
    gauge, limiter = Gauge(), Limiter(1)
    stream = penstock.stream(["item"]).map(gauge.wrap(slow), limit=[limiter, limit()], on_error="collect")
    async with stream.open() as items:
        assert [item async for item in items] == []
    (failed,) = items.failures
    assert (type(failed.error), str(failed.error)) == (error, message)
    assert (gauge.started, limiter.in_use) == (0, 0)


@pytest.mark.parametrize("operator", ["map", "flat_map"])
async def test_nested_use_in_the_work_names_the_stage(operator):
    limiter = Limiter(5)

    async def work(item):
        async with limiter:
            return [item]

    stream = getattr(penstock.stream([1]), operator)(work, limit=limiter, name="fetch")
    with pytest.raises(
        NestedLimitError, match=r"already: taken by stage 'fetch', asked for again at .*test_limit_option\.py:\d+;"
    ):
        await stream.drain()
    assert limiter.in_use == 0


@pytest.mark.parametrize(("kind", "arguments"), [(Limiter, [2]), (RateLimit, [1, 1])])
def test_another_loop_is_refused_when_the_run_is_opened(run, kind, arguments):
    limit = kind(*arguments)
    stream = penstock.stream([1]).map(slow, limit=limit, on_error="skip")
    run(stream.drain())
    with pytest.raises(WrongLoopError, match=re.escape(repr(limit))):
        run(stream.drain())


@pytest.mark.parametrize("value", [3, "limiter", {"limit": 3}, [Limiter(1), 3], [None], Limiter])
def test_the_option_has_a_rule(value):
    message = f"limit must be a Limiter, a RateLimit, a Breaker or a sequence of them, got {value!r}"
    with pytest.raises(OptionError, match="^" + re.escape(message) + "$"):
        penstock.stream([1]).map(slow, limit=value)


def test_no_limit_twice():
    limiter = Limiter(1)
    with pytest.raises(OptionError, match=r"^limit must name each limit once, got \[Limiter\(1\), Limiter\(1\)\]$"):
        penstock.stream([1]).map(slow, limit=[limiter, limiter])


@pytest.mark.parametrize("limit", [None, [], ()])
async def test_no_limit_is_none(limit, clock):
    assert await penstock.stream([1, 2]).map(slow, concurrency=2, limit=limit).to_list() == [1, 2]
    assert clock.now == 1.0
