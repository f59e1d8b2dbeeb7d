"""`map`, `filter`, `tap`, `for_each`, and the functions `parallel_map` and `parallel_filter`."""

import asyncio
import functools
import itertools
import logging

import pytest

import penstock
from penstock.testing import Gauge, Scripted

NUMBERS = penstock.stream(range(6))
concurrencies = pytest.mark.parametrize("concurrency", [1, 3])


async def double(number):
    await asyncio.sleep(0)
    return number * 2


def double_plain(number):
    return number * 2


class Doubler:
    async def __call__(self, number):
        return await double(number)

    async def method(self, number):
        return await double(number)

    def plain(self, number):
        return number * 2


@concurrencies
@pytest.mark.parametrize(
    "fn",
    [
        pytest.param(double, id="async"),
        pytest.param(double_plain, id="plain"),
        pytest.param(lambda number: number * 2, id="lambda"),
        pytest.param(lambda number: double(number), id="lambda, a coroutine"),
        pytest.param(functools.partial(double), id="partial"),
        pytest.param(functools.partial(double_plain), id="partial of a plain one"),
        pytest.param(Doubler(), id="object"),
        pytest.param(Doubler().method, id="method"),
        pytest.param(Doubler().plain, id="plain method"),
        pytest.param((2).__mul__, id="builtin"),
    ],
)
async def test_map_takes_all_kinds_of_functions(fn, concurrency):
    assert await NUMBERS.map(fn, concurrency=concurrency).to_list() == [0, 2, 4, 6, 8, 10]


@concurrencies
async def test_map_awaits_what_a_plain_function_returns(concurrency):
    def starts(number):
        return double(number)

    assert await NUMBERS.map(starts, concurrency=concurrency).to_list() == [0, 2, 4, 6, 8, 10]


@concurrencies
async def test_an_item_that_is_awaitable_is_a_value(concurrency):
    """P6: only what the function has returned is awaited."""
    future = asyncio.get_running_loop().create_future()
    future.set_result("not this")

    def seen(_):
        return True

    stream = penstock.stream([future])
    assert await stream.tap(seen, concurrency=concurrency).to_list() == [future]
    assert await stream.filter(seen, concurrency=concurrency).to_list() == [future]


async def test_map_in_order_and_as_finished():
    """P3: the slowest first, in order or not."""

    async def slow_first(number):
        await asyncio.sleep(10 - number)
        return number

    assert await NUMBERS.map(slow_first, concurrency=6).to_list() == [0, 1, 2, 3, 4, 5]
    assert await NUMBERS.map(slow_first, concurrency=6, ordered=False).to_list() == [5, 4, 3, 2, 1, 0]


async def test_a_chain_of_stages_works_side_by_side(clock):
    async def second(number):
        await asyncio.sleep(1)
        return number

    assert await NUMBERS.map(second).map(second).map(second).to_list() == list(range(6))
    assert clock.now == 8.0


@concurrencies
@pytest.mark.parametrize("ordered", [True, False])
async def test_filter_keeps_items_for_which_the_predicate_is_true(concurrency, ordered):
    async def odd(number):
        await asyncio.sleep(number / 10)
        return number % 2

    kept = await NUMBERS.filter(odd, concurrency=concurrency, ordered=ordered).to_list()
    assert kept == [1, 3, 5]
    async with NUMBERS.filter(lambda number: number % 2).open() as items:
        assert [item async for item in items] == [1, 3, 5]
    stage = items.stats()[-1]
    assert (stage.taken, stage.delivered, stage.dropped) == (6, 3, 3)


async def test_filter_keeps_falsy_items():
    """P6: it is the predicate that is asked, not the item."""
    values = [None, 0, False, "", []]
    assert await penstock.stream(values).filter(lambda _: True).to_list() == values


@concurrencies
async def test_tap_hands_on_the_item(concurrency):
    seen = []

    async def note(number):
        await asyncio.sleep(0)
        seen.append(number)
        return "not this"

    assert await NUMBERS.tap(note, concurrency=concurrency).to_list() == list(range(6))
    assert seen == list(range(6))
    assert await NUMBERS.tap(seen.append).to_list() == list(range(6))


@concurrencies
async def test_for_each(concurrency):
    gauge, seen = Gauge(), []

    async def note(number):
        await asyncio.sleep(1)
        seen.append(number)

    assert await NUMBERS.for_each(gauge.wrap(note), concurrency=concurrency) is None
    assert sorted(seen) == list(range(6))
    assert gauge.peak == concurrency


async def test_for_each_raises():
    async def fails(number):
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        await NUMBERS.for_each(fails)
    assert await NUMBERS.for_each(fails, on_error="skip") is None


async def fails_for_odd(number):
    await asyncio.sleep(0)
    if number % 2:
        raise ValueError(number)
    return number


@concurrencies
@pytest.mark.parametrize("ordered", [True, False])
async def test_skip_drops_and_counts(concurrency, ordered):
    stream = NUMBERS.map(fails_for_odd, on_error="skip", concurrency=concurrency, ordered=ordered)
    async with stream.open() as items:
        assert [item async for item in items] == [0, 2, 4]
    assert items.failures == ()
    stage = items.stats()["map(fails_for_odd)"]
    assert (stage.taken, stage.delivered, stage.failed) == (6, 3, 3)


async def test_skip_logs(caplog):
    with caplog.at_level(logging.WARNING, logger="penstock"):
        await penstock.stream([1]).map(fails_for_odd, on_error="skip").drain()
    (record,) = caplog.records
    assert record.name.startswith("penstock")
    assert "stage 'map(fails_for_odd)', item 0" in record.getMessage()
    assert "ValueError(1)" in record.getMessage()


@concurrencies
@pytest.mark.parametrize("ordered", [True, False])
async def test_collect_drops_and_keeps_the_failure(concurrency, ordered):
    stream = NUMBERS.map(fails_for_odd, on_error="collect", concurrency=concurrency, ordered=ordered)
    async with stream.open() as items:
        assert [item async for item in items] == [0, 2, 4]
        assert len(items.failures) == 3
    assert [(failed.index, failed.item, failed.error.args) for failed in items.failures] == [
        (1, 1, (1,)),
        (3, 3, (3,)),
        (5, 5, (5,)),
    ]
    assert str(items.failures[0]).startswith("stage 'map(fails_for_odd)', item 1")


async def test_failures_are_capped():
    """P7: the newest 1,000 are kept, all are counted."""

    async def fails(number):
        raise ValueError(number)

    async with penstock.stream(range(1500)).map(fails, on_error="collect", concurrency=10).open() as items:
        assert [item async for item in items] == []
    assert [failed.index for failed in items.failures] == list(range(500, 1500))
    assert items.stats()[-1].failed == 1500


async def test_raise_hands_on_what_is_finished_and_next(read_finished):
    """P5: in order the contiguous prefix; unordered all that is finished; then the failure."""

    async def work(number):
        await asyncio.sleep({0: 3, 1: 1, 2: 3, 3: 4}.get(number, 60))
        if number == 3:
            raise ValueError(number)
        return number

    assert await read_finished(NUMBERS.map(work, concurrency=6)) == [0, 1, 2]
    assert await read_finished(NUMBERS.map(work, concurrency=6, ordered=False)) == [1, 0, 2]


@pytest.fixture
def read_finished():
    """The items that a slow consumer still gets of a stream that fails."""

    async def read(stream):
        seen = []
        with pytest.raises(ValueError, match="3") as raised:
            await collect(stream, seen)
        assert raised.value.__notes__[0] == "penstock: stage 'map(work)', item 3"
        return seen

    async def collect(stream, seen):
        async with stream.open() as items:
            await asyncio.sleep(0)
            async for item in items:
                await asyncio.sleep(10)
                seen.append(item)

    return read


async def test_results_behind_the_failure_are_discarded():
    """P5: they are finished, order does not allow them, they are counted."""

    async def work(number):
        await asyncio.sleep(1 if number else 2)
        if number == 0:
            raise ValueError(number)
        return number

    async with NUMBERS.map(work, concurrency=3, buffer=2).open() as items:
        with pytest.raises(ValueError, match="0"):
            await anext(items)
    stage = items.stats()[-1]
    assert (stage.failed, stage.discarded, stage.delivered) == (1, 2, 0)
    assert stage.taken == stage.failed + stage.discarded + stage.cancelled


@pytest.mark.parametrize("on_error", ["skip", "collect"])
async def test_exits_are_raised_whatever_on_error_says(on_error):
    async def leave(_):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await NUMBERS.map(leave, on_error=on_error).to_list()


async def test_each_item_has_its_own_task_context():
    """P8: an item that leaves its task with a name or a pending cancellation does not hand it on."""
    names = set()

    async def work(_):
        names.add(asyncio.current_task())
        await asyncio.sleep(0)

    await NUMBERS.map(work, concurrency=2).drain()
    assert len(names) == 6


@pytest.mark.parametrize("give", [list, iter, penstock.stream, Scripted, lambda items: lambda: iter(items)])
async def test_parallel_map(give):
    gauge = Gauge()

    async def double_later(number):
        await asyncio.sleep(1)
        return number * 2

    results = penstock.parallel_map(give(range(6)), gauge.wrap(double_later), concurrency=2, ordered=True, name="twice")
    async with results.open() as items:
        assert [item async for item in items] == [0, 2, 4, 6, 8, 10]
        assert items.stats()["twice"].delivered == 6
    assert gauge.peak == 2


async def test_parallel_filter():
    gauge = Gauge()

    async def odd(number):
        await asyncio.sleep(1)
        return number % 2

    stream = penstock.parallel_filter(range(6), gauge.wrap(odd), concurrency=3, on_error="skip")
    assert await stream.to_list() == [1, 3, 5]
    assert gauge.peak == 3


async def test_parallel_map_returns_failures_in_their_place():
    results = await penstock.parallel_map(range(4), fails_for_odd, concurrency=2, on_error="return").to_list()
    assert [result.value if isinstance(result, penstock.Ok) else str(result.error) for result in results] == [
        0,
        "1",
        2,
        "3",
    ]
    assert [result.index for result in results] == [0, 1, 2, 3]


async def test_parallel_filter_returns_failures_among_what_it_keeps():
    results = await penstock.parallel_filter(range(4), fails_for_odd, concurrency=2, on_error="return").to_list()
    assert [(type(result), result.index) for result in results] == [
        (penstock.Failed, 1),
        (penstock.Ok, 2),
        (penstock.Failed, 3),
    ]
    assert results[1].value == 2


@pytest.mark.parametrize("function", [penstock.parallel_map, penstock.parallel_filter])
def test_the_functions_want_to_know_the_concurrency(function):
    with pytest.raises(TypeError, match="concurrency"):
        function([1], double)


async def test_a_stream_runs_inside_the_work_of_another(clock):
    gauge = Gauge()

    async def sum_up(number):
        return await penstock.stream(range(number)).map(gauge.wrap(one_second), concurrency=2).reduce(int.__add__, 0)

    async def one_second(number):
        await asyncio.sleep(1)
        return number

    assert await penstock.stream([2, 3, 4]).map(sum_up, concurrency=3).to_list() == [1, 3, 6]
    assert gauge.peak == 6
    assert clock.now == 2.0


async def test_leaving_stops_a_stream_inside_the_work_of_another():
    """P4: through both."""
    gauge, sources = Gauge(), []

    async def inner(_):
        source = Scripted([60] * 9)
        sources.append(source)
        await penstock.stream(source).map(gauge.wrap(asyncio.sleep), concurrency=2).drain()

    async with penstock.stream(range(9)).map(inner, concurrency=3).open() as items:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 1)
    assert (gauge.now, gauge.cancelled) == (0, 6)
    assert [source.closed for source in sources] == [1, 1, 1]


async def test_a_task_factory_may_start_some_tasks_at_once_and_others_later():
    loop, eager = asyncio.get_running_loop(), itertools.cycle([False, True])

    def factory(loop, coroutine, **options):
        return asyncio.Task(coroutine, loop=loop, **{**options, "eager_start": next(eager)})

    before = loop.get_task_factory()
    loop.set_task_factory(factory)
    try:
        assert await penstock.stream(range(9)).map(double, concurrency=4).to_list() == [2 * n for n in range(9)]
    finally:
        loop.set_task_factory(before)


@pytest.mark.grid
@pytest.mark.parametrize("passes", range(8))
async def test_a_coroutine_whose_task_waits_for_its_turn_is_closed_when_the_run_is_left(passes, turn_clock):
    """Or Python warns that it was never awaited."""
    turn_clock.step = lambda: 1  # no turn lasts for longer than a look

    def work(number):
        return double(number)

    async with penstock.stream(range(9)).map(work).open() as items:
        reading = asyncio.ensure_future(anext(items))
        for _ in range(passes):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
