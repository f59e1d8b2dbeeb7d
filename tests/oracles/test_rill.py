"""What rill's tests ask, of every operator that works: what comes out, in which order, how many calls at once."""

import asyncio
import random

import pytest

import penstock
from penstock.testing import Gauge, Scripted

both_orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
widths = pytest.mark.parametrize("concurrency", [1, 5])


class Broken(Exception):
    pass


def working(rng):
    """Work of one to two seconds; every seventh item takes ten more, so that order would be lost."""

    async def work(number):
        await asyncio.sleep(rng.uniform(1, 2) + (10 if number % 7 == 0 else 0))

    return work


def in_order(results, *, ordered, concurrency):
    return (results == sorted(results)) == (ordered or concurrency == 1)


def operators(work):
    async def mapped(number):
        await work(number)
        if number in (5, 6):
            raise Broken(number)
        return number

    async def kept(number):
        return await mapped(number) % 2 == 0

    async def outputs(number):
        await mapped(number)
        yield number
        await work(number)
        yield number + 0.5

    return {
        "map": (lambda s, options: s.map(mapped, **options), lambda n: [n]),
        "filter": (lambda s, options: s.filter(kept, **options), lambda n: [n] if n % 2 == 0 else []),
        "flat_map": (lambda s, options: s.flat_map(outputs, **options), lambda n: [n, n + 0.5]),
    }


@both_orders
@widths
@pytest.mark.parametrize("name", ["map", "filter", "flat_map"])
async def test_values_and_errors_all_come_out(name, ordered, concurrency):
    build, expected = operators(working(random.Random(1)))[name]
    options = {"concurrency": concurrency, "ordered": ordered, "on_error": "return"}
    results = await build(penstock.stream(range(50)), options).to_list()
    values = [result.value for result in results if isinstance(result, penstock.Ok)]
    assert sorted(values) == [value for number in range(50) if number not in (5, 6) for value in expected(number)]
    assert sorted(result.item for result in results if isinstance(result, penstock.Failed)) == [5, 6]


@both_orders
@widths
@pytest.mark.parametrize("name", ["map", "filter", "flat_map"])
async def test_values_and_errors_stand_in_order(name, ordered, concurrency):
    build, _ = operators(working(random.Random(2)))[name]
    options = {"concurrency": concurrency, "ordered": ordered, "on_error": "return"}
    results = await build(penstock.stream(range(200)), options).to_list()
    assert in_order([result.index for result in results], ordered=ordered, concurrency=concurrency)


@both_orders
@pytest.mark.parametrize("concurrency", [1, 3, 5])
@pytest.mark.parametrize("buffer", [0, 4])
async def test_exactly_as_many_run_as_asked_for(ordered, concurrency, buffer):
    gauge, rng = Gauge(), random.Random(3)
    work = gauge.wrap(working(rng))
    await penstock.stream(range(100)).map(work, concurrency=concurrency, ordered=ordered, buffer=buffer).drain()
    assert (gauge.peak, gauge.finished) == (concurrency, 100)


@widths
async def test_for_each_sees_every_item(concurrency):
    total = []

    async def add(number):
        await asyncio.sleep(1 + number % 2)
        total.append(number)

    await penstock.stream(range(20)).for_each(add, concurrency=concurrency)
    assert sum(total) == 190
    assert concurrency > 1 or total == list(range(20))


@widths
@pytest.mark.parametrize("where", ["source", "function"])
async def test_an_error_ends_it_early(concurrency, where):
    """Also with a thousand items left, of which no more are begun than there are places."""
    gauge = Gauge()

    async def work(number):
        await asyncio.sleep(1)
        if where == "function" and number == 100:
            raise Broken("item 100")

    source = Scripted(range(1000), fail_at=100 if where == "source" else None, error=Broken("item 100"))
    with pytest.raises(Broken, match="item 100"):
        await penstock.stream(source).for_each(gauge.wrap(work), concurrency=concurrency)
    assert 100 <= gauge.started <= 100 + concurrency
    assert (gauge.now, source.closed) == (0, 1)


async def test_one_at_a_time_it_is_deterministic():
    seen = []

    async def work(number):
        if number in (10, 11, 12):
            raise Broken(number)
        seen.append(number)

    with pytest.raises(Broken, match="10"):
        await penstock.stream(range(100)).for_each(work)
    assert seen == list(range(10))


@pytest.mark.parametrize(("fail_at", "found"), [(None, True), (10, True), (0, False)])
async def test_the_first_item_or_the_first_error(fail_at, found):
    source = Scripted(range(20), fail_at=fail_at, error=Broken("mine"))
    if found:
        assert await penstock.stream(source).first() == 0
    else:
        with pytest.raises(Broken, match="mine"):
            await penstock.stream(source).first()
    assert source.closed == 1


@both_orders
@widths
@pytest.mark.parametrize(
    ("bad_input", "bad_call", "breaks_at", "outcome"),
    [
        (None, None, None, True),
        (None, None, 200, False),
        (300, None, None, Broken),
        (300, None, 500, Broken),
        (700, None, 500, False),
        (None, 200, None, Broken),
        (None, 200, 400, Broken),
        (None, 600, 400, False),
    ],
)
async def test_whether_all_items_hold_is_known_at_the_first_that_does_not(
    bad_input, bad_call, breaks_at, outcome, ordered, concurrency
):
    """`filter` for those that do not hold, and `first()` of them: an error behind it is never reached."""
    gauge = Gauge()

    async def does_not_hold(number):
        await asyncio.sleep(1)
        if number == bad_call:
            raise Broken(number)
        return number == breaks_at

    source = Scripted(range(1000), fail_at=bad_input, error=Broken("source"))
    wrong = penstock.stream(source).filter(gauge.wrap(does_not_hold), concurrency=concurrency, ordered=ordered)
    if outcome is Broken:
        with pytest.raises(Broken):
            await wrong.first(default=None)
    else:
        assert await wrong.first(default=None) == (None if outcome else breaks_at)
    last = min(number for number in (bad_input, bad_call, breaks_at, 999) if number is not None)
    assert last <= gauge.started <= last + concurrency
    assert source.closed == 1


@pytest.mark.parametrize("count", [0, 1, 100])
async def test_reduce_folds_what_there_is(count):
    assert await penstock.stream(range(count)).reduce(lambda total, n: total + n, 0) == sum(range(count))


@pytest.mark.parametrize("where", ["source", "function"])
async def test_an_error_ends_a_reduce_early(where):
    def fold(total, number):
        if where == "function" and number == 200:
            raise Broken("item 200")
        return total + number

    source = Scripted(range(1000), fail_at=200 if where == "source" else None, error=Broken("item 200"))
    with pytest.raises(Broken, match="item 200"):
        await penstock.stream(source).map(lambda n: n, concurrency=4).reduce(fold, 0)
    assert source.taken <= 206
    assert source.closed == 1


@pytest.mark.parametrize("count", [1, 3, 5, 10])
async def test_a_merge_gives_every_item_of_every_source(count):
    ranges = [range(number * 10, number * 10 + 10) for number in range(count)]
    assert sorted(await penstock.merge(*ranges).to_list()) == list(range(count * 10))


@pytest.mark.parametrize(
    ("pauses", "within", "expected"),
    [
        ({3: 1, 6: 10, 9: 10}, 5, [[0, 1, 2, 3], [4, 5], [6, 7, 8], [9]]),
        ({3: 1, 6: 1, 9: 1}, 5, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]),
        ({}, None, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]),
    ],
    ids=["slow input", "fast input", "no timeout"],
)
async def test_batches_of_a_paced_source(pauses, within, expected):
    source = Scripted(range(10), delay=pauses.get)
    assert await penstock.stream(source).batch(4, within=within).to_list() == expected


async def test_batches_of_nothing():
    assert await penstock.stream([]).batch(10, within=5).to_list() == []


async def test_flatten_undoes_batches_of_any_size():
    lists = [[1, 2, 3], [4], [5, 6, 7, 8], [9, 10]]
    assert await penstock.stream(lists).flatten().to_list() == list(range(1, 11))


async def test_room_ahead_takes_as_many_as_it_says():
    source = Scripted(range(10))
    async with penstock.stream(source).prefetch(2).open() as items:
        assert await anext(items) == 0
        await asyncio.sleep(1)
        assert source.taken == 3
        await anext(items)
        await asyncio.sleep(1)
        assert source.taken == 4


@pytest.mark.parametrize("count", [0, 20, 4000])
async def test_a_list_of_any_length_comes_out(count):
    assert await penstock.stream(list(range(count))).to_list() == list(range(count))
