"""What Pekko's specs of `mapAsync` and `mapAsyncUnordered` ask, of `map` in order and as finished."""

import asyncio
import random

import pytest

import penstock
from penstock.testing import Gauge, Scripted

both_orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


async def wait_for(future):
    return await future


def futures(count):
    return [asyncio.get_running_loop().create_future() for _ in range(count)]


def done(value):
    (future,) = futures(1)
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)
    return future


async def test_nothing_is_handed_on_unasked_and_all_that_is_asked_for():
    async with penstock.stream([1, 2, 3]).map(asyncio.sleep, concurrency=4).open() as items:
        assert [await anext(items) for _ in range(2)] == [None, None]
        await asyncio.sleep(60)
        assert items.stats()[-1].delivered == 2
        await anext(items)
        assert await anext(items, "the end") == "the end"


async def test_results_are_in_order_though_some_are_there_at_once():
    rng = random.Random(1)

    def work(number):
        async def later():
            await asyncio.sleep(rng.uniform(0.001, 0.01))
            return number

        return done(number) if number % 3 == 0 else later()

    numbers = list(range(1, 51))
    assert await penstock.stream(numbers).map(lambda n: work(n), concurrency=4).to_list() == numbers


async def test_results_come_in_the_order_in_which_they_are_ready():
    latches = futures(4)
    async with penstock.stream(latches).map(wait_for, concurrency=4, ordered=False).open() as items:
        reading = asyncio.ensure_future(anext(items))
        for index in (1, 3, 2, 0):
            await asyncio.sleep(1)
            latches[index].set_result(index)
            assert await reading == index
            reading = asyncio.ensure_future(anext(items, "the end"))
        assert await reading == "the end"


@both_orders
async def test_each_item_that_is_taken_lets_one_more_call_run(ordered):
    """Nothing runs before the first is asked for; then as many are ahead as there are places."""
    started = []

    async def work(number):
        started.append(number)
        return number

    async with penstock.stream(range(1, 21)).map(work, concurrency=8, ordered=ordered).open() as items:
        await asyncio.sleep(60)
        assert started == []
        for asked in range(1, 13):
            await anext(items)
            await asyncio.sleep(60)
            assert started == list(range(1, 9 + asked))
        assert [item async for item in items] == list(range(13, 21))


@both_orders
@pytest.mark.parametrize("way", ["has failed", "fails", "raises"])
async def test_a_failure_is_raised_at_once_while_the_others_run(ordered, way, clock):
    """Whether the future has failed already, fails later, or the function raises before it returns one."""

    def work(number):
        if number != 3:
            return asyncio.sleep(3600)
        if way == "raises":
            raise ValueError("mine")
        error = ValueError("mine")
        return done(error) if way == "has failed" else fails(error)

    async def fails(error):
        await asyncio.sleep(0)
        raise error

    with pytest.raises(ValueError, match="mine"):
        await penstock.stream(range(1, 6)).map(lambda n: work(n), concurrency=4, ordered=ordered).drain()
    assert clock.now == 0.0


@both_orders
async def test_a_slow_source_does_not_hold_up_a_failure(ordered, clock):
    async def work(number):
        raise ValueError(number)

    source = Scripted(range(5), delay=lambda index: 3600 if index else None)
    with pytest.raises(ValueError, match="0"):
        await penstock.stream(source).map(work, concurrency=4, ordered=ordered).drain()
    assert clock.now == 0.0


@both_orders
async def test_a_failure_in_the_middle_of_ready_results(ordered, read_until_error):
    """In order what stands before it is handed on, and nothing behind it."""
    promises = futures(6)

    async def read():
        return await read_until_error(penstock.stream(promises).map(wait_for, concurrency=5, ordered=ordered).open())

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(1)
    for promise, value in zip(promises, "abcdef", strict=True):
        if value == "c":
            promise.set_exception(ValueError("Boom at C"))
        else:
            promise.set_result(value)
    seen, error = await reading
    assert str(error) == "Boom at C"
    assert seen == ["a", "b"] if ordered else {"a", "b"} <= set(seen)
    promises[5].cancel()


@both_orders
async def test_a_failure_that_comes_last_is_skipped_in_its_place(ordered):
    promises = futures(6)
    results = penstock.stream(promises).map(wait_for, concurrency=5, ordered=ordered, on_error="skip")
    reading = asyncio.ensure_future(results.to_list())
    await asyncio.sleep(1)
    for promise, value in zip(promises, "abcdef", strict=True):
        if value != "c":
            promise.set_result(value)
    await asyncio.sleep(1)
    promises[2].set_exception(ValueError("Boom at C"))
    assert sorted(await reading) == ["a", "b", "d", "e", "f"]


@both_orders
@pytest.mark.parametrize("way", ["has failed", "fails", "raises"])
async def test_it_resumes_after_a_failure(ordered, way):
    def work(number):
        if number != 3:
            return done(number)
        if way == "raises":
            raise ValueError("mine")
        return done(ValueError("mine")) if way == "has failed" else fails()

    async def fails():
        await asyncio.sleep(0)
        raise ValueError("mine")

    results = penstock.stream(range(1, 6)).map(lambda n: work(n), concurrency=4, ordered=ordered, on_error="skip")
    assert await results.to_list() == [1, 2, 4, 5]


@both_orders
async def test_it_resumes_after_many_failures(ordered):
    promises = [done(ValueError(number)) for number in range(5)] + [done("happy")]
    results = penstock.stream(promises).map(wait_for, concurrency=2, ordered=ordered, on_error="skip")
    assert await results.first() == "happy"


@both_orders
async def test_it_finishes_after_a_failure_of_the_last(ordered):
    async def work(number):
        await asyncio.sleep(0)
        if number == 3:
            raise ValueError(number)
        return number

    results = penstock.stream([1, 2, 3]).map(work, ordered=ordered, on_error="skip").batch(10)
    assert await results.to_list() == [[1, 2]]


@both_orders
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("count", [1, 2])
async def test_the_end_comes_without_anything_more_being_done(ordered, at_once, count, clock):
    """When the last item is handed on, the end needs no turn of the source and no time."""
    source = Scripted(range(count))

    def work(number):
        return done(number) if at_once else asyncio.sleep(0.02, number)

    async with penstock.stream(source).map(lambda n: work(n), concurrency=count, ordered=ordered).open() as items:
        assert [await anext(items) for _ in range(count)] == list(range(count))
        when = clock.now
        assert await anext(items, "the end") == "the end"
        assert (clock.now, source.taken) == (when, count)


@both_orders
async def test_results_of_none_are_results(ordered):
    """Pekko leaves them out; any value is a value (P6), also after many of them and when they come last."""

    async def work(number):
        await asyncio.sleep(60 if number == 1 else 0)
        return number if number in (0, 100, 101) else None

    results = await penstock.stream(range(102)).map(work, concurrency=3, ordered=ordered).to_list()
    assert (results.count(None), len(results)) == (99, 102)
    assert [result for result in results if result is not None] == [0, 100, 101]


@both_orders
async def test_leaving_cancels_upstream(ordered):
    source = Scripted(range(10), silent_after=1)
    async with penstock.stream(source).map(asyncio.sleep, concurrency=4, ordered=ordered).open() as items:
        await anext(items)
    assert source.closed == 1


@both_orders
async def test_ten_thousand_calls_never_exceed_what_is_configured(ordered):
    gauge = Gauge()

    async def work(number):
        with gauge:
            assert gauge.now <= 8
            await asyncio.sleep(0.00005 * (number % 3))
        return 1

    assert await penstock.stream(range(10_000)).map(work, concurrency=8, ordered=ordered).count() == 10_000
    assert gauge.peak == 8


@pytest.mark.parametrize("way", ["has failed", "fails", "raises"])
async def test_the_decider_is_asked_once_for_a_failure(way):
    """Ours is the predicate of a retry."""
    asked = []

    def decide(error):
        asked.append(error.args)
        return False

    def work(bad):
        if not bad:
            return done(bad)
        if way == "raises":
            raise ValueError("too far")
        return done(ValueError("too far")) if way == "has failed" else fails()

    async def fails():
        raise ValueError("too far")

    retry = penstock.Retry(on=decide)
    results = penstock.stream([True, False]).map(lambda bad: work(bad), retry=retry, on_error="skip")
    assert await results.to_list() == [False]
    assert asked == [("too far",)]
