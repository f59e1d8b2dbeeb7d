"""Which clock a run measures by, and what it counts when tasks never begin."""

import asyncio
import inspect
from time import monotonic

import pytest

import penstock
from penstock import testing
from penstock.core.clock import clock_of


@pytest.mark.parametrize("name", testing.LOOPS, ids=["of-python", "of-libuv"])
def test_a_real_loop_is_measured_by_the_clock_of_the_machine(name):
    """The time of a loop of uvloop has a resolution of a millisecond."""
    if name == "uvloop":
        pytest.importorskip("uvloop")
    loop = testing.new_real_loop(name)
    try:
        assert clock_of(loop) is monotonic
    finally:
        loop.close()


async def test_a_virtual_loop_is_measured_by_its_own_clock(clock):
    await asyncio.sleep(17)
    assert clock_of(asyncio.get_running_loop())() == clock.now == 17


@pytest.mark.parametrize("concurrency", [2, 3, 5])
@pytest.mark.parametrize("tasks", testing.TASK_FACTORIES)
def test_what_never_began_was_not_started(tasks, concurrency):
    """P5: a task that is cancelled before its first step was taken and is cancelled, and its work was not started."""
    began = []

    async def work(number):
        began.append(number)
        raise ValueError(number)

    async def main():
        async with penstock.stream(range(9)).map(work, concurrency=concurrency, name="work").open() as items:
            with pytest.raises(ValueError, match="0"):
                await anext(items)
        return items.stats()["work"]

    stage = testing.run(main(), tasks=tasks)
    assert began == [0]
    assert (stage.started, stage.failed, stage.succeeded) == (1, 1, 0)
    assert stage.cancelled == (concurrency - 1 if tasks == "lazy" else 0)


@pytest.mark.parametrize("concurrency", [2, 3])
def test_lists_that_never_began_are_cancelled_item_by_item(concurrency):
    """P5: also where it is the first list that fails in its first step."""

    async def work(numbers):
        raise penstock.OptionError(numbers)

    async def main():
        stream = penstock.stream(range(9)).map_batches(work, 2, concurrency=concurrency)
        async with stream.open() as items:
            with pytest.raises(penstock.OptionError):
                await anext(items)
        return items.stats()[-1]

    stage = testing.run(main(), tasks="lazy")
    assert (stage.taken, stage.started, stage.failed) == (2 * concurrency, 2, 1)
    assert (stage.cancelled, stage.in_flight) == (2 * concurrency - 1, 0)


def test_what_nobody_will_await_any_more_is_closed():
    """P4: a plain function may have returned a coroutine that is cancelled before its first step."""
    made = []

    async def fails(number):
        raise ValueError(number)

    def work(number):
        made.append(fails(number))
        return made[-1]

    async def main():
        async with penstock.stream(range(9)).map(work, engine="inline", concurrency=3).open() as items:
            with pytest.raises(ValueError, match="0"):
                await anext(items)

    testing.run(main(), tasks="lazy")
    assert [inspect.getcoroutinestate(each) for each in made] == [inspect.CORO_CLOSED] * 3


def test_a_source_whose_task_has_not_begun_when_the_run_is_stopped_is_closed():
    """P4: its task is not cancelled, as it alone can close what it reads."""
    closed = []

    class Endless:
        def __aiter__(self):
            return self

        async def __anext__(self):
            raise AssertionError("the run was stopped before")

        async def aclose(self):
            closed.append(1)

    async def main():
        async with penstock.stream(Endless()).open() as items:
            reading = asyncio.ensure_future(anext(items))
            await asyncio.sleep(0)
            items.stop()
            with pytest.raises(StopAsyncIteration):
                await reading

    testing.run(main(), tasks="lazy")
    assert closed == [1]


@pytest.mark.parametrize("operator", ["map", "flat_map", "map_batches"])
async def test_work_begins_in_the_moment_in_which_its_item_is_taken(operator):
    """P2: without a task factory that has it otherwise."""
    began = []

    async def work(what):
        began.append(what)
        return [what]

    source, size = penstock.stream(["item"]), [1] if operator == "map_batches" else []
    async with getattr(source, operator)(work, *size).open() as items:
        reading = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        assert began == [["item"] if size else "item"]
        await reading


def test_to_wait_for_a_turn_takes_no_time(clock, turn_clock):
    """P9: tasks that begin in a later pass of the loop begin in the next one."""
    turn_clock.step = lambda: 0.002

    async def work(number):
        return number

    async def main():
        return await penstock.stream(range(9)).map(work, concurrency=3).to_list()

    assert testing.run(main(), tasks="lazy", clock=clock) == list(range(9))
    assert clock.now == 0


@pytest.mark.parametrize(("lists", "step"), [(False, 1), (True, 0.002)], ids=["items", "lists"])
def test_what_was_cancelled_while_it_waited_for_its_turn_was_not_started(lists, step, turn_clock):
    """P5: also where each look at the clock takes so long that turns are over before the next task has begun."""
    turn_clock.step, began = lambda: step, []

    async def work(number):
        began.append(number)
        await asyncio.sleep(9)
        return number

    async def main():
        source = penstock.stream(range(9))
        options = {"concurrency": 3, "name": "work"}
        stream = source.map_batches(work, 2, **options) if lists else source.map(work, **options)
        async with stream.open() as items:
            reading = asyncio.ensure_future(anext(items))
            for _ in range(6):
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
        return items.stats()["work"]

    stage = testing.run(main(), tasks="lazy")
    assert stage.started == sum(len(each) if lists else 1 for each in began)
    assert stage.cancelled == stage.taken > 0
