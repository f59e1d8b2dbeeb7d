"""The items of a call of `map_batches` that could not begin: each has an outcome and an index of its own."""

import asyncio

import pytest

import penstock
from penstock import testing


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_call_that_no_task_is_made_for_fails_for_each_of_its_items(ordered, clock):
    """P5: taken, delivered and failed are in balance, and every failure says which item it was."""
    loop = asyncio.get_running_loop()
    lazy, made = testing.TASK_FACTORIES["lazy"], []

    def second_fails(loop, coroutine, **options):
        made.append(coroutine)
        if len(made) == 2:
            raise OSError("no more tasks")
        return lazy(loop, coroutine, **options)

    async def work(numbers):
        return numbers

    stream = penstock.stream(range(6)).map_batches(work, 2, ordered=ordered, on_error="collect")
    loop.set_task_factory(second_fails)
    try:
        async with stream.open() as items:
            assert [item async for item in items] == [0, 1, 4, 5]
    finally:
        loop.set_task_factory(None)
    assert [(failed.index, failed.item, str(failed.error)) for failed in items.failures] == [
        (2, 2, "no more tasks"),
        (3, 3, "no more tasks"),
    ]


@pytest.mark.grid
async def test_lists_whose_tasks_never_begin_are_cancelled_item_by_item():
    """P5: with a lazy task factory a task may be cancelled before its first step."""
    began = []

    async def work(numbers):
        began.extend(numbers)
        await asyncio.sleep(9)
        return numbers

    async with penstock.stream(range(6)).map_batches(work, 3, concurrency=2).open() as items:
        reading = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        items.abort("deadline")
        with pytest.raises(StopAsyncIteration):
            await reading
    books = items.stats()["map_batches(work)"]
    assert (books.cancelled, books.failed, books.started) == (books.taken, 0, len(began))
