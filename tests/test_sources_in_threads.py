"""`stream(source, engine="thread")`: a source that blocks is read and closed in one thread of its own."""

import asyncio
import contextvars
import itertools
import queue
import threading

import pytest

import penstock
from penstock.engines import thread_source
from penstock.engines.thread_source import ThreadStage
from penstock.testing import Scripted

grid = pytest.mark.grid
pytestmark = grid


def in_thread(source, **options):
    return penstock.stream(source, engine="thread", **options)


class Cursor:
    """Blocks for a second before each row; notes which threads it meets."""

    def __init__(self, clock, rows):
        self.clock, self.rows = clock, iter(rows)
        self.threads, self.closed = set(), 0

    def __iter__(self):
        return self

    def __next__(self):
        self.threads.add(threading.current_thread())
        self.clock.sleep(1)
        return next(self.rows)

    def close(self):
        self.threads.add(threading.current_thread())
        self.closed += 1


async def test_one_thread_reads_and_closes(clock):
    cursor = Cursor(clock, range(3))
    assert await in_thread(cursor).to_list() == [0, 1, 2]
    (thread,) = cursor.threads
    assert thread is not threading.main_thread()
    assert not thread.is_alive()
    assert cursor.closed == 1
    assert clock.now == 4.0


async def test_the_loop_goes_on_while_the_source_blocks(clock):
    ticks = []

    async def tick():
        for _ in range(3):
            await asyncio.sleep(0.75)
            ticks.append(clock.now)

    ticking = asyncio.create_task(tick())
    await in_thread(Cursor(clock, "abc")).drain()
    await ticking
    assert ticks == [0.75, 1.5, 2.25]


async def test_an_item_is_handed_on_before_the_next_is_read(clock):
    """P2."""
    got = []
    async with in_thread(Cursor(clock, "abc")).open() as items:
        async for item in items:
            got.append((item, clock.now))  # noqa: PERF401 -- when it came counts
    assert got == [("a", 1.0), ("b", 2.0), ("c", 3.0)]


@pytest.mark.parametrize("value", [None, False, StopIteration(), StopIteration])
async def test_any_value_is_a_value(value):
    assert await in_thread([value, value]).to_list() == [value, value]


async def test_an_awaitable_is_a_value_too():
    async def coroutine():
        raise AssertionError("nobody asked for this")

    (given,) = await in_thread([coroutine()]).to_list()
    given.close()


async def test_a_list_a_function_and_an_iterator_can_be_read():
    assert await in_thread([1, 2]).to_list() == [1, 2]
    assert await in_thread(lambda: iter([1, 2])).to_list() == [1, 2]
    once = in_thread(iter([1, 2]))
    assert await once.to_list() == [1, 2]
    with pytest.raises(penstock.SourceConsumedError):
        once.open()


async def test_only_as_much_is_read_as_there_are_places(clock):
    source = Scripted(range(99), delay=0.5)

    async def work(item):
        await asyncio.sleep(60)

    async with in_thread(source.sync(clock)).map(work, concurrency=3).open() as results:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(results), 30)
        assert source.taken == 3
    assert source.closed == 1


async def test_an_error_of_the_source_is_its_failure():
    error = OSError("gone")
    with pytest.raises(OSError, match="gone") as raised:
        await in_thread(Scripted("ab", fail_at=1, error=error).sync()).to_list()
    assert raised.value is error
    assert "stage 'source', item 1" in error.__notes__[0]


async def test_leaving_waits_for_the_thread_and_counts_what_it_brings(clock):
    cursor = Cursor(clock, range(9))
    async with in_thread(cursor).open() as items:
        assert await anext(items) == 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 0.5)
    assert clock.now == 2.0
    assert cursor.closed == 1
    (source,) = items.stats()
    assert (source.taken, source.delivered, source.discarded) == (2, 1, 1)


async def test_stop_does_not_wait_for_a_source_that_has_nothing():
    inbox = queue.SimpleQueue()
    inbox.put("a")
    async with in_thread(iter(inbox.get, None)).open() as items:
        assert await anext(items) == "a"
        last = asyncio.ensure_future(anext(items, "end"))
        await asyncio.sleep(0)
        items.stop()
        inbox.put("late")  # the thread may come back: the run needs it no more, but leaving waits for it
        assert await last == "end"
    (source,) = items.stats()
    assert source.taken == source.delivered + source.discarded


async def test_context_variables_reach_the_source(clock):
    user = contextvars.ContextVar("user", default="nobody")
    user.set("opener")

    def names():
        yield user.get()

    assert await in_thread(names).to_list() == ["opener"]


async def numbers():
    yield 1


async def test_an_async_source_needs_no_thread():
    with pytest.raises(penstock.OptionError, match='engine="thread" is for a source that blocks, got the async iter'):
        in_thread(numbers())
    with pytest.raises(penstock.OptionError, match='engine="thread" is for a source that blocks'):
        await in_thread(numbers).to_list()


@pytest.mark.parametrize("value", ["inline", "process", True, 1])
def test_a_bad_engine(value):
    with pytest.raises(penstock.OptionError) as raised:
        penstock.stream([], engine=value)
    assert str(raised.value) == f"engine must be one of None, 'thread', got {value!r}"


@pytest.mark.parametrize("value", [-1, 1.0, True, "3"])
def test_a_bad_total(value):
    with pytest.raises(penstock.OptionError) as raised:
        penstock.stream([], total=value)
    assert str(raised.value) == f"total must be an int >= 0, got {value!r}"


async def test_a_cancelled_anext_loses_nothing(clock):
    """P5: also when it is cancelled while the thread reads, again and again."""
    got = []
    async with in_thread(Cursor(clock, range(5))).open() as items:
        while True:
            try:
                got.append(await asyncio.wait_for(anext(items), 0.3))
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
    assert (got, clock.now) == ([0, 1, 2, 3, 4], 6.0)


async def test_two_runs_of_one_stream_have_threads_of_their_own(clock):
    cursors = []

    def rows():
        cursors.append(Cursor(clock, range(3)))
        return cursors[-1]

    rows_twice = in_thread(rows)
    assert await asyncio.gather(rows_twice.to_list(), rows_twice.to_list()) == [[0, 1, 2], [0, 1, 2]]
    assert clock.now == 4.0
    (first,), (second,) = (cursor.threads for cursor in cursors)
    assert first is not second


class Failing:
    """Gives two items, then fails as told; so does its closing."""

    def __init__(self, *, error=None, close_error=None):
        self.items, self.error, self.close_error = iter(range(2)), error, close_error

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self.items, None)
        if item is None:
            raise self.error or StopIteration
        return item

    def close(self):
        if self.close_error is not None:
            raise self.close_error


@pytest.mark.parametrize("kind", [StopAsyncIteration, GeneratorExit, asyncio.CancelledError])
async def test_control_flow_raised_by_a_source_is_its_failure(kind):
    """P5: none of them is taken for an end, or for a cancellation."""
    got = []
    async with in_thread(Failing(error=kind("own"))).open() as items:
        with pytest.raises(penstock.WorkRaised) as raised:
            async for item in items:
                got.append(item)  # noqa: PERF401 -- what came before the error counts
    assert got == [0, 1]
    assert type(raised.value.__cause__) is kind
    assert raised.value.__notes__ == ["penstock: stage 'source', item 2"]


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError])
async def test_control_flow_raised_by_closing_is_raised_from_leaving(kind):
    with pytest.raises(penstock.WorkRaised) as raised:
        async with in_thread(Failing(close_error=kind("own"))).open() as items:
            await anext(items)
    assert type(raised.value.__cause__) is kind


async def test_an_error_of_closing_is_raised_from_leaving():
    error = OSError("gone")
    with pytest.raises(OSError, match="gone") as raised:
        async with in_thread(Failing(close_error=error)).open() as items:
            await anext(items)
    assert raised.value is error


async def test_closing_that_takes_longer_than_grace_is_left_behind_by_name(clock):
    """P4: it does not hold the run."""

    class Slow(Failing):
        def close(self):
            clock.sleep(30)

    with pytest.warns(penstock.UnstoppedWorkWarning, match="left behind: closing of 'source'"):
        async with in_thread(Slow()).open(grace=2) as items:
            await anext(items)
    assert clock.now == 2.0
    await asyncio.sleep(60)


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_generator_in_a_thread_that_is_late_is_closed_when_it_is_back(concurrency, clock):
    """The input fails at its deadline; nobody closes a generator that a thread is inside of."""
    closed = []

    def outputs(number):
        try:
            yield number
            clock.sleep(4)
            yield number
        finally:
            closed.append(clock.now)

    options = {"engine": "thread", "timeout": 1, "on_error": "return", "concurrency": concurrency, "buffer": 4}
    async with penstock.stream([7]).flat_map(outputs, **options).open() as results:
        assert (await anext(results)).value == 7
        failed = await anext(results)
        assert (clock.now, str(failed.error)) == (1.0, "timed out after 1 s")
        assert await anext(results, None) is None
    assert (closed, clock.now) == ([4.0], 4.0)


@pytest.mark.parametrize("on_error", ["raise", "collect", "return"])
async def test_a_generator_in_a_thread_is_tried_again_until_an_output_was_handed_on(on_error):
    tries = []

    def outputs(number):
        tries.append(number)
        if len(tries) < 3:
            raise ValueError(number)
        yield number
        yield -number

    retry = penstock.Retry(on=ValueError)
    options = {"engine": "thread", "retry": retry, "on_error": on_error}
    given = await penstock.stream([1]).flat_map(outputs, **options).to_list()
    assert [getattr(output, "value", output) for output in given] == [1, -1]
    assert tries == [1, 1, 1]


async def test_leaving_waits_for_the_thread_inside_a_generator_and_then_closes_it(clock):
    closed = []

    def outputs(number):
        try:
            yield number
            clock.sleep(3)
            yield number
        finally:
            closed.append((number, clock.now))

    options = {"engine": "thread", "concurrency": 2, "buffer": 4}
    async with penstock.stream(range(9)).flat_map(outputs, **options).open() as results:
        assert await anext(results) == 0
        await asyncio.sleep(1)
    assert sorted(closed) == [(0, 3.0), (1, 3.0)]
    stage = results.stats()[1]
    assert (stage.taken, stage.in_flight) == (2, 0)


@pytest.mark.parametrize("on_error", ["skip", "collect"])
async def test_a_late_generator_is_closed_though_the_run_is_left(on_error, clock):
    """P4: left while the place of a failed input waits for its thread."""
    closed = []

    def outputs(number):
        try:
            yield number
            clock.sleep(3)
            yield number
        finally:
            closed.append(clock.now)

    options = {"engine": "thread", "concurrency": 2, "timeout": 1, "buffer": 4, "on_error": on_error}
    async with penstock.stream(range(2)).flat_map(outputs, **options).open() as results:
        assert [await anext(results), await anext(results)] == [0, 1]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(results), 2)
    assert (closed, clock.now) == ([3.0, 3.0], 3.0)


async def test_a_late_generator_is_closed_when_its_failure_ends_the_run(clock):
    closed = []

    def outputs(number):
        try:
            yield number
            clock.sleep(3)
        finally:
            closed.append(clock.now)

    async with in_thread([0]).flat_map(outputs, engine="thread", timeout=1).open() as results:
        assert await anext(results) == 0
        with pytest.raises(penstock.AttemptTimeout):
            await anext(results)
        assert (closed, clock.now) == ([3.0], 3.0)


@pytest.mark.real_time
async def test_a_source_that_does_not_come_back_is_left_behind():
    """P4: what it does when it comes back at last is no failure of the run, and no closing starts after the end."""
    gate = threading.Event()

    def rows():
        yield 1
        gate.wait()
        yield 2

    items = in_thread(rows).open(grace=0.01)
    assert await anext(items) == 1
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(items), 0.01)
    with pytest.warns(penstock.UnstoppedWorkWarning, match="left behind: closing of 'source'"):
        await items.aclose()
    thread = next(each for each in threading.enumerate() if each.name.startswith("penstock source"))
    assert thread.daemon
    gate.set()
    await asyncio.wait([task for task in asyncio.all_tasks() if task is not asyncio.current_task()])
    thread.join()
    assert items.failures == ()


@pytest.fixture
def bursts(monkeypatch):
    """How many items each trip to a thread has brought."""
    brought, fill = [], ThreadStage._fill

    def counting(self, iterator):
        before = self._taken
        try:
            fill(self, iterator)
        finally:
            brought.append(self._taken - before)

    monkeypatch.setattr(ThreadStage, "_fill", counting)
    return brought


async def itself(item):
    return item


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(lambda items: items.map(itself, concurrency=50), id="map"),
        pytest.param(lambda items: items.map(itself, buffer=49, concurrency=50), id="buffer"),
        pytest.param(lambda items: items.map(itself, concurrency=50, ordered=False), id="unordered"),
        pytest.param(lambda items: items.flat_map(lambda item: [item], concurrency=50), id="flat_map"),
        pytest.param(lambda items: items.map_batches(lambda batch: batch, 50), id="map_batches"),
        pytest.param(lambda items: items.batch(50).flatten(), id="batch"),
        pytest.param(lambda items: items.prefetch(50), id="prefetch"),
        pytest.param(lambda items: items, id="alone"),
        pytest.param(lambda items: items.enumerate().map(itself, concurrency=50), id="enumerate"),
    ],
)
async def test_what_is_there_comes_in_bulk(shape, bursts):
    """A change of threads costs as much as thirty items: a quick iterator fills the places that are free, not one."""
    assert await shape(in_thread(range(2000))).count() == 2000
    assert sum(bursts) == 2000
    assert len(bursts) <= 2000 / 8


@pytest.mark.parametrize("concurrency", [1, 3, 64])
@pytest.mark.parametrize("buffer", [0, 5])
async def test_a_quick_source_is_not_read_ahead_of_a_free_place(concurrency, buffer):
    """P1, P2: whatever the burst could bring; and what becomes free is filled."""
    source = Scripted(range(10_000))

    async def work(item):
        await asyncio.sleep(1)
        return item

    stream = in_thread(source.sync()).map(work, concurrency=concurrency, buffer=buffer)
    async with stream.open() as results:
        for taken in range(4):
            await anext(results)
            await asyncio.sleep(100)
            assert source.taken <= taken + 1 + concurrency + buffer
    assert source.closed == 1


async def test_a_slow_source_fills_places_one_by_one(clock):
    """P2: each item is at work when it is there, not when all places are filled."""
    began = []

    async def work(item):
        began.append((item, clock.now))

    await in_thread(Cursor(clock, "abc")).map(work, concurrency=8).drain()
    assert began == [("a", 1.0), ("b", 2.0), ("c", 3.0)]


async def test_items_before_an_error_are_delivered_whatever_the_burst(clock):
    async def work(item):
        await asyncio.sleep(1)
        return item

    error = OSError("gone")
    got = []
    source = Scripted(range(99), fail_at=40, error=error).sync()
    async with in_thread(source).map(work, concurrency=64).open() as results:
        with pytest.raises(OSError, match="gone") as raised:
            async for item in results:
                got.append(item)  # noqa: PERF401 -- what came before the error counts
    assert got == list(range(40))
    assert raised.value.__notes__ == ["penstock: stage 'source', item 40"]


@pytest.mark.parametrize("end", ["stop", "abort", "leave"])
async def test_a_burst_ends_with_the_item_that_is_being_read(end, clock):
    """P4: whoever stops a run does not wait until all places are filled."""
    cursor = Cursor(clock, range(99))
    async with in_thread(cursor).map(itself, concurrency=64).open() as results:
        await anext(results)
        await asyncio.sleep(0.5)
        if end != "leave":
            getattr(results, end)()
            assert [item async for item in results] == []
    assert (clock.now, cursor.closed) == (2.0, 1)
    source = results.stats()[0]
    assert (source.taken, source.delivered, source.discarded) == (2, 1, 1)


async def test_a_burst_ends_when_its_task_is_cancelled_from_outside(clock):
    """As `asyncio.run` does with all tasks that are left."""
    cursor = Cursor(clock, range(99))
    async with in_thread(cursor).map(itself, concurrency=64).open() as results:
        await anext(results)
        await asyncio.sleep(0.5)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(penstock.WorkRaised):
            [item async for item in results]
        assert clock.now == 2.0
    assert cursor.closed == 1


async def test_every_item_of_a_burst_has_one_outcome():
    """P5: those that nobody took are discarded."""
    async with in_thread(range(1000)).map(itself, concurrency=64).open() as results:
        for _ in range(10):
            await anext(results)
    source = results.stats()[0]
    assert 10 <= source.delivered <= source.taken == source.delivered + source.discarded <= 10 + 64


@pytest.mark.filterwarnings("ignore:a stream was left")
def test_a_bare_loop_that_asyncio_cancels_leaves_no_thread():
    """Nobody leaves the run then: its source closes itself, and lets its thread go."""
    closed = threading.Event()

    def endless():
        try:
            yield from itertools.count()
        finally:
            closed.set()

    async def read(begun):
        async for _ in penstock.stream(endless, engine="thread"):
            begun.set()

    async def main():
        begun = asyncio.Event()
        reading.append(asyncio.create_task(read(begun)))
        await begun.wait()

    reading = []
    asyncio.run(main())
    assert closed.is_set()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("penstock")] == []


async def test_a_quick_thread_stays_for_the_next_call(monkeypatch):
    """One item a hop, as there is one place; but no job, no task and no wake-up of the loop for each."""
    monkeypatch.setattr(thread_source, "LINGER", 60.0)  # leaving calls it, too
    bursts = []
    burst = ThreadStage._burst
    monkeypatch.setattr(ThreadStage, "_burst", lambda self: bursts.append(self) or burst(self))
    async with in_thread(range(200)).open() as items:
        assert [item async for item in items] == list(range(200))
    assert len(bursts) == 1
    async with in_thread(range(200)).open() as items:
        assert await anext(items) == 0


@pytest.mark.real_time
async def test_a_source_that_was_quick_holds_up_the_loop_for_a_moment_only():
    """The loop, which waits for an item that may come at once, goes on when it does not: else this hangs."""
    gate = threading.Event()

    def source():
        yield from range(100)
        gate.wait()
        yield 100

    async with in_thread(source).open() as items:
        found = [await anext(items) for _ in range(100)]
        last = asyncio.ensure_future(anext(items))
        await asyncio.sleep(0)
        gate.set()
        assert [*found, await last] == list(range(101))
