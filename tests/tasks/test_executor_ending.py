"""`TaskExecutor`: how it ends: a block that is left, `close`, `abort`, cancellation, Ctrl-C."""

import asyncio
from functools import partial

import pytest

from penstock import (
    ExecutorUseError,
    Retry,
    UnstoppedWorkWarning,
)
from penstock.core import open_runs
from penstock.tasks.executor import TaskExecutor
from penstock.tasks.feed import TaskResult
from penstock.testing import Gauge, run_interrupted

from .executing import EVERY_SECOND, HOUR, after, failing, fed, stubborn, was_cancelled

pytestmark = pytest.mark.grid


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
