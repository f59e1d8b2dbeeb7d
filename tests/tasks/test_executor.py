"""`TaskExecutor`: tasks by priority, each with its result, whatever becomes of the others."""

import asyncio
import threading
from functools import partial

import pytest

import penstock
from penstock import (
    AttemptTimeout,
    NoResultError,
    OptionError,
    Retry,
    WorkRaised,
)
from penstock.tasks.executor import TaskExecutor
from penstock.tasks.feed import TaskResult
from penstock.testing import Gauge

from .executing import EVERY_SECOND, HOUR, after, failing, failing_once, fed, noting

pytestmark = pytest.mark.grid


# Block D: options


async def test_d1_five_at_once_thirty_seconds_three_tries(clock):
    """The defaults; the waits between the tries are jittered."""
    gauge = Gauge()
    executor = fed(*[partial(gauge.wrap(after), HOUR)] * 6)
    results = await executor.run()
    assert gauge.peak == 5
    assert [result.attempts for result in results] == [3] * 6
    assert all(type(result.error) is AttemptTimeout for result in results)
    assert str(results[0].error) == "timed out after 30 s"
    assert 2 * (3 * 30 + 0.24) < clock.now < 2 * (3 * 30 + 0.36)


async def test_d1_some_options_leave_the_others_as_they_are(clock):
    gauge = Gauge()
    executor = fed(*[partial(gauge.wrap(after), HOUR)] * 3, concurrency=2, retry=None)
    assert [result.attempts for result in await executor.run()] == [1, 1, 1]
    assert (gauge.peak, clock.now) == (2, 60)


async def test_d1_timeout_and_retry_can_be_switched_off(clock):
    executor = fed(partial(after, HOUR, "done"), timeout=None, retry=None)
    assert await executor.run() == [TaskResult("task-1", True, "done", None, 1)]
    assert clock.now == HOUR


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency must be an int >= 1, got 0"),
        ({"concurrency": True}, "concurrency must be an int >= 1, got True"),
        ({"concurrency": "4"}, "concurrency must be an int >= 1, got '4'"),
        ({"timeout": 0}, "timeout must be a finite number of seconds > 0"),
        ({"retry": 3}, "retry must be a Retry, got 3"),
        ({"ageing": 0}, "ageing must be a finite number of seconds > 0"),
        ({"grace": -1}, "grace must be a finite number of seconds >= 0"),
        ({"name": ""}, "name must be a non-empty str"),
    ],
)
def test_d_known_failure_a_limit_of_zero_hangs(options, message):
    """A wrong option is refused when the executor is made."""
    with pytest.raises(OptionError, match=message):
        TaskExecutor(**options)


# Block D: results


async def test_d2_every_task_has_a_result_and_none_is_raised():
    error = ValueError("bad")
    executor = fed(partial(after, 2, "a"), partial(failing, 1, error), lambda: "c", retry=None)
    assert await executor.run() == [
        TaskResult("task-1", True, "a", None, 1),
        TaskResult("task-2", False, None, error, 1),
        TaskResult("task-3", True, "c", None, 1),
    ]


async def test_d_known_failure_results_lose_their_order():
    """P3: in the order of `add`, whatever is done first."""
    executor = TaskExecutor(concurrency=3)
    added = [
        executor.add(partial(after, (seconds * 7) % 10, seconds), priority=(seconds * 3) % 5) for seconds in range(10)
    ]
    results = await executor.run()
    assert [result.id for result in results] == added == [f"task-{number}" for number in range(1, 11)]
    assert [result.unwrap() for result in results] == list(range(10))


async def test_nothing_to_do():
    executor = TaskExecutor()
    assert await executor.run() == []
    assert await executor.run() == []


@pytest.mark.parametrize("value", [None, False, 0, ValueError("a value"), asyncio.CancelledError, [], penstock])
async def test_any_value_is_a_result(value):
    """P6."""
    [asynchronous, on_loop] = await fed(partial(after, 0, value), lambda: value).run()
    assert asynchronous == TaskResult("task-1", True, value, None, 1)
    assert asynchronous.unwrap() is on_loop.unwrap() is value


async def test_unwrap_raises_the_error():
    error = ValueError("bad")
    [result] = await fed(partial(failing, 0, error), retry=None).run()
    with pytest.raises(ValueError, match="bad") as raised:
        result.unwrap()
    assert raised.value is error


async def test_unwrap_of_a_task_that_was_stopped_does_not_cancel_who_asks():
    executor = fed(partial(after, 1), partial(after, 1), concurrency=1)
    async with executor:
        await asyncio.sleep(0.5)
        await executor.abort()
    running, queued = await executor.run()
    with pytest.raises(NoResultError, match="task 'task-1' was cancelled: caller cancelled"):
        running.unwrap()
    with pytest.raises(NoResultError, match="task 'task-2' was not started: caller cancelled"):
        queued.unwrap()


# Block D: attempts


async def test_d3_the_timeout_is_per_attempt(clock):
    seconds = iter([9, 9, 1])
    executor = fed(lambda: after(next(seconds), "at last"), timeout=2, retry=EVERY_SECOND)
    assert await executor.run() == [TaskResult("task-1", True, "at last", None, 3)]
    assert clock.now == 2 + 1 + 2 + 1 + 1


async def test_d3_the_backoff_is_exponential(clock):
    """Five waits, each twice the last: 1, 2, 4, 8, 16 seconds."""
    tries = []

    async def task():
        tries.append(clock.now)
        raise ConnectionError

    [result] = await fed(task, retry=Retry(on=Exception, attempts=6, initial=1, factor=2, jitter=0)).run()
    assert tries == [0, 1, 3, 7, 15, 31]
    assert result.attempts == 6


async def test_d_known_failure_the_first_retry_waits_no_time(clock):
    """By default 0.1 s, give or take a fifth."""
    tries = []

    async def task():
        tries.append(clock.now)
        raise ConnectionError

    await fed(task).run()
    assert 0.08 <= tries[1] - tries[0] <= 0.12
    assert 0.16 <= tries[2] - tries[1] <= 0.24


async def test_d3_what_is_no_exception_is_an_error_all_the_same():
    def raising_a_string():
        raise "a string"  # noqa: B016 -- as users do

    [result] = await fed(raising_a_string, retry=None).run()
    assert type(result.error) is TypeError


@pytest.mark.parametrize("error", [StopIteration(1), StopAsyncIteration(), GeneratorExit(), asyncio.CancelledError()])
async def test_an_exception_that_means_something_else_is_wrapped(error):
    """P5: it would end an iteration, a generator or a task if it travelled on as itself."""

    def raising():
        raise error

    [result] = await fed(raising, retry=None).run()
    assert type(result.error) is WorkRaised
    assert result.error.__cause__ is error


async def test_attempts_of_those_that_fail_and_of_those_that_succeed():
    executor = fed(
        lambda: 1,
        failing_once(ValueError(), 2),
        partial(failing, 0, KeyError()),
        partial(failing, 0, OptionError()),
        retry=EVERY_SECOND,
    )
    results = await executor.run()
    assert [(result.success, result.attempts) for result in results] == [(True, 1), (True, 2), (False, 3), (False, 1)]
    assert executor.stats()["executor"].retried == 3


async def test_only_what_retry_names_is_tried_again():
    executor = fed(partial(failing, 0, KeyError()), retry=Retry(on=ValueError, initial=0))
    assert [result.attempts for result in await executor.run()] == [1]


async def test_a_task_that_raises_at_once():
    def raising():
        raise ValueError("at once")

    asynchronous, plain, on_loop = await fed(
        partial(failing, 0, ValueError("at once")), raising, lambda: raising(), retry=None
    ).run()
    assert [str(each.error) for each in (asynchronous, plain, on_loop)] == ["at once"] * 3


# Block D: the queue


async def test_d4_high_priority_first_and_stable():
    log = []
    executor = TaskExecutor(1)
    for name, priority in [("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1.5), ("f", 7)]:
        executor.add(noting(log, name), id=name, priority=priority)
    assert [result.id for result in await executor.run()] == list("abcdef")
    assert log == list("fbdace")


async def test_priority_decides_when_a_place_is_free():
    """A task with a high priority overtakes those that wait already."""
    log = []
    async with TaskExecutor(2) as executor:
        for name in "abcd":
            executor.add(noting(log, name))
        await asyncio.sleep(0.5)
        assert log == ["a", "b"]
        executor.add(noting(log, "urgent"), priority=1)
    assert log == ["a", "b", "urgent", "c", "d"]


async def test_those_added_in_one_breath_begin_by_priority():
    """Work begins in the next turn of the loop, not inside `add`."""
    log = []
    async with TaskExecutor(1) as executor:
        executor.add(noting(log, "low"))
        executor.add(noting(log, "high"), priority=1)
        assert log == []
    assert log == ["high", "low"]


@pytest.mark.parametrize(("ageing", "begun"), [(None, 100), (2, 11)])
async def test_d_known_failure_low_priority_can_starve_for_ever(ageing, begun, clock):
    """Fed a task of priority 5 a second: with a point for every 2 s, a task of priority 0 is due after ten seconds."""
    executor = TaskExecutor(1, ageing=ageing)
    log = []

    async def low():
        log.append(clock.now)

    async with executor:
        executor.add(partial(after, 1), priority=9)
        executor.add(low, priority=0)
        for _ in range(99):
            await asyncio.sleep(0.5)
            executor.add(partial(after, 1), priority=5)
            await asyncio.sleep(0.5)
    assert log == [begun]


@pytest.mark.parametrize("priority", [True, float("nan"), "high", None])
async def test_a_priority_is_a_finite_number(priority):
    """What is refused leaves nothing: the id is free."""
    executor = TaskExecutor(retry=None)
    with pytest.raises(OptionError, match="priority must be a finite number"):
        executor.add(after(1), id="a", priority=priority)
    assert executor.add(partial(after, 1, 1), id="a") == "a"
    assert [result.unwrap() for result in await executor.run()] == [1]


# Block D: limits


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_d_known_failure_timeouts_do_not_cancel(limit, clock):
    """P1: 12 tasks that time out and are tried again: never more bodies than places, and all of them cancelled."""
    gauge = Gauge()
    executor = fed(*[partial(gauge.wrap(after), HOUR)] * 12, concurrency=limit, timeout=1, retry=EVERY_SECOND)
    results = await executor.run()
    assert gauge.peak == limit
    assert gauge.cancelled == gauge.started == 36
    assert [result.attempts for result in results] == [3] * 12
    assert clock.now == -(-12 // limit) * (3 * 1 + 2 * 1)


async def test_a_thread_keeps_its_place_until_it_is_back(clock):
    """P1: it fails in time and cannot be stopped; the next attempt waits for it, and so does the next task."""
    gauge = Gauge()

    def sleeping():
        with gauge:
            clock.sleep(5)

    executor = fed(*[sleeping] * 4, concurrency=2, timeout=1, retry=Retry(on=Exception, attempts=2, initial=0))
    results = await executor.run()
    assert gauge.peak == 2
    assert gauge.started == gauge.finished == 8
    assert [(type(result.error).__mro__[1], result.attempts) for result in results] == [(AttemptTimeout, 2)] * 4
    assert clock.now == 20


async def test_run_waits_for_a_thread_as_long_as_it_takes(clock):
    """P4: `grace` is for work that was cancelled, and this was not."""
    executor = fed(partial(clock.sleep, 60), timeout=1, retry=None, grace=5)
    [result] = await executor.run()
    assert type(result.error).__mro__[1] is AttemptTimeout
    assert clock.now == 60


async def test_a_result_is_there_before_its_thread_is_back(clock):
    executor = fed(lambda: None, retry=None, timeout=1)
    async with executor:
        executor.add(partial(clock.sleep, 5), id="slow")
        await asyncio.sleep(2)
        assert not executor.results["slow"].success
    assert clock.now == 5


@pytest.mark.parametrize("seconds", [30, None])
async def test_plain_functions_run_in_threads(seconds):
    """At any `concurrency`, and without a `timeout`, too: whoever adds tasks needs the loop."""

    def thread():
        return threading.current_thread()

    [result] = await fed(thread, concurrency=1, timeout=seconds, name="mill").run()
    assert result.unwrap().name.startswith("penstock mill")


async def test_d_known_failure_every_timer_leaks():
    """The loop has no timer left, which its tests are watched for; here in the middle of a run."""
    async with TaskExecutor() as executor:
        for _ in range(10):
            executor.add(partial(after, 0))
        await executor.run()
        timers = [each for each in getattr(asyncio.get_running_loop(), "_scheduled", ()) if not each.cancelled()]
        assert timers == []


async def test_d5_results_are_right_with_retries_timeouts_and_priorities_together():
    """Each of 200 tasks does as its number says, and its result says so."""
    gauge = Gauge()
    executor = TaskExecutor(7, timeout=3, retry=EVERY_SECOND, ageing=60)
    tasks = (
        lambda number: partial(gauge.wrap(after), number % 5 / 2, number),
        lambda number: partial(gauge.wrap(failing), number % 3, KeyError(number)),
        lambda _: partial(gauge.wrap(after), HOUR),
        lambda number: gauge.wrap(failing_once(ValueError(), number)),
    )
    for number in range(200):
        executor.add(tasks[number % 4](number), id=str(number), priority=number % 7)
    results = await executor.run()
    assert [result.id for result in results] == [str(number) for number in range(200)]
    for number, result in enumerate(results):
        attempts = (1, 3, 3, 2)[number % 4]
        if number % 4 in {0, 3}:
            assert result == TaskResult(str(number), True, number, None, attempts)
        else:
            kind = KeyError if number % 4 == 1 else AttemptTimeout
            assert (result.success, type(result.error), result.attempts) == (False, kind, attempts)
    assert gauge.peak == 7
    assert gauge.started == sum(result.attempts for result in results)


async def test_ten_thousand_tasks():
    executor = TaskExecutor(100)
    for number in range(10_000):
        executor.add(partial(after, 0, number), priority=number % 10)
    assert [result.result for result in await executor.run()] == list(range(10_000))
