"""Traps 14, 17, 35 and 42b: work in threads."""

import asyncio
import contextvars
import threading

import pytest

import penstock
from penstock.testing import Gauge

both_orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


@pytest.mark.parametrize("base", [asyncio.CancelledError, StopIteration, StopAsyncIteration, GeneratorExit])
async def test_trap_14_work_in_a_thread_raises_control_flow(base):
    """Trap 14 (streamable): a future refuses StopIteration, and the item in a thread would hang for ever."""

    def work(_):
        raise base("mine")

    with pytest.raises(penstock.WorkRaised, match=base.__name__) as raised:
        await penstock.stream([1]).map(work, concurrency=2).to_list()
    assert type(raised.value.__cause__) is base
    assert raised.value.__cause__.args == ("mine",)


@pytest.mark.parametrize("base", [SystemExit, KeyboardInterrupt])
async def test_trap_14_work_in_a_thread_exits(base):
    """Trap 14 (streamable): an exit that is raised in a thread is raised by the run."""

    def work(_):
        raise base

    with pytest.raises(base):
        await penstock.stream([1]).map(work, concurrency=2, on_error="skip").to_list()


async def test_trap_17_leaving_does_not_wait_for_threads(clock):
    """Trap 17 (every peer): a thread cannot be cancelled, so leaving waits until it is back, and starts no other."""
    gauge = Gauge()

    def work(seconds):
        with gauge:
            clock.sleep(seconds)

    async with penstock.stream([1, 3, 3, 3, 3]).map(work, concurrency=3).open() as items:
        async for _ in items:
            break
    assert clock.now == 3.0
    assert (gauge.now, gauge.peak) == (0, 3)
    assert gauge.started == gauge.finished <= 4


async def test_trap_17_a_thread_that_stays_hangs_the_exit(clock):
    """Trap 17 (every peer): a thread that is not back after `grace` seconds is left behind, and named."""
    threads = []

    def work(seconds):
        threads.append(threading.current_thread())
        clock.sleep(seconds)

    run = penstock.stream([1, 60]).map(work, concurrency=2).open(grace=2)
    await anext(run)
    with pytest.warns(penstock.UnstoppedWorkWarning, match=r"stage 'map\(work\)', item 1"):
        await run.aclose()
    assert clock.now == 3.0
    await asyncio.sleep(60)
    for thread in threads:
        thread.join()


async def test_trap_17_a_cancelled_run_leaves_its_threads(clock):
    """Trap 17 (every peer): cancelled, and cancelled again, a run ends when its threads are back."""
    gauge = Gauge()

    def work(seconds):
        with gauge:
            clock.sleep(seconds)

    run = asyncio.create_task(penstock.stream([3] * 9).map(work, concurrency=2).to_list())
    for _ in range(2):
        await asyncio.sleep(1)
        run.cancel()
    await asyncio.wait([run])
    assert run.cancelled()
    assert clock.now == 3.0
    assert (gauge.now, gauge.started) == (0, 2)


async def test_trap_35_contextvars_do_not_reach_threads():
    """Trap 35 (`run_in_executor`): it does not carry context variables; ours does; what an item sets stays there."""
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")

    def work(number):
        seen = variable.get()
        variable.set(f"set by {number}")
        return seen

    assert await penstock.stream(range(6)).map(work, concurrency=2).to_list() == ["set"] * 6
    assert await penstock.stream(range(6)).map(work).to_list() == ["set"] * 6
    assert variable.get() == "set"


@both_orders
async def test_trap_42b_a_timed_out_thread_gives_up_its_place(clock, ordered):
    """Trap 42b (several peers): with a limit of 1 and retries, 3 ran at once: the thread of a lost attempt ran on."""
    gauge = Gauge()

    def work(_):
        with gauge:
            clock.sleep(10)

    retry = penstock.Retry(on=TimeoutError, attempts=3, initial=0)
    results = penstock.stream([1, 2]).map(
        work, concurrency=2, timeout=1, retry=retry, on_error="collect", ordered=ordered
    )
    async with results.open() as items:
        assert [item async for item in items] == []
    assert (gauge.peak, gauge.started) == (2, 6)
    assert [failed.attempts for failed in items.failures] == [3, 3]


async def test_trap_42b_the_item_fails_at_its_deadline(clock):
    """Trap 42b (several peers): the item fails when its time is up; only its place waits for the thread."""
    gauge = Gauge()

    def work(seconds):
        with gauge:
            clock.sleep(seconds)

    results = penstock.stream([10, 10, 1, 1]).map(work, concurrency=2, timeout=2, on_error="collect")
    async with results.open() as items:
        waiting = asyncio.ensure_future(anext(items))
        await asyncio.sleep(2.5)
        assert [failed.index for failed in items.failures] == [0, 1]
        assert gauge.started == 2
        await waiting
        assert clock.now == 11.0
        await anext(items)
    assert gauge.peak == 2


async def test_trap_42b_results_wait_for_the_thread_of_a_failed_item(clock):
    """Trap 42b (several peers): what was finished before is handed on, though the place of the failed item is taken."""

    def work(seconds):
        clock.sleep(seconds)
        return seconds

    results = penstock.stream([10, 1, 1]).map(work, concurrency=2, timeout=2, on_error="skip", buffer=2)
    assert [(clock.now, item) async for item in results] == [(2.0, 1), (2.0, 1)]


async def test_trap_42b_a_failed_run_waits_for_the_thread(clock):
    """Trap 42b (several peers): a timeout that ends the run ends it when the thread is back."""
    back = []

    def work(_):
        clock.sleep(4)
        back.append(clock.now)

    with pytest.raises(penstock.AttemptTimeout, match="timed out after 1 s"):
        await penstock.stream([1]).map(work, concurrency=2, timeout=1).to_list()
    assert back == [4.0]


async def test_trap_42b_a_timed_out_input_gives_up_its_place(clock):
    """Trap 42b (several peers): in `flat_map` too."""
    gauge = Gauge()

    def pages(_):
        with gauge:
            clock.sleep(10)
        return [1]

    results = penstock.stream(range(4)).flat_map(pages, concurrency=2, timeout=1, on_error="collect")
    async with results.open() as items:
        assert [item async for item in items] == []
    assert (gauge.peak, gauge.started) == (2, 4)


async def test_trap_42b_no_attempt_begins_after_the_deadline(clock):
    """Trap 42b (several peers): the wait for the thread counts: after a retry's deadline nothing is tried again."""
    calls = []

    def work(_):
        calls.append(clock.now)
        clock.sleep(4)

    retry = penstock.Retry(on=TimeoutError, attempts=3, initial=0, deadline=3)
    with pytest.raises(TimeoutError):
        await penstock.stream([1]).map(work, concurrency=2, timeout=1, retry=retry).to_list()
    assert calls == [0.0]


async def test_trap_42b_threads_meet_at_a_gate():
    """Trap 42b (several peers): in real threads, never more calls than places, though every attempt fails."""
    gauge, gate = Gauge(), threading.Barrier(3)

    def work(_):
        with gauge:
            gate.wait()
            raise ConnectionError

    retry = penstock.Retry(on=ConnectionError, attempts=2, initial=0)
    results = penstock.stream(range(9)).map(work, concurrency=3, retry=retry, on_error="skip")
    assert await results.to_list() == []
    assert (gauge.peak, gauge.started) == (3, 18)


async def test_trap_42b_an_awaitable_from_a_thread_escapes_its_timeout(clock):
    """Trap 42b (several peers): a plain function that returns a coroutine has one timeout for both parts."""

    def starts(seconds):
        return asyncio.sleep(seconds)

    with pytest.raises(penstock.AttemptTimeout):
        await penstock.stream([60]).map(starts, concurrency=2, timeout=1).to_list()
    assert clock.now == 1.0
