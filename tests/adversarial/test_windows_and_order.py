"""Traps 1 to 8: bounded windows and order."""

import asyncio
import random
import sys
from collections import Counter
from contextlib import contextmanager

import pytest

import penstock
from penstock.testing import Gauge, Scripted

OURS = tuple(f"penstock.{room}" for room in ("core.", "ops.", "engines.", "run", "streams", "functions"))

both_orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


async def test_trap_01_results_pile_up_behind_a_slow_head(clock):
    """Trap 1 (mpire, Elixir, pypeln): only running calls were counted, and results piled up behind a slow head."""
    source = Scripted(range(10_000))

    async def slow_first(number):
        if number == 0:
            await asyncio.sleep(3600)
        return number

    async with penstock.stream(source).map(slow_first, concurrency=4, buffer=2).open() as items:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 60)
        assert source.taken == 6
        assert [item async for item in source.settling(items)] == list(range(10_000))
    assert source.peak_unsettled == 6
    assert clock.now == 3600.0


async def test_trap_01_outputs_pile_up_behind_a_slow_head():
    """Trap 1 (mpire, Elixir, pypeln): of `flat_map`, inputs behind the head hold `buffer` outputs together, not all."""
    made = []

    async def pages(number):
        if number == 0:
            await asyncio.sleep(3600)
        for page in range(1000):
            made.append((number, page))
            yield number, page

    async with penstock.stream(range(100)).flat_map(pages, concurrency=4, buffer=5).open() as items:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 60)
        assert 0 < len(made) <= 5


@both_orders
async def test_trap_01_results_pile_up_before_a_slow_consumer(ordered):
    """Trap 1 (mpire, Elixir, pypeln): a slow consumer is a slow head too: taken <= delivered + concurrency + buffer."""
    source = Scripted(range(50), delay=0)
    delivered = 0
    results = penstock.stream(source).map(lambda number: number, concurrency=3, buffer=2, ordered=ordered)
    async with results.open() as items:
        async for _ in items:
            delivered += 1
            await asyncio.sleep(10)
            assert source.taken == min(50, delivered + 5)


async def test_trap_01_a_waiting_retry_keeps_its_place():
    """Trap 1 (mpire, Elixir, pypeln): an item that waits for its next attempt counts: it is not settled."""
    source = Scripted(range(100))

    failed = set()

    async def fails_at_first(number):
        if number == 0 and not failed:
            failed.add(number)
            raise ConnectionError
        return number

    retry = penstock.Retry(on=ConnectionError, initial=60, max=60)
    async with penstock.stream(source).map(fails_at_first, concurrency=2, retry=retry).open() as items:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 30)
        assert source.taken == 2


@both_orders
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_trap_02_ready_result_waits_for_the_source(clock, ordered, concurrency):
    """Trap 2 (streamable): the first of two items a second came after one second instead of at once."""

    async def instant(number):
        return number

    source = Scripted(range(5), delay=lambda index: 1.0 if index else None)
    results = penstock.stream(source).map(instant, concurrency=concurrency, ordered=ordered).tap(instant)
    assert [clock.now async for _ in results] == [0.0, 1.0, 2.0, 3.0, 4.0]


async def test_trap_02_ready_result_waits_for_the_source_of_every_operator(clock):
    """Trap 2 (streamable): no operator on the way holds what it has until it gets more."""
    source = Scripted(range(1, 6), delay=1.0)
    results = (
        penstock.stream(source)
        .filter(lambda _: True, concurrency=2)
        .flat_map(lambda number: [number], concurrency=2)
        .batch(1)
        .flatten()
        .merge(penstock.stream([]))
        .take(5)
    )
    assert [clock.now async for _ in results] == [1.0, 2.0, 3.0, 4.0, 5.0]


async def test_trap_02_a_slow_source_holds_back_what_runs(clock):
    """Trap 2 (streamable): a call that ends while the source is silent is handed on when it ends."""

    async def half_a_second(number):
        await asyncio.sleep(0.5)
        return number

    source = Scripted(range(3), delay=lambda index: 10.0 if index else None)
    results = penstock.stream(source).map(half_a_second, concurrency=4)
    assert [clock.now async for _ in results] == [0.5, 10.5, 20.5]


@both_orders
async def test_trap_03_two_meanings_of_one_knob(ordered):
    """Trap 3 (Akka, Node, ZIO): one number meant calls running and results waiting; ours are two."""
    source, gauge = Scripted(range(20)), Gauge()

    async def work(number):
        await asyncio.sleep(1)
        return number

    results = penstock.stream(source).map(gauge.wrap(work), concurrency=2, buffer=3, ordered=ordered)
    async with results.open() as items:
        async for _ in source.settling(items):
            await asyncio.sleep(60)
    assert (gauge.peak, source.peak_unsettled) == (2, 5)


@pytest.mark.parametrize("buffer", [0, 1, 16])
@both_orders
async def test_trap_04_buffer_caps_concurrency(ordered, buffer):
    """Trap 4 (ZIO): with a buffer of 16, no more than 16 calls ran at once, whatever was asked for."""
    gauge = Gauge()
    work = gauge.wrap(asyncio.sleep)
    await penstock.stream([1] * 200).map(work, concurrency=100, buffer=buffer, ordered=ordered).drain()
    assert gauge.peak == 100


@pytest.fixture
def endless_turns(monkeypatch):
    """Let the run keep the loop as long as it likes, so that what it does is not a matter of real time."""
    for module in ("scope", "pump", "window", "source", "fan_out", "output_making"):
        monkeypatch.setattr(f"penstock.core.{module}.now", lambda: 0.0)


@contextmanager
def counting_calls():
    """Count the calls of Python functions of penstock, resumptions of its generators and coroutines included."""
    calls = Counter()

    def note(frame, event, _):
        if event == "call" and frame.f_globals.get("__name__", "").startswith(OURS):
            calls[frame.f_code.co_qualname] += 1

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@both_orders
@pytest.mark.usefixtures("endless_turns")
async def test_trap_05_cost_of_an_item_grows_with_the_window(ordered):
    """Trap 5 (`asyncio.wait` loops): a callback on every task of the window, for every item that finished."""

    async def work(number):
        await asyncio.sleep(1)
        return number

    costs = []
    for concurrency in (10, 200):
        results = penstock.stream(range(400)).map(work, concurrency=concurrency, ordered=ordered)
        with counting_calls() as calls:
            await results.drain()
        costs.append(calls.total())
    assert costs[1] < 1.5 * costs[0]


@pytest.mark.usefixtures("endless_turns")
async def test_trap_05_cost_of_an_item_grows_with_what_a_stuck_head_holds_up():
    """Trap 5 (`asyncio.wait` loops): items dropped behind a stuck head cost as much with a window of 200 as of 10."""

    async def keep_few(number):
        await asyncio.sleep(3600 if number < concurrency // 2 else 0)
        return number < concurrency * 3 // 4

    costs = []
    for concurrency in (10, 200):
        results = penstock.stream(range(1500)).filter(keep_few, concurrency=concurrency)
        with counting_calls() as calls:
            await results.drain()
        costs.append(calls.total())
    assert costs[1] < 1.5 * costs[0]


async def test_trap_05_callbacks_pile_up_on_a_stuck_item():
    """Trap 5 (`asyncio.wait` loops): each of them left a callback on the task of an item that hung for ever."""
    begun = []

    async def first_hangs(number):
        begun.append(asyncio.current_task())
        await asyncio.sleep(3600 if number == 0 else 1)

    async with penstock.stream(range(200)).map(first_hangs, concurrency=3, ordered=False).open() as items:
        counts = []
        for _ in range(150):
            await anext(items)
            counts.append(len(begun[0]._callbacks or ()))
        assert not begun[0].done()
    assert max(counts) <= 2


async def test_trap_05_spins_while_a_later_item_is_done():
    """Trap 5 (Hugging Face datasets): a finished item behind the head kept the wait spinning at 100 % CPU."""

    async def slow_first(number):
        await asyncio.sleep(3600 if number == 0 else 1)
        return number

    results = penstock.stream(range(4)).map(slow_first, concurrency=4)
    async with results.open() as items:
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.sleep(10)
        with counting_calls() as calls:
            for _ in range(100):
                await asyncio.sleep(1)
        assert not calls
        assert await waiting == 0


@both_orders
async def test_trap_06_one_or_two_more_than_the_limit_run(ordered):
    """Trap 6 (streamable, SPDL): n + 1 or n + 2 calls ran at once; over 2,400 random schedules none does."""
    for seed in range(200):
        rng = random.Random(seed)
        concurrency = rng.randint(1, 6)
        gauge = Gauge()
        delays = [rng.choice((0.1, 0.5, 1.0)) for _ in range(6)] + [rng.choice((0.0, 0.1, 1.0)) for _ in range(8)]
        pace = rng.choice((None, 0, lambda index: index % 2 or None))
        results = penstock.stream(Scripted(delays, delay=pace)).map(
            gauge.wrap(asyncio.sleep), concurrency=concurrency, ordered=ordered, buffer=rng.randint(0, 3)
        )
        async for _ in results:
            await asyncio.sleep(rng.choice((0, 0, 0.3)))
        assert gauge.peak == concurrency or (callable(pace) and gauge.peak < concurrency), seed
        assert gauge.finished == len(delays)


@both_orders
@pytest.mark.parametrize("concurrency", range(1, 6))
async def test_trap_06_the_limit_is_reached(ordered, concurrency):
    """Trap 6 (streamable, SPDL): the peak is exactly the limit, no less."""
    gauge = Gauge()
    await penstock.stream([1] * 20).map(gauge.wrap(asyncio.sleep), concurrency=concurrency, ordered=ordered).drain()
    assert gauge.peak == concurrency


@both_orders
async def test_trap_06_more_inputs_than_the_limit_are_open(ordered):
    """Trap 6 (streamable, SPDL): `flat_map` has exactly `concurrency` inputs open, not one more to be ready."""
    gauge = Gauge()

    async def pages(number):
        with gauge:
            for page in range(3):
                await asyncio.sleep(1)
                yield number, page

    results = await penstock.stream(range(9)).flat_map(pages, concurrency=3, ordered=ordered, buffer=9).to_list()
    assert gauge.peak == 3
    assert sorted(results) == [(number, page) for number in range(9) for page in range(3)]


async def test_trap_07_take_pulls_one_more():
    """Trap 7 (several peers): to see that it was done, `take(n)` pulled item n + 1."""
    source = Scripted(range(10), silent_after=3)
    assert await penstock.stream(source).take(3).to_list() == [0, 1, 2]
    assert (source.taken, source.closed) == (3, 1)


async def test_trap_07_take_before_map_bounds_the_calls():
    """Trap 7 (several peers): `take(n)` in front of a wide `map` lets exactly n calls start."""
    source, gauge = Scripted(range(100)), Gauge()
    await penstock.stream(source).take(5).map(gauge.wrap(asyncio.sleep), concurrency=50).drain()
    assert (source.taken, gauge.started) == (5, 5)


@both_orders
async def test_trap_07_take_freezes_the_stage_above(clock, ordered):
    """Trap 7 (ZIO `mapPar.take(1)`): the stage above waited for its other calls before it let the first result go."""
    gauge = Gauge()

    async def work(seconds):
        await asyncio.sleep(seconds)
        return seconds

    results = penstock.stream([1, 3600, 3600, 3600]).map(gauge.wrap(work), concurrency=4, ordered=ordered).take(1)
    async with results.open() as items:
        assert await anext(items) == 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (gauge.now, gauge.cancelled) == (0, 3)
        assert await anext(items, None) is None
    assert clock.now == 1.0


async def test_trap_07_take_stops_upstream_before_it_hands_over_the_last():
    """Trap 7 (ZIO `mapPar.take(1)`): while the consumer looks at the last item, nothing upstream begins."""
    gauge = Gauge()
    results = penstock.stream([0] * 100).map(gauge.wrap(asyncio.sleep), concurrency=2, buffer=3).take(2)
    async with results.open() as items:
        await anext(items)
        await anext(items)
        started = gauge.started
        await asyncio.sleep(60)
        assert gauge.started == started
