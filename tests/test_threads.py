"""Plain functions: inline at concurrency 1, in threads above."""

import asyncio
import contextvars
import gc
import itertools
import threading
from collections import deque

import pytest

import penstock
from penstock.engines.pool import DaemonThreads
from penstock.testing import Gauge

grid = pytest.mark.grid


def thread_of(_):
    return threading.current_thread()


@grid
@pytest.mark.parametrize("operator", ["map", "filter", "tap", "flat_map"])
async def test_a_plain_function_runs_inline_at_concurrency_one(operator):
    seen = []

    def note(number):
        seen.append(threading.current_thread())
        return [number]

    await getattr(penstock.stream(range(3)), operator)(note).drain()
    assert seen == [threading.main_thread()] * 3


@grid
@pytest.mark.parametrize("operator", ["map", "filter", "tap", "flat_map"])
async def test_a_plain_function_runs_in_threads_above(operator):
    seen = []

    def note(number):
        seen.append(threading.current_thread())
        return [number]

    await getattr(penstock.stream(range(3)), operator)(note, concurrency=2).drain()
    assert threading.main_thread() not in seen
    assert all(thread.name.startswith(f"penstock {operator}(note)") for thread in seen)


@grid
async def test_threads_are_gone_after_the_run():
    before = threading.active_count()
    async with penstock.stream(range(9)).map(thread_of, concurrency=3).open() as items:
        threads = {await anext(items)}
        assert threading.active_count() > before
    assert threading.active_count() == before
    assert not any(thread.is_alive() for thread in threads)


@grid
async def test_as_many_calls_as_places_run_at_once():
    """P1: three meet at a gate, a fourth never does."""
    gauge, gate = Gauge(), threading.Barrier(3)

    def meet(number):
        gate.wait()
        return number

    assert await penstock.stream(range(9)).map(gauge.wrap(meet), concurrency=3).to_list() == list(range(9))
    assert gauge.peak == 3


@grid
@pytest.mark.parametrize("ordered", [True, False])
async def test_results_of_threads_in_order_and_as_finished(clock, ordered):
    def slow_first(number):
        clock.sleep(10 - number)
        return number

    results = await penstock.stream(range(3)).map(slow_first, concurrency=3, ordered=ordered).to_list()
    assert results == ([0, 1, 2] if ordered else [2, 1, 0])


@grid
async def test_the_loop_goes_on_while_threads_work(clock):
    ticks = []

    def work(seconds):
        clock.sleep(seconds)

    async def tick():
        for _ in range(3):
            await asyncio.sleep(1)
            ticks.append(clock.now)

    ticking = asyncio.create_task(tick())
    await penstock.stream([4]).map(work, concurrency=2).drain()
    await ticking
    assert ticks == [1.0, 2.0, 3.0]


@grid
async def test_a_timeout_in_a_thread(clock):
    """The item fails at its deadline; the run ends when the thread is back."""

    def work(seconds):
        clock.sleep(seconds)
        return seconds

    results = penstock.stream([1, 4, 1]).map(work, concurrency=2, timeout=2, on_error="collect")
    async with results.open() as items:
        assert [item async for item in items] == [1, 1]
    assert isinstance(items.failures[0].error, penstock.AttemptTimeout)
    assert str(items.failures[0].error) == "timed out after 2 s"
    assert clock.now == 4.0


@grid
async def test_context_of_the_run_reaches_threads():
    """The context of whoever opened the run; each item has a copy of its own."""
    user = contextvars.ContextVar("user", default="nobody")

    def work(number):
        seen = user.get()
        user.set(f"item {number}")
        return seen

    user.set("opener")
    async with penstock.stream(range(4)).map(work, concurrency=2).open() as items:
        user.set("reader")
        assert [item async for item in items] == ["opener"] * 4
    assert user.get() == "reader"


@grid
async def test_errors_of_threads_are_the_users():
    error = KeyError("mine")

    def fails(_):
        raise error

    with pytest.raises(KeyError) as raised:
        await penstock.stream([1]).map(fails, concurrency=2).to_list()
    assert raised.value is error
    assert raised.traceback[-1].name == "fails"


@grid
async def test_threads_start_as_they_are_needed():
    before = threading.active_count()
    async with penstock.stream([1]).map(thread_of, concurrency=50).open() as items:
        await anext(items)
        assert threading.active_count() == before + 1


@grid
async def test_shared_pools_do_not_block_each_other():
    """Two stages with threads: a gate that both need opens, for each has threads of its own."""
    gate = threading.Barrier(4)

    def first(number):
        if number >= 2:
            gate.wait()
        return number

    def second(number):
        if number < 2:
            gate.wait()
        return number

    results = penstock.stream(range(4)).map(first, concurrency=2).map(second, concurrency=2)
    assert await results.to_list() == [0, 1, 2, 3]


class Callable:
    def __call__(self, _):
        return threading.current_thread()


@grid
@pytest.mark.parametrize("fn", [thread_of, lambda _: threading.current_thread(), Callable()])
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_engine_says_where_a_function_runs(fn, concurrency):
    numbers = penstock.stream(range(6))
    inline = await numbers.map(fn, concurrency=concurrency, engine="inline").to_list()
    assert inline == [threading.main_thread()] * 6
    in_threads = set(await numbers.map(fn, concurrency=concurrency, engine="thread").to_list())
    assert threading.main_thread() not in in_threads
    assert 1 <= len(in_threads) <= concurrency


async def test_an_async_function_runs_on_the_loop_only():
    async def work(number):
        return number

    assert await penstock.stream([1]).map(work, engine="inline").to_list() == [1]
    with pytest.raises(
        penstock.OptionError, match="engine must be None or 'inline' for an async function, got 'thread'"
    ):
        penstock.stream([1]).map(work, engine="thread")


@grid
@pytest.mark.parametrize("engine", ["inline", "thread"])
async def test_a_function_that_returns_an_awaitable_has_it_awaited_on_the_loop(engine):
    loop = asyncio.get_running_loop()

    async def later(number):
        assert asyncio.get_running_loop() is loop
        return number

    def work(number):
        return later(number)

    assert await penstock.stream(range(5)).map(work, engine=engine, concurrency=2).to_list() == [0, 1, 2, 3, 4]


@grid
@pytest.mark.parametrize("ordered", [True, False])
async def test_a_generator_of_flat_map_runs_in_a_thread(ordered):
    seen = set()

    def letters(word):
        try:
            for letter in word:
                seen.add(threading.current_thread())
                yield letter
        finally:
            seen.add(threading.current_thread())

    outputs = await penstock.stream(["ab", "c", ""]).flat_map(letters, concurrency=2, ordered=ordered).to_list()
    assert sorted(outputs) == ["a", "b", "c"]
    assert threading.main_thread() not in seen


class Query:
    """Lazy, and no iterator: a cursor, a paginator, a query; `seen` are the threads that have read and closed it."""

    def __init__(self, rows, seconds=0.0, clock=None):
        self.rows = rows
        self.seconds = seconds
        self.clock = clock
        self.seen = set()

    def __iter__(self):
        try:
            for row in self.rows:
                if self.clock is not None:
                    self.clock.sleep(self.seconds)
                self.seen.add(threading.current_thread())
                yield row
        finally:
            self.seen.add(threading.current_thread())


class SizedQuery(Query):
    def __len__(self):
        return len(self.rows)

    def __contains__(self, row):
        return row in self.rows


def its(query):
    return query


async def its_later(query):
    return query


def later(query):
    return its_later(query)


@grid
@pytest.mark.parametrize("kind", [Query, SizedQuery])
@pytest.mark.parametrize("fn", [its, later])
async def test_a_lazy_iterable_of_flat_map_is_read_in_a_thread(kind, fn):
    """It blocks while it is read, whether or not it is an iterator and whether or not it knows its length."""
    queries = [kind("ab"), kind("c"), kind("")]
    assert await penstock.stream(queries).flat_map(fn, engine="thread").to_list() == ["a", "b", "c"]
    for query in queries:
        assert query.seen
        assert threading.main_thread() not in query.seen


@grid
@pytest.mark.parametrize("kind", [Query, SizedQuery])
async def test_a_timeout_covers_the_reading_of_a_lazy_iterable(kind, clock):
    query = kind("abc", 2, clock)
    async with penstock.stream([query]).flat_map(its, engine="thread", timeout=5, on_error="return").open() as results:
        got = [result async for result in results]
    assert [result.value for result in got[:-1]] == ["a", "b"]
    assert str(got[-1].error) == "timed out after 5 s"


@grid
@pytest.mark.parametrize("kind", [bytes.decode, bytes, list, tuple, set, frozenset, dict.fromkeys, deque, range])
async def test_what_is_there_in_memory_is_handed_on_as_it_is(kind, monkeypatch):
    """A hop between threads for each of its items would be for nothing."""
    some = kind(2) if kind is range else kind(b"ab")
    loop, hops = asyncio.get_running_loop(), []
    run_in_executor = loop.run_in_executor
    monkeypatch.setattr(loop, "run_in_executor", lambda *args: hops.append(args) or run_in_executor(*args))
    assert await penstock.stream([some]).flat_map(its, engine="thread").to_list() == list(some)
    assert len(hops) == 1


@grid
async def test_leaving_closes_a_generator_that_is_read_in_a_thread():
    closed = []

    def letters(word):
        try:
            yield from word
        finally:
            closed.append(word)

    async with penstock.stream(["ab", "cd"]).flat_map(letters, engine="thread").open() as results:
        assert await anext(results) == "a"
    assert closed == ["ab"]


@grid
async def test_a_timeout_covers_the_making_of_outputs_in_a_thread(clock):
    """One budget for all outputs of an item; what the consumer takes does not count."""

    def slow(seconds):
        for _ in range(3):
            clock.sleep(seconds)
            yield seconds

    got = []
    source = penstock.stream([1, 2]).flat_map(slow, engine="thread", timeout=5, on_error="return")
    async with source.open() as results:
        async for result in results:
            got.append(result)
            await asyncio.sleep(10)
    assert [result.unwrap() for result in got[:-1]] == [1, 1, 1, 2, 2]
    assert str(got[-1].error) == "timed out after 5 s"


@pytest.mark.real_time
async def test_a_thread_that_is_stuck_is_left_behind_and_keeps_nobody_from_leaving():
    """P4: the loop can be closed and the interpreter can exit; the thread goes when its call is over."""
    gate = threading.Event()

    def work(number):
        if number:
            gate.wait()

    try:
        with pytest.warns(penstock.UnstoppedWorkWarning, match="stage 'stuck', item 1"):
            async with (
                penstock.stream(range(2))
                .map(work, engine="thread", concurrency=2, name="stuck")
                .open(grace=0.01) as results
            ):
                await anext(results)
        stuck = [thread for thread in threading.enumerate() if thread.name.startswith("penstock stuck")]
        assert [thread.daemon for thread in stuck] == [True]
        assert asyncio.all_tasks() == {asyncio.current_task()}
    finally:
        gate.set()
    for thread in stuck:
        thread.join()


def itself(item):
    return item


def twice(item):
    yield from (item, item)


FOREVER = {
    "map": lambda: penstock.stream(itertools.count).map(itself, concurrency=3),
    "skip": lambda: penstock.stream(itertools.count).map(itself, concurrency=3, on_error="skip"),
    "flat_map": lambda: penstock.stream(itertools.count).flat_map(twice, engine="thread", concurrency=2),
    "map_batches": lambda: penstock.stream(itertools.count).map_batches(itself, 2, concurrency=2),
    "source": lambda: penstock.stream(itertools.count, engine="thread").map(itself, concurrency=2),
    "merge": lambda: FOREVER["map"]().merge(FOREVER["source"]()),
    "inside": lambda: penstock.stream(itertools.count).flat_map(lambda _: FOREVER["map"]()),
}


@pytest.mark.real_time
@pytest.mark.parametrize("name", FOREVER)
def test_a_bare_loop_that_asyncio_run_cancels_leaves_no_thread(name):
    """P4: though its frame is kept, as by the traceback of the task that was cancelled."""
    kept = []

    async def read(started):
        async for item in FOREVER[name]():
            if item == 5:
                started.set()

    async def main():
        started = asyncio.Event()
        kept.append(asyncio.create_task(read(started)))
        await started.wait()

    asyncio.run(main())
    assert kept[0].cancelled()
    assert [thread for thread in threading.enumerate() if thread.name.startswith("penstock")] == []
    kept.clear()
    with pytest.warns(penstock.UnclosedStreamWarning):
        gc.collect()


def test_a_call_that_waits_behind_another_is_cancelled_when_the_threads_are_let_go():
    """Nobody waits any more, least of all whoever lets them go: it would be for the whole call."""
    called, begun, gate = [], threading.Event(), threading.Event()
    pool = DaemonThreads(1, "held")
    running = pool.submit(lambda: (begun.set(), gate.wait()))
    call = pool.submit(called.append, 1)
    begun.wait()
    (thread,) = pool._threads
    pool.shutdown()
    gate.set()
    thread.join()
    assert (called, call.cancelled(), running.done()) == ([], True, True)


def test_quick_calls_wake_few_threads():
    """One thread makes what waits; each that is woken in vain is two changes of threads."""
    begun, gate = threading.Event(), threading.Event()
    pool = DaemonThreads(8, "few")
    pool.submit(lambda: (begun.set(), gate.wait()))
    begun.wait()
    pool._one_is_woken = True  # it is on its way, and slow
    calls = [pool.submit(threading.current_thread) for _ in range(100)]
    gate.set()
    assert {call.result() for call in calls} == pool._threads
    assert len(pool._threads) == 1
    pool._one_is_woken = False
    pool.shutdown()


@pytest.fixture
def no_threads(monkeypatch):
    """The system has no thread left for those whose name has this in it; put `None` there, and it has."""
    real = threading.Thread.start
    lacking = {"name": "penstock"}

    def start(thread):
        if lacking["name"] is not None and lacking["name"] in thread.name:
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    return lacking


@grid
@pytest.mark.usefixtures("no_threads")
async def test_a_thread_that_cannot_be_started_fails_the_run():
    with pytest.raises(RuntimeError, match="can't start new thread") as raised:
        await penstock.stream(range(3)).map(thread_of, concurrency=2).to_list()
    assert raised.value.__notes__[0] == "penstock: stage 'map(thread_of)', item 0"
    assert not any("cleanup" in note or "end of the run" in note for note in raised.value.__notes__)


@grid
async def test_items_for_which_no_thread_can_be_started_wait_for_those_that_are_there(no_threads):
    no_threads["name"] = "_1"
    used = await penstock.stream(range(4)).map(thread_of, concurrency=2, name="scarce").to_list()
    assert {thread.name for thread in used} == {"penstock scarce_0"}


UNWANTED = {"an errand": {}, "a task": {"retry": penstock.Retry(on=OSError)}, "a late attempt": {"timeout": 0.5}}


@grid
@pytest.mark.parametrize("options", UNWANTED.values(), ids=UNWANTED)
async def test_a_coroutine_that_comes_back_from_a_thread_in_vain_is_closed(clock, options):
    """P4: the thread is back after the run was left, and nobody awaits what it has made."""
    made = []

    async def work():
        raise AssertionError("nobody wants it")

    def begin(_):
        clock.sleep(1)
        made.append(work())
        return made[-1]

    stream = penstock.stream(range(2)).map(begin, concurrency=2, on_error="skip", **options)
    async with stream.open() as items:
        reading = asyncio.ensure_future(anext(items, None))
        await asyncio.sleep(0.75)
    await asyncio.wait([reading])
    assert [coroutine.cr_frame for coroutine in made] == [None, None]


@grid
@pytest.mark.parametrize("options", UNWANTED.values(), ids=UNWANTED)
async def test_an_object_that_comes_back_from_a_thread_in_vain_is_left_alone(clock, options):
    """What a function returns is its user's: it may be one connection that all calls share."""
    closed = []

    class Connection:
        def close(self):
            closed.append(self)

    def connect(_):
        clock.sleep(1)
        return Connection()

    stream = penstock.stream(range(2)).map(connect, concurrency=2, on_error="skip", **options)
    async with stream.open() as items:
        reading = asyncio.ensure_future(anext(items, None))
        await asyncio.sleep(0.75)
    await asyncio.wait([reading])
    assert closed == []
