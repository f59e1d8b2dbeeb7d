"""P5: whatever work raises arrives: as it is, or as `WorkRaised` where it would end an iteration or a task."""

import asyncio
import dataclasses
import functools

import pytest

from penstock import Retry, WorkRaised, stream
from penstock.testing import Scripted

from .grids import ORDERS, SOURCES, grid, totals
from .operators import WORKING


class Boom(Exception):
    pass


class Callable:
    def __init__(self, error):
        self.error = error

    async def __call__(self, item):
        return await raise_first(self.error, item)


async def raise_first(error, item):
    if item == 0:
        raise error
    return item


def plain_raise_first(error, item):
    if item == 0:
        raise error
    return item


def async_function(error):
    async def work(item):
        return await raise_first(error, item)

    return work


def plain_function(error):
    def work(item):
        return plain_raise_first(error, item)

    return work


def async_generator(error):
    async def work(item):
        yield plain_raise_first(error, item)

    return work


def late_async_generator(error):
    async def work(item):
        yield item
        await asyncio.sleep(1)
        plain_raise_first(error, item)

    return work


def plain_generator(error):
    def work(item):
        yield plain_raise_first(error, item)

    return lambda item: work(item)


def list_after_raise(error):
    async def work(item):
        return [await raise_first(error, item)]

    return work


FORMS = {
    "async def": lambda items, error, **options: items.map(async_function(error), **options),
    "lambda of a coroutine": lambda items, error, **options: items.map(
        lambda item: raise_first(error, item), **options
    ),
    "lambda that raises": lambda items, error, **options: items.map(
        lambda item: plain_raise_first(error, item), **options
    ),
    "partial": lambda items, error, **options: items.map(functools.partial(raise_first, error), **options),
    "callable object": lambda items, error, **options: items.map(Callable(error), **options),
    "inline def": lambda items, error, **options: items.map(plain_function(error), **options),
    "def in threads": lambda items, error, **options: items.map(plain_function(error), **options, concurrency=2),
    "tap": lambda items, error, **options: items.tap(async_function(error), **options),
    "unordered": lambda items, error, **options: items.map(
        async_function(error), **options, ordered=False, concurrency=3
    ),
    "flat_map of a list": lambda items, error, **options: items.flat_map(list_after_raise(error), **options),
    "flat_map of a generator": lambda items, error, **options: items.flat_map(plain_generator(error), **options),
    "flat_map of an async generator": lambda items, error, **options: items.flat_map(async_generator(error), **options),
    "with a timeout": lambda items, error, **options: items.map(async_function(error), **options, timeout=9),
    "with a retry": lambda items, error, **options: items.map(
        async_function(error), **options, retry=Retry(on=(OSError, RuntimeError))
    ),
}

CONTROL_FLOW = (StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError)


@grid(form=FORMS)
async def test_control_flow_exceptions_from_work_arrive_as_work_raised(form):
    """Trap 14: the run neither hangs nor ends early."""
    for kind in CONTROL_FLOW:
        error = kind("of its own accord")
        with pytest.raises(WorkRaised) as raised:
            await FORMS[form](stream(range(3)), error).to_list()
        assert isinstance(raised.value, RuntimeError)
        assert raised.value.__cause__ is error, kind


@grid(form=FORMS)
async def test_control_flow_exceptions_from_work_are_failures_like_others(form):
    for kind in CONTROL_FLOW:
        error = kind()
        async with FORMS[form](stream(range(3)), error, on_error="collect", name="work").open() as results:
            assert [item async for item in results] == [1, 2]
        assert [failure.index for failure in results.failures] == [0]
        assert isinstance(results.failures[0].error, WorkRaised)
        assert results.failures[0].error.__cause__ is error
        assert totals(results.stats()["work"]) == {"taken": 3, "delivered": 2, "failed": 1}


async def test_control_flow_exceptions_after_an_output_arrive_too():
    for kind in CONTROL_FLOW:
        error = kind()
        async with stream(range(3)).flat_map(late_async_generator(error)).open() as results:
            assert await anext(results) == 0
            with pytest.raises(WorkRaised) as raised:
                await anext(results)
        assert raised.value.__cause__ is error


@grid(read=SOURCES, kind=[GeneratorExit, asyncio.CancelledError])
async def test_control_flow_exceptions_from_a_source_do_not_end_the_run_in_silence(kind, read):
    error = kind()
    source = Scripted(range(9), fail_at=2, error=error)
    async with stream(read(source)).open() as items:
        assert [await anext(items), await anext(items)] == [0, 1]
        with pytest.raises(WorkRaised) as raised:
            await anext(items)
    assert raised.value.__cause__ is error
    assert source.closed == 1


@grid(cause=[StopIteration, StopAsyncIteration])
async def test_a_runtime_error_of_the_user_stays_what_it_is_whatever_its_cause(cause):
    error = RuntimeError("mine")
    error.__cause__ = cause()
    for form in FORMS.values():
        with pytest.raises(RuntimeError) as raised:
            await form(stream(range(3)), error).to_list()
        assert raised.value is error


@grid(operator=WORKING, ordered=ORDERS, kind=[SystemExit, KeyboardInterrupt])
async def test_exits_raised_by_work_reach_the_consumer_and_leave_nothing_running(operator, ordered, kind):
    """Eager start must not let them escape from the call that creates the task."""
    for on_error in ("raise", "skip", "collect"):
        error = kind()

        async def call(item, error=error):
            if item == 2:
                raise error

        source = Scripted(range(99))
        options = {"concurrency": 3, "ordered": ordered, "on_error": on_error}
        with pytest.raises(kind) as raised:
            await operator.build(stream(source), call, **options).to_list()
        assert raised.value is error
        assert source.closed == 1


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Unspeakable(Exception):
    def __repr__(self):
        raise ZeroDivisionError

    __str__ = __repr__


class False_(Exception):  # noqa: N801
    def __bool__(self):
        return False


class Unequal(Exception):
    def __eq__(self, other):
        raise ZeroDivisionError

    __hash__ = None


@grid(kind=[lambda: Frozen(3), Unspeakable, False_, Unequal, lambda: ExceptionGroup("g", [Boom()])])
async def test_whatever_an_exception_is_made_of_it_arrives(kind):
    for form in FORMS.values():
        error = kind()
        with pytest.raises(type(error)) as raised:
            await form(stream(range(3)), error).to_list()
        assert raised.value is error
        async with form(stream(range(3)), error, on_error="collect").open() as results:
            assert [item async for item in results] == [1, 2]
        assert results.failures[0].error is error


@grid(kind=[lambda: Frozen(3), Unspeakable, False_, Unequal])
async def test_whatever_an_other_failure_is_made_of_it_does_not_mask_the_first(kind):
    first, other = Boom(), kind()

    async def call(item):
        try:
            await asyncio.sleep(9 * item)
        except asyncio.CancelledError:
            raise other from None
        raise first

    with pytest.raises(Boom) as raised:
        async with stream(range(2)).map(call, concurrency=2).open() as results:
            await anext(results)
    assert raised.value is first
    assert results.failures[0].error is other


async def test_one_exception_object_raised_by_many_items_is_raised_once():
    error = Boom()

    async def call(item):
        await asyncio.sleep(1)
        raise error

    with pytest.raises(Boom) as raised:
        await stream(range(9)).map(call, concurrency=3, name="work").to_list()
    assert raised.value is error
    assert "stage 'work', item 0" in error.__notes__[0]
