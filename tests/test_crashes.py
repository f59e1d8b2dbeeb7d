"""An error of the library's own doing (no memory, no stack) ends the run with that error: nothing hangs or is left."""

import asyncio
import itertools
from contextlib import suppress

import pytest

import penstock
from penstock import stream
from penstock.core.fan_out import FanOut
from penstock.core.meter import Meter
from penstock.core.order import AsFinished, InOrder
from penstock.core.permits import Permits
from penstock.core.pump import Pump
from penstock.core.scope import Scope
from penstock.core.window import Window

from .guarantees.grids import assert_balanced


async def nap(item):
    await asyncio.sleep(1)
    return item


async def at_once(item):
    return item


async def outputs(item):
    for _ in range(2):
        await asyncio.sleep(1)
        yield item


STREAMS = {
    "map": lambda: stream(range(9)).map(nap, concurrency=3, ordered=True),
    "unordered": lambda: stream(range(9)).map(nap, concurrency=3, ordered=False, buffer=2),
    "at-once": lambda: stream(range(9)).map(at_once, concurrency=3),
    "inline": lambda: stream(range(9)).map(lambda item: item).filter(lambda _: True),
    "flat_map": lambda: stream(range(5)).flat_map(outputs, concurrency=2, buffer=1),
    "map_batches": lambda: stream(range(9)).map_batches(nap, 2, concurrency=2),
    "chain": lambda: stream(range(9)).map(nap, concurrency=3).map(nap, concurrency=2).batch(2),
}

PLACES = [
    *((Pump, name) for name in ("_settled", "_schedule", "_tell", "_fill", "_fill_places", "_note_wait")),
    *((Window, name) for name in ("_room", "_hand_over", "_has_next", "_note_peaks", "_note_results")),
    *((InOrder, name) for name in ("has_next", "discard_behind")),
    *((AsFinished, name) for name in ("has_next", "discard_behind")),
    *((FanOut, name) for name in ("_hand_over", "_made", "_produced", "_grant")),
    *((Permits, name) for name in ("give", "due", "forget")),
    *((Scope, name) for name in ("schedule", "begin_turn")),
    *((Meter, name) for name in ("wait_for", "note_peaks", "note_buffered")),
]


@pytest.mark.grid
@pytest.mark.parametrize("name", STREAMS)
def test_no_memory_ends_the_run_with_that_error(name, run, monkeypatch):
    """Wherever it is raised: the run ends with it, or not at all if that place is not passed so often."""

    async def read(raised):
        built = STREAMS[name]()
        seen = 0
        try:
            async with built.open(grace=5) as items:
                async for _ in items:
                    seen += 1
        except MemoryError:
            assert raised
            assert_balanced(items.stats())
        else:
            assert not raised
        assert asyncio.get_running_loop().time() < 100

    for (kind, method), nth in itertools.product(PLACES, (1, 2, 5)):
        raised, calls, real = [], itertools.count(1), getattr(kind, method)

        def fails(*args, real=real, raised=raised, calls=calls, nth=nth, **options):
            if next(calls) == nth:
                raised.append(True)
                raise MemoryError
            return real(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(kind, method, fails)
            try:
                run(read(raised))
            except BaseException as error:
                error.add_note(f"{kind.__name__}.{method}, call {nth}")
                raise


async def letters():
    for letter in "abc":
        yield letter


SOURCES = {
    "async source": lambda: stream(letters),
    "thread source": lambda: stream("abc", engine="thread"),
}


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("name", [*STREAMS, *SOURCES])
async def test_no_memory_for_a_task_leaves_no_coroutine_unawaited(name, nth, monkeypatch):
    """A coroutine that no task could be made for is closed: the warning of it would hide the error."""
    real, made = asyncio.Task, itertools.count(1)

    def task(coroutine, **options):
        if next(made) == nth:
            raise MemoryError
        return real(coroutine, **options)

    monkeypatch.setattr("penstock.core.window.Task", task)
    monkeypatch.setattr("penstock.core.scope.asyncio.Task", task)
    with suppress(MemoryError):
        await (STREAMS | SOURCES)[name]().drain()
        assert next(made) <= nth


DEEP = {
    "map": lambda items: items.map(lambda item: item),
    "async": lambda items: items.map(at_once, concurrency=2),
    "flat_map": lambda items: items.flat_map(lambda item: [item]),
    "prefetch": lambda items: items.prefetch(2),
    "map_batches": lambda items: items.map_batches(lambda batch: batch, 1),
    "mixed": lambda items: items.map(lambda item: item).skip(0),
}

TOO_DEEP = {
    "skip": lambda items: items.skip(0),
    "take": lambda items: items.take(9),
    "chain": lambda items: items.chain(stream([])),
    "merge": lambda items: items.merge(stream([])),
}


def times(number, add):
    built = stream(range(3))
    for _ in range(number):
        built = add(built)
    return built


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("number", [180, 1000])
async def test_a_thousand_stages_that_work_are_not_too_many(name, number):
    assert await times(number, DEEP[name]).to_list() == [0, 1, 2]


@pytest.mark.parametrize("name", DEEP)
async def test_a_failure_below_a_thousand_stages_ends_them_all(name):
    def fail(item):
        raise ValueError(item)

    with pytest.raises(ValueError, match="0"):
        await times(1000, DEEP[name]).map(fail).to_list()


@pytest.mark.parametrize("name", TOO_DEEP)
async def test_stages_that_ask_each_other_in_one_call_are_refused_beyond_the_stack(name):
    assert await times(100, TOO_DEEP[name]).to_list() == [0, 1, 2]
    with pytest.raises(penstock.OptionError, match="stack of 1000 frames"):
        await times(1000, TOO_DEEP[name]).to_list()
