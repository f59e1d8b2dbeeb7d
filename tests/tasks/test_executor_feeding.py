"""`TaskExecutor`: adding tasks, before it runs and meanwhile, from wherever that may be."""

import asyncio
import contextvars
import gc
import weakref
from functools import partial

import pytest

from penstock import (
    ConcurrentReadError,
    OptionError,
    WrongLoopError,
)
from penstock.core.stats import Stats
from penstock.tasks.executor import TaskExecutor
from penstock.tasks.feed import TaskResult

from .executing import after, failing, fed, was_cancelled

pytestmark = pytest.mark.grid


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
