"""P5: every item has exactly one outcome; a stream raises its first failure, the very object, and masks no other."""

import asyncio
import random
import traceback
from contextlib import suppress

import pytest

from penstock import Retry, stream
from penstock.testing import Scripted

from .grids import AS_GIVEN, ORDERS, SIZES, SOURCES, assert_balanced, grid, read_all, totals
from .operators import MODELLED, OPERATORS, THREADED, WORKING


class Boom(Exception):
    pass


def notes_of_stages(error):
    """Its notes, without the one that names a step in a pipeline."""
    return [note for note in error.__notes__ if not note.startswith("penstock: step ")]


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


@pytest.mark.slow
@grid(operator=OPERATORS, ordered=ORDERS, read=SOURCES, leave_after=[5, 1_000])
async def test_the_books_balance_and_are_closed_at_the_end(operator, ordered, read, leave_after):
    chance = random.Random(leave_after)

    async def call(item):
        assert_balanced(results.stats())
        await asyncio.sleep(chance.choice([0, chance.random()]))
        assert_balanced(results.stats())
        if chance.random() < 0.3:
            raise Boom

    options = {"concurrency": 3, "buffer": 2, "ordered": ordered, "on_error": "skip"}
    built = operator.build(stream(read(Scripted(range(12)))), call, **options)
    async with built.open() as results:
        async for result in results:
            assert_balanced(results.stats())
            if operator.items(result)[-1] > leave_after:
                break
    assert_balanced(results.stats())
    assert [stage.in_flight for stage in results.stats()] == [0] * len(results.stats())


@grid(operator=WORKING, ordered=AS_GIVEN)
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
    if ordered is False:
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


@grid(operator=OPERATORS, ordered=ORDERS, size=SIZES[::2])
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
    assert [note for note in error.__notes__ if "stage 'the stage', item 3" in note] == notes_of_stages(error)


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


@grid(ordered=AS_GIVEN)
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
    first, *others = notes_of_stages(errors[1])
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


async def test_a_failure_that_nobody_saw_is_counted_not_raised():
    async def call(item):
        await asyncio.sleep(item)
        if item == 1:
            raise Boom

    async with stream(range(9)).map(call, concurrency=2, name="work").open() as results:
        await anext(results)
        await asyncio.sleep(50)
    assert results.stats()["work"].failed == 1
