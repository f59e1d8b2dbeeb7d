"""A run that is left by what it waits for would wait for itself: `ConcurrentReadError` at once, whoever asks."""

import asyncio

import pytest

import penstock
from penstock import merge, stream

pytestmark = pytest.mark.grid

LEAVE = {
    "aclose": lambda items: items.aclose(),
    "__aexit__": lambda items: items.__aexit__(None, None, None),
}


def closing_source(run, leave):
    async def source():
        yield 1
        await LEAVE[leave](run[0])

    return stream(source)


def closing_source_at_once(run, leave):
    async def source():
        await LEAVE[leave](run[0])
        yield 1

    return stream(source).map(lambda item: item, concurrency=2)


def closing_work(run, leave):
    async def work(item):
        await asyncio.sleep(1)
        await LEAVE[leave](run[0])

    return stream(range(5)).map(work, concurrency=2)


def closing_work_at_once(run, leave):
    async def work(item):
        await LEAVE[leave](run[0])

    return stream(range(5)).map(work)


def closing_outputs(run, leave):
    async def work(item):
        yield item
        await LEAVE[leave](run[0])

    return stream(range(5)).flat_map(work)


def closing_batch(run, leave):
    async def work(items):
        await LEAVE[leave](run[0])

    return stream(range(5)).map_batches(work, 2)


def closing_inner_work(run, leave):
    async def inner(item):
        await asyncio.sleep(1)
        await LEAVE[leave](run[0])

    async def work(item):
        return await stream(range(2)).map(inner, concurrency=2).to_list()

    return stream(range(5)).map(work)


def closing_inner_source(run, leave):
    async def work(item):
        return await closing_source(run, leave).to_list()

    return stream(range(5)).map(work)


def merged_inner_run(run, leave):
    return merge(closing_source(run, leave).open(), stream(range(3)))


def merged_inner_work(run, leave):
    return merge(closing_work(run, leave).open(), stream(range(3)))


INSIDE = [
    *(closing_source, closing_source_at_once, closing_work, closing_work_at_once, closing_outputs, closing_batch),
    *(closing_inner_work, closing_inner_source, merged_inner_run, merged_inner_work),
]


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("inside", INSIDE)
async def test_who_is_part_of_a_run_cannot_leave_it(inside, leave, clock):
    run = []
    with pytest.raises(penstock.ConcurrentReadError, match="abort"):
        async with inside(run, leave).open() as items:
            run.append(items)
            async for _ in items:
                pass
    assert clock.now <= 1


async def test_work_of_one_run_may_leave_another_one():
    async with stream(range(9)).map(lambda item: item).open() as other:
        await anext(other)

        async def work(item):
            await other.aclose()
            return item

        assert await stream(range(3)).map(work).to_list() == [0, 1, 2]


async def test_what_work_has_started_and_does_not_wait_for_may_leave_the_run():
    run, closing = [], []

    async def close_later():
        await asyncio.sleep(1)
        await run[0].aclose()

    async def work(item):
        closing.append(asyncio.create_task(close_later()))
        return item

    async with stream(range(9)).map(work).open() as items:
        run.append(items)
        assert await anext(items) == 0
        await asyncio.gather(*closing)
        with pytest.raises(StopAsyncIteration):
            await anext(items)


async def test_work_may_abort_its_run(clock):
    run = []

    async def work(item):
        await asyncio.sleep(1)
        run[0].abort()
        return item

    async with stream(range(9)).map(work, concurrency=2).open() as items:
        run.append(items)
        assert [item async for item in items] == []
    assert clock.now == 1


async def test_a_source_may_abort_its_run(clock):
    run = []

    async def source():
        yield 1
        run[0].abort()
        await asyncio.sleep(9)
        yield 2

    async with stream(source).open() as items:
        run.append(items)
        assert [item async for item in items] == [1]
    assert clock.now == 0
