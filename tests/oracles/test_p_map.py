"""What the tests of p-map ask, of `map`, and of what becomes of its source and its work when a run is left."""

import asyncio
import random

import pytest

import penstock
from penstock.testing import Gauge, Scripted

INPUT = [(10, 300), (20, 200), (30, 100)]
both_sources = pytest.mark.parametrize("asynchronous", [True, False], ids=["async source", "plain source"])


async def after(pair):
    value, seconds = pair
    await asyncio.sleep(seconds)
    if isinstance(value, Exception):
        raise value
    return value


def source_of(items, asynchronous):
    source = Scripted(items)
    return source if asynchronous else source.sync()


@both_sources
@pytest.mark.parametrize(("concurrency", "seconds"), [(100, 300.0), (2, 400.0), (1, 600.0)])
async def test_results_are_in_order_and_take_as_long_as_they_must(clock, asynchronous, concurrency, seconds):
    """With two places and no buffer the third waits until the first is handed on (P1)."""
    results = penstock.stream(source_of(INPUT, asynchronous)).map(after, concurrency=concurrency)
    assert await results.to_list() == [10, 20, 30]
    assert clock.now == seconds


@both_sources
@pytest.mark.parametrize("times", [[100, 200, 10, 36, 13, 45], [200, 100, 50], "random"])
async def test_whatever_the_times_the_results_are_in_order(asynchronous, times):
    if times == "random":
        times = [random.Random(seed).randrange(100) for seed in range(10)]
    pairs = [(each, each) for each in times]
    assert await penstock.stream(source_of(pairs, asynchronous)).map(after, concurrency=2).to_list() == times


@both_sources
async def test_an_empty_source_gives_nothing(asynchronous):
    assert await penstock.stream(source_of([], asynchronous)).map(after, concurrency=2).to_list() == []


@both_sources
async def test_no_more_than_four_run(asynchronous):
    gauge, rng = Gauge(), random.Random(4)
    pairs = [(0, rng.uniform(30, 200)) for _ in range(100)]
    await penstock.stream(source_of(pairs, asynchronous)).map(gauge.wrap(after), concurrency=4).drain()
    assert gauge.peak == 4


@both_sources
async def test_the_first_error_in_time_is_raised(asynchronous):
    first = [(20, 200), (30, 100), (ValueError("foo"), 10), (ValueError("bar"), 10)]
    with pytest.raises(ValueError, match="foo"):
        await penstock.stream(source_of(first, asynchronous)).map(after).to_list()


@both_sources
async def test_errors_can_be_gathered(asynchronous):
    pairs = [(20, 200), (ValueError("bar"), 10), (30, 100), (ValueError("foo"), 10)]
    async with penstock.stream(source_of(pairs, asynchronous)).map(after, on_error="collect").open() as items:
        assert [item async for item in items] == [20, 30]
    assert [str(failed.error) for failed in items.failures] == ["bar", "foo"]


@both_sources
@pytest.mark.parametrize("skips", [{1}, {1, 3, 5, 6}, set(range(8))])
async def test_items_can_be_left_out(asynchronous, skips):
    """Where p-map has a value that means skip, we have `filter` and `flat_map`."""
    results = penstock.stream(source_of(range(8), asynchronous)).flat_map(
        lambda number: [] if number in skips else [number], concurrency=3
    )
    assert await results.to_list() == [number for number in range(8) if number not in skips]


@both_sources
async def test_all_that_had_a_place_has_begun_when_the_first_fails(asynchronous):
    begun = []

    async def work(number):
        begun.append(number)
        await asyncio.sleep(100)
        raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        await penstock.stream(source_of([1, 2, 3], asynchronous)).map(work, concurrency=10).to_list()
    assert begun == [1, 2, 3]


@both_sources
@pytest.mark.parametrize(("concurrency", "begun"), [(10, [1, 2, 3]), (1, [1])])
async def test_nothing_is_left_unheard_when_all_fail(asynchronous, concurrency, begun):
    seen = []

    async def work(number):
        seen.append(number)
        await asyncio.sleep(100)
        raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        await penstock.stream(source_of([1, 2, 3], asynchronous)).map(work, concurrency=concurrency).to_list()
    assert seen == begun


@both_sources
@pytest.mark.parametrize("fail_at", [0, 1, 3])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_an_error_of_the_source_comes_after_what_it_gave(asynchronous, fail_at, on_error):
    """It is read no further, and each item is worked on once, also where failures of work are let pass."""
    script, seen = Scripted(range(100), fail_at=fail_at), []

    async def work(number):
        seen.append(number)
        await asyncio.sleep(100)

    source = script if asynchronous else script.sync()
    with pytest.raises(RuntimeError, match=f"item {fail_at}"):
        await penstock.stream(source).map(work, concurrency=2, on_error=on_error).drain()
    assert seen == list(range(fail_at))
    assert (script.taken, script.closed) == (fail_at, 1)


async def test_an_error_of_the_source_after_one_of_an_item_that_was_let_pass():
    script = Scripted(range(100), fail_at=1)

    async def fails(_):
        await asyncio.sleep(100)
        raise ValueError("of the work")

    results = penstock.stream(script).map(fails, on_error="collect")
    with pytest.raises(RuntimeError, match="fails at item 1"):
        await results.to_list()
    assert script.taken == 1


async def test_a_source_that_is_both_is_read_as_an_async_one():
    class Both:
        def __iter__(self):
            raise AssertionError

        async def __aiter__(self):
            yield 1
            yield 2

    assert await penstock.stream(Both()).map(lambda number: number * 10).to_list() == [10, 20]


@both_sources
async def test_places_bound_what_is_worked_on_ahead(asynchronous):
    """`backpressure: 2, concurrency: 2`: after the first was taken, the third is worked on and the fourth is not."""
    done = []

    async def work(pair):
        await after(pair)
        done.append(pair[0])
        return pair[0]

    pairs = [(10, 300), (20, 200), (30, 100), (40, 50), (50, 25)]
    async with penstock.stream(source_of(pairs, asynchronous)).map(work, concurrency=2).open() as items:
        assert await anext(items) == 10
        await asyncio.sleep(600)
        assert done == [20, 10, 30]
        assert await anext(items) == 20
        await asyncio.sleep(100)
        assert done == [20, 10, 30, 40]


@both_sources
async def test_room_for_results_does_not_let_more_calls_run(asynchronous):
    log = []

    async def work(number):
        log.append(number)
        await asyncio.sleep(100)
        log.append(number)

    await penstock.stream(source_of([1, 2, 3], asynchronous)).map(work, concurrency=1, buffer=1).drain()
    assert log == [1, 1, 2, 2, 3, 3]


async def breaks(items):
    async for _ in items:
        break


async def raises(items):
    async for item in items:
        raise ZeroDivisionError(item)


async def closes(items):
    await anext(items)
    await items.aclose()
    assert await anext(items, "the end") == "the end"


async def is_cancelled(items):
    await anext(items)
    asyncio.current_task().cancel()
    await asyncio.sleep(1)


@both_sources
@pytest.mark.parametrize("leave", [breaks, raises, closes, is_cancelled])
async def test_after_leaving_nothing_is_pulled_called_or_open(asynchronous, leave):
    """p-map lets calls in progress end by themselves; ours are cancelled and awaited (P4)."""
    script, gauge = Scripted(range(100)), Gauge()

    async def work(number):
        await asyncio.sleep(3600 if number else 0)

    source = script if asynchronous else script.sync()

    async def consume():
        async with penstock.stream(source).map(gauge.wrap(work), concurrency=2).open() as items:
            await leave(items)

    task = asyncio.create_task(consume())
    await asyncio.wait([task])
    begun = gauge.started
    assert begun <= 3
    await asyncio.sleep(60)
    assert (gauge.started, gauge.finished, gauge.cancelled) == (begun, 1, begun - 1)
    assert script.closed == 1
    assert task.cancelled() or isinstance(task.exception(), ZeroDivisionError | None)


@pytest.mark.parametrize("leave", [breaks, closes])
async def test_what_the_source_would_have_brought_after_leaving_is_not_worked_on(leave):
    script, gauge = Scripted(range(3), delay=lambda index: 60 if index else None), Gauge()
    async with penstock.stream(script).map(gauge.wrap(lambda number: number), concurrency=2).open() as items:
        await leave(items)
    await asyncio.sleep(600)
    assert (gauge.started, script.taken) == (1, 1)


async def test_what_the_source_would_have_brought_after_a_failure_is_not_worked_on(clock):
    script, gauge = Scripted(range(3), delay=lambda index: 60 if index else None), Gauge()

    async def fails(number):
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        await penstock.stream(script).map(gauge.wrap(fails), concurrency=2).to_list()
    assert (gauge.started, script.taken, clock.now) == (1, 1, 0.0)
    assert script.closed == 1


@both_sources
async def test_a_failure_closes_the_source(asynchronous):
    script = Scripted(range(100))

    async def work(number):
        if number == 1:
            raise ValueError("mine")
        await asyncio.sleep(10)

    with pytest.raises(ValueError, match="mine"):
        await penstock.stream(script if asynchronous else script.sync()).map(work, concurrency=2).to_list()
    assert script.closed == 1


@both_sources
async def test_an_error_of_closing_does_not_replace_the_failure(asynchronous):
    script = Scripted(range(100), close_error=ConnectionError("of closing"))

    async def fails(_):
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work") as raised:
        await penstock.stream(script if asynchronous else script.sync()).map(fails, concurrency=2).to_list()
    assert "of closing" in "\n".join(raised.value.__notes__)


async def test_a_silent_source_does_not_hold_up_leaving(clock):
    script = Scripted(range(9), silent_after=1)
    async with penstock.stream(script).map(lambda number: number, concurrency=2).open() as items:
        assert await anext(items) == 0
    assert (clock.now, script.closed) == (0.0, 1)


class Counting:
    """A source that counts what is asked of it after its end, as a queue that would wait for ever."""

    def __init__(self, count):
        self.count, self.given, self.after_the_end = count, 0, 0

    def step(self):
        if self.given > self.count:
            self.after_the_end += 1
        self.given += 1
        return self.given <= self.count

    def __next__(self):
        if self.step():
            return self.given - 1
        raise StopIteration

    async def __anext__(self):
        if self.step():
            return self.given - 1
        raise StopAsyncIteration


class Plain(Counting):
    def __iter__(self):
        return self


class Asynchronous(Counting):
    def __aiter__(self):
        return self


@pytest.mark.parametrize("kind", [Plain, Asynchronous])
@pytest.mark.parametrize("way", ["all", "fails", "skips"])
@pytest.mark.parametrize("buffer", [0, 2])
async def test_a_source_that_has_ended_is_not_asked_again(kind, way, buffer):
    source = kind(4)

    async def work(number):
        await asyncio.sleep(10)
        if way == "fails":
            raise ValueError(number)
        return way == "all" or number % 2

    results = penstock.stream(source).filter(work, concurrency=2, buffer=buffer, on_error="skip")
    assert await results.to_list() == {"all": [0, 1, 2, 3], "fails": [], "skips": [1, 3]}[way]
    assert source.after_the_end == 0
