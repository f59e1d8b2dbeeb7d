"""Traps 9 to 11, 15, 16, 18 and 19: leaving a run, by whatever road."""

import asyncio
import contextlib
import signal
import subprocess
import sys

import pytest

import penstock
from penstock.testing import Gauge, Scripted

both_orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


async def breaks(items):
    async for _ in items:
        break


async def raises(items):
    async for _ in items:
        raise ZeroDivisionError


async def is_cancelled(items):
    async for _ in items:
        asyncio.current_task().cancel()
        await asyncio.sleep(1)


async def times_out(items):
    async with asyncio.timeout(1.5):
        async for _ in items:
            await asyncio.sleep(1)


async def closes(items):
    async for _ in items:
        await items.aclose()


@pytest.mark.parametrize("road", [breaks, raises, is_cancelled, times_out, closes])
@both_orders
async def test_trap_09_break_leaves_tasks_running(road, ordered):
    """Trap 9 (streamable, streaming-iterables, aiometer): after `break` tasks ran on, or all that was left was run."""
    source, gauge = Scripted(range(100), delay=0.1), Gauge()

    async def work(number):
        await asyncio.sleep(number % 3 + 1)
        return number

    async def consume():
        async with penstock.stream(source).map(gauge.wrap(work), concurrency=4, ordered=ordered).open() as items:
            await road(items)

    outcome = asyncio.create_task(consume())
    await asyncio.wait([outcome])
    assert gauge.now == 0
    assert source.closed == 1
    assert source.pulled_by == {source.closed_by}
    books = (source.taken, gauge.started)
    await asyncio.sleep(60)
    assert (source.taken, gauge.started) == books
    assert outcome.cancelled() or isinstance(outcome.exception(), ZeroDivisionError | TimeoutError | None)


async def test_trap_09_first_leaves_tasks_running():
    """Trap 9 (aiometer): `first()` stops the other calls and starts none of those that are left."""
    gauge = Gauge()
    assert await penstock.stream([1, 3600, 3600, 3600]).map(gauge.wrap(asyncio.sleep), concurrency=3).first() is None
    assert (gauge.now, gauge.started) == (0, 3)


async def test_trap_09_every_stage_of_a_chain_stops():
    """Trap 9 (streamable): the work of every stage of a chain is awaited, not only that of the last one."""
    first, second, third = Gauge(), Gauge(), Gauge()

    async def work(number):
        await asyncio.sleep(60 if number > 2 else 1)
        return number

    async def pages(number):
        with second:
            await asyncio.sleep(1)
            yield number
            await asyncio.sleep(60)

    results = (
        penstock.stream(range(100))
        .map(first.wrap(work), concurrency=3)
        .flat_map(pages, concurrency=3, buffer=3)
        .map(third.wrap(work), concurrency=3)
    )
    async with results.open() as items:
        waiting = asyncio.ensure_future(anext(items, None))
        await asyncio.sleep(2.5)
        assert (first.now, second.now, third.now) == (3, 3, 1)
    assert (first.cancelled, second.cancelled, third.cancelled) == (3, 3, 1)
    await waiting


async def test_trap_10_a_failure_cancels_the_consumer(clock):
    """Trap 10 (PEP 789; pyper, haiway, aiotools): a task group across a `yield` cancelled the body of the loop."""

    async def work(number):
        await asyncio.sleep(number)
        if number == 2:
            raise ZeroDivisionError
        return number

    seen = []

    async def consume():
        async with penstock.stream([1, 2, 3]).map(work, concurrency=3).open() as items:
            async for item in items:
                await asyncio.sleep(5)
                seen.append((item, clock.now))

    with pytest.raises(ZeroDivisionError):
        await consume()
    assert seen == [(1, 6.0)]


async def test_trap_10_a_timeout_of_the_work_hits_the_consumer(clock):
    """Trap 10 (PEP 789): the timeout of an item ends while the consumer does something else, and does not hit it."""
    results = penstock.stream([0, 60]).map(asyncio.sleep, concurrency=2, timeout=1, on_error="skip")
    async with results.open() as items:
        async for _ in items:
            await asyncio.sleep(10)
    assert clock.now == 10.0


async def test_trap_10_a_timeout_of_the_consumer_hits_the_work():
    """Trap 10 (PEP 789): a timeout round one `anext` cancels that `anext`, no call that it happens to overlap."""
    gauge = Gauge()
    async with penstock.stream([5] * 3).map(gauge.wrap(asyncio.sleep), concurrency=3).open() as items:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(items)
        assert len([item async for item in items]) == 3
    assert gauge.finished == 3
    assert asyncio.current_task().cancelling() == 0


async def test_trap_11_closing_while_anext_runs():
    """Trap 11 (async generators): `aclose()` while `anext` runs raised RuntimeError; here both end."""
    source = Scripted(range(3), silent_after=0)
    async with penstock.stream(source).map(asyncio.sleep, concurrency=2).open() as items:
        waiting = asyncio.create_task(anext(items, "ended"))
        await asyncio.sleep(1)
        await items.aclose()
        assert await waiting == "ended"
    assert source.closed == 1


async def test_trap_11_closing_past_a_silent_source():
    """Trap 11 (`merge` of several peers): closing waited for ever for the source that had nothing to say."""
    silent, talks = Scripted([], silent_after=0), Scripted(range(3))
    async with penstock.merge(silent, talks).open() as items:
        assert await anext(items) == 0
    assert (silent.closed, talks.closed) == (1, 1)
    assert silent.pulled_by == {silent.closed_by}


async def test_trap_15_a_timeout_round_the_source():
    """Trap 15 (several peers): a time limit per item, put round the source's `anext`, killed the generator."""
    source = Scripted(range(3), delay=5)

    async def work(number):
        await asyncio.sleep(0.5)
        return number

    assert await penstock.stream(source).map(work, concurrency=2, timeout=1).to_list() == [0, 1, 2]


async def test_trap_16_work_that_ignores_cancellation_hangs_the_exit(clock):
    """Trap 16 (every peer): work that ignores its cancellation gets `grace` seconds, then a warning that names it."""
    gate = asyncio.Event()

    async def stubborn(number):
        while not gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await gate.wait()
        return number

    source = Scripted(range(10))
    named = r"still running 2 s after cancellation, left behind: stage 'map\(stubborn\)', items 0, 1"
    run = penstock.stream(source).map(stubborn, concurrency=2).open(grace=2)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(run), 1)
    with pytest.warns(penstock.UnstoppedWorkWarning, match=named):
        await run.aclose()
    assert clock.now == 3.0
    assert source.closed == 1
    gate.set()
    await asyncio.sleep(1)
    assert source.taken == 2


async def test_trap_16_a_source_that_ignores_cancellation_hangs_the_exit(clock):
    """Trap 16 (every peer): a source that does not stop reading is left behind too, and named."""
    source = Scripted(range(10), delay=100, ignore_cancel=60)
    run = penstock.stream(source).open(grace=2)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(run), 1)
    with pytest.warns(penstock.UnstoppedWorkWarning, match="still running 2 s after cancellation.*'source'"):
        await run.aclose()
    assert clock.now <= 5.0
    await asyncio.sleep(60)
    assert source.closed == 1


async def test_trap_18_eager_work_ends_before_it_is_registered():
    """Trap 18 (gh-128550): eager work is over before anyone holds its task: it counts, and its result is kept."""

    async def at_once(number):
        return number

    async with penstock.stream(range(100)).map(at_once, concurrency=3).open() as items:
        assert [item async for item in items] == list(range(100))
    stage = items.stats()[-1]
    assert (stage.delivered, stage.in_flight) == (100, 0)


@pytest.mark.parametrize("base", [SystemExit, KeyboardInterrupt])
async def test_trap_18_exits_escape_from_an_eager_start(base, read_until_error):
    """Trap 18 (gh-128550): eager work that raises SystemExit raised it from the call that made its task."""
    source = Scripted(range(10))

    async def leave(number):
        if number == 3:
            raise base
        return number

    results = penstock.stream(source).map(leave, concurrency=2, on_error="collect")
    seen, error = await read_until_error(results.open())
    assert seen == [0, 1, 2]
    assert type(error) is base
    assert source.closed == 1


async def test_trap_19_another_item_starts_after_the_cancel():
    """Trap 19 (streamable): a cancelled run started one more item on its way out."""
    source, gauge = Scripted(range(100)), Gauge()

    async def cleans_up(_):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1)

    run = asyncio.create_task(penstock.stream(source).map(gauge.wrap(cleans_up), concurrency=3).drain())
    await asyncio.sleep(1)
    run.cancel()
    await asyncio.wait([run])
    assert (source.taken, gauge.started, gauge.now) == (3, 3, 0)


async def test_trap_19_stop_drains_first():
    """Trap 19 (streamable): the gentle way out, `stop()`, starts nothing either, and loses nothing that has begun."""
    source, gauge = Scripted(range(100)), Gauge()

    async def work(number):
        await asyncio.sleep(1)
        return number

    async with penstock.stream(source).map(gauge.wrap(work), concurrency=3, buffer=2).open() as items:
        seen = [await anext(items)]
        items.stop()
        seen += [item async for item in items]
    assert seen == list(range(source.taken))
    assert gauge.started == gauge.finished == source.taken


PROGRAM = """
import asyncio, logging, penstock

async def work(number):
    print("started", number, flush=True)
    try:
        await asyncio.sleep(3600)
    finally:
        print("stopped", number, flush=True)

async def main():
    with penstock.drain_on_signals():
        await penstock.stream(range(9)).map(work, concurrency=2).drain()

logging.basicConfig()
asyncio.run(main())
"""


def test_trap_19_the_second_ctrl_c_aborts():
    """Trap 19 (streamable): Ctrl-C started another item; here the first starts none, and the second stops all."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert sorted(program.stdout.readline() for _ in range(2)) == ["started 0\n", "started 1\n"]
        program.send_signal(signal.SIGINT)
        assert "what is in flight is finished" in program.stderr.readline()
        program.send_signal(signal.SIGINT)
        out, errors = program.communicate(timeout=60)
    assert sorted(out.splitlines()) == ["stopped 0", "stopped 1"]
    assert errors.rstrip().endswith("KeyboardInterrupt")


def cancelled_before_it_begins(work):
    """A reader that is cancelled while a lambda gives `work()`; a lazy task, which is to await that, never begins."""
    made = []

    def begin(_):
        reading.cancel()
        made.append(work())
        return made[-1]

    async def read(stream):
        async with stream.open() as items:
            return [item async for item in items]

    async def gate(item):
        await asyncio.sleep(1)
        return item

    reading = asyncio.ensure_future(read(penstock.stream([0]).map(gate).map(lambda _: begin(_)).with_metadata()))
    return reading, made


@pytest.mark.parametrize("failed", [False, True])
async def test_a_task_that_a_function_has_made_is_not_left_behind(failed):
    """A function may return a task. A call that is stopped before it awaits it cancels it."""

    def work():
        if not failed:
            return asyncio.ensure_future(asyncio.sleep(3600))
        future = asyncio.get_running_loop().create_future()
        future.set_exception(OSError())
        return future

    reading, made = cancelled_before_it_begins(work)
    await asyncio.wait([reading])
    await asyncio.sleep(0)
    assert made[0].done()


async def test_a_coroutine_of_a_call_that_is_stopped_before_it_begins_is_closed():
    """Also where items are followed to their source."""

    async def work():
        await asyncio.sleep(3600)

    reading, made = cancelled_before_it_begins(work)
    await asyncio.wait([reading])
    assert made[0].cr_frame is None
