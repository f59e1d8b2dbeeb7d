"""Traps 1, 6, 14, 23, 26, 27 and 31 to 34, as far as they threaten `map_batches`: one call for many items."""

import asyncio

import pytest

import penstock
from penstock.testing import Gauge, Scripted

both_orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


def tenfold(items):
    return [item * 10 for item in items]


@both_orders
async def test_trap_01_lists_pile_up_behind_a_slow_head(ordered):
    """Trap 1 (mpire, Elixir, pypeln): what is bounded is the items of all lists that are not handed on."""
    source = Scripted(range(1000))

    async def slow_first(items):
        await asyncio.sleep(3600 if 0 in items else 0)
        return tenfold(items)

    results = penstock.stream(source).map_batches(slow_first, 5, concurrency=3, buffer=2, ordered=ordered)
    async with results.open() as items:
        if ordered:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(items), 60)
            assert source.taken == 25
        seen = [item async for item in source.settling(items)]
    assert sorted(seen) == tenfold(range(1000))
    assert source.peak_unsettled <= 25


@both_orders
async def test_trap_06_one_more_list_than_the_limit_runs(ordered):
    """Trap 6 (streamable, SPDL): `concurrency` counts calls, and exactly as many run, whatever the lists hold."""
    gauge = Gauge()

    async def work(items):
        await asyncio.sleep(1 + items[0] % 3)
        return items

    results = penstock.stream(range(100)).map_batches(gauge.wrap(work), 4, concurrency=3, buffer=2, ordered=ordered)
    assert sorted(await results.to_list()) == list(range(100))
    assert (gauge.peak, gauge.started) == (3, 25)


@pytest.mark.parametrize("base", [asyncio.CancelledError, StopIteration, StopAsyncIteration, GeneratorExit])
@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_trap_14_a_call_for_many_raises_control_flow(base, concurrency, kind):
    """Trap 14 (streamable): the items of that call have failed, and the run goes on."""

    def plain(items):
        if {2, 3}.intersection(items):
            raise base("mine")
        return tenfold(items)

    async def coroutine(items):
        return plain(items)

    fn = plain if kind == "plain" else coroutine
    results = penstock.stream(range(6)).map_batches(fn, 2, concurrency=concurrency, on_error="collect")
    async with results.open() as items:
        assert [item async for item in items] == [0, 10, 40, 50]
    assert [(failed.index, failed.item) for failed in items.failures] == [(2, 2), (3, 3)]
    assert all(isinstance(failed.error, penstock.WorkRaised) for failed in items.failures)
    assert all(type(failed.error.__cause__) is base for failed in items.failures)


@both_orders
async def test_trap_23_a_failure_in_a_list_is_charged_to_the_wrong_item(ordered):
    """Trap 23 (several peers): the index is the item's own, however often its list was halved to find it."""
    bad = {103, 104, 117, 131}

    async def work(items):
        await asyncio.sleep(items[0] % 3)
        if found := bad.intersection(items):
            raise ValueError(*sorted(found))
        return tenfold(items)

    source = penstock.stream(range(100, 140)).filter(lambda number: number != 110)
    results = source.map_batches(work, 8, concurrency=3, ordered=ordered, on_error="collect")
    async with results.open() as items:
        seen = [item async for item in items]
    left = [number for number in range(100, 140) if number != 110]
    good = tenfold(number for number in left if number not in bad)
    assert (seen if ordered else sorted(seen)) == good
    charged = {failed.index: (failed.item, failed.error.args) for failed in items.failures}
    assert charged == {index: (number, (number,)) for index, number in enumerate(left) if number in bad}


@pytest.mark.parametrize("value", [None, False, 0, ValueError("a value")], ids=repr)
async def test_trap_26_none_is_dropped_from_a_list(value):
    """Trap 26 (pypeln): nor is `None` taken for a result that is missing."""

    async def gives(items):
        return [value for _ in items]

    results = await penstock.stream([value] * 5).map_batches(gives, 2, concurrency=2).to_list()
    assert len(results) == 5
    assert all(result is value for result in results)


@both_orders
async def test_trap_27_results_of_a_retried_list_take_the_wrong_places(ordered):
    """Trap 27 (LangChain): results of a batch that was tried again, in part, were written into others' places."""
    tried = set()

    async def work(items):
        await asyncio.sleep(0.1)
        first = items[0]
        if first % 3 == 0 and first not in tried:
            tried.add(first)
            raise ConnectionError
        if len(items) > 1 and 10 in items:
            raise ValueError("one of these: halved, and each half is tried once")
        return tenfold(items)

    retry = penstock.Retry(on=ConnectionError, initial=1)
    options = {"concurrency": 3, "retry": retry, "ordered": ordered, "on_error": "return"}
    results = await penstock.stream(range(30)).map_batches(work, 4, **options).to_list()
    found = {result.index: result.value for result in results}
    assert found == {number: number * 10 for number in range(30)}
    assert len(results) == 30
    assert tried >= {0, 12, 24}


async def test_trap_31_the_timer_of_a_list_starts_before_its_first_item(clock):
    """Trap 31 (Benthos, Pekko, fs2): after an idle gap the timer had run out, and calls for one item were made."""
    source = Scripted(range(6), delay=lambda index: 60.0 if index in {0, 3} else 0.1)
    calls = []

    async def work(items):
        calls.append((round(clock.now, 6), items))
        return items

    await penstock.stream(source).map_batches(work, 3, within=1, concurrency=2).drain()
    assert calls == [(60.2, [0, 1, 2]), (120.4, [3, 4, 5])]


async def test_trap_32_a_stale_timer_sends_the_next_list(clock):
    """Trap 32 (Broadway, ox): the timer of a list that was full in time did not cut the next one short."""
    source = Scripted(range(5), delay={1: 0.5, 2: 0.1, 3: 0.6, 4: 0.1}.get)
    calls = []

    async def work(items):
        calls.append((round(clock.now, 6), items))
        return items

    await penstock.stream(source).map_batches(work, 2, within=1, concurrency=2).drain()
    assert calls == [(0.5, [0, 1]), (1.2, [2, 3]), (1.3, [4])]


@pytest.mark.parametrize("within", [None, 60])
async def test_trap_33_an_error_swallows_the_partial_list(within, read_until_error):
    """Trap 33 (several peers): items that wait for their list to be full when the source fails are still worked on."""

    async def work(items):
        await asyncio.sleep(1)
        return tenfold(items)

    source = Scripted(range(5), fail_at=5)
    results = penstock.stream(source).map_batches(work, 3, within=within, concurrency=2)
    seen, error = await read_until_error(results.open())
    assert seen == [0, 10, 20, 30, 40]
    assert str(error) == "the script fails at item 5"


@pytest.mark.parametrize("within", [0, 0.0, -1])
def test_trap_34_within_zero_floods_with_calls(within):
    """Trap 34 (several peers): a call for every item is what nobody means by a batch."""
    with pytest.raises(penstock.OptionError, match=f"within must be a finite number of seconds > 0 .*, got {within}"):
        penstock.stream([1]).map_batches(tenfold, 10, within=within)
