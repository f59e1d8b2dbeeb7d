"""The items of a call of `map_batches` that could not begin: each has an outcome and an index of its own."""

import asyncio

import pytest

import penstock
from penstock import testing
from penstock.core.batches import _knowing
from penstock.core.plan import MISSING
from penstock.testing import Gauge

grid = pytest.mark.grid


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


@grid
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


@pytest.mark.parametrize("ordered", [True, False])
async def test_of_a_call_that_no_task_is_made_for_one_item_fails_where_that_ends_the_run(ordered):
    """P5: the rest of its list is cancelled, and the one error is not raised with itself in its notes."""
    loop = asyncio.get_running_loop()

    def fails(loop, coroutine, **_):
        raise OSError("no more tasks")

    async def work(numbers):
        raise AssertionError("there is no task to run it in")

    stream = penstock.stream(range(6)).map_batches(work, 3, ordered=ordered)
    loop.set_task_factory(fails)
    try:
        items = stream.open()
        with pytest.raises(OSError, match="no more tasks") as raised:
            await anext(items)
    finally:
        loop.set_task_factory(None)
    assert raised.value.__notes__ == ["penstock: stage 'map_batches(work)', item 0"]
    stage = items.stats()[-1]
    assert (stage.taken, stage.failed, stage.cancelled, items.failures) == (3, 1, 2, ())


async def test_what_is_known_behind_what_was_not_tried_is_left_out():
    """P5: the items from the first untried one on are cancelled: nothing is made up for them."""

    async def gate(items):
        return ["known", MISSING, MISSING, "known"]

    async def work(items):
        return items[:1]

    assert await _knowing(work, gate)(["a", "b", "c", "d"]) == ["known", "b"]


@grid
@pytest.mark.parametrize("ordered", [True, False])
async def test_a_half_is_tried_when_the_thread_of_the_half_before_it_is_back(ordered, clock):
    """P1: a thread that goes on after its timeout is the call that runs."""
    gauge, times = Gauge(), []

    def work(numbers):
        with gauge:
            times.append((clock.now, numbers))
            if len(numbers) > 1:
                raise ValueError(numbers)
            clock.sleep(9 if numbers == [0] else 1)
            return numbers

    stream = penstock.stream(range(2)).map_batches(
        work, 2, engine="thread", timeout=5, ordered=ordered, on_error="collect"
    )
    async with stream.open() as items:
        assert [item async for item in items] == [1]
    assert [(failed.index, str(failed.error)) for failed in items.failures] == [(0, "timed out after 5 s")]
    assert times == [(0.0, [0, 1]), (0.0, [0]), (9.0, [1])]
    assert gauge.peak == 1
