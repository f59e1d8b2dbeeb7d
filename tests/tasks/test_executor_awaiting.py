"""What `add` gives is the id of the task, and can be awaited for what the task returns."""

import asyncio
import contextlib
import gc
import pickle
import weakref
from functools import partial

import pytest

from penstock import ExecutorUseError, NoResultError, Retry
from penstock.tasks import AddedTask, TaskExecutor

from .executing import after, failing

grid = pytest.mark.grid
pytestmark = grid


async def test_it_gives_what_the_task_returns(clock):
    async with TaskExecutor(2) as executor:
        slow = executor.add(partial(after, 5, "slow"))
        assert await executor.add(partial(after, 2, "quick")) == "quick"
        assert clock.now == 2.0
        assert await slow == "slow"
        assert await slow == "slow"
        assert clock.now == 5.0
        assert await executor.add(lambda: None) is None


async def test_it_is_the_id():
    executor = TaskExecutor()
    added = executor.add(partial(after, 1), id="x")
    assert isinstance(added, str)
    assert isinstance(added, AddedTask)
    assert (added, repr(added), f"{added}", {added: 1}["x"]) == ("x", "'x'", "x", 1)
    assert type(str(added)) is str
    assert type(pickle.loads(pickle.dumps(str(added)))) is str
    (result,) = await executor.run()
    assert type(result.id) is str
    assert executor.results == {}


async def test_it_raises_the_error_of_the_task_after_its_last_try(clock):
    error = OSError("gone")
    async with TaskExecutor(2, retry=Retry(on=OSError, initial=1, jitter=0)) as executor:
        added = executor.add(partial(failing, 1, error))
        for _ in range(2):
            with pytest.raises(OSError, match="gone") as raised:
                await added
            assert raised.value is error
        assert clock.now == 1 + 1 + 1 + 2 + 1


async def test_beside_run_whichever_begins_first():
    for first in (True, False):
        executor = TaskExecutor(2)
        added = executor.add(partial(after, 1, "x"))
        waits = [added, executor.run()] if first else [executor.run(), added]
        assert "x" in await asyncio.gather(*waits)
    executor = TaskExecutor(2)
    added = executor.add(partial(after, 1, "x"))
    running = asyncio.create_task(executor.run())
    assert await added == "x"
    await running


async def test_after_run():
    executor = TaskExecutor(2)
    added = executor.add(partial(after, 1, "x"))
    await executor.run()
    assert await added == "x"


async def test_nobody_waits_for_ever_for_what_nobody_runs():
    executor = TaskExecutor(name="mill")
    with pytest.raises(ExecutorUseError, match="executor 'mill' is not at work"):
        await executor.add(partial(after, 1))
    executor.close()
    await executor.run()


async def test_who_waits_when_the_work_is_stopped_is_told():
    executor = TaskExecutor(1)
    running, queued = executor.add(partial(after, 9)), executor.add(partial(after, 9))
    work = asyncio.create_task(executor.run())
    waiting = [asyncio.ensure_future(each) for each in (running, queued)]
    await asyncio.sleep(1)
    await executor.abort()
    with pytest.raises(NoResultError, match="'task-1' was cancelled: caller cancelled"):
        await waiting[0]
    with pytest.raises(NoResultError, match="'task-2' was not started: caller cancelled"):
        await waiting[1]
    await work


async def test_what_waits_when_run_is_cancelled_is_told():
    """What is queued can wait for the next run(), and who waits for it must not hang."""
    executor = TaskExecutor(1)
    running, queued = executor.add(partial(after, 9)), executor.add(partial(after, 9))
    work = asyncio.create_task(executor.run())
    waiting = [asyncio.ensure_future(each) for each in (running, queued)]
    await asyncio.sleep(1)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    for each in waiting:
        with pytest.raises((NoResultError, ExecutorUseError)):
            await each


async def test_cancelling_who_waits_cancels_no_task(clock):
    async with TaskExecutor() as executor:
        added = executor.add(partial(after, 5, "x"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(added, 1)
        many = [asyncio.ensure_future(added) for _ in range(3)]
        await asyncio.sleep(1)
        many[1].cancel()
        await asyncio.wait(many)
        assert [each.cancelled() or each.result() for each in many] == ["x", True, "x"]
    assert clock.now == 5.0


async def test_a_task_that_waits_for_another_is_told():
    """It holds the place that the other one may need."""
    async with TaskExecutor(1, retry=None) as executor:

        async def parent():
            return await executor.add(partial(after, 1))

        with pytest.raises(ExecutorUseError, match="inside a task of executor"):
            await executor.add(parent)


async def test_a_task_may_end_with_adding_another():
    """What it returns is the id: it is not awaited, as other awaitables are."""
    async with TaskExecutor(1) as executor:
        assert await executor.add(lambda: executor.add(partial(after, 1, "x"), id="child")) == "child"
    assert executor.results["child"].result == "x"


@pytest.mark.parametrize("is_awaited", [False, True])
async def test_it_leaves_nothing(is_awaited):
    """P7: no exception that nobody retrieved, nothing for the collector."""

    async def fail():
        await asyncio.sleep(1)
        raise OSError("gone")

    gc.collect()
    gc.disable()
    try:
        executor = TaskExecutor(retry=None)
        added = [executor.add(partial(after, 1)), executor.add(fail)]
        work = asyncio.create_task(executor.run())
        if is_awaited:
            await added[0]
            with contextlib.suppress(OSError):
                await added[1]
        await work
        watched = [weakref.ref(executor), *map(weakref.ref, added)]
        del executor, added, work
        await asyncio.sleep(1)
        assert [each() for each in watched] == [None] * 3
    finally:
        gc.enable()
