"""Trap 14: work, outputs and sources that raise what means something else to their caller."""

import asyncio

import pytest

import penstock

CONTROL_FLOW = [asyncio.CancelledError, StopIteration, StopAsyncIteration, GeneratorExit]

control_flow = pytest.mark.parametrize("base", CONTROL_FLOW)


@control_flow
@pytest.mark.parametrize(
    ("kind", "concurrency"),
    [("plain", 1), ("async", 1), ("async", 3), ("async, at once", 1), ("async, at once", 3), ("lambda", 3)],
)
async def test_trap_14_work_raises_control_flow(base, kind, concurrency, read_until_error, raising):
    """Trap 14 (streamable): work that raised CancelledError or StopIteration itself hung the run, or ended it early."""
    results = penstock.stream(range(6)).map(raising(base, kind), concurrency=concurrency)
    seen, error = await read_until_error(results.open())
    assert seen == [0, 1]
    assert isinstance(error, penstock.WorkRaised)
    assert type(error.__cause__) is base
    assert error.__cause__.args == ("mine",)


@control_flow
@pytest.mark.parametrize("kind", ["plain", "async", "async, at once", "lambda"])
@pytest.mark.parametrize("operator", ["map", "filter", "tap"])
async def test_trap_14_control_flow_is_that_items_failure(base, kind, operator, raising):
    """Trap 14 (streamable): the other items are delivered; the one that raised has failed."""
    fn = raising(base, kind)
    results = getattr(penstock.stream([1, 2, 3]), operator)(fn, concurrency=2, on_error="collect")
    async with results.open() as items:
        assert [item async for item in items] == [1, 3]
    (failed,) = items.failures
    assert (failed.index, failed.item) == (1, 2)
    assert isinstance(failed.error, penstock.WorkRaised)


class Raises:
    """An iterable, sync and async, that raises `base` after two items."""

    def __init__(self, base):
        self.base = base
        self.count = 0

    def __iter__(self):
        return self

    __aiter__ = __iter__

    def __next__(self):
        self.count += 1
        if self.count > 2:
            raise self.base("mine")
        return self.count

    async def __anext__(self):
        await asyncio.sleep(0)
        return next(self)


@pytest.mark.parametrize("base", [asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_trap_14_outputs_raise_control_flow(base, asynchronous, read_until_error):
    """Trap 14 (streamable): of `flat_map`, the iterable raises; what came before is delivered."""

    def outputs(_):
        iterable = Raises(base)
        return aiter(iterable) if asynchronous else SyncOnly(iterable)

    seen, error = await read_until_error(penstock.stream([0]).flat_map(outputs).open())
    assert seen == [1, 2]
    assert isinstance(error, penstock.WorkRaised)
    assert type(error.__cause__) is base


class SyncOnly:
    """Hides that an iterable is async too."""

    def __init__(self, iterable):
        self._iterable = iterable

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._iterable)


@pytest.mark.parametrize("base", [asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_trap_14_the_source_raises_control_flow(base, asynchronous, read_until_error):
    """Trap 14 (streamable): a source that raises CancelledError itself fails, it does not end and does not cancel."""
    iterable = Raises(base)
    source = aiter(iterable) if asynchronous else SyncOnly(iterable)
    seen, error = await read_until_error(penstock.stream(source).open())
    assert seen == [1, 2]
    assert isinstance(error, penstock.WorkRaised)
    assert type(error.__cause__) is base


async def test_trap_14_work_cancels_its_own_task():
    """Trap 14 (streamable): so does work that cancels the task it runs in, and the next item does not inherit that."""

    async def work(number):
        if number == 1:
            asyncio.current_task().cancel()
        await asyncio.sleep(1)
        return number, asyncio.current_task().cancelling()

    async with penstock.stream(range(3)).map(work, on_error="collect").open() as items:
        assert [item async for item in items] == [(0, 0), (2, 0)]
    assert isinstance(items.failures[0].error, penstock.WorkRaised)


async def test_trap_14_work_raises_what_looks_like_a_converted_stopiteration():
    """Trap 14 (streamable): a RuntimeError of the user's own, with StopIteration as its cause, stays what it is."""

    async def work(_):
        try:
            next(iter(()))
        except StopIteration as error:
            raise RuntimeError("no more pages") from error

    with pytest.raises(RuntimeError, match="no more pages") as raised:
        await penstock.stream([1]).map(work).to_list()
    assert type(raised.value) is RuntimeError
