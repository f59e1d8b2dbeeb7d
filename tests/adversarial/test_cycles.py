"""Trap 20: what a run that is over still holds."""

import asyncio
import contextlib
import gc
import weakref

import pytest

import penstock


class Item:
    """A thing that a weak reference can watch."""


@pytest.fixture
def no_collector():
    """Let only reference counts free memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def items_to_watch(references, count=3):
    for _ in range(count):
        item = Item()
        references.append(weakref.ref(item))
        yield item


async def left_alive(references):
    """What is alive when the loop, too, has let go of the callbacks of tasks that are over."""
    await asyncio.sleep(1)
    return [thing for reference in references if (thing := reference()) is not None]


async def passes(item):
    await asyncio.sleep(0)
    return item


async def fails(item):
    await asyncio.sleep(0)
    raise ValueError(item)


async def fails_at_last(item):
    await asyncio.sleep(60)
    raise ValueError(item)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "options",
    [{}, {"ordered": False}, {"timeout": 5}, {"retry": penstock.Retry(on=OSError)}, {"concurrency": 2}],
    ids=str,
)
async def test_trap_20_items_outlive_their_run(options):
    """Trap 20 (streamable #95): cycles kept items, and with them a pipeline, alive until garbage was collected."""
    items = []
    await penstock.stream(items_to_watch(items)).map(passes, **options).drain()
    assert await left_alive(items) == []


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("on_error", ["raise", "skip", "collect"])
@pytest.mark.parametrize(
    "options",
    [{}, {"ordered": False}, {"timeout": 5}, {"retry": penstock.Retry(on=ValueError, initial=0)}, {"concurrency": 2}],
    ids=str,
)
async def test_trap_20_items_outlive_their_failure(options, on_error):
    """Trap 20 (streamable #95): an exception, its traceback and the frames in it made the cycle."""
    items = []
    with contextlib.suppress(ValueError):
        await penstock.stream(items_to_watch(items)).map(fails, on_error=on_error, **options).drain()
    assert await left_alive(items) == []


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(
    "fn", [lambda _: asyncio.sleep(60), fails_at_last], ids=["the sleep is cut", "the work is cut"]
)
async def test_trap_20_items_outlive_their_timeout(fn):
    """Trap 20 (streamable #95): an attempt that times out leaves no cycle of three exceptions behind."""
    items = []
    with contextlib.suppress(TimeoutError):
        await penstock.stream(items_to_watch(items)).map(fn, timeout=1, concurrency=2).drain()
    assert await left_alive(items) == []


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("concurrency", [1, 2])
async def test_trap_20_items_outlive_a_failure_in_a_plain_function(concurrency):
    """Trap 20 (streamable #95): inline and in threads, a failure lets its item go."""

    def plain(item):
        raise ValueError(item)

    items = []
    with contextlib.suppress(ValueError):
        await penstock.stream(items_to_watch(items)).map(plain, concurrency=concurrency).drain()
    assert await left_alive(items) == []


@pytest.mark.usefixtures("no_collector")
async def test_trap_20_items_outlive_a_run_that_was_left():
    """Trap 20 (streamable #95): cancelled work, and what was finished and waited, is let go."""
    items = []

    async def work(item):
        await asyncio.sleep(60 if len(items) > 3 else 0)
        return item

    async with penstock.stream(items_to_watch(items, 9)).map(work, concurrency=4, buffer=2).open() as run:
        await anext(run)
    del run
    assert await left_alive(items) == []


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("operator", ["map", "flat_map", "map_batches", "flat_map of pages"])
async def test_trap_20_items_live_as_long_as_the_handle_of_their_run(operator, ordered):
    """Trap 20 (streamable #95): a run that is over holds no items, however long its handle is kept."""
    items = []

    async def work(what):
        await asyncio.sleep(60 if len(items) > 3 else 0)
        return what if operator == "map_batches" else [what]

    async def pages(_):
        await asyncio.sleep(0)  # else the first page is handed on before more inputs are opened (P2)
        while True:
            yield "page"

    source, options = penstock.stream(items_to_watch(items, 9)), {"concurrency": 4, "ordered": ordered, "buffer": 2}
    if operator == "map_batches":
        stream = source.map_batches(work, 2, **options)
    elif operator == "map":
        stream = source.map(work, **options)
    else:
        stream = source.flat_map(work if operator == "flat_map" else pages, **options)
    async with stream.open() as run:
        await anext(run)
    assert await left_alive(items) == []
    assert run.stats()[-1].taken >= 4


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("fail", [False, True])
async def test_trap_20_the_window_outlives_the_run(fail):
    """Trap 20 (streamable #95): the stages of a run die with its handle, also after a failure."""

    async def work(item):
        await asyncio.sleep(0)
        if fail:
            raise ValueError
        return item

    results = penstock.stream([1, 2, 3]).map(work, concurrency=2).batch(2).flat_map(passes, concurrency=2).take(3)
    async with contextlib.AsyncExitStack() as stack:
        run = await stack.enter_async_context(results.open())
        watched = [weakref.ref(stage) for stage in run._scope.stages]
        with contextlib.suppress(ValueError):
            await anext(run)
    del run, stack
    assert len(watched) == 5
    assert await left_alive(watched) == []


@pytest.mark.usefixtures("no_collector")
async def test_trap_20_the_exception_outlives_its_handling():
    """Trap 20 (streamable #95): once handled, the exception that a run has raised dies."""

    class Error(Exception):
        """A built-in one cannot be watched."""

    async def work(_):
        raise Error

    try:
        await penstock.stream([1]).map(work).to_list()
    except Error as error:
        raised = weakref.ref(error)
    assert await left_alive([raised]) == []


@pytest.mark.usefixtures("no_collector")
async def test_trap_20_items_that_nobody_took_live_as_long_as_the_handle_of_their_run(place):
    """Trap 20 (streamable #95): what an async source has read ahead is let go when the run is over."""
    items = []

    async def source():
        for item in items_to_watch(items, 9):
            yield item

    async def work(_):
        run.abort()

    run = penstock.stream(source).map(work, concurrency=4).open()
    async with run:
        assert [result async for result in run] == []
    nobody_took = 0 if place.tasks == "lazy" else 3  # there, nothing of it begins before all places are taken
    assert (len(items), run.stats()["source"].discarded) == (4, nobody_took)
    assert await left_alive(items) == []


@pytest.mark.usefixtures("no_collector")
async def test_trap_20_a_run_outlives_the_work_that_it_has_left_behind():
    """Trap 20 (streamable #95): when work that ignored its cancellation ends after all, nothing of its run is left."""

    async def stubborn(_):
        for _ in range(2):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    run = penstock.stream([1]).map(stubborn).open(grace=1)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(anext(run), 1)
    with pytest.warns(penstock.UnstoppedWorkWarning):
        await run.aclose()
    scope = weakref.ref(run._scope)
    del run
    await asyncio.sleep(60)
    assert await left_alive([scope]) == []
