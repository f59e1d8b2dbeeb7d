"""`map_batches`: one call for a list of items, and an outcome for each of them."""

import asyncio
import itertools
import threading
from collections import deque

import pytest

import penstock
from penstock.testing import Scripted

from .mapping_lists import ORDERS, Bad, Calls, books, texts

grid = pytest.mark.grid


# Lists


@grid
@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(0, 3, []), (1, 3, [1]), (3, 3, [3]), (7, 3, [3, 3, 1]), (3, 1, [1, 1, 1]), (5, 100, [5])],
)
async def test_lists_are_full_but_for_the_last(count, size, sizes):
    calls = Calls()
    assert await penstock.stream(range(count)).map_batches(calls.on_loop, size).to_list() == texts(range(count))
    assert calls.sizes == sizes
    assert list(itertools.chain(*calls.lists)) == list(range(count))


@grid
async def test_within_counts_from_the_first_item_of_a_list(clock):
    source = Scripted(range(5), delay=[1, 1, 1, 10, 1, 1].__getitem__)
    calls = Calls(clock)
    await penstock.stream(source).map_batches(calls.on_loop, 9, within=2.5).drain()
    assert (calls.lists, calls.times) == ([[0, 1, 2], [3, 4]], [3.5, 15.0])


@grid
async def test_a_source_slower_than_within_gives_lists_of_one_and_none_that_is_empty(clock):
    calls = Calls(clock)
    await penstock.stream(Scripted(range(3), delay=10)).map_batches(calls.on_loop, 9, within=1).drain()
    assert (calls.lists, calls.times) == ([[0], [1], [2]], [11.0, 21.0, 31.0])


@grid
async def test_a_full_list_does_not_wait(clock):
    calls = Calls(clock)
    await penstock.stream(Scripted(range(4), delay=1)).map_batches(calls.on_loop, 2, within=60).drain()
    assert (calls.lists, calls.times) == ([[0, 1], [2, 3]], [2.0, 4.0])


@pytest.mark.parametrize("size", [0, -1, True, 2.0, "3", None])
def test_a_bad_size(size):
    with pytest.raises(penstock.OptionError) as raised:
        penstock.stream([]).map_batches(texts, size)
    assert str(raised.value) == f"size must be an int >= 1, got {size!r}"


@pytest.mark.parametrize("within", [0, -1, True, "3", float("nan")])
def test_a_bad_within(within):
    with pytest.raises(penstock.OptionError, match="within must be"):
        penstock.stream([]).map_batches(texts, 2, within=within)


def test_a_timeout_for_a_plain_function_inline_is_refused():
    with pytest.raises(penstock.OptionError, match="timeout must be None for a plain function that runs inline"):
        penstock.stream([]).map_batches(Calls().plain, 2, timeout=1)


# Results


async def as_coroutine(items):
    return [item * 2 for item in items]


def as_array(items):
    return pytest.importorskip("numpy").array(items) * 2


def as_generator(items):
    for item in items:
        yield item * 2


@grid
@pytest.mark.parametrize(
    "fn",
    [
        as_coroutine,
        as_array,
        as_generator,
        lambda items: as_coroutine(items),
        lambda items: tuple(item * 2 for item in items),
        lambda items: {item: item * 2 for item in items}.values(),
        lambda items: deque(item * 2 for item in items),
        lambda items: iter([item * 2 for item in items]),
        lambda items: range(items[0] * 2, items[-1] * 2 + 1, 2),
    ],
)
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_any_ordered_iterable_will_do(fn, concurrency):
    assert await penstock.stream(range(5)).map_batches(fn, 2, concurrency=concurrency).to_list() == [0, 2, 4, 6, 8]


@grid
@pytest.mark.parametrize(
    "results", ["ab", b"ab", {0: 1, 1: 2}, {1, 2}, frozenset([1, 2]), {0: 1, 1: 2}.keys(), 7, None]
)
async def test_what_is_no_ordered_iterable_is_the_fault_of_the_function(results):
    """Nothing is gained by calling it with fewer items."""
    sizes = []

    async def work(items):
        sizes.append(len(items))
        return results

    with pytest.raises(penstock.OptionError) as raised:
        await penstock.stream(range(2)).map_batches(work, 2).to_list()
    assert (
        str(raised.value) == f"the function of map_batches must return an ordered iterable of results, got {results!r}"
    )
    assert sizes == [2]


async def nothing():
    yield


async def test_an_async_generator_is_no_iterable():
    with pytest.raises(penstock.OptionError, match="must return an ordered iterable of results, got <async_generator"):
        await penstock.stream(range(2)).map_batches(lambda _: nothing(), 2).to_list()


class Unsized(list):
    """Has a `__len__` and no length."""

    def __len__(self):
        raise TypeError


@grid
@pytest.mark.parametrize(
    ("fn", "got"),
    [
        (lambda items: items[1:], 0),
        (lambda items: [*items, 9], 2),
        (lambda items: Unsized([*items, 9]), "more"),
        (lambda _: [], 0),
        (lambda _: (), 0),
    ],
)
async def test_one_result_per_item(fn, got):
    """Too few and too many are a failure like any other: in the end of an item that stands alone."""
    with pytest.raises(penstock.ResultCountError) as raised:
        await penstock.stream(range(4)).map_batches(fn, 4).to_list()
    assert str(raised.value) == f"the function of map_batches must return one result per item, got {got} for 1"
    assert "item 0, attempt 3" in raised.value.__notes__[0]


async def test_a_count_that_is_wrong_for_some_items_costs_only_those():
    stream = penstock.stream(range(8)).map_batches(lambda items: [item for item in items if item != 5], 4)
    with pytest.raises(penstock.ResultCountError) as raised:
        await stream.to_list()
    assert "item 5, attempt 3" in raised.value.__notes__[0]


VALUES = [None, False, 0, "", ValueError("a value"), ValueError, penstock.Ok(1, 0), StopIteration()]


@grid
@pytest.mark.parametrize("on_error", ["raise", "skip", "collect", "return"])
@pytest.mark.parametrize("ordered", ORDERS)
async def test_any_result_is_a_value(on_error, ordered):
    """P6."""
    values = [*VALUES, penstock.Failed(ValueError("a value"), 0, 0, "elsewhere"), [], NotImplemented]
    options = {"concurrency": 2, "ordered": ordered, "on_error": on_error}
    async with penstock.stream(values).map_batches(list, 3, **options).open() as results:
        given = [result async for result in results]
    if on_error == "return":
        given = [result.unwrap() for result in given]
    if not ordered:
        given, values = sorted(given, key=id), sorted(values, key=id)
    assert all(one is other for one, other in zip(given, values, strict=True))
    assert (results.stats()["map_batches(list)"].delivered, results.failures) == (len(values), ())


# Where the function runs


@grid
@pytest.mark.parametrize(
    ("options", "main"),
    [
        ({}, True),
        ({"engine": "inline", "concurrency": 2}, True),
        ({"engine": "thread"}, False),
        ({"concurrency": 2}, False),
    ],
)
async def test_a_plain_function_runs_inline_or_in_threads(options, main):
    seen = []

    def work(items):
        seen.append(threading.current_thread() is threading.main_thread())
        return items

    assert await penstock.stream(range(6)).map_batches(work, 2, **options).to_list() == list(range(6))
    assert seen == [main] * 3


async def test_a_generator_function_in_a_thread_is_read_there():
    seen = []

    def work(items):
        for item in items:
            seen.append(threading.current_thread() is threading.main_thread())
            yield item

    assert await penstock.stream(range(4)).map_batches(work, 2, engine="thread").to_list() == list(range(4))
    assert seen == [False] * 4


# Order and bound


@grid
@pytest.mark.parametrize("ordered", ORDERS)
async def test_order_is_that_of_items_or_of_calls(ordered):
    """P3."""

    async def work(items):
        await asyncio.sleep(10 - items[0])
        return items

    results = await penstock.stream(range(8)).map_batches(work, 3, concurrency=3, ordered=ordered).to_list()
    assert results == ([0, 1, 2, 3, 4, 5, 6, 7] if ordered else [6, 7, 3, 4, 5, 0, 1, 2])


@grid
@pytest.mark.parametrize("ordered", ORDERS)
@pytest.mark.parametrize("size", [1, 2, 5])
async def test_concurrency_counts_calls(ordered, size, clock):
    calls = Calls(clock, seconds=1)
    options = {"concurrency": 3, "ordered": ordered}
    await penstock.stream(range(6 * size)).map_batches(calls.on_loop, size, **options).drain()
    assert (calls.gauge.peak, calls.times) == (3, [0, 0, 0, 1, 1, 1])


@grid
@pytest.mark.parametrize("ordered", ORDERS)
@pytest.mark.parametrize("head", [1, 100])
async def test_no_more_items_are_taken_than_there_are_places(ordered, head):
    """P1: `size` items for each place, behind a slow head and a slow consumer."""
    source = Scripted(range(60))

    async def work(items):
        await asyncio.sleep(head if 0 in items else 1)
        return items

    options = {"concurrency": 2, "buffer": 1, "ordered": ordered}
    async with penstock.stream(source).map_batches(work, 3, **options).open() as results:
        async for _ in source.settling(results):
            await asyncio.sleep(2)
    stage = results.stats()["map_batches(work)"]
    assert source.peak_unsettled == 9
    assert (stage.peak_running, stage.peak_in_flight) == (2, 9)


@grid
async def test_a_list_starts_when_there_is_a_place_for_all_its_items():
    calls = Calls()
    async with penstock.stream(range(9)).map_batches(calls.on_loop, 3).open() as results:
        for already in (1, 1, 1, 2, 2, 2, 3, 3, 3):
            await anext(results)
            assert len(calls.lists) == already
            await asyncio.sleep(1 if already > 3 else 0)


# Time limits


@grid
@pytest.mark.parametrize("engine", [None, "thread"])
async def test_a_timeout_is_one_of_each_attempt(engine, clock):
    """Two seconds for a list of two: those of four are halved. A thread that is late is waited for."""
    calls = []

    def in_thread(items):
        calls.append((len(items), clock.now))
        clock.sleep(len(items))
        return items

    async def on_loop(items):
        calls.append((len(items), clock.now))
        await asyncio.sleep(len(items))
        return items

    fn = in_thread if engine else on_loop
    assert await penstock.stream(range(4)).map_batches(fn, 4, timeout=2.5, engine=engine).to_list() == [0, 1, 2, 3]
    first = 4 if engine else 2.5
    assert calls == [(4, 0), (2, first), (2, first + 2)]


@grid
async def test_an_item_that_is_late_alone_fails():
    async def work(items):
        await asyncio.sleep(60 if 2 in items else 0)
        return items

    async with penstock.stream(range(4)).map_batches(work, 4, timeout=1, on_error="collect").open() as results:
        assert [result async for result in results] == [0, 1, 3]
    (failed,) = results.failures
    assert (failed.index, failed.attempts, str(failed.error)) == (2, 3, "timed out after 1 s")
    assert isinstance(failed.error, penstock.AttemptTimeout)


async def test_an_item_that_is_late_alone_in_a_thread_fails_at_its_deadline(clock):
    """Its place waits for the thread, which cannot be stopped; what comes of the item does not."""

    def work(items):
        clock.sleep(4)
        return items

    async with (
        penstock.stream(range(1)).map_batches(work, 1, timeout=1, engine="thread", on_error="return").open() as results
    ):
        failed = await anext(results)
        assert (clock.now, str(failed.error)) == (1.0, "timed out after 1 s")
    assert clock.now == 4.0


# Leaving


@grid
@pytest.mark.parametrize("ordered", ORDERS)
async def test_leaving_at_any_moment_leaves_nothing_and_balances_the_books(ordered, clock):
    """P4, P5."""
    for tenths in range(1, 60, 3):
        calls, source = Calls(bad=[3, 12], seconds=0.7), Scripted(range(20), delay=0.2)
        options = {"concurrency": 2, "ordered": ordered, "buffer": 1, "within": 0.5, "on_error": "skip"}
        left_at = clock.now + tenths / 10
        async with penstock.stream(source).map_batches(calls.on_loop, 4, **options).open() as results:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout_at(left_at):
                    async for _ in results:
                        books(results.stats()[2])
        assert clock.now == left_at
        assert (calls.gauge.now, source.closed) == (0, 1)
        for stage in results.stats():
            books(stage)
            assert stage.in_flight == 0
        started = len(calls.lists)
        await asyncio.sleep(10)
        assert len(calls.lists) == started


@grid
async def test_a_break_within_a_list_discards_its_rest():
    async with penstock.stream(range(9)).map_batches(Calls().on_loop, 4).open() as results:
        async for result in results:
            if result == "1":
                break
    assert books(results.stats()["map_batches(on_loop)"]) == {"taken": 4, "delivered": 2, "discarded": 2}


@grid
async def test_stopping_flushes_the_partial_list(clock):
    calls = Calls(clock)
    source = Scripted(range(99), delay=1)
    async with penstock.stream(source).map_batches(calls.on_loop, 4, within=60).open() as results:
        assert await anext(results) == "0"
        await asyncio.sleep(2.5)
        results.stop()
        assert [result async for result in results] == texts(range(1, 4))
        assert calls.lists == [[0, 1, 2, 3]]
    source = Scripted(range(99), delay=1)
    async with penstock.stream(source).map_batches(calls.on_loop, 4, within=60).open() as results:
        reading = asyncio.ensure_future(anext(results))
        await asyncio.sleep(2.5)
        results.stop()
        assert await reading == "0"
        assert [result async for result in results] == ["1"]
    assert calls.lists == [[0, 1, 2, 3], [0, 1]]
    assert books(results.stats()["map_batches(on_loop)"]) == {"taken": 2, "delivered": 2}


@grid
async def test_a_cancelled_anext_loses_nothing():
    """P5."""
    calls = Calls(seconds=1)
    given = []
    async with (
        penstock.stream(Scripted(range(10), delay=0.3)).map_batches(calls.on_loop, 3, concurrency=2).open() as results
    ):
        while True:
            try:
                given.append(await asyncio.wait_for(anext(results), 0.25))
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
    assert given == texts(range(10))


@grid
async def test_nothing_is_halved_once_the_run_is_left():
    """P4: nothing starts after, also when work answers its cancellation with an error of its own."""
    sizes = []

    async def work(items):
        sizes.append(len(items))
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            raise Bad from None
        return items

    async with penstock.stream(range(8)).map_batches(work, 8).open() as results:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(results), 0.5)
        with pytest.raises(Bad):
            await results.aclose()
    assert sizes == [8]


@grid
async def test_nothing_is_halved_in_threads_once_the_run_is_left(clock):
    calls = Calls(clock, bad=[0], seconds=1)
    async with penstock.stream(range(8)).map_batches(calls.plain, 8, engine="thread").open() as results:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(results), 0.5)
        with pytest.raises(Bad):
            await results.aclose()
    assert calls.sizes == [8]


# Statistics


@grid
async def test_statistics_count_items_and_time_calls(place):
    calls = Calls(bad=[5], seconds=2)
    options = {"concurrency": 2, "on_error": "skip", "name": "work"}
    async with penstock.stream(range(10), total=10).map_batches(calls.on_loop, 4, **options).open() as results:
        assert await anext(results) == "0"
        stage = results.stats()["work"]
        assert (stage.taken, stage.delivered, stage.in_flight, stage.buffered) == (8, 1, 7, 3)
        assert (stage.running, stage.started, stage.succeeded) == (1, 8, 4)
        assert len([result async for result in results]) == 8
    stage = results.stats()["work"]
    assert books(stage) == {"taken": 10, "delivered": 9, "failed": 1}
    assert (stage.started, stage.succeeded, stage.running, stage.buffered) == (10, 9, 0, 0)
    assert (stage.peak_running, stage.peak_in_flight, stage.concurrency) == (2, 8, 2)
    assert stage.latency.samples == len([items for items in calls.lists if 5 not in items])
    assert stage.latency.p50 == pytest.approx(2, rel=0.03)


async def test_a_call_that_is_being_started_runs():
    seen = []

    async def work(items):
        stage = results.stats()["map_batches(work)"]
        seen.append((stage.taken, stage.running, stage.in_flight, stage.succeeded))
        return items

    async with penstock.stream(range(4)).map_batches(work, 2).open() as results:
        assert [result async for result in results] == [0, 1, 2, 3]
    assert seen == [(2, 1, 2, 0), (4, 1, 2, 2)]


@grid
@pytest.mark.parametrize("ordered", ORDERS)
async def test_peaks_of_calls_that_return_at_once(ordered, place):
    async def work(items):
        return items

    held = 4 if place.tasks == "lazy" else 2  # else the first result is handed on before more is begun
    async with penstock.stream(range(6)).map_batches(work, 2, concurrency=2, ordered=ordered).open() as results:
        assert await anext(results) == 0
        stage = results.stats()["map_batches(work)"]
    assert (stage.peak_buffered, stage.peak_in_flight, stage.first_result_s) == (held, held, 0.0)
