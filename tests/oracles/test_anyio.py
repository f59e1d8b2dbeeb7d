"""What anyio's tests of memory object streams and task groups ask, where no other test of ours has it."""

import asyncio

import pytest

import penstock
from penstock.testing import Gauge


async def test_the_reason_of_a_cancellation_arrives():
    run = asyncio.create_task(penstock.stream([60]).map(asyncio.sleep).to_list())
    await asyncio.sleep(1)
    run.cancel("enough")
    with pytest.raises(asyncio.CancelledError) as raised:
        await run
    assert raised.value.args == ("enough",)


@pytest.mark.parametrize("inside", [True, False])
async def test_a_timeout_leaves_no_cancellation_behind(inside):
    """Round the run, and round one `anext` of it."""
    task, results = asyncio.current_task(), penstock.stream([60]).map(asyncio.sleep)
    with pytest.raises(TimeoutError):
        async with (
            asyncio.timeout(None if inside else 1),
            results.open() as items,
            asyncio.timeout(1 if inside else None),
        ):
            await anext(items)
    assert task.cancelling() == 0


async def test_a_failure_of_work_leaves_no_cancellation_behind():
    async def work(number):
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        await penstock.stream(range(3)).map(work, concurrency=3).to_list()
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)


async def test_a_group_that_work_raises_is_raised_as_it_is():
    group = ExceptionGroup("mine", [ValueError("one"), KeyError("other")])

    async def work(_):
        raise group

    with pytest.raises(ExceptionGroup) as raised:
        await penstock.stream([1]).map(work).to_list()
    assert raised.value is group


async def test_a_run_within_a_task_group_within_a_run():
    """A failure at the bottom goes up through all of them, and everything is stopped on its way."""
    gauge = Gauge()

    async def inner(number):
        await asyncio.sleep(number)
        if number == 1:
            raise ValueError("at the bottom")

    async def outer(_):
        async with asyncio.TaskGroup() as group:
            group.create_task(penstock.stream([1, 3600]).map(gauge.wrap(inner), concurrency=2).drain())
            group.create_task(penstock.stream([3600, 3600]).map(gauge.wrap(inner), concurrency=2).drain())

    with pytest.raises(ExceptionGroup) as raised:
        await penstock.stream([1]).map(outer).drain()
    assert [str(error) for error in raised.value.exceptions] == ["at the bottom"]
    assert (gauge.failed, gauge.cancelled, gauge.now) == (1, 3, 0)


async def test_a_task_group_inside_work_is_left_by_the_cancellation_of_the_work():
    gauge = Gauge()

    async def work(_):
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(gauge.wrap(asyncio.sleep)(3600))

    async with penstock.stream([1]).map(work).open() as items:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 1)
        assert gauge.now == 3
    assert (gauge.now, gauge.cancelled) == (0, 3)


async def test_tasks_that_work_starts_are_named_and_have_the_context_of_the_item():
    """An item's task belongs to it alone: a name that it takes is not the next one's."""
    names = []

    async def work(number):
        names.append(asyncio.current_task().get_name())
        asyncio.current_task().set_name(f"item {number}")
        await asyncio.sleep(0)

    await penstock.stream(range(4)).map(work).drain()
    assert not any(name.startswith("item ") for name in names)
