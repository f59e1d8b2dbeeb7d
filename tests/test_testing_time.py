"""Virtual time: when what happens, and in which order."""

import asyncio
import contextvars

import pytest

pytestmark = pytest.mark.grid


async def test_time_starts_at_zero_and_a_sleep_ends_at_its_second(clock):
    assert clock.now == 0.0
    await asyncio.sleep(3600)
    assert clock.now == asyncio.get_running_loop().time() == 3600.0


async def test_sleepers_wake_in_the_order_of_their_times(clock):
    woken = []

    async def sleeper(seconds):
        await asyncio.sleep(seconds)
        woken.append((seconds, clock.now))

    await asyncio.gather(*(sleeper(seconds) for seconds in (3, 1, 2, 1)))
    assert woken == [(1, 1.0), (1, 1.0), (2, 2.0), (3, 3.0)]


async def test_timers_of_one_instant_fire_in_the_order_of_scheduling():
    fired = []
    loop = asyncio.get_running_loop()
    for name in "abcdefgh":
        loop.call_at(1.0, fired.append, name)
    await asyncio.sleep(1)
    assert "".join(fired) == "abcdefgh"


async def test_a_timer_of_now_fires_after_what_is_already_scheduled():
    """As on a real loop: a delay of nothing is still a turn of the loop."""
    order = []
    loop = asyncio.get_running_loop()
    loop.call_later(0, order.append, "timer")
    loop.call_soon(order.append, "soon")
    await asyncio.sleep(0.001)
    assert order == ["soon", "timer"]


async def test_a_timer_whose_time_has_come_fires_although_others_are_busy(clock):
    loop = asyncio.get_running_loop()
    fired = asyncio.Event()
    loop.call_at(clock.now, fired.set)
    for _ in range(5):
        await asyncio.sleep(0)
    assert fired.is_set()


async def test_time_stands_still_while_anything_can_run(clock):
    loop = asyncio.get_running_loop()
    fired = asyncio.Event()
    timer = loop.call_later(1e-9, fired.set)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert clock.now == 0.0
    assert not fired.is_set()
    timer.cancel()


async def test_a_timeout_cancels_at_its_deadline(clock):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await asyncio.sleep(10)
    assert clock.now == 5.0


async def test_wait_for_and_wait_give_up_at_their_deadlines(clock):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.sleep(10), 2)
    task = asyncio.create_task(asyncio.sleep(10))
    _, pending = await asyncio.wait([task], timeout=3)
    assert pending == {task}
    assert clock.now == 5.0
    task.cancel()
    await asyncio.wait([task])


async def test_a_cancelled_timer_does_not_fire():
    fired = []
    loop = asyncio.get_running_loop()
    timer = loop.call_later(1, fired.append, "cancelled")
    timer.cancel()
    await asyncio.sleep(2)
    assert timer.cancelled()
    assert fired == []


async def test_a_timer_cancelled_by_another_of_its_instant_does_not_fire():
    fired = []
    loop = asyncio.get_running_loop()
    timers = []

    def cancel_second():
        timers[0].cancel()

    loop.call_at(1.0, cancel_second)
    timers.append(loop.call_at(1.0, fired.append, "second"))
    await asyncio.sleep(1)
    assert fired == []


async def test_cancelling_a_timer_that_has_fired_changes_nothing(clock):
    loop = asyncio.get_running_loop()
    fired = loop.call_later(1, lambda: None)
    await asyncio.sleep(1)
    fired.cancel()
    fired.cancel()
    await asyncio.sleep(1)
    assert clock.now == 2.0
    assert len(loop.timers) == 0


async def test_cancelled_timers_do_not_accumulate():
    """P7: a timeout round each of many short calls leaves no heap of dead timers."""
    fired = []
    loop = asyncio.get_running_loop()
    for _ in range(10_000):
        loop.call_later(60, fired.append, "late").cancel()
    assert len(loop.timers) == 0
    assert len(loop.timers._heap) <= 1


async def test_ten_thousand_timers_fire_in_order(clock):
    fired = []
    times = [(number * 7919) % 10_000 for number in range(10_000)]
    for time in times:
        asyncio.get_running_loop().call_at(time, fired.append, time)
    await asyncio.sleep(10_000)
    assert fired == sorted(times)
    assert clock.now == 10_000.0


async def test_a_timer_calls_back_in_the_context_of_its_caller():
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []
    variable.set("mine")
    asyncio.get_running_loop().call_later(1, lambda: seen.append(variable.get()))
    variable.set("changed")
    await asyncio.sleep(1)
    assert seen == ["mine"]


async def test_a_callback_that_raises_is_reported_and_the_other_timers_of_its_instant_fire():
    reports, fired = [], []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, report: reports.append(report["exception"]))
    error = ValueError("from a timer")

    def fail():
        raise error

    loop.call_at(1.0, fail)
    loop.call_at(1.0, fired.append, "second")
    await asyncio.sleep(1)
    assert reports == [error]
    assert fired == ["second"]
