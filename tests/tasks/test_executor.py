"""`TaskExecutor`: tasks by priority, each with its result, whatever becomes of the others."""

import asyncio
import contextvars
import gc
import threading
import weakref
from functools import partial

import pytest

import penstock
from penstock import (
    AttemptTimeout,
    ConcurrentReadError,
    ExecutorUseError,
    NoResultError,
    OptionError,
    Retry,
    UnstoppedWorkWarning,
    WorkRaised,
    WrongLoopError,
)
from penstock.core import open_runs
from penstock.core.stats import Stats
from penstock.tasks.executor import TaskExecutor
from penstock.tasks.feed import TaskResult
from penstock.testing import Gauge, run_interrupted

pytestmark = pytest.mark.grid
HOUR = 3600.0
EVERY_SECOND = Retry(on=Exception, attempts=3, initial=1, factor=1, jitter=0)


async def after(seconds, value=None):
    await asyncio.sleep(seconds)
    return value


async def failing(seconds, error):
    await asyncio.sleep(seconds)
    raise error


def failing_once(error, value):
    """A task that fails the first time."""
    errors = [error]

    async def task():
        if errors:
            raise errors.pop()
        return value

    return task


def noting(log, name):
    """A task of a second that notes when it is started."""

    async def task():
        log.append(name)
        await asyncio.sleep(1)

    return task


async def stubborn(seconds):
    """Go on for `seconds`, whatever cancellation comes."""
    end = asyncio.get_running_loop().time() + seconds
    while (left := end - asyncio.get_running_loop().time()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue
    return "late"


def fed(*tasks, **options):
    """An executor to which `tasks` were added."""
    executor = TaskExecutor(**options)
    for task in tasks:
        executor.add(task)
    return executor


def was_cancelled(result, attempts, reason="caller cancelled"):
    return (
        not result.success
        and result.result is None
        and type(result.error) is asyncio.CancelledError
        and result.error.args == (reason,)
        and result.attempts == attempts
    )


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


async def test_plain_functions_run_in_threads():
    def thread():
        return threading.current_thread()

    [result] = await fed(thread, concurrency=1, name="mill").run()
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


# Block D: fed while running


async def test_d5_tasks_add_tasks():
    """`run()` does what is added meanwhile too, and its results stand where they were added."""
    executor = TaskExecutor(2)

    async def crawl(depth):
        await asyncio.sleep(1)
        if depth:
            executor.add(partial(crawl, depth - 1))
            executor.add(partial(crawl, depth - 1))
        return depth

    executor.add(partial(crawl, 3))
    assert [result.unwrap() for result in await executor.run()] == [3, 2, 2, 1, 1, 1, 1] + [0] * 8


async def test_a_task_adds_one_before_it_first_waits():
    executor = TaskExecutor(1)
    executor.add(lambda: executor.add(lambda: executor.add(lambda: "third")))
    assert [result.unwrap() for result in await executor.run()] == ["task-2", "task-3", "third"]


async def test_others_add_while_it_runs():
    executor = fed(partial(after, 5, "first"))
    asyncio.get_running_loop().call_later(2, executor.add, partial(after, 1, "second"))
    assert [result.unwrap() for result in await executor.run()] == ["first", "second"]


async def test_what_is_added_while_a_thread_is_waited_for_is_done_too(clock):
    """All results are there at 1 s; the run ends only when its thread is back at 5 s, and then goes on."""
    executor = TaskExecutor(2, timeout=1, retry=None)
    executor.add(partial(clock.sleep, 5))
    asyncio.get_running_loop().call_later(3, executor.add, partial(after, 0, "later"))
    slow, later = await executor.run()
    assert not slow.success
    assert later.unwrap() == "later"


async def test_it_can_be_fed_and_run_again():
    """Ids whose results were handed out are free again; the numbers of the others go on."""
    executor = fed(lambda: 1)
    executor.add(lambda: 2, id="mine")
    assert [(result.id, result.result) for result in await executor.run()] == [("task-1", 1), ("mine", 2)]
    executor.add(lambda: 3, id="mine")
    executor.add(lambda: 4)
    assert [(result.id, result.result) for result in await executor.run()] == [("mine", 3), ("task-2", 4)]


def test_it_can_be_run_on_another_loop_afterwards(run):
    executor = fed(lambda: 1)

    async def main():
        return [result.unwrap() for result in await executor.run()]

    assert run(main()) == [1]
    executor.add(lambda: 2)
    assert run(main()) == [2]


def test_tasks_may_be_added_before_there_is_a_loop(run):
    executor = fed(lambda: 1, lambda: 2, ageing=60)

    async def main():
        return [result.unwrap() for result in await executor.run()]

    assert run(main()) == [1, 2]


# Adding


async def test_an_id_that_is_taken_is_refused():
    executor = TaskExecutor()
    executor.add(lambda: 1, id="a")
    with pytest.raises(OptionError, match="id must not be taken, got 'a'"):
        executor.add(lambda: 2, id="a")
    assert [result.unwrap() for result in await executor.run()] == [1]


async def test_generated_ids_leave_out_those_that_are_taken():
    executor = TaskExecutor()
    assert [executor.add(int, id="task-1"), executor.add(int), executor.add(int)] == ["task-1", "task-2", "task-3"]
    await executor.run()


@pytest.mark.parametrize("name", ["", 1, b"a"])
async def test_an_id_is_a_text(name):
    with pytest.raises(OptionError, match="id must be a non-empty str"):
        TaskExecutor().add(int, id=name)


async def test_what_cannot_be_called_is_refused():
    with pytest.raises(OptionError, match="fn must be callable, got 3"):
        TaskExecutor().add(3)


async def test_a_coroutine_object_runs_once():
    executor = fed(after(1, "done"), failing(1, ValueError()), retry=None)
    done, failed = await executor.run()
    assert done.unwrap() == "done"
    assert type(failed.error) is ValueError


async def test_a_coroutine_object_cannot_be_tried_again():
    """It is refused and closed, or a warning that nobody has awaited it would fail this test."""
    with pytest.raises(OptionError, match="retry needs functions that can be called again"):
        TaskExecutor().add(after(1))


async def test_coroutine_objects_that_are_never_started_are_closed():
    executor = fed(after(1), after(1), retry=None, concurrency=1)
    await executor.abort()
    assert all(was_cancelled(result, 0) for result in await executor.run())


# async with


async def test_work_begins_as_soon_as_it_is_added(clock):
    """Nobody needs to read or to wait for it."""
    begun = []
    async with TaskExecutor() as executor:
        await asyncio.sleep(3)
        executor.add(lambda: begun.append(clock.now), id="a")
        await asyncio.sleep(3)
        assert begun == [3]
        assert executor.results == {"a": TaskResult("a", True, None, None, 1)}


async def test_leaving_waits_for_all_that_was_added_also_by_tasks(clock):
    executor = TaskExecutor(1)
    async with executor:
        executor.add(partial(after, 2))
        executor.add(lambda: executor.add(partial(after, 3)) and None)
    assert clock.now == 5
    assert [result.success for result in await executor.run()] == [True] * 3


async def test_run_inside_hands_out_what_is_done_so_far(clock):
    async with TaskExecutor() as executor:
        executor.add(partial(after, 2, "a"), id="a")
        assert [result.unwrap() for result in await executor.run()] == ["a"]
        assert clock.now == 2
        assert executor.results == {}
        assert await executor.run() == []
        executor.add(partial(after, 2, "b"), id="a")
    assert [result.unwrap() for result in await executor.run()] == ["b"]


async def test_a_cancelled_wait_inside_leaves_the_work_alone(clock):
    async with TaskExecutor() as executor:
        executor.add(partial(after, 2, "a"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await executor.run()
        assert [result.unwrap() for result in await executor.run()] == ["a"]
    assert clock.now == 2


async def test_leaving_by_an_exception_stops_the_work(clock):
    """P4: what runs is cancelled and awaited, what waits is never started."""
    executor, gauge = TaskExecutor(2), Gauge()
    with pytest.raises(ZeroDivisionError):
        async with executor:
            for _ in range(3):
                executor.add(partial(gauge.wrap(after), HOUR))
            await asyncio.sleep(1)
            raise ZeroDivisionError
    assert (gauge.started, gauge.cancelled, clock.now) == (2, 2, 1)
    results = await executor.run()
    assert all(was_cancelled(result, tries, "consumer left") for result, tries in zip(results, [1, 1, 0], strict=True))


@pytest.mark.parametrize("leaving", [False, True])
async def test_leaving_by_a_cancellation_stops_the_work(clock, leaving):
    """P8: also when it comes while the block waits for what is left."""
    executor, gauge = TaskExecutor(2), Gauge()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), executor:
            for _ in range(3):
                executor.add(partial(gauge.wrap(after), HOUR))
            if not leaving:
                await asyncio.sleep(HOUR)
    assert (gauge.started, gauge.cancelled, clock.now) == (2, 2, 1)
    assert [result.attempts for result in await executor.run()] == [1, 1, 0]


async def test_a_closed_or_running_executor_cannot_be_entered():
    executor = TaskExecutor()
    async with executor:
        with pytest.raises(ExecutorUseError, match="executor 'executor' cannot be entered: it is entered already"):
            await executor.__aenter__()
    with pytest.raises(ExecutorUseError, match="cannot be entered: it is closed"):
        await executor.__aenter__()


async def test_an_executor_in_run_cannot_be_entered():
    executor = TaskExecutor()

    async def task():
        await executor.__aenter__()

    executor.add(task)
    [result] = await executor.run()
    assert str(result.error) == "executor 'executor' cannot be entered: it is in run()"


# close


async def test_after_close_nothing_is_added_and_all_is_done():
    executor = fed(partial(after, 1, "a"), partial(after, 1, "b"), concurrency=1)
    executor.close()
    executor.close()
    with pytest.raises(ExecutorUseError, match="executor 'executor' is closed: task 'late' cannot be added"):
        executor.add(int, id="late")
    with pytest.raises(ExecutorUseError, match="task 'task-3' cannot be added"):
        executor.add(int)
    assert [result.unwrap() for result in await executor.run()] == ["a", "b"]
    assert await executor.run() == []


async def test_close_inside_the_block():
    """A task that adds another then fails, with an error that names what it wanted to add."""
    executor = TaskExecutor(1, retry=None)
    async with executor:
        executor.add(partial(after, 1, "a"))
        executor.add(lambda: executor.add(int, id="late"))
        executor.close()
    done, failed = await executor.run()
    assert done.unwrap() == "a"
    assert str(failed.error) == "executor 'executor' is closed: task 'late' cannot be added"


async def test_leaving_closes():
    async with TaskExecutor() as executor:
        pass
    with pytest.raises(ExecutorUseError, match="is closed"):
        executor.add(int)


# abort


async def test_abort_stops_what_runs_and_starts_nothing_more(clock):
    """P4: when it returns, nothing runs; run() gives what is done with what was stopped."""
    executor, gauge = TaskExecutor(2), Gauge()
    for seconds in (1, HOUR, HOUR, HOUR):
        executor.add(partial(gauge.wrap(after), seconds, seconds))
    running = asyncio.create_task(executor.run())
    await asyncio.sleep(2)
    await executor.abort()
    assert (gauge.now, gauge.started, gauge.cancelled, clock.now) == (0, 3, 2, 2)
    done, *others = await running
    assert done.unwrap() == 1
    assert all(was_cancelled(result, tries) for result, tries in zip(others, [1, 1, 0], strict=True))


async def test_abort_inside_the_block_and_twice(clock):
    executor = TaskExecutor(1)
    async with executor:
        executor.add(partial(after, HOUR))
        executor.add(partial(after, HOUR))
        await asyncio.sleep(1)
        await asyncio.gather(executor.abort(), executor.abort())
        await executor.abort()
        assert all(was_cancelled(result, tries) for result, tries in zip(await executor.run(), [1, 0], strict=True))
        with pytest.raises(ExecutorUseError, match="is closed"):
            executor.add(int)
    assert clock.now == 1
    assert await executor.run() == []


async def test_abort_while_another_waits_in_run_inside_the_block():
    executor = TaskExecutor(1)
    async with executor:
        executor.add(partial(after, HOUR))
        waiting = asyncio.create_task(executor.run())
        await asyncio.sleep(1)
        await executor.abort()
        [result] = await waiting
        assert was_cancelled(result, 1)


async def test_abort_before_anything_runs():
    executor = fed(int, int)
    await executor.abort()
    await executor.abort()
    assert list(executor.results) == ["task-1", "task-2"]
    assert all(was_cancelled(result, 0) for result in await executor.run())


async def test_abort_ends_a_wait_between_attempts(clock):
    executor = fed(partial(failing, 0, ValueError()), retry=Retry(on=Exception, initial=HOUR, max=HOUR))
    async with executor:
        await asyncio.sleep(1)
        await executor.abort()
    [result] = await executor.run()
    assert was_cancelled(result, 1)
    assert clock.now == 1


@pytest.mark.parametrize("inside", [True, False])
async def test_what_a_task_comes_to_when_it_is_stopped_is_its_result(inside):
    """A task may return all the same, and fail: that is not tried again, and not raised."""

    async def finishing():
        try:
            await asyncio.sleep(HOUR)
        except asyncio.CancelledError:
            return "finished"

    async def breaking():
        try:
            await asyncio.sleep(HOUR)
        finally:
            raise ValueError("broken")

    executor = fed(finishing, breaking)
    asyncio.get_running_loop().call_later(1, lambda: stopping.append(asyncio.ensure_future(executor.abort())))
    stopping = []
    if inside:
        async with executor:
            await asyncio.sleep(2)
    finished, broken = await executor.run()
    await stopping[0]
    assert finished == TaskResult("task-1", True, "finished", None, 1)
    assert (str(broken.error), broken.attempts) == ("broken", 1)


async def test_abort_leaves_behind_what_ignores_it(clock):
    """P4: after `grace` a warning names it; its result is that it was cancelled, whatever comes later."""
    executor = fed(partial(stubborn, 60), retry=None, timeout=None, grace=2, name="mill")
    running = asyncio.create_task(executor.run())
    await asyncio.sleep(1)
    with pytest.warns(UnstoppedWorkWarning, match="stage 'mill', item 0"):
        await executor.abort()
    [result] = await running
    assert clock.now == 3
    assert was_cancelled(result, 1)
    await asyncio.sleep(60)
    assert executor.results == {}
    assert await executor.run() == []


async def test_a_task_cannot_wait_for_itself(clock):
    """It fails with an error that says so, instead of waiting for ever."""
    executor = TaskExecutor(retry=None)

    async def at_once(call):
        await call()

    async def later(call):
        await asyncio.sleep(1)
        await call()

    async with executor:
        for call in (executor.run, executor.abort):
            executor.add(partial(at_once, call))
            executor.add(partial(later, call))
    results = await executor.run()
    assert [str(result.error) for result in results] == [
        f"{call} inside a task of executor 'executor' would wait for that task"
        for call in ("run()", "run()", "abort()", "abort()")
    ]


# Endings


async def test_cancelling_who_waits_in_run_stops_all_of_it(clock):
    """P4, P8: nothing is left; the executor can be fed again, and then gives the results of before as well."""
    executor, gauge = TaskExecutor(2), Gauge()
    for _ in range(3):
        executor.add(partial(gauge.wrap(after), HOUR))
    running = asyncio.create_task(executor.run())
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (gauge.now, gauge.started, gauge.cancelled, clock.now) == (0, 2, 2, 1)
    executor.add(lambda: "again")
    *stopped, again = await executor.run()
    assert all(was_cancelled(result, tries) for result, tries in zip(stopped, [1, 1, 0], strict=True))
    assert again.unwrap() == "again"


@pytest.mark.parametrize("base", [KeyboardInterrupt, SystemExit])
async def test_keyboard_interrupt_ends_run(base):
    """P5: what is no `Exception` stops the others and is raised; the results tell of it."""
    executor = fed(partial(after, HOUR), partial(failing, 1, base()), int, concurrency=2)
    with pytest.raises(base):
        await executor.run()
    others = executor.results
    assert type(others["task-2"].error) is base
    assert was_cancelled(others["task-1"], 1, "sibling failed")
    assert was_cancelled(others["task-3"], 0, "sibling failed")


@pytest.mark.parametrize("waiting", [True, False])
async def test_keyboard_interrupt_ends_the_block(waiting):
    """It comes out of `run()`, or else of leaving; after that the executor is closed."""
    executor = TaskExecutor()
    with pytest.raises(KeyboardInterrupt):
        async with executor:
            executor.add(partial(after, HOUR))
            executor.add(partial(failing, 1, KeyboardInterrupt()))
            if waiting:
                await executor.run()
            else:
                await asyncio.sleep(2)
                executor.add(int)  # it will never be started
    first, interrupted, *late = await executor.run()
    assert was_cancelled(first, 1, "sibling failed")
    assert type(interrupted.error) is KeyboardInterrupt
    assert all(was_cancelled(result, 0, "sibling failed") for result in late)
    assert len(late) == (not waiting)


async def test_a_keyboard_interrupt_that_is_survived_leaves_the_executor_closed():
    async with TaskExecutor() as executor:
        executor.add(partial(failing, 1, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            await executor.run()
        with pytest.raises(ExecutorUseError, match="is closed"):
            executor.add(int)


async def test_draining_starts_nothing_more():
    """What runs is done, what waits is not started, also what a task adds meanwhile."""
    executor = TaskExecutor(1)
    loop = asyncio.get_running_loop()

    async def adding():
        await asyncio.sleep(2)
        return executor.add(int)

    executor.add(adding)
    executor.add(int)
    loop.call_later(1, open_runs.drain, loop)
    first, *others = await executor.run()
    assert first.unwrap() == "task-3"
    assert all(was_cancelled(result, 0) for result in others)
    executor.add(int)
    [result] = await executor.run()
    assert was_cancelled(result, 0)
    open_runs.end_draining(loop)


def mixed(gauge, **options):
    """Tasks that succeed, fail and are tried again, time out, and add another one, on two places."""
    executor = TaskExecutor(2, timeout=2, retry=EVERY_SECOND, **options)

    async def adding():
        await asyncio.sleep(1)
        executor.add(partial(gauge.wrap(after), 1, "added"))

    executor.add(partial(gauge.wrap(after), 1, "done"))
    executor.add(partial(gauge.wrap(failing), 1, KeyError()))
    executor.add(gauge.wrap(adding), priority=1)
    executor.add(partial(gauge.wrap(after), HOUR))
    return executor


def well_accounted(results, gauge):
    assert gauge.now == 0
    assert gauge.peak <= 2
    assert [result.id for result in results] == [f"task-{number + 1}" for number in range(len(results))]
    assert sum(result.attempts for result in results) == gauge.started
    assert all(result.success is (result.error is None) for result in results)


@pytest.mark.parametrize("how", ["run", "block"])
def test_a_cancellation_at_any_step_stops_everything(place, how):
    """P4, P8: nothing runs afterwards, and every task has a result, which comes with the next `run()`."""

    async def main(interrupt):
        gauge = Gauge()
        executor = mixed(gauge)

        async def block():
            async with executor:
                await asyncio.sleep(1)

        work = asyncio.create_task(executor.run() if how == "run" else block())
        with interrupt.by(work.cancel):
            await asyncio.wait([work])
        assert work.cancelled() is any(interrupt.results)
        if how == "run" and not work.cancelled():
            results = work.result()
            assert await executor.run() == []
        else:
            results = await executor.run()
        well_accounted(results, gauge)

    assert run_interrupted(main, loop=place.loop, tasks=place.tasks) > 20


@pytest.mark.parametrize("how", ["run", "block"])
def test_abort_at_any_step_stops_everything(place, how):
    """P4: `run()` gives the results of all tasks, whenever the abortion comes; nothing runs afterwards."""

    async def main(interrupt):
        gauge, aborting = Gauge(), []
        executor = mixed(gauge)
        if how == "run":
            work = asyncio.create_task(executor.run())
            with interrupt.by(lambda: aborting.append(asyncio.create_task(executor.abort()))):
                results = await work
        else:
            with interrupt.by(lambda: aborting.append(asyncio.create_task(executor.abort()))):
                async with executor:
                    await asyncio.sleep(1)
                    results = await executor.run()
        well_accounted(results, gauge)
        await asyncio.gather(*aborting)

    assert run_interrupted(main, loop=place.loop, tasks=place.tasks) > 20


# Use


async def test_two_runs_at_once_are_refused():
    executor = fed(partial(after, 1, "a"))
    running = asyncio.create_task(executor.run())
    await asyncio.sleep(0.5)
    with pytest.raises(ConcurrentReadError, match=r"two run\(\) calls at once on one executor"):
        await executor.run()
    assert [result.unwrap() for result in await running] == ["a"]


async def test_use_from_a_thread_is_refused():
    """Plain `def` functions run in threads: what they want to add, they return."""
    executor = TaskExecutor(retry=None)

    def adding():
        executor.add(int)

    def closing():
        executor.close()

    def running():
        asyncio.run(executor.run())

    for task in (adding, closing, running):
        executor.add(task)
    for result in await executor.run():
        assert type(result.error) is WrongLoopError
        assert str(result.error).startswith("executor 'executor' runs on another event loop or in another thread")


async def test_a_thread_adds_through_the_loop():
    executor = TaskExecutor()
    loop = asyncio.get_running_loop()

    def adding():
        loop.call_soon_threadsafe(executor.add, lambda: "added")

    executor.add(adding)
    assert [result.unwrap() for result in await executor.run()] == [None, "added"]


async def test_results_are_a_view_of_what_was_not_handed_out():
    executor = fed(partial(after, 2, "slow"), partial(after, 1, "fast"))
    results = executor.results
    assert results == {}
    running = asyncio.create_task(executor.run())
    await asyncio.sleep(1.5)
    assert dict(results) == {"task-2": TaskResult("task-2", True, "fast", None, 1)}
    with pytest.raises(TypeError):
        results["task-1"] = None
    await running
    assert results == {}


async def test_stats_are_of_the_run():
    """P5: the books of the queue and of the work."""
    executor = TaskExecutor(3, retry=None, name="mill")
    assert executor.stats() == Stats()
    for number in range(5):
        executor.add(partial(after, number))
    executor.add(partial(failing, 0, ValueError()))
    running = asyncio.create_task(executor.run())
    await asyncio.sleep(0.5)
    assert executor.stats()["mill"].running == 3
    await running
    mill = executor.stats()["mill"]
    assert (mill.taken, mill.dropped, mill.failed, mill.peak_running, mill.concurrency) == (6, 5, 1, 3, 3)
    assert executor.stats()["queue"].delivered == 6


async def test_context_variables_of_run_reach_the_tasks():
    """P9: those that stand where the work was opened."""
    request = contextvars.ContextVar("request")
    executor = fed(lambda: request.get(), retry=None)
    request.set("42")
    [result] = await executor.run()
    assert result.unwrap() == "42"


async def test_an_executor_inside_a_task_of_another():
    async def inner():
        return [result.unwrap() for result in await fed(lambda: 1, lambda: 2).run()]

    [result] = await fed(inner).run()
    assert result.unwrap() == [1, 2]


async def test_results_are_freed_without_the_collector():
    """P7: nothing ties an executor, its tasks and their results together once they were handed out."""

    class Thing:
        pass

    async def make():
        return Thing()

    async def fail():
        raise KeyError(Thing())

    gc.collect()
    gc.disable()
    try:
        executor = fed(make, fail, retry=None)
        watched = [weakref.ref(executor)]
        made, failed = await executor.run()
        watched += [weakref.ref(made.result), weakref.ref(failed.error.args[0])]
        del made, failed, executor
        await asyncio.sleep(1)
        assert [each() for each in watched] == [None] * 3
    finally:
        gc.enable()


async def test_the_window_keeps_its_attributes_few():
    """As of all windows: CPython shares the keys of an instance's dict up to 30 of them."""
    async with TaskExecutor() as executor:
        assert len(vars(executor._opened.window)) <= 29
