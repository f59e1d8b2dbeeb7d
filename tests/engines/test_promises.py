"""P12: the promises hold wherever calls run; gates, which are files, say what comes before what."""

import asyncio
import gc
import sys
from collections import Counter
from contextlib import suppress
from functools import partial

import pytest
from tests.conftest import TurnClock
from tests.guarantees.test_p9_the_loop import LONGEST, MILLISECOND, Rival

import penstock
from penstock import tasks
from penstock.core.clock import now
from penstock.engines import Threads
from penstock.testing import Scripted

from .work import (
    VALUES,
    doubled,
    fail,
    fail_in_one,
    fail_of,
    fail_once,
    fan,
    fan_or_fail,
    is_odd,
    is_odd_or_fail,
    kill,
    same,
    value_of,
    work,
)

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

NUMBERS = list(range(60))


def held(gates, *items):
    return partial(work, str(gates.folder), items)


@pytest.mark.quick
async def test_the_bound_holds_behind_a_slow_head(make, gates):
    """P1: items taken and not handed on are `concurrency + buffer` at most, and so many are taken."""
    source = Scripted(NUMBERS)
    seen = []
    async with make() as engine:
        stream = penstock.stream(source).map(held(gates, 0), engine=engine, concurrency=4, buffer=2)
        async with stream.open() as items:
            reading = asyncio.create_task(anext(items))
            await gates.until(*range(6))
            gates.open(0)
            seen.append(await reading)
            source.settle()
            async for item in items:
                seen.append(item)
                source.settle()
    assert seen == NUMBERS
    assert source.peak_unsettled == 6
    assert items.stats()[-1].peak_running <= 4


async def test_a_slow_call_holds_up_no_other(make, gates):
    """P2: all that is finished is handed on, though calls travel together."""
    async with make() as engine:
        await penstock.stream(NUMBERS).map(same, engine=engine).drain()
        stream = penstock.stream(NUMBERS).map(held(gates, 30), engine=engine, concurrency=60, ordered=False)
        async with stream.open() as items:
            assert {await anext(items) for _ in range(59)} == {*NUMBERS} - {30}
            gates.open(30)
            assert [item async for item in items] == [30]


async def test_a_slow_source_waits_for_nobody(make, gates):
    """P2: a result comes before the next item is taken."""
    given = asyncio.Queue()

    async def source():
        for number in range(3):
            await given.get()
            yield number

    async with make() as engine, penstock.stream(source()).map(same, engine=engine).open() as items:
        for number in range(3):
            given.put_nowait(None)
            assert await anext(items) == number


async def test_results_come_in_the_order_of_their_items(make, gates):
    """P3."""
    async with make() as engine:
        stream = penstock.stream(NUMBERS).map(held(gates, 5, 17), engine=engine, concurrency=30)
        async with stream.open() as items:
            seen = [await anext(items) for _ in range(5)]
            await gates.until(5, 17)
            gates.open(17, 5)
            assert seen + [item async for item in items] == NUMBERS


@pytest.mark.parametrize("road", ["break", "error", "cancel"])
async def test_leaving_stops_all_work_and_closes_the_source(make, gates, road):
    """P4: a call that can be stopped is; none begins after."""
    source = Scripted(range(10_000))
    async with make() as engine:

        async def read():
            stream = penstock.stream(source).map(held(gates, 5, 6), engine=engine, ordered=False)
            async with stream.open() as items:
                for _ in range(5):
                    await anext(items)
                await gates.until(5, 6)
                if road == "error":
                    raise OSError("mine")
                if road == "cancel":
                    await anext(items)
            return items

        reading = asyncio.create_task(read())
        await gates.until(5, 6)
        if road == "cancel":
            reading.cancel()
        if isinstance(engine, Threads):  # a thread cannot be stopped
            gates.open(5, 6)
        await asyncio.wait([reading])
        began = gates.began()
        assert source.closed == 1
        await penstock.stream(range(50)).map(same, engine=engine).drain()
        assert gates.began() == began
        if road == "break":
            stats = reading.result().stats()[-1]
            assert stats.in_flight == stats.failed == 0
        elif road == "error":
            assert isinstance(reading.exception(), OSError)
        else:
            assert reading.cancelled()


async def test_every_item_has_one_outcome(make):
    """P5: a failure is that of its item alone, as the function raised it."""
    async with make() as engine:
        async with penstock.stream(NUMBERS).map(fail, engine=engine, on_error="collect").open() as items:
            assert [item async for item in items] == [item for item in NUMBERS if item % 5 != 3]
        assert sorted(failed.index for failed in items.failures) == [item for item in NUMBERS if item % 5 == 3]
        assert all(failed.error.args == (failed.index,) for failed in items.failures)
        with pytest.raises(ValueError, match="3") as raised:
            await penstock.stream(NUMBERS).map(fail, engine=engine).to_list()
        assert any("stage 'map(fail)', item 3" in note for note in raised.value.__notes__)


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError])
async def test_control_flow_is_a_failure(make, kind):
    """P5."""
    async with make() as engine:
        with pytest.raises(penstock.WorkRaised) as raised:
            await penstock.stream(NUMBERS).map(partial(fail_of, kind), engine=engine).to_list()
        assert isinstance(raised.value.__cause__, kind)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
async def test_what_asks_the_program_to_end_ends_the_run(make, kind):
    """P5: on every engine as on the loop, whatever `on_error` says of failures."""
    async with make() as engine:
        for on_error in ("skip", "collect", "return"):
            with pytest.raises(kind):
                await penstock.stream(NUMBERS).map(partial(fail_of, kind), engine=engine, on_error=on_error).drain()


async def test_what_fails_is_tried_again(make, gates):
    async with make() as engine:
        stream = penstock.stream(NUMBERS).map(
            partial(fail_once, str(gates.folder)), engine=engine, retry=penstock.Retry(on=OSError, initial=0)
        )
        async with stream.open() as items:
            assert [item async for item in items] == NUMBERS
        assert items.stats()[-1].retried == len(NUMBERS)


async def test_any_value_is_a_value(make):
    """P6."""
    async with make() as engine:
        got = await penstock.stream(range(len(VALUES))).map(value_of, engine=engine).to_list()
    assert list(map(repr, got)) == list(map(repr, VALUES))


async def once_failed(items, gates):
    """Let a thread go that is late: it cannot be stopped."""
    while not items.failures:  # noqa: ASYNC110 -- it is counted there, and told to nobody
        await asyncio.sleep(0.002)
    gates.open(5)


async def test_a_late_call_fails_alone(make, gates):
    """P5: its place is free when it is over, and its neighbours do not see it."""
    async with make() as engine:
        stream = penstock.stream(range(12)).map(held(gates, 5), engine=engine, timeout=2, on_error="collect")
        async with stream.open() as items:
            letting_go = asyncio.create_task(once_failed(items, gates))
            seen = [item async for item in items]
            await letting_go
        assert len(seen) == 11
        (failed,) = items.failures
        assert failed.index == 5
        assert isinstance(failed.error, penstock.AttemptTimeout)


async def test_a_cancellation_is_no_failure(make, gates):
    """P8."""
    retry = penstock.Retry(on=Exception)
    async with make() as engine:
        stream = penstock.stream(NUMBERS).map(held(gates, *NUMBERS), engine=engine, retry=retry, on_error="collect")
        items = stream.open()

        async def read():
            async with items:
                await anext(items)

        reading = asyncio.create_task(read())
        await gates.until(0)
        reading.cancel()
        if isinstance(engine, Threads):
            gates.open(*NUMBERS)
        with pytest.raises(asyncio.CancelledError):
            await reading
        stats = items.stats()[-1]
        assert (stats.failed, stats.retried, stats.in_flight) == (0, 0, 0)
        assert not items.failures


async def test_every_operator(make):
    async with make() as engine:
        stream = penstock.stream(NUMBERS)
        assert await stream.flat_map(fan, engine=engine).to_list() == [
            item for item in NUMBERS for _ in range(item % 3)
        ]
        assert await stream.map_batches(doubled, 7, engine=engine).to_list() == [2 * item for item in NUMBERS]
        assert await stream.filter(is_odd, engine=engine).to_list() == NUMBERS[1::2]
        assert await stream.tap(same, engine=engine).to_list() == NUMBERS
        assert await stream.for_each(same, engine=engine) is None


async def test_finite_work(make):
    async with make() as engine:
        assert await tasks.gather([partial(same, item) for item in NUMBERS], concurrency=20, engine=engine) == NUMBERS
        async with tasks.TaskExecutor(4, engine=engine, retry=None) as executor:
            added = [executor.add(partial(fail, item)) for item in range(8)]
            done = await executor.run()
        assert [each.success for each in done] == [True, True, True, False, True, True, True, True]
        assert len(added) == 8


async def test_a_call_that_kills_its_worker_is_named(make):
    """P5: twice, as a first death may be chance; the others go on."""
    async with make() as engine:
        if isinstance(engine, Threads):
            pytest.skip("it would kill this process")
        async with penstock.stream(NUMBERS).map(kill, engine=engine, on_error="collect").open() as items:
            assert [item async for item in items] == [item for item in NUMBERS if item != 7]
    (failed,) = items.failures
    assert isinstance(failed.error, penstock.WorkerLost)
    assert str(failed.error).startswith("kill(7) ran twice, and its worker died both times: ")


OPERATORS = {
    "map": lambda stream, **options: stream.map(fail, **options),
    "filter": lambda stream, **options: stream.filter(is_odd_or_fail, **options),
    "flat_map": lambda stream, **options: stream.flat_map(fan_or_fail, **options),
    "map_batches": lambda stream, **options: stream.map_batches(fail_in_one, 7, **options),
}


def is_balanced(stats):
    outcomes = stats.delivered + stats.dropped + stats.failed + stats.cancelled + stats.discarded
    return stats.taken == outcomes + stats.in_flight


@pytest.mark.parametrize("on_error", ["raise", "skip", "collect", "return"])
async def test_every_item_is_accounted_for_at_every_moment(make, on_error):
    """P5: in the statistics of a stage on an engine, whatever its operator does with a failure."""
    async with make() as engine:
        for build in OPERATORS.values():
            built = build(penstock.stream(NUMBERS), engine=engine, concurrency=8, buffer=3, on_error=on_error)
            async with built.open() as items:
                with suppress(ValueError):
                    async for _ in items:
                        assert is_balanced(items.stats()[-1])
            stats = items.stats()[-1]
            assert is_balanced(stats)
            assert stats.in_flight == stats.running == stats.buffered == 0
            assert stats.peak_running <= 8
            if on_error == "raise":
                assert stats.failed >= 1  # and what came with it
            else:
                assert (stats.taken, stats.failed) == (60, 12)
                assert len(items.failures) == (12 if on_error == "collect" else 0)


async def test_attempts_are_counted_and_timed(make, gates):
    """P12: statistics are those of the run, wherever calls run."""
    async with make() as engine:
        retry = penstock.Retry(on=OSError, initial=0)
        stream = penstock.stream(NUMBERS).map(partial(fail_once, str(gates.folder)), engine=engine, retry=retry)
        async with stream.open(timing=True) as items:
            assert [item async for item in items] == NUMBERS
    stats = items.stats()[-1]
    assert (stats.started, stats.succeeded, stats.retried, stats.failed) == (60, 60, 60, 0)
    assert stats.latency.p99 < 1.0  # of the function alone: waiting for a worker, or for neighbours, is no part of it


async def test_runs_leave_nothing_on_an_engine_that_outlives_them(make):
    """P7: whatever became of them, also of its functions and calls."""

    async def use(engine):
        stream = penstock.stream(NUMBERS)
        await stream.map(lambda item: item, engine=engine).drain()
        await stream.map(fail, engine=engine, on_error="skip").drain()
        with suppress(ValueError):
            await stream.map(fail, engine=engine).drain()
        async with stream.flat_map(fan, engine=engine).open() as items:
            await anext(items)

    def ours():
        gc.collect()
        return Counter(name for each in gc.get_objects() if (name := str(type(each).__module__)).startswith("penstock"))

    async with make() as engine:
        for _ in range(2):
            await use(engine)
        before = ours()
        for _ in range(5):
            await use(engine)
        assert (ours() - before).total() <= 2


@pytest.mark.parametrize("busy", ["source", "reader"])
async def test_others_get_their_turns(make, monkeypatch, busy):
    """P9: while results of an engine are there at once, or its source never suspends; only these move the clock."""
    clock = TurnClock()
    for name, module in list(sys.modules.items()):
        if name.startswith("penstock.") and getattr(module, "now", None) is now:
            monkeypatch.setattr(module, "now", clock)

    def numbers():
        for number in range(300):
            clock.now += MILLISECOND * (busy == "source")
            yield number

    async with make() as engine:
        rival = Rival(clock)
        await asyncio.sleep(0)
        async with penstock.stream(numbers).map(same, engine=engine, concurrency=100, buffer=50).open() as items:
            async for _ in items:
                clock.now += MILLISECOND * (busy == "reader")
        most = LONGEST if busy == "source" else 2 * LONGEST  # the reader's own time comes on top, as it does inline
        assert round(await rival.longest_wait(), 4) <= most
