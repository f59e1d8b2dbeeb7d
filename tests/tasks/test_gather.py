"""`gather`: all results in order, or the first failure."""

import asyncio
import gc
import threading
import weakref
from dataclasses import dataclass
from functools import partial

import pytest

from penstock import AttemptTimeout, OptionError, Retry, UnstoppedWorkWarning, WorkRaised
from penstock.tasks import gather
from penstock.testing import Gauge

from .executing import after, failing

pytestmark = pytest.mark.grid


def plain(value):
    return value


async def test_results_stand_in_the_order_of_the_tasks(clock):
    """P1, P3: whatever order they finish in, at most so many at once."""
    gauge = Gauge()
    work = gauge.wrap(after)
    delays = [5, 1, 3, 2, 4]
    assert await gather([partial(work, each, each) for each in delays], concurrency=2) == delays
    assert gauge.peak == 2
    assert clock.now == 9  # 5 + 4 beside 1 + 3 + 2


async def test_every_kind_of_task():
    """Coroutine objects, async functions, lambdas, plain functions, partials."""
    tasks = [
        after(0, 1),
        partial(after, 1, 2),
        lambda: after(0, 3),
        partial(plain, 4),
        lambda: 5,
        partial(after, 0, None),
    ]
    assert await gather(tasks, concurrency=3) == [1, 2, 3, 4, 5, None]


async def test_any_value_is_a_result():
    """P6."""
    values = [None, False, 0, "", KeyError("a value"), asyncio.CancelledError]
    assert await gather([lambda value=value: value for value in values], concurrency=2) == values


async def test_no_tasks():
    assert await gather([], concurrency=3) == []


async def test_the_first_failure_is_raised_itself_and_stops_the_others(clock):
    """P4, P5: the user's own object; siblings are cancelled and awaited, nothing starts any more."""
    error = ValueError("first")
    gauge = Gauge()
    slow = gauge.wrap(after)
    with pytest.raises(ValueError, match="first") as raised:
        await gather([partial(slow, 9, 1), partial(failing, 1, error), partial(slow, 9, 2)], concurrency=2)
    assert raised.value is error
    assert raised.value.__notes__ == ["penstock: stage 'gather', item 1"]
    assert (gauge.started, gauge.cancelled) == (1, 1)
    assert clock.now == 1


async def test_other_failures_are_shown_with_the_first():
    """P5: as an ExceptionGroup in the context, and in the notes."""

    async def fails_when_stopped():
        try:
            await asyncio.sleep(9)
        finally:
            raise KeyError("cleanup")

    with pytest.raises(ValueError, match="first") as raised:
        await gather([fails_when_stopped, partial(failing, 1, ValueError("first"))], concurrency=2)
    context = raised.value.__context__
    assert isinstance(context, ExceptionGroup)
    assert [type(error) for error in context.exceptions] == [KeyError]
    assert any("cleanup" in note for note in raised.value.__notes__)


async def test_the_context_that_an_error_has_is_kept():
    async def caused():
        try:
            {}["cause"]
        except KeyError as error:
            raise ValueError("first") from error

    async def fails_when_stopped():
        try:
            await asyncio.sleep(9)
        finally:
            raise OSError("cleanup")

    with pytest.raises(ValueError, match="first") as raised:
        await gather([fails_when_stopped, caused], concurrency=2)
    assert isinstance(raised.value.__context__, KeyError)
    assert isinstance(raised.value.__context__.__context__, ExceptionGroup)


async def test_other_failures_are_shown_with_one_that_is_immutable():
    """P5: a frozen dataclass forbids to set what Python sets on every exception; it is raised itself all the same."""

    @dataclass(frozen=True)
    class Frozen(Exception):
        number: int

    first = Frozen(1)

    async def fails_when_stopped():
        try:
            await asyncio.sleep(9)
        finally:
            raise Frozen(2)

    with pytest.raises(Frozen) as raised:
        await gather([fails_when_stopped, partial(failing, 1, first)], concurrency=2)
    assert raised.value is first
    assert isinstance(first.__context__, ExceptionGroup)
    assert first.__context__.exceptions == (Frozen(2),)


async def test_tasks_are_pulled_as_places_free_up():
    """P2, P7: a million tasks need no million objects."""
    alive = weakref.WeakSet()

    class Task:
        def __call__(self):
            return after(0, len(alive))

    def tasks():
        for _ in range(2_000):
            task = Task()
            alive.add(task)
            yield task
            del task

    assert max(await gather(tasks(), concurrency=5)) < 20


async def test_an_endless_iterable_is_left_at_the_first_failure():
    pulled = []

    def tasks():
        while True:
            pulled.append(len(pulled))
            yield partial(failing, 1, LookupError) if len(pulled) == 7 else partial(after, 1, None)

    with pytest.raises(LookupError):
        await gather(tasks(), concurrency=4)
    assert len(pulled) == 8


async def test_coroutines_that_are_never_started_are_closed():
    """Neither lost nor with a warning that they were never awaited."""
    waiting = [after(0, number) for number in range(5)]
    with pytest.raises(LookupError):
        await gather([failing(0, LookupError), *waiting], concurrency=1)
    gc.collect()
    for coroutine in waiting:
        with pytest.raises(RuntimeError, match="cannot reuse"):
            coroutine.send(None)


async def test_coroutines_are_closed_when_gather_is_cancelled():
    caller = asyncio.create_task(gather([after(9, number) for number in range(5)], concurrency=2))
    await asyncio.sleep(1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_coroutines_are_closed_when_an_option_is_wrong():
    with pytest.raises(OptionError, match="concurrency must be an int >= 1, got 0"):
        await gather([after(0, 1)], concurrency=0)
    with pytest.raises(OptionError, match="grace must be"):
        await gather([after(0, 1)], concurrency=1, grace=-1)
    with pytest.raises(OptionError, match="timeout must be"):
        await gather([after(0, 1)], concurrency=1, timeout=0)


@pytest.mark.parametrize("tasks", [None, 3, after])
async def test_tasks_must_be_an_iterable(tasks):
    with pytest.raises(OptionError, match="tasks must be an iterable of tasks, got"):
        await gather(tasks, concurrency=1)


async def test_a_task_must_be_callable():
    with pytest.raises(OptionError, match="a task must be callable or a coroutine object, got 3") as raised:
        await gather([lambda: 1, 3], concurrency=1)
    assert raised.value.__notes__ == ["penstock: stage 'gather', item 1"]


async def test_a_task_that_raises_before_it_returns_an_awaitable():
    def broken():
        raise LookupError("at once")

    for concurrency in (1, 3):
        with pytest.raises(LookupError, match="at once"):
            await gather([broken, partial(after, 1, 1)], concurrency=concurrency)


@pytest.mark.parametrize("control", [StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError])
async def test_control_flow_is_that_tasks_failure(control):
    """P5, P8: it neither hangs nor ends the run early."""
    with pytest.raises(WorkRaised) as raised:
        await gather([partial(after, 1, 1), partial(failing, 0, control)], concurrency=2)
    assert isinstance(raised.value.__cause__, control)


async def test_a_timeout_stops_the_attempt(clock):
    gauge = Gauge()
    with pytest.raises(AttemptTimeout, match="timed out after 2 s"):
        await gather([partial(gauge.wrap(after), 9, 1)], concurrency=1, timeout=2)
    assert gauge.cancelled == 1
    assert clock.now == 2


async def test_retry_calls_again():
    calls = []

    async def flaky():
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError
        return "there"

    assert await gather([flaky], concurrency=1, retry=Retry(on=ConnectionError)) == ["there"]


async def test_retry_refuses_coroutine_objects():
    with pytest.raises(OptionError, match="retry needs functions that can be called again"):
        await gather([after(0, 1)], concurrency=1, retry=Retry(on=OSError))


async def test_the_same_coroutine_twice_is_a_failure():
    coroutine = after(0, 1)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await gather([coroutine, coroutine], concurrency=1)


async def test_cancelling_it_stops_and_awaits_all():
    """P4, P8."""
    gauge = Gauge()
    caller = asyncio.create_task(gather([partial(gauge.wrap(after), 9, 1)] * 5, concurrency=3))
    await asyncio.sleep(1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (gauge.started, gauge.cancelled, gauge.now) == (3, 3, 0)


async def test_a_task_that_ignores_its_cancellation_is_named_and_left(clock):
    """P4: grace, then a warning."""
    ends = asyncio.Event()

    async def stubborn():
        while not ends.is_set():
            try:
                await ends.wait()
            except asyncio.CancelledError:
                continue

    with pytest.warns(UnstoppedWorkWarning, match="stage 'gather', item 0"), pytest.raises(LookupError):
        await gather([stubborn, partial(failing, 1, LookupError)], concurrency=2, grace=3)
    assert clock.now == 4
    ends.set()
    await asyncio.sleep(1)


async def test_gather_inside_gather():
    async def inner(base):
        return await gather([partial(after, 1, base + each) for each in range(3)], concurrency=2)

    assert await gather([partial(inner, 0), partial(inner, 10)], concurrency=2) == [[0, 1, 2], [10, 11, 12]]


async def test_plain_functions_run_in_threads_beside_others():
    here = threading.get_ident()

    def where():
        return threading.get_ident()

    assert here not in await gather([where, where], concurrency=2)
    assert await gather([where], concurrency=1) == [here]
