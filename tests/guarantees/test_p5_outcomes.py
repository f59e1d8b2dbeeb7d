"""P5: every item has exactly one outcome; a stream raises its first failure, the very object, and masks no other."""

import asyncio
import dataclasses
import functools
import random
import traceback
from contextlib import suppress

import pytest

from penstock import ConcurrentReadError, Retry, WorkRaised, merge, stream
from penstock.testing import Scripted

from .operators import MODELLED, OPERATORS, ORDERS, SIZES, SOURCES, THREADED, WORKING, grid, read_all

OUTCOMES = ("delivered", "dropped", "failed", "cancelled", "discarded", "in_flight")


def assert_balanced(stats):
    """Every count is one, and they add up."""
    for stage in stats:
        counts = [getattr(stage, name) for name in OUTCOMES]
        assert min(counts) >= 0, stage
        assert sum(counts) == stage.taken, stage


def totals(stage):
    return {name: count for name in ("taken", *OUTCOMES) if (count := getattr(stage, name))}


class Boom(Exception):
    pass


@grid(operator=MODELLED, ordered=ORDERS, size=SIZES)
async def test_the_books_of_a_run_are_right_at_every_instant(operator, ordered, size):
    """Looked at by every call when it begins and ends, by the source before each item, and by the consumer."""
    chance = random.Random(str(size))
    ends_well = [chance.random() < 0.6 for _ in range(30)]
    tries, failed, received = [], [], []

    def look():
        stats = results.stats()
        assert_balanced(stats)
        stage = stats["work"]
        assert stage.taken == source.taken
        assert stage.delivered == len(received)
        assert stage.failed == len(failed)
        assert stage.retried == len(tries) - len(set(tries))

    def items():
        for item in range(30):
            look()
            yield item

    async def call(item):
        tries.append(item)
        look()
        if chance.random() < 0.7:
            await asyncio.sleep(chance.choice([0, chance.random()]))
        look()
        if not ends_well[item]:
            if tries.count(item) == 2:
                failed.append(item)
            raise Boom

    source = Scripted(items())
    retry = Retry(on=Boom, attempts=2, initial=0.5, jitter=0)
    options = {"ordered": ordered, "name": "work", "on_error": "collect", "retry": retry, **size}
    built = operator.build(stream(source.sync()), call, **options)
    async with built.open() as results:
        async for item in results:
            received.append(item)
            look()
            await asyncio.sleep(chance.choice([0, 0, chance.random()]))
        look()
    assert sorted(received) == [item for item in range(30) if ends_well[item]]
    assert sorted(failure.item for failure in results.failures) == sorted(failed)
    assert results.stats()["work"].in_flight == 0


@grid(operator=OPERATORS, ordered=ORDERS, read=SOURCES, size=SIZES[-1:], leave_after=[5, 1_000])
async def test_the_books_balance_and_are_closed_at_the_end(operator, ordered, read, size, leave_after):
    chance = random.Random(str(size))

    async def call(item):
        assert_balanced(results.stats())
        await asyncio.sleep(chance.choice([0, chance.random()]))
        assert_balanced(results.stats())
        if chance.random() < 0.3:
            raise Boom

    built = operator.build(stream(read(Scripted(range(20)))), call, ordered=ordered, on_error="skip", **size)
    async with built.open() as results:
        async for result in results:
            assert_balanced(results.stats())
            if operator.items(result)[-1] > leave_after:
                break
    assert_balanced(results.stats())
    assert [stage.in_flight for stage in results.stats()] == [0] * len(results.stats())


@grid(operator=WORKING, ordered=ORDERS)
async def test_a_failure_cancels_what_runs_and_discards_what_is_behind_it(operator, ordered):
    """Items end at 1 s, 2 s (failing), 1.5 s and never: one of each outcome."""

    async def call(item):
        await asyncio.sleep([1, 2, 1.5, 50, 50, 50][item])
        if item == 1:
            raise Boom

    source = Scripted(range(6))
    options = {"concurrency": 4, "buffer": 3, "ordered": ordered, "name": "work"}
    results, _, error = await read_all(operator.build(stream(source), call, **options))
    assert isinstance(error, Boom)
    stats = results.stats()
    assert_balanced(stats)
    if operator.asks_first or operator.settles_late:
        return
    taken = stats["work"].taken
    expected = {"taken": taken, "delivered": 1, "failed": 1, "cancelled": taken - 3, "discarded": 1}
    if not ordered:
        expected = {"taken": taken, "delivered": 2, "failed": 1, "cancelled": taken - 3}
    assert totals(stats["work"]) == expected
    assert stats["source"].taken == source.taken


async def test_drops_of_a_filter_are_counted():
    async with stream(range(10)).filter(lambda item: item % 3 == 0, name="work").open() as results:
        assert [item async for item in results] == [0, 3, 6, 9]
    assert totals(results.stats()["work"]) == {"taken": 10, "delivered": 4, "dropped": 6}


async def test_an_input_of_flat_map_is_delivered_with_its_last_output_or_dropped():
    async def outputs(item):
        for number in range(item):
            yield number

    async with stream([2, 0, 3]).flat_map(outputs, name="work").open() as results:
        assert await anext(results) == 0
        assert results.stats()["work"].delivered == 0
        assert [number async for number in results] == [1, 0, 1, 2]
    assert totals(results.stats()["work"]) == {"taken": 3, "delivered": 2, "dropped": 1}


async def test_items_in_an_unfinished_batch_and_results_that_nobody_took_are_discarded():
    async with stream(range(10)).map(lambda item: item, buffer=3, name="work").batch(4).open() as batches:
        assert await anext(batches) == [0, 1, 2, 3]
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await asyncio.sleep(1)
    source, work, batch = batches.stats()
    assert totals(work) == {"taken": 8, "delivered": 4, "discarded": 4}
    assert totals(batch) == {"taken": 4, "delivered": 4}
    assert totals(source) == {"taken": 8, "delivered": 8}


async def explode(error):
    raise error


@grid(operator=OPERATORS, ordered=ORDERS, size=SIZES)
async def test_the_first_failure_is_raised_as_the_users_own_object(operator, ordered, size):
    error = Boom("mine")
    error.__cause__ = cause = KeyError("why")

    async def call(item):
        await asyncio.sleep(0.25)
        if item == 3:
            await explode(error)

    built = operator.build(stream(range(9)), call, ordered=ordered, name="the stage", **size)
    with pytest.raises(Boom) as raised:
        await built.to_list()
    assert raised.value is error
    assert error.__cause__ is cause
    assert traceback.extract_tb(error.__traceback__)[-1].name == "explode"
    assert [note for note in error.__notes__ if "stage 'the stage', item 3" in note] == error.__notes__


@grid(operator=THREADED)
async def test_a_failure_in_a_thread_is_raised_as_the_users_own_object(operator):
    error = Boom()

    def call(item):
        if item == 3:
            raise error

    with pytest.raises(Boom) as raised:
        await operator.build(stream(range(9)), call, concurrency=2, name="the stage").to_list()
    assert raised.value is error
    assert traceback.extract_tb(error.__traceback__)[-1].name == "call"
    assert "stage 'the stage', item 3" in error.__notes__[0]


@grid(operator=WORKING, ordered=ORDERS)
async def test_the_note_says_how_many_attempts_there_were(operator, ordered):
    error, tries = Boom(), []

    async def call(item):
        if item == 2:
            tries.append(item)
            raise error

    retry = Retry(on=Boom, attempts=4, initial=1)
    with pytest.raises(Boom) as raised:
        await operator.build(stream(range(9)), call, name="the stage", ordered=ordered, retry=retry).to_list()
    assert raised.value is error
    assert len(tries) == 4
    assert len([note for note in error.__notes__ if "stage 'the stage', item 2, attempt 4" in note]) == 1


@grid(ordered=ORDERS)
async def test_collected_failures_say_what_failed_where_and_why(ordered):
    errors = [Boom(item) for item in range(6)]

    async def call(item):
        await asyncio.sleep(1)
        if item != "a":
            raise errors["abcdef".index(item)]
        return item

    retry = Retry(on=lambda error: error is errors[2], attempts=2, initial=1)
    options = {"concurrency": 2, "ordered": ordered, "name": "work", "on_error": "collect", "retry": retry}
    async with stream("abcdef").map(call, **options).open() as results:
        assert [item async for item in results] == ["a"]
    found = {(each.index, each.item, each.stage, each.attempts, each.error) for each in results.failures}
    assert found == {(i, "abcdef"[i], "work", 2 if i == 2 else 1, errors[i]) for i in range(1, 6)}
    assert totals(results.stats()["work"]) == {"taken": 6, "delivered": 1, "failed": 5}


async def test_the_index_is_the_position_in_the_input_of_the_failing_stage():
    async def call(item):
        raise Boom

    with pytest.raises(Boom) as raised:
        await stream(range(100)).filter(lambda item: item > 90).map(call, name="late").to_list()
    assert "stage 'late', item 0" in raised.value.__notes__[0]


@grid(operator=WORKING, ordered=ORDERS)
async def test_other_failures_stand_in_the_notes_and_in_failures(operator, ordered):
    """Trap 21, 22: one fails, two more fail while they are stopped; all are seen, and cancellations mask none."""
    errors = [Boom(item) for item in range(4)]

    async def call(item):
        try:
            await asyncio.sleep(2 if item == 1 else 60)
        except asyncio.CancelledError:
            if item == 0:
                raise
            raise errors[item] from None
        raise errors[item]

    options = {"concurrency": 4, "buffer": 4, "ordered": ordered, "name": "work"}
    results, _, error = await read_all(operator.build(stream(range(4)), call, **options))
    assert error is errors[1]
    first, *others = errors[1].__notes__
    assert "stage 'work', item 1" in first
    for other in (2, 3):
        assert len([note for note in others if f"item {other}" in note and repr(errors[other]) in note]) == 1
    assert {failure.error for failure in results.failures} == {errors[2], errors[3]}
    assert totals(results.stats()["work"]) == {"taken": 4, "failed": 3, "cancelled": 1}


async def test_two_threads_that_fail_are_both_seen(clock):
    errors = [Boom(0), Boom(1)]

    def call(item):
        clock.sleep(1 + item)
        raise errors[item]

    with pytest.raises(Boom) as raised:
        async with stream(range(2)).map(call, concurrency=2).open() as results:
            await anext(results)
    assert raised.value is errors[0]
    assert [failure.error for failure in results.failures] == [errors[1]]
    assert len([note for note in errors[0].__notes__ if repr(errors[1]) in note]) == 1


async def test_failures_that_a_run_survived_stand_in_the_notes_of_the_one_that_ended_it():
    early, late = Boom("early"), Boom("late")

    async def first(item):
        if item == 1:
            raise early

    async def second(item):
        if item == 3:
            raise late

    results, _, error = await read_all(stream(range(9)).tap(first, on_error="collect").tap(second))
    assert error is late
    assert any(repr(early) in note and "item 1" in note for note in late.__notes__)
    assert [failure.error for failure in results.failures] == [early]


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


def outcome_of(task, got):
    """File what a cancelled or finished `anext` came to; whether the run is over."""
    if task.cancelled():
        return False
    if isinstance(task.exception(), StopAsyncIteration):
        return True
    got.append(task.result())
    return False


@grid(operator=OPERATORS, ordered=ORDERS, size=SIZES[::2])
async def test_an_anext_cancelled_after_any_number_of_steps_loses_nothing(operator, ordered, size):
    chance, got, over = random.Random(str(size)), [], False

    async def call(item):
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)

    source = Scripted(range(25), delay=lambda _: chance.choice([None, 0]))
    async with operator.build(stream(source), call, ordered=ordered, **size).open() as results:
        while not over:
            task = asyncio.ensure_future(anext(results))
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            over = outcome_of(task, got)
    items = [item for result in got for item in operator.items(result)]
    assert (items if ordered else sorted(items)) == list(range(25))


@grid(operator=OPERATORS, ordered=ORDERS, size=SIZES[::4])
async def test_an_anext_that_timed_out_loses_nothing(operator, ordered, size):
    """Trap 20d; also when the time is up at the very instant at which the result comes."""
    chance, got = random.Random(str(size)), []

    async def call(item):
        await asyncio.sleep(chance.choice([0.125, 0.25, 0.5]))

    source = Scripted(range(25), delay=lambda _: chance.choice([None, 0, 0.25]))
    async with operator.build(stream(source), call, ordered=ordered, **size).open() as results:
        while True:
            try:
                got.append(await asyncio.wait_for(anext(results), chance.choice([0.0625, 0.125, 0.25])))
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
    items = [item for result in got for item in operator.items(result)]
    assert (items if ordered else sorted(items)) == list(range(25))


async def test_a_cancelled_anext_loses_neither_the_failure_nor_the_end(clock):
    """Cancelled while the run, at its end, waits for work and source to be closed."""
    for error in (Boom(), None):
        began = clock.now
        source = Scripted(range(3), close_delay=2, fail_at=3 if error else None, error=error)
        async with stream(source).open() as items:
            assert [await anext(items) for _ in range(3)] == [0, 1, 2]
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(items), 0.5)
            with pytest.raises(Boom if error else StopAsyncIteration) as raised:
                await anext(items)
            assert clock.now == began + 2
            assert error is None or raised.value is error
            with pytest.raises(StopAsyncIteration):
                await anext(items)


@grid(operator=OPERATORS, ordered=ORDERS)
async def test_two_anext_at_once_raise_and_disturb_nothing(operator, ordered):
    async def call(item):
        await asyncio.sleep(1)

    async with operator.build(stream(range(4)), call, ordered=ordered).open() as results:
        first = asyncio.ensure_future(anext(results))
        await asyncio.sleep(0.5)
        for _ in range(2):
            with pytest.raises(ConcurrentReadError):
                await anext(results)
        got = [await first, *[result async for result in results]]
    assert [item for result in got for item in operator.items(result)] == [0, 1, 2, 3]


async def test_two_anext_at_once_raise_while_the_run_ends():
    async with stream(Scripted([], close_delay=2)).open() as items:
        first = asyncio.ensure_future(anext(items))
        await asyncio.sleep(1)
        with pytest.raises(ConcurrentReadError):
            await anext(items)
        with pytest.raises(StopAsyncIteration):
            await first


async def test_a_failure_that_nobody_saw_is_counted_not_raised():
    async def call(item):
        await asyncio.sleep(item)
        if item == 1:
            raise Boom

    async with stream(range(9)).map(call, concurrency=2, name="work").open() as results:
        await anext(results)
        await asyncio.sleep(50)
    assert results.stats()["work"].failed == 1


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
