"""What a `flat_map` does with the outputs of work that answers its cancellation with a result."""

import asyncio

import pytest

import penstock

pytestmark = pytest.mark.grid


class Lines:
    """An iterator that holds something open until it is closed."""

    def __init__(self):
        self.closed = 0

    def __iter__(self):
        return self

    def __next__(self):
        return "line"

    def close(self):
        self.closed += 1


@pytest.mark.parametrize("ordered", [True, False])
async def test_an_iterator_that_comes_after_leaving_is_closed_once(ordered):
    """P4: leaving closes what work still hands over."""
    lines = Lines()

    async def work(number):
        if number == 0:
            return [number]
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            return lines

    stream = penstock.stream(range(2)).flat_map(work, concurrency=2, ordered=ordered)
    async with stream.open() as items:
        assert await anext(items) == 0
        await asyncio.sleep(1)  # on a busy machine, a task that starts lazily takes more than one turn to begin
    assert lines.closed == 1
    stage = items.stats()[1]
    assert (stage.taken, stage.delivered, stage.discarded) == (2, 1, 1)


@pytest.mark.parametrize("ordered", [True, False])
async def test_outputs_that_come_after_leaving_are_not_asked_for(ordered, clock):
    """P4: what they would wait for, room in the buffer, nobody makes any more."""
    closed = []

    class Pages:
        def __aiter__(self):
            return self

        async def __anext__(self):
            raise AssertionError("nobody wants a page")

        async def aclose(self):
            closed.append(clock.now)

    async def work(number):
        if number == 0:
            return [number] * 2
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            return Pages()

    stream = penstock.stream(range(2)).flat_map(work, concurrency=2, ordered=ordered)
    async with stream.open() as items:
        assert await anext(items) == 0
        await asyncio.sleep(1)
    assert (closed, clock.now) == ([1.0], 1.0)
    stage = items.stats()[1]
    assert (stage.taken, stage.discarded, stage.running) == (2, 2, 0)
