"""Runs in virtual time: threads, real I/O, task factories, and what happens to a run that cannot go on."""

import asyncio
import contextlib
import contextvars
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock import testing
from penstock.testing import Clock, Deadlock, Livelock, new_loop, new_real_loop

grid = pytest.mark.grid


@grid
async def test_time_stands_still_while_a_thread_works(clock):
    """A timer that is due in a microsecond does not fire before a thread that takes a real while is back."""
    gate = threading.Event()
    fired = []
    asyncio.get_running_loop().call_later(1e-6, fired.append, "timer")
    job = asyncio.ensure_future(asyncio.to_thread(gate.wait))
    for _ in range(100):
        await asyncio.sleep(0)
    assert fired == []
    gate.set()
    assert await job
    assert clock.now == 0.0
    await asyncio.sleep(1)


@grid
async def test_threads_sleep_in_virtual_time_side_by_side(clock):
    def work(seconds):
        clock.sleep(seconds)
        return clock.now

    ends = await asyncio.gather(*(asyncio.to_thread(work, seconds) for seconds in (3, 1, 2)))
    assert ends == [3.0, 1.0, 2.0]


@grid
async def test_a_job_that_waits_for_a_thread_lets_those_before_it_sleep(clock):
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as pool:

        def work():
            clock.sleep(1)
            return clock.now

        ends = await asyncio.gather(*(loop.run_in_executor(pool, work) for _ in range(5)))
    assert ends == [1.0, 1.0, 2.0, 2.0, 3.0]


@grid
async def test_a_timeout_does_not_wait_for_its_thread(clock):
    """Trap 42b, as it is tested: the caller gives up at its deadline, the thread comes back at its own time."""
    back = []

    def work():
        clock.sleep(5)
        back.append(clock.now)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await asyncio.to_thread(work)
    assert clock.now == 2.0
    await asyncio.sleep(8)
    assert back == [5.0]


@grid
async def test_a_job_cancelled_before_its_thread_began_does_not_hold_the_clock(clock):
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        first = loop.run_in_executor(pool, clock.sleep, 1)
        second = loop.run_in_executor(pool, clock.sleep, 60)
        second.cancel()
        await first
        await asyncio.sleep(1)
    assert clock.now == 2.0
    assert not clock.is_held


@grid
async def test_a_job_that_fails_raises_in_the_caller_and_lets_the_clock_go(clock):
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(divmod, 1, 0)
    await asyncio.sleep(1)
    assert clock.now == 1.0


@grid
@pytest.mark.parametrize("seconds", [0, 60])
def test_a_job_left_in_an_executor_fails_the_run_once_it_is_back(run, clock, seconds):
    def work():
        gate.wait()
        clock.sleep(seconds)

    async def main():
        asyncio.get_running_loop().run_in_executor(None, work)
        asyncio.get_running_loop().call_soon_threadsafe(gate.set)

    gate = threading.Event()
    with pytest.raises(AssertionError, match=r"left behind: executor job .*work"):
        run(main(), clock=clock)
    assert clock.now == seconds


@grid
def test_a_thread_whose_caller_gave_up_fails_a_run_that_does_not_wait_for_it(run, clock):
    async def main():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.to_thread(clock.sleep, 60)

    with pytest.raises(
        AssertionError, match=r"left behind: timer <Timer when=60.*thread.*; executor job .*Clock.sleep"
    ):
        run(main(), clock=clock)
    assert clock.now == 60.0


@grid
async def test_held_keeps_time_for_a_thread_that_the_loop_does_not_know(clock):
    loop = asyncio.get_running_loop()
    answer = loop.create_future()

    def work():
        with clock.held():
            started.set()
            gate.wait()
            loop.call_soon_threadsafe(answer.set_result, clock.now)

    started, gate = threading.Event(), threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    loop.call_later(1, lambda: None)
    loop.call_soon(gate.set)
    assert await answer == 0.0
    thread.join()
    await asyncio.sleep(1)


@grid
async def test_held_lets_real_io_happen(clock):
    reader, writer = os.pipe()
    loop = asyncio.get_running_loop()
    arrived = loop.create_future()
    loop.add_reader(reader, lambda: arrived.set_result(os.read(reader, 10)))
    with clock.held():
        thread = threading.Thread(target=os.write, args=(writer, b"hello"))
        thread.start()
        assert await arrived == b"hello"
    loop.remove_reader(reader)
    thread.join()
    os.close(reader)
    os.close(writer)
    assert clock.now == 0.0


@grid
async def test_clock_sleep_on_the_loop_raises(clock):
    with clock.held(), pytest.raises(RuntimeError, match="for threads beside a running loop"):
        clock.sleep(1)


@grid
async def test_clock_sleep_in_a_thread_that_time_does_not_wait_for_raises(clock):
    with ThreadPoolExecutor(1) as pool:
        sleep = pool.submit(clock.sleep, 1)
        with pytest.raises(RuntimeError, match=r"for executor jobs and for threads inside clock.held\(\)"):
            await asyncio.to_thread(sleep.result)


def test_clock_sleep_without_a_loop_raises():
    with pytest.raises(RuntimeError, match="for threads beside a running loop"):
        Clock().sleep(1)


@grid
def test_a_run_that_waits_for_nothing_raises_and_names_its_tasks(run):
    async def waits_for_ever():
        await asyncio.Event().wait()

    async def main():
        await asyncio.sleep(7)
        await asyncio.gather(waits_for_ever(), waits_for_ever())

    with pytest.raises(Deadlock, match=r"at 7 s nothing can run.*waits_for_ever \(.*test_testing_runs.py:\d+\)"):
        run(main())


@grid
def test_a_sleep_without_end_is_a_deadlock(run):
    with pytest.raises(Deadlock):
        run(asyncio.sleep(math.inf))


@grid
def test_a_task_that_outlives_its_deadlock_does_not_hang_the_run(run):
    async def stubborn():
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run(stubborn())


@grid
def test_a_loop_that_spins_raises(run, monkeypatch):
    """Trap 5: a wait that polls does not hang the tests."""
    monkeypatch.setattr(testing.virtual, "PATIENCE", 1000)

    async def spin():
        while True:  # noqa: ASYNC110 -- the polling is the point
            await asyncio.sleep(0)

    with pytest.raises(Livelock, match=r"always ready to run.*spin \("):
        run(spin())


@grid
def test_a_clock_goes_on_from_one_run_to_the_next(run, clock):
    run(asyncio.sleep(1), clock=clock)
    run(asyncio.sleep(2), clock=clock)
    assert clock.now == 3.0


@grid
async def test_a_clock_serves_one_loop_at_a_time(clock, place):
    with pytest.raises(RuntimeError, match="serves one loop at a time"):
        new_loop(place.loop, clock=clock)


@grid
def test_a_run_returns_and_raises_what_its_coroutine_does(run):
    error = KeyError("mine")

    async def fails():
        raise error

    async def returns():
        return 42

    assert run(returns()) == 42
    with pytest.raises(KeyError) as raised:
        run(fails())
    assert raised.value is error


@grid
@pytest.mark.parametrize("base", [SystemExit, KeyboardInterrupt])
def test_a_run_lets_exits_through(run, base):
    async def leave():
        await asyncio.sleep(1)
        raise base

    with pytest.raises(base):
        run(leave())


@grid
async def test_tasks_start_as_the_place_says(place):
    began = []

    async def task():
        began.append(True)

    created = asyncio.create_task(task())
    assert began == ([True] if place.tasks == "eager" else [])
    await created


@grid
async def test_a_task_keeps_the_context_that_it_was_given():
    variable = contextvars.ContextVar("variable", default="unset")
    context = contextvars.copy_context()
    context.run(variable.set, "given")

    async def task():
        return variable.get()

    assert await asyncio.create_task(task(), context=context) == "given"


@grid
@pytest.mark.real_time
async def test_real_time_is_the_loops_own(place):
    loop = asyncio.get_running_loop()
    assert not isinstance(loop, testing.VirtualLoop)
    assert type(loop).__module__.split(".")[0] == place.loop


def test_names_are_checked():
    with pytest.raises(ValueError, match=r"loop must be one of asyncio, uvloop, got 'twisted'"):
        new_loop("twisted")
    with pytest.raises(ValueError, match=r"tasks must be one of default, lazy, eager, got 'busy'"):
        new_real_loop(tasks="busy")


def test_a_wrong_name_leaves_no_coroutine_unawaited():
    with pytest.raises(ValueError, match="loop must be one of"):
        testing.run(asyncio.sleep(0), loop="twisted")
