"""Traps 20b to 20f: who owns a source, a task, a handle."""

import asyncio
import contextvars
import functools
import subprocess
import sys
import threading
import weakref

import pytest

import penstock
from penstock.testing import Gauge, Scripted


async def passes(item):
    await asyncio.sleep(0)
    return item


async def fails(item):
    await asyncio.sleep(0)
    raise ValueError(item)


async def test_trap_20b_a_timeout_inside_the_source_hits_an_innocent():
    """Trap 20b (hand-over of `anext`): a timeout inside the source cancelled the task that had opened it, long gone."""

    async def source():
        for number in range(6):
            async with asyncio.timeout(1.5):
                await asyncio.sleep(1)
                yield number

    async def work(number):
        await asyncio.sleep(0.1)
        return number

    assert await penstock.stream(source).map(work, concurrency=3).to_list() == list(range(6))


async def test_trap_20b_context_of_the_source_is_reset_elsewhere():
    """Trap 20b (hand-over of `anext`): `ContextVar.reset` failed, "created in a different Context"."""
    depth = contextvars.ContextVar("depth", default=0)
    seen = []

    async def source():
        for number in range(4):
            token = depth.set(depth.get() + 1)
            seen.append(depth.get())
            await asyncio.sleep(1)
            yield number
            depth.reset(token)

    await penstock.stream(source).map(passes, concurrency=2).drain()
    assert seen == [1] * 4
    assert depth.get() == 0


class CancelScope:
    """Insists, as anyio's does, on being left by the task that has entered it."""

    def __enter__(self):
        self._task = asyncio.current_task()

    def __exit__(self, *_):
        assert asyncio.current_task() is self._task, "attempted to exit cancel scope in a different task"


@pytest.mark.parametrize("leave", [False, True], ids=["read to the end", "left early"])
@pytest.mark.parametrize("passed_in", [False, True], ids=["function", "generator"])
async def test_trap_20b_a_cancel_scope_is_left_by_another_task(leave, passed_in):
    """Trap 20b (hand-over of `anext`; anyio): one task opens, reads and closes a source."""
    closed = []

    async def source():
        with CancelScope():
            try:
                for number in range(9):
                    await asyncio.sleep(0)
                    yield number
            finally:
                await asyncio.sleep(0)
                closed.append(asyncio.current_task())

    async with penstock.stream(source() if passed_in else source).map(passes, concurrency=3).open() as items:
        async for _ in items:
            if leave:
                break
    assert len(closed) == 1


async def test_trap_20b_failing_work_closes_the_source_in_its_own_task():
    """Trap 20b (hand-over of `anext`; anyio): also when a failure ends the run while the source waits."""
    source = Scripted(range(9), delay=lambda index: 60 if index > 3 else 0)

    async def fails_at_two(number):
        if number == 2:
            raise ZeroDivisionError
        return number

    with pytest.raises(ZeroDivisionError):
        await penstock.stream(source).map(fails_at_two, concurrency=3).to_list()
    assert source.closed == 1
    assert source.pulled_by == {source.closed_by}


async def taking_one(stream):
    async with stream.take(1).open() as items:
        async for _ in items:
            await asyncio.sleep(0)


async def stopping(stream):
    async with stream.open() as items:
        await anext(items)
        await asyncio.sleep(1)
        items.stop()
        await asyncio.sleep(0.5)


@pytest.mark.parametrize("end", [taking_one, stopping])
async def test_trap_20b_cleanup_of_the_source_is_cancelled_again(end):
    """Trap 20b (hand-over of `anext`): a cancelled read of the source cleans up; nobody cancels it a second time.

    Nor does leaving the run cancel what `stop()` has already cancelled.
    """
    cleaned = []

    async def source():
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1)
            cleaned.append(True)

    await end(penstock.stream(source).map(passes, concurrency=2))
    assert cleaned == [True]


@pytest.mark.parametrize("concurrency", [1, 2000])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", ["async", "plain", "awaitable"])
async def test_trap_20c_calls_that_return_at_once_recurse(concurrency, ordered, kind):
    """Trap 20c (completion starts the next call): RecursionError after some 990 calls that return at once."""

    async def at_once(number):
        return number

    fn = {"async": at_once, "plain": lambda number: number, "awaitable": lambda item: at_once(item)}[kind]
    results = await penstock.stream(range(2000)).map(fn, concurrency=concurrency, ordered=ordered).to_list()
    assert (results if ordered else sorted(results)) == list(range(2000))


async def test_trap_20c_items_that_are_dropped_at_once_recurse():
    """Trap 20c (completion starts the next call): nor do 2,000 drops, failures and empty outputs in a row recurse."""

    async def no(_):
        return False

    async def error(_):
        raise ValueError

    nothing = penstock.stream(range(2000))
    assert await nothing.filter(no, concurrency=4).to_list() == []
    assert await nothing.map(error, on_error="skip", concurrency=4).to_list() == []
    assert await nothing.flat_map(lambda _: (), concurrency=4).to_list() == []
    assert await nothing.flat_map(lambda _: iter(()), concurrency=4).to_list() == []


async def test_trap_20c_a_long_chain_of_stages_recurses():
    """Trap 20c (completion starts the next call): thirty stages are no deeper for many items than for one."""
    chain = penstock.stream(range(200))
    for _ in range(30):
        chain = chain.map(passes, concurrency=4)
    assert await chain.to_list() == list(range(200))


def thread_of(_):
    return threading.current_thread()


async def thread_of_async(_):
    await asyncio.sleep(0)
    return threading.current_thread()


class Callable:
    async def __call__(self, _):
        return await thread_of_async(_)

    async def method(self, _):
        return await thread_of_async(_)


@functools.wraps(thread_of_async)
def wrapped(item):
    return thread_of_async(item)


class Decorated:
    """A decorator that is a class."""

    def __init__(self, fn):
        functools.update_wrapper(self, fn)
        self._fn = fn

    def __call__(self, item):
        return self._fn(item)


@pytest.mark.parametrize(
    "fn",
    [
        pytest.param(lambda _: threading.current_thread(), id="lambda"),
        pytest.param(lambda item: thread_of_async(item), id="lambda, a coroutine"),
        pytest.param(Callable(), id="callable object"),
        pytest.param(Callable().method, id="method"),
        pytest.param(functools.partial(thread_of_async), id="partial"),
        pytest.param(functools.partial(Callable()), id="partial of a callable object"),
        pytest.param(functools.partial(lambda _: threading.current_thread()), id="partial of a lambda"),
        pytest.param(wrapped, id="wrapped"),
        pytest.param(functools.partial(wrapped), id="partial of a wrapped"),
        pytest.param(Decorated(thread_of_async), id="decorated by an object"),
    ],
)
async def test_trap_20e_async_work_ends_up_in_a_thread(fn):
    """Trap 20e (`iscoroutinefunction`): it is false for lambdas, callable objects and wrapped functions."""
    threads = await penstock.stream(range(4)).map(fn, concurrency=2).to_list()
    assert threads == [threading.main_thread()] * 4


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_trap_20e_a_wrapper_of_an_async_function_that_returns_a_value(concurrency):
    """Trap 20e (`iscoroutinefunction`): a cache round an async function returns an awaitable, or the value."""
    known = {1: "known"}

    async def fetch(number):
        return f"fetched {number}"

    @functools.wraps(fetch)
    def cached(number):
        return known.get(number) or fetch(number)

    results = penstock.stream([0, 1, 2]).map(cached, concurrency=concurrency)
    assert await results.to_list() == ["fetched 0", "known", "fetched 2"]


@pytest.mark.filterwarnings("default::penstock.UnclosedStreamWarning")
async def test_trap_20f_a_broken_loop_goes_unnoticed():
    """Trap 20f (bare `async for`): left by `break`, it warns at once, and its work stops."""
    source, gauge = Scripted([0, 60, 60, 60, 60]), Gauge()

    async def leave_early():
        async for _ in penstock.stream(source).map(gauge.wrap(asyncio.sleep), concurrency=3):
            await asyncio.sleep(1)
            break

    with pytest.warns(penstock.UnclosedStreamWarning, match="use `async with stream.open"):
        await leave_early()
    await asyncio.sleep(1)
    assert (gauge.finished, gauge.cancelled, gauge.now) == (1, gauge.started - 1, 0)
    assert gauge.cancelled >= 2
    assert source.closed == 1
    assert source.pulled_by == {source.closed_by}


PROGRAM = """
import asyncio, penstock
async def main():
    async for _ in penstock.stream(range(9)).map(asyncio.sleep, concurrency=3):
        break
asyncio.run(main())
"""


def test_trap_20f_the_warning_is_not_shown():
    """Trap 20f (bare `async for`): a ResourceWarning is not shown by default; ours is, once, and nothing else is."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True, env={"PYTHONWARNINGS": ""}
    )
    assert ran.stderr.count("UnclosedStreamWarning: a stream was left before its end") == 1
    assert "Traceback" not in ran.stderr
    assert "Task was destroyed" not in ran.stderr


async def test_trap_20f_a_loop_that_is_read_to_its_end_warns():
    """Trap 20f (bare `async for`): reading to the end, also to an error, is a good way out and says nothing."""
    async for _ in penstock.stream(range(3)).map(passes):
        pass
    with pytest.raises(ValueError, match="1"):
        async for _ in penstock.stream([1]).map(fails):
            pass


async def test_trap_20f_an_exception_keeps_an_abandoned_run():
    """Trap 20f (bare `async for`): no task holds the handle, so it is collected as soon as the user lets go."""
    run = penstock.stream([0, 60, 60]).map(asyncio.sleep, concurrency=3).open()
    await anext(run)
    watched = weakref.ref(run)
    with pytest.warns(penstock.UnclosedStreamWarning):
        del run
    assert watched() is None
    await asyncio.sleep(1)


async def test_trap_20b_a_source_is_read_in_the_context_of_who_happens_to_read():
    """Trap 20b (hand-over of `anext`): a source sees the context in which its run was opened, whoever reads."""
    user, seen = contextvars.ContextVar("user", default="nobody"), []

    async def source():
        seen.append(user.get())
        yield 1

    user.set("opener")
    async with penstock.stream(source).open() as run:
        user.set("reader")
        assert [item async for item in run] == [1]
    assert seen == ["opener"]
