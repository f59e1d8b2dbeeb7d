"""What a source of a stream may be, and what the refusal of another says."""

import asyncio

import pytest

import penstock
from penstock import OptionError
from penstock.core import open_runs
from penstock.core.scope import outlast
from penstock.testing import Scripted


class Numbers:
    """An async iterable that only a function makes, so that nothing is known of it before the run."""

    def __aiter__(self):
        raise AssertionError("it is refused before it is asked")

    def __repr__(self):
        return "<Numbers>"


async def test_an_async_iterable_made_by_a_function_is_refused_by_name_in_a_thread():
    with pytest.raises(OptionError, match='engine="thread" is for a source that blocks, got the async iterable <Num'):
        await penstock.stream(Numbers, engine="thread").to_list()


class Closing:
    """Gives one number, then waits; closing it raises a cancellation that nobody has asked for."""

    def __init__(self):
        self.given = False

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.given:
            await asyncio.sleep(9)
        self.given = True
        return 1

    async def aclose(self):
        raise asyncio.CancelledError


async def test_a_cancellation_that_closing_raises_after_one_that_was_asked_for_is_an_error_all_the_same():
    with pytest.raises(penstock.WorkRaised, match="closing an async iterator raised CancelledError"):
        async with penstock.stream(Closing()).prefetch(2).open() as items:
            assert await anext(items) == 1
            await asyncio.sleep(1)  # it is being asked for the next one


async def test_a_run_that_is_stopped_before_it_reads_does_not_open_its_source():
    source = Scripted(range(3))
    async with penstock.stream(source).map(str).open() as items:
        items.stop()
        assert [item async for item in items] == []
    assert (source.opened, source.taken) == (0, 0)


async def test_draining_a_loop_without_runs_stops_those_to_come():
    loop = asyncio.get_running_loop()
    assert open_runs.is_draining(loop) is False
    open_runs.drain(loop)
    try:
        assert open_runs.is_draining(loop) is True
        assert await penstock.stream(range(3)).to_list() == []
    finally:
        open_runs.end_draining(loop)


async def test_a_wait_that_was_abandoned_gives_in_to_a_cancellation():
    loop = asyncio.get_running_loop()
    never, abandoned = loop.create_future(), loop.create_future()
    abandoned.set_result(None)
    waiting = asyncio.ensure_future(outlast(never, abandoned))
    await asyncio.sleep(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    never.cancel()


class Stubborn:
    """An async iterator that goes on for a minute and a half although it is cancelled."""

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            await asyncio.sleep(90)
        raise StopAsyncIteration


async def test_a_run_that_is_stopped_waits_no_longer_than_the_grace_for_what_its_source_is_busy_with(clock):
    """P4: a source that ignores its cancellation is left behind."""
    async with penstock.stream(Stubborn()).map(str).open(grace=5) as items:
        asyncio.get_running_loop().call_later(1, items.stop)
        with (
            pytest.warns(penstock.UnstoppedWorkWarning, match="closing of 'source'"),
            pytest.raises(StopAsyncIteration),
        ):
            await anext(items)
        assert clock.now == 6.0
    await asyncio.sleep(90)
