"""P8: cancellation is never swallowed, never retried, never counted as an item's failure."""

import asyncio
from contextlib import suppress

import pytest

from penstock import Retry, stream
from penstock.testing import Gauge, Scripted

from .grids import AS_GIVEN, ORDERS, grid
from .operators import OPERATORS, THREADED, WORKING

ANYTHING = Retry(on=lambda _: True, attempts=5, initial=0)
EVERYTHING = Retry(on=BaseException, attempts=5, initial=0)


def counts(stats):
    stage = stats["work"]
    return {"failed": stage.failed, "cancelled": stage.cancelled, "retried": stage.retried}


async def cancelled_at(when, coroutine):
    """Run it in a task, cancel that at `when`, and say how it ended."""
    task = asyncio.ensure_future(coroutine)
    asyncio.get_running_loop().call_later(when, task.cancel)
    await asyncio.wait([task])
    return task


@grid(retry=[None, ANYTHING, EVERYTHING], on_error=["raise", "skip", "collect"])
async def test_a_cancelled_consumer_ends_as_cancelled_and_no_item_as_failed(on_error, retry):
    for operator in OPERATORS:
        for ordered in (True, False):
            starts = []

            async def call(item, starts=starts):
                starts.append(item)
                await asyncio.sleep(60)

            async def consume(built, kept):
                async with built.open() as results:
                    kept.append(results)
                    async for _ in results:
                        pass

            options = {"concurrency": 3, "buffer": 2, "ordered": ordered, "on_error": on_error, "retry": retry}
            built, kept = operator.build(stream(range(9)), call, **options, name="work"), []
            consumer = await cancelled_at(5, consume(built, kept))
            assert consumer.cancelled()
            assert starts == sorted(set(starts))
            stage = kept[0].stats()["work"]
            assert counts(kept[0].stats()) == {"failed": 0, "cancelled": stage.taken, "retried": 0}
            assert kept[0].failures == ()


@grid(operator=WORKING, ordered=ORDERS, retry=[None, ANYTHING])
async def test_siblings_that_a_failure_cancels_are_neither_retried_nor_failed(operator, ordered, retry):
    tries = []

    async def call(item):
        tries.append(item)
        await asyncio.sleep(1 if item == 1 else 60)
        raise SystemError

    options = {"concurrency": 3, "buffer": 3, "ordered": ordered, "retry": retry, "name": "work"}
    with pytest.raises(SystemError) as raised:
        async with operator.build(stream(range(3)), call, **options).open() as results:
            await anext(results)
    attempts = 5 if retry else 1
    assert sorted(tries) == sorted([0, 2] + [1] * attempts)
    assert results.stats()["work"].failed == 1
    assert len([note for note in raised.value.__notes__ if not note.startswith("penstock: step ")]) == 1


@grid(operator=WORKING, ordered=ORDERS)
async def test_cancellation_while_waiting_for_the_next_attempt_ends_the_wait(operator, ordered, clock):
    tries = []

    async def call(item):
        tries.append((item, clock.now))
        raise OSError

    async def consume(kept):
        retry = Retry(on=OSError, attempts=9, initial=30, max=30, jitter=0)
        options = {"concurrency": 2, "ordered": ordered, "retry": retry, "name": "work"}
        async with operator.build(stream(range(2)), call, **options).open() as results:
            kept.append(results)
            await anext(results)

    kept = []
    consumer = await cancelled_at(40, consume(kept))
    assert consumer.cancelled()
    assert clock.now == 40.0
    assert [when for _, when in tries] == [0.0] * (len(tries) // 2) + [30.0] * (len(tries) // 2)
    assert counts(kept[0].stats())["failed"] == 0
    await asyncio.sleep(100)
    assert len(tries) in (2, 4)


@grid(operator=WORKING, ordered=AS_GIVEN)
async def test_work_that_swallows_its_cancellation_and_returns_is_discarded(operator, ordered):
    async def call(item):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    async def consume(kept):
        options = {"concurrency": 3, "buffer": 3, "ordered": ordered, "name": "work"}
        built = operator.build(stream(range(3)), call, **options)
        async with built.open() as results:
            kept.append(results)
            await anext(results)

    kept = []
    consumer = await cancelled_at(5, consume(kept))
    assert consumer.cancelled()
    stage = kept[0].stats()["work"]
    assert (stage.delivered, stage.failed, stage.in_flight) == (0, 0, 0)
    assert stage.discarded + stage.cancelled == stage.taken == 3
    assert asyncio.all_tasks() == {asyncio.current_task()}


@grid(operator=THREADED, ordered=ORDERS)
async def test_cancelled_threads_are_not_failures(operator, ordered, clock):
    gauge = Gauge()

    def call(item):
        with gauge:
            clock.sleep(9)

    async def consume(kept):
        options = {"concurrency": 3, "ordered": ordered, "retry": ANYTHING, "name": "work"}
        async with operator.build(stream(range(9)), call, **options).open(grace=60) as results:
            kept.append(results)
            await anext(results)

    kept = []
    consumer = await cancelled_at(5, consume(kept))
    assert consumer.cancelled()
    assert clock.now == 9.0
    assert gauge.started == 3
    stage = kept[0].stats()["work"]
    assert (stage.taken, stage.failed, stage.retried, stage.in_flight) == (3, 0, 0, 0)


@pytest.mark.parametrize(
    "consume",
    [
        lambda built: built.to_list(),
        lambda built: built.drain(),
        lambda built: built.first(),
        lambda built: built.reduce(lambda so_far, _: so_far, 0),
        lambda built: built.for_each(print),
        lambda built: built.for_each(asyncio.sleep, concurrency=2),
    ],
    ids=["to_list", "drain", "first", "reduce", "for_each", "for_each-async"],
)
async def test_every_consuming_method_ends_as_cancelled_and_leaves_nothing(consume, clock):
    for operator in OPERATORS:
        gauge, source = Gauge(), Scripted(range(99))

        async def call(item):
            await asyncio.sleep(60)

        began = clock.now
        built = operator.build(stream(source), gauge.wrap(call), concurrency=3)
        consumer = await cancelled_at(5, consume(built))
        assert consumer.cancelled()
        assert clock.now == began + 5
        assert (gauge.now, source.closed) == (0, 1)
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_timeout_round_a_consumer_is_a_timeout(clock):
    async def call(item):
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await stream(range(9)).map(call, concurrency=3).to_list()
    assert clock.now == 5.0
    assert asyncio.current_task().cancelling() == 0


async def test_a_timeout_inside_work_is_the_works_own(clock):
    async def call(item):
        try:
            async with asyncio.timeout(1):
                await asyncio.sleep(60 if item == 1 else 0.5)
        except TimeoutError:
            return "late"
        return "in time"

    assert await stream(range(3)).map(call, concurrency=3).to_list() == ["in time", "late", "in time"]
    assert clock.now == 1.0


@grid(ordered=AS_GIVEN)
async def test_an_attempt_that_times_out_is_retried_and_one_that_is_cancelled_is_not(ordered, clock):
    tries = []

    async def call(item):
        tries.append((item, clock.now))
        await asyncio.sleep(60)

    async def consume():
        retry = Retry(on=TimeoutError, attempts=9, initial=0)
        await stream(range(1)).map(call, timeout=2, retry=retry, ordered=ordered, concurrency=2).to_list()

    consumer = await cancelled_at(5, consume())
    assert consumer.cancelled()
    assert tries == [(0, 0.0), (0, 2.0), (0, 4.0)]


async def test_a_task_group_round_a_consumer_gets_the_cancellation(clock):
    gauge = Gauge()

    async def call(item):
        await asyncio.sleep(60)

    async def fail():
        await asyncio.sleep(3)
        raise OSError

    async def in_a_group():
        async with asyncio.TaskGroup() as group:
            group.create_task(stream(range(9)).map(gauge.wrap(call), concurrency=3).to_list())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as raised:
        await in_a_group()
    assert [type(error) for error in raised.value.exceptions] == [OSError]
    assert (clock.now, gauge.now, gauge.cancelled) == (3.0, 0, 3)


@grid(when=[0, 0.5, 1, 1.5])
async def test_a_source_is_cancelled_with_its_run_and_that_is_no_failure(when, clock):
    source = Scripted(range(9), delay=1)
    consumer = await cancelled_at(when, stream(source).to_list())
    assert consumer.cancelled()
    assert clock.now == when
    assert source.closed == source.opened


@grid(operator=WORKING, ordered=ORDERS, why=["sibling failed", "consumer left", "deadline", "caller cancelled"])
async def test_work_is_told_why_it_is_cancelled(operator, ordered, why):
    """The first reason counts: after a failure everything else is its consequence."""
    told = []

    async def call(item):
        try:
            await asyncio.sleep(1 if item == 0 else 2 if item == 1 and why == "sibling failed" else 3600)
        except asyncio.CancelledError as error:
            told.append(str(error))
            raise
        if item == 1:
            raise ValueError

    async def read():
        async with operator.build(stream(range(3)), call, concurrency=3, buffer=3, ordered=ordered).open() as results:
            await anext(results)
            if why == "consumer left":
                return
            async with asyncio.timeout(5 if why == "deadline" else None):
                await anext(results)

    reader = asyncio.ensure_future(read())
    await asyncio.wait([reader], timeout=10)
    reader.cancel()
    await asyncio.wait([reader])
    assert set(told) == {why}
