"""P5: errors of cleanup and of closing are raised from leaving, or noted on the error that is on its way."""

import asyncio
import functools

import pytest

from penstock import merge, stream
from penstock.testing import Scripted

from .grids import SOURCES, grid, totals


class Boom(Exception):
    pass


async def test_an_error_of_closing_the_source_is_raised_from_leaving():
    error = OSError("close")
    items = stream(Scripted(range(9), close_error=error)).open()
    await anext(items)
    with pytest.raises(OSError, match="close") as raised:
        await items.aclose()
    assert raised.value is error


@grid(read=SOURCES)
async def test_an_error_of_closing_becomes_a_note_of_the_error_on_its_way(read):
    def source(**script):
        return stream(read(Scripted(range(9), close_error=OSError("close"), **script)))

    async def fail_in_the_body(error):
        async with source().open() as items:
            await anext(items)
            raise error

    body, work, cancelled = Boom("body"), Boom("work"), asyncio.CancelledError()
    for error in (body, cancelled):
        with pytest.raises(type(error)) as raised:
            await fail_in_the_body(error)
        assert raised.value is error
    with pytest.raises(Boom) as raised:
        await source().map(functools.partial(explode_with, work)).to_list()
    assert raised.value is work
    assert all(any("close" in note for note in error.__notes__) for error in (body, work, cancelled))


async def explode_with(error, item):
    raise error


async def test_an_error_of_closing_does_not_swallow_a_cancellation_that_came_while_leaving(clock):
    """P8: after a `break`, nothing is on its way but the cancellation."""
    source = Scripted(range(9), close_delay=2, close_error=OSError("close"))

    async def consume():
        async with stream(source).open() as items:
            async for _ in items:
                break

    consumer = asyncio.create_task(consume())
    asyncio.get_running_loop().call_later(1, consumer.cancel)
    with pytest.raises(asyncio.CancelledError) as raised:
        await consumer
    assert clock.now == 2.0
    assert consumer.cancelled()
    assert any("close" in note for note in getattr(raised.value, "__notes__", ()))


async def test_an_error_of_work_that_is_being_stopped_is_raised_from_leaving():
    error = Boom("clean up")

    async def call(item):
        try:
            await asyncio.sleep(9 * item)
        except asyncio.CancelledError:
            raise error from None

    with pytest.raises(Boom) as raised:
        async with stream(range(2)).map(call, concurrency=2, name="work").open() as results:
            await anext(results)
    assert raised.value is error
    assert any("stage 'work', item 1" in note for note in error.__notes__)
    assert totals(results.stats()["work"]) == {"taken": 2, "delivered": 1, "failed": 1}


async def test_errors_of_closing_several_sources_are_all_seen():
    errors = [OSError("one"), OSError("two")]
    sources = [Scripted("abc", close_error=error) for error in errors]
    items = merge(*sources).open()
    await anext(items)
    await anext(items)
    with pytest.raises(OSError, match=r"one|two") as raised:
        await items.aclose()
    other = errors[1 - errors.index(raised.value)]
    assert any(str(other) in note for note in raised.value.__notes__)


async def test_the_note_of_an_error_of_closing_has_its_own_notes():
    late = OSError("close")
    late.add_note("mine")
    body = Boom("body")
    with pytest.raises(Boom):
        async with stream(Scripted(range(9), close_error=late)).open() as items:
            await anext(items)
            raise body
    place = "penstock: while it was being stopped: stage 'source', item 1"
    assert body.__notes__ == [f"penstock: cleanup also failed: OSError('close'): mine; {place}"]


async def test_an_exit_that_is_on_its_way_is_not_replaced_by_that_of_closing():
    """An exit goes before other errors, and the first exit before the next."""
    first = SystemExit("body")
    with pytest.raises(SystemExit) as raised:
        async with stream(Scripted(range(9), close_error=SystemExit("close"))).open() as items:
            await anext(items)
            raise first
    assert raised.value is first
    assert any("close" in note for note in first.__notes__)


async def test_an_error_of_closing_that_takes_no_notes_is_a_note_all_the_same():
    class Immutable(Exception):
        def add_note(self, note):
            raise AttributeError(note)

    body = Boom("body")
    with pytest.raises(Boom) as raised:
        async with stream(Scripted(range(9), close_error=Immutable("close"))).open() as items:
            await anext(items)
            raise body
    assert raised.value is body
    assert [note for note in body.__notes__ if "Immutable('close')" in note]
