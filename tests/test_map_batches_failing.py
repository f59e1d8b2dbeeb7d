"""`map_batches`: a list that fails is tried again and halved, until the bad items stand alone."""

import asyncio

import pytest

import penstock
from penstock.testing import Scripted

from .mapping_lists import ORDERS, Bad, Calls, books, texts

grid = pytest.mark.grid


# Retries and halving


@grid
@pytest.mark.parametrize("bad", [0, 31, 40, 63])
@pytest.mark.parametrize("on_error", ["skip", "collect", "return"])
async def test_one_bad_item_of_64_costs_twelve_further_calls(bad, on_error):
    calls = Calls(bad=[bad])
    await penstock.stream(range(64)).map_batches(calls.on_loop, 64, on_error=on_error).drain()
    assert sorted(calls.sizes, reverse=True) == [64, 32, 32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1]


@pytest.mark.parametrize(
    ("bad", "sizes"), [(0, [64, 32, 16, 8, 4, 2, 1]), (63, [64, 32, 32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1])]
)
async def test_with_raise_nothing_is_tried_behind_the_first_bad_item(bad, sizes):
    calls = Calls(bad=[bad])
    with pytest.raises(Bad):
        await penstock.stream(range(64)).map_batches(calls.on_loop, 64).drain()
    assert calls.sizes == sizes


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64])
async def test_bad_items_alone_cost_a_call_fewer_than_twice_their_number(size):
    calls = Calls(bad=range(size))
    async with penstock.stream(range(size)).map_batches(calls.on_loop, size, on_error="collect").open() as results:
        assert [result async for result in results] == []
    assert len(calls.lists) == 2 * size - 1
    assert [failed.index for failed in results.failures] == list(range(size))


async def test_a_good_list_costs_one_call():
    calls = Calls()
    await penstock.stream(range(64)).map_batches(calls.on_loop, 64, retry=penstock.Retry(on=Bad)).drain()
    assert calls.sizes == [64]


@grid
async def test_halves_of_an_odd_list():
    calls = Calls(bad=[4])
    assert await penstock.stream(range(5)).map_batches(calls.on_loop, 9, on_error="skip").to_list() == texts(range(4))
    assert calls.lists == [[0, 1, 2, 3, 4], [0, 1], [2, 3, 4], [2], [3, 4], [3], [4]]


@grid
async def test_a_list_is_tried_again_as_a_whole_before_it_is_halved(clock):
    calls = Calls(clock, bad=[5])
    retry = penstock.Retry(on=Bad, attempts=3, initial=10, factor=2, jitter=0)
    async with (
        penstock.stream(range(8)).map_batches(calls.on_loop, 8, retry=retry, on_error="collect").open() as results
    ):
        assert [result async for result in results] == texts([0, 1, 2, 3, 4, 6, 7])
    assert calls.sizes == [8, 8, 8, 4, 4, 2, 1, 1, 2]
    assert calls.times == [0, 10, *[30] * 7]
    (failed,) = results.failures
    assert (failed.index, failed.item, failed.attempts) == (5, 5, 6)
    assert results.stats()["map_batches(on_loop)"].retried == 2


@grid
async def test_a_list_that_a_retry_saves_is_not_halved():
    sizes = []

    async def work(items):
        sizes.append(len(items))
        if len(sizes) == 1:
            raise ConnectionError
        return items

    retry = penstock.Retry(on=ConnectionError)
    assert await penstock.stream(range(4)).map_batches(work, 4, retry=retry).to_list() == [0, 1, 2, 3]
    assert sizes == [4, 4]


async def test_a_failure_that_is_not_worth_a_retry_is_halved_at_once():
    calls = Calls(bad=[1])
    retry = penstock.Retry(on=ConnectionError, attempts=9)
    await penstock.stream(range(2)).map_batches(calls.on_loop, 2, retry=retry, on_error="skip").drain()
    assert calls.sizes == [2, 1, 1]


async def test_an_item_alone_is_not_tried_twice():
    calls = Calls(bad=[0])
    async with penstock.stream(range(1)).map_batches(calls.on_loop, 9, on_error="collect").open() as results:
        assert [result async for result in results] == []
    assert (calls.sizes, results.failures[0].attempts) == ([1], 1)


@pytest.mark.parametrize(
    "retry",
    [
        None,
        penstock.Retry(on=Exception, initial=0),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "collect"])
async def test_the_fault_of_the_function_is_neither_retried_nor_halved(retry, on_error):
    sizes = []

    async def work(items):
        sizes.append(len(items))
        return "text"

    async with penstock.stream(range(4)).map_batches(work, 4, retry=retry, on_error=on_error).open() as results:
        if on_error == "raise":
            with pytest.raises(penstock.OptionError):
                await anext(results)
        else:
            assert [result async for result in results] == []
    assert sizes == [4]


@pytest.mark.parametrize("engine", [None, "thread"])
@pytest.mark.parametrize("change", [list.clear, lambda items: items.append(0), list.pop])
async def test_a_function_may_change_its_list(change, engine):
    """The items are accounted for by what was given, not by what the function left of it."""
    calls = []

    def work(items):
        calls.append(results := list(items))
        if len(calls) < 9:
            change(items)
        return results

    async with asyncio.timeout(60):
        results = await penstock.stream(range(4)).map_batches(work, 2, engine=engine).to_list()
    assert (results, calls) == ([0, 1, 2, 3], [[0, 1], [2, 3]])


async def test_a_failed_item_is_the_one_that_was_given():
    async def work(items):
        items.reverse()
        raise Bad(len(items))

    async with penstock.stream("abcd").map_batches(work, 4, on_error="collect").open() as results:
        assert [result async for result in results] == []
    assert [(failed.index, failed.item) for failed in results.failures] == list(enumerate("abcd"))


async def test_others_get_a_turn_between_the_calls_of_a_halving(turn_clock):
    """P9: calls that never suspend, each of which uses up a turn."""
    passes, seen = 0, []

    def work(_):
        turn_clock.now += 1
        seen.append(passes)
        raise Bad

    async def count():
        nonlocal passes
        while True:
            await asyncio.sleep(0)
            passes += 1

    counting = asyncio.create_task(count())
    await asyncio.sleep(0)
    await penstock.stream(range(8)).map_batches(work, 8, on_error="skip").drain()
    counting.cancel()
    await asyncio.wait([counting])
    assert len(seen) == 15
    assert len(set(seen)) == 15


# Failures


@grid
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_skip_and_collect_drop_the_bad_items_alone(concurrency):
    for on_error in ("skip", "collect"):
        calls = Calls(bad=[2, 3, 9])
        options = {"concurrency": concurrency, "on_error": on_error}
        async with penstock.stream(range(12)).map_batches(calls.on_loop, 4, **options).open() as results:
            assert [result async for result in results] == texts([0, 1, 4, 5, 6, 7, 8, 10, 11])
        failures = [(failed.index, failed.item, failed.attempts, failed.error.args) for failed in results.failures]
        assert failures == ([(2, 2, 3, (2,)), (3, 3, 3, (3,)), (9, 9, 3, (9,))] if on_error == "collect" else [])
        assert books(results.stats()["map_batches(on_loop)"]) == {"taken": 12, "delivered": 9, "failed": 3}


@grid
async def test_return_hands_on_a_result_per_item_in_order():
    calls = Calls(bad=[1, 4])
    stream = penstock.stream(range(6)).map_batches(calls.on_loop, 4, on_error="return", name="work")
    async with stream.open() as results:
        given = [result async for result in results]
    assert [(result.index, type(result)) for result in given] == [
        (number, penstock.Failed if number in {1, 4} else penstock.Ok) for number in range(6)
    ]
    assert (given[1].item, given[1].attempts, given[1].stage) == (1, 3, "work")
    assert (given[4].item, given[4].attempts) == (4, 2)
    assert given[5].value == "5"
    assert books(results.stats()["work"]) == {"taken": 6, "delivered": 4, "failed": 2}


@grid
async def test_raise_hands_on_what_stands_before_the_bad_item():
    """The items behind it are not tried: they count as cancelled."""
    calls = Calls(bad=[5, 6])
    given = []
    async with penstock.stream(range(12)).map_batches(calls.on_loop, 8).open() as results:
        with pytest.raises(Bad) as raised:
            async for result in results:
                given.append(result)  # noqa: PERF401 -- what came before the error counts
    assert given == texts(range(5))
    assert raised.value.args == (5,)
    assert raised.value.__notes__ == ["penstock: stage 'map_batches(on_loop)', item 5, attempt 4"]
    assert books(results.stats()["map_batches(on_loop)"]) == {"taken": 8, "delivered": 5, "failed": 1, "cancelled": 2}
    assert calls.lists == [[*range(8)], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [4], [5]]


@grid
@pytest.mark.parametrize("ordered", ORDERS)
async def test_a_failure_cancels_the_sibling_lists(ordered):
    seconds = {0: 30, 2: 1, 4: 2, 6: 30}
    reasons = []

    async def work(items):
        try:
            await asyncio.sleep(seconds.get(items[0], 0))
        except asyncio.CancelledError as error:
            reasons.append((items[0], *error.args))
            raise
        if 5 in items:
            raise Bad
        return items

    given = []
    options = {"concurrency": 4, "ordered": ordered}
    async with penstock.stream(range(8)).map_batches(work, 2, **options).open() as results:
        with pytest.raises(Bad):
            async for result in results:
                given.append(result)  # noqa: PERF401 -- what came before the error counts
    assert given == ([] if ordered else [2, 3, 4])
    assert [first for first, *_ in reasons] == [0, 6]
    stage = results.stats()["map_batches(work)"]
    assert books(stage) == (
        {"taken": 8, "failed": 1, "cancelled": 4, "discarded": 3}
        if ordered
        else {"taken": 8, "delivered": 3, "failed": 1, "cancelled": 4}
    )


@grid
async def test_more_failures_than_allowed_are_raised():
    calls = Calls(bad=[1, 3, 6])
    given = []
    options = {"on_error": "collect", "max_failures": 2}
    async with penstock.stream(range(16)).map_batches(calls.on_loop, 8, **options).open() as results:
        with pytest.raises(Bad) as raised:
            async for result in results:
                given.append(result)  # noqa: PERF401 -- what came before the error counts
    assert raised.value.args == (6,)
    assert "map_batches(on_loop)': 3, more than max_failures=2" in raised.value.__notes__[0]
    assert given == texts([0, 2, 4, 5])
    assert [failed.index for failed in results.failures] == [1, 3]
    assert books(results.stats()["map_batches(on_loop)"])["failed"] == 3


@grid
async def test_a_failing_source_hands_on_the_partial_list_first():
    calls = Calls()
    source = Scripted(range(9), delay=1, fail_at=5, error=OSError("gone"))
    given = []
    async with penstock.stream(source).map_batches(calls.on_loop, 3).open() as results:
        with pytest.raises(OSError, match="gone"):
            async for result in results:
                given.append(result)  # noqa: PERF401 -- what came before the error counts
    assert (given, calls.lists) == (texts(range(5)), [[0, 1, 2], [3, 4]])


CONTROL_FLOW = [StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError]


@grid
@pytest.mark.parametrize("kind", CONTROL_FLOW)
@pytest.mark.parametrize("engine", [None, "thread"])
async def test_control_flow_raised_by_work_arrives_as_work_raised(kind, engine):
    """P5, P8: it ends neither an iteration nor a task, and a cancellation of its own accord is no cancellation."""

    def work(_):
        raise kind("own")

    with pytest.raises(penstock.WorkRaised) as raised:
        await penstock.stream(range(4)).map_batches(work, 2, engine=engine).to_list()
    assert type(raised.value.__cause__) is kind
    assert "item 0" in raised.value.__notes__[0]


@grid
@pytest.mark.parametrize("kind", CONTROL_FLOW)
async def test_control_flow_is_a_failure_of_each_item_of_its_call(kind):
    def work(items):
        if 2 in items or 3 in items:
            raise kind("own")
        return items

    async with penstock.stream(range(6)).map_batches(work, 2, on_error="collect").open() as results:
        assert [result async for result in results] == [0, 1, 4, 5]
    assert [(failed.index, type(failed.error)) for failed in results.failures] == [
        (2, penstock.WorkRaised),
        (3, penstock.WorkRaised),
    ]


@grid
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("on_error", ["raise", "skip", "collect", "return"])
@pytest.mark.parametrize("engine", [None, "thread"])
async def test_an_exit_ends_the_run_whatever_on_error_says(kind, on_error, engine):
    calls = []

    def work(items):
        calls.append(items[0])
        if 2 in items:
            raise kind("own")
        return items

    given = []
    async with penstock.stream(range(8)).map_batches(work, 2, engine=engine, on_error=on_error).open() as results:
        with pytest.raises(kind, match="own"):
            async for result in results:
                given.append(result)  # noqa: PERF401 -- what came before the error counts
    assert (len(given), calls) == (2, [0, 2])
    books(results.stats()["map_batches(work)"])


async def test_an_exit_is_the_failure_of_one_item():
    def work(_):
        raise SystemExit("own")

    async with penstock.stream(range(4)).map_batches(work, 4, on_error="collect").open() as results:
        with pytest.raises(SystemExit) as raised:
            await anext(results)
    assert raised.value.__notes__ == ["penstock: stage 'map_batches(work)', item 0"]
    assert (results.failures, results.stats()["map_batches(work)"].cancelled) == ((), 3)


@pytest.mark.parametrize("kind", [GeneratorExit, asyncio.CancelledError])
@pytest.mark.parametrize("on_error", ["raise", "collect"])
async def test_results_of_a_half_outlive_control_flow_in_the_next(kind, on_error):
    async def work(items):
        if len(items) == 4:
            raise Bad
        if 2 in items:
            raise kind("own")
        return items

    given = []
    async with penstock.stream(range(4)).map_batches(work, 4, on_error=on_error).open() as results:
        try:
            async for result in results:
                given.append(result)  # noqa: PERF401 -- what came before the error counts
        except penstock.WorkRaised:
            pass
    assert given == [0, 1]


async def test_a_wrong_number_of_results_is_said_though_halving_mends_it(caplog):
    """Whatever halving comes to: one line in the log, before it begins, and a count in the statistics."""

    async def embed(items):
        return [item for item in items if item % 64 or len(items) == 1]

    with caplog.at_level("WARNING", logger="penstock"):
        async with penstock.stream(range(128)).map_batches(embed, 64).open() as results:
            assert [item async for item in results] == list(range(128))
    (record,) = caplog.records
    assert "got 63 for 64" in record.getMessage()
    stage = results.stats()["map_batches(embed)"]
    assert stage.miscounted == 12
    assert "map_batches(embed) gave a wrong number of results in 12 calls" in str(results.stats())
