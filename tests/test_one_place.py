"""The window of one place: what is quick there is what every window promises."""

import asyncio
import itertools
import weakref
from contextlib import suppress
from contextvars import ContextVar

import pytest

from penstock import Failed, Limiter, Ok, Retry, stream
from penstock.core.one_place import OnePlace
from penstock.core.scope import Scope
from penstock.core.window import Window
from penstock.run import read_to_end
from penstock.testing import Scripted

CALLED = ContextVar("CALLED")


def same(item):
    return item


async def at_once(item):
    return item


async def waits(item):
    await asyncio.sleep(0)
    return item


async def sometimes_waits(item):
    if item % 3 == 0:
        await asyncio.sleep(item % 2)
    return item


WORK = (same, lambda item: item, lambda item: waits(item), at_once, waits, sometimes_waits)


async def read(built):
    async with built.open() as items:
        return [item async for item in items]


READERS = (
    read,
    lambda built: built.to_list(),
    lambda built: built.reduce(lambda items, item: [*items, item], []),
)


def kinds_of_work():
    return itertools.product(WORK, READERS)


async def count_passes(reading):
    """Await `reading`; return how many passes of the loop that took."""
    number = 0

    async def count():
        nonlocal number
        while True:
            number += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(count())
    await reading
    task.cancel()
    await asyncio.wait([task])
    return number


async def test_it_gives_what_list_code_gives():
    """P3, P6: chains of it, behind each other and behind others, and values of all kinds."""
    values = [None, False, ValueError("a value"), Ok(1, 0), 0, (), Failed(ValueError(), 0, None, "none")]
    for work, reader in kinds_of_work():
        numbers = range(20)
        assert await reader(stream(numbers).map(work)) == list(numbers)
        assert await reader(stream(numbers).map(work).filter(lambda item: item % 2)) == list(numbers)[1::2]
        assert await reader(stream(numbers).filter(lambda _: False).map(work)) == []
        assert await reader(stream(numbers).map(waits, concurrency=3).map(work).map(work)) == list(numbers)
        assert await reader(stream(numbers).map(work).map(work).map(waits, concurrency=3)) == list(numbers)
        assert await reader(stream(Scripted(numbers)).map(work).take(3)) == [0, 1, 2]
        assert await reader(stream(numbers).map(work).batch(8)) == [[*range(8)], [*range(8, 16)], [*range(16, 20)]]
    assert [value is kept for value, kept in zip(values, await stream(values).map(same).to_list(), strict=True)]
    assert await stream(range(9)).map(at_once).count() == 9


async def test_one_call_at_a_time_and_its_result_is_handed_on_before_the_next():
    """P1: nothing is taken from the source, and no call begins, while a result waits."""
    for work, reader in kinds_of_work():
        running = []

        def watched(item, work=work, running=running):
            assert not running
            running.append(item)
            return work(item)

        def taken(item, running=running):
            running.remove(item)
            return item

        assert await reader(stream(range(20)).map(watched).map(taken)) == list(range(20))
        assert not running


async def test_its_books_are_those_of_every_window():
    """P5: as with a buffer, where nothing is quick; but for what waits."""

    def fails(item):
        if item % 5 == 4:
            raise ValueError(item)
        return item % 5 < 3

    async def fails_later(item):
        await asyncio.sleep(0)
        return fails(item)

    for work in (fails, lambda item: fails(item), fails_later):
        for on_error in ("skip", "collect", "return"):
            books = []
            for buffer in (0, 1):
                async with stream(range(20)).filter(work, on_error=on_error, buffer=buffer, name="it").open() as items:
                    results = [item async for item in items]
                    stage = items.stats()["it"]
                    failed = len(items.failures)
                books.append(
                    (
                        [type(each) if isinstance(each, Failed) else each for each in results],
                        failed,
                        (stage.taken, stage.delivered, stage.dropped, stage.failed, stage.succeeded, stage.started),
                    )
                )
            assert books[0] == books[1]
            assert books[0][2][0] == sum(books[0][2][1:4]) == 20


async def test_a_failure_ends_it_where_it_is():
    """P5: the error is the user's own, with its place; what came before is handed on."""
    error = ValueError("mine")

    def fails(item):
        if item == 7:
            raise error
        return item

    async def fails_later(item):
        await asyncio.sleep(0)
        return fails(item)

    async def read_until(built):
        seen = []
        with pytest.raises(ValueError, match="mine") as raised:
            async with built.open() as items:
                async for item in items:
                    seen.append(item)  # noqa: PERF401 -- a comprehension would lose them at the error
        assert raised.value is error
        return seen, items.stats()

    for work in (fails, lambda item: fails(item), fails_later):
        error.__notes__ = []
        seen, stats = await read_until(stream(range(20)).map(work, name="it"))
        assert (seen, error.__notes__) == (list(range(7)), ["penstock: stage 'it', item 7"])
        assert (stats["it"].taken, stats["it"].failed, stats["source"].taken) == (8, 1, 8)
        with pytest.raises(ValueError, match="mine"):
            await stream(range(20)).map(work).map(same).to_list()


async def test_whoever_leaves_early_leaves_nothing():
    """P4: no further item is worked on."""
    for work in WORK:
        source = Scripted(range(20))
        async with stream(source).map(work).open() as items:
            async for item in items:
                if item == 5:
                    break
        assert source.closed == 1
        assert items.stats()[1].taken in {6, 7}
        assert items.stats()[1].delivered == 6


async def test_work_that_stops_or_aborts_its_run_is_the_last_to_be_taken():
    for end in ("stop", "abort"):
        for work in (same, at_once):
            runs = []

            def ends(item, end=end, runs=runs):
                if item == 5:
                    getattr(runs[0], end)()
                return item

            async with stream(range(20)).map(work).map(ends).open() as items:
                runs.append(items)
                seen = [item async for item in items]
            assert seen == list(range(6)) if end == "stop" else seen == list(range(5))


async def test_a_cancelled_reader_loses_nothing():
    """P5: the call that it waited for is the next result."""

    async def slow(item):
        await asyncio.sleep(10)
        return item

    async with stream(range(3)).map(slow).open() as items:
        for expected in range(3):
            with suppress(TimeoutError):
                async with asyncio.timeout(3):
                    await anext(items)
            assert await anext(items) == expected


async def test_others_get_the_loop_meanwhile(turn_clock):
    """P9: between calls that return at once."""
    turn_clock.step = lambda: 1e-4
    for work in (same, lambda item: item, at_once):
        for drain in (False, True):
            others = 0

            async def other():
                nonlocal others
                while True:
                    others += 1
                    await asyncio.sleep(0)

            task = asyncio.ensure_future(other())
            built = stream(range(2000)).map(work).filter(lambda _: True)
            if drain:
                await built.drain()
            else:
                async for _ in built:
                    pass
            task.cancel()
            await asyncio.wait([task])
            assert others > 2000 * 1e-4 / 0.01


async def test_an_item_that_waits_once_takes_one_pass_of_the_loop():
    """P7: the call goes on in it, and then its reader, who need not be woken in another one."""
    seen = []

    async def read():
        seen.extend([item async for item in stream(range(200)).map(waits)])

    assert 200 <= await count_passes(read()) < 210
    assert seen == list(range(200))


async def test_the_next_call_runs_while_a_reader_works_on_a_result():
    """P2: whoever awaits between two results finds the next one there."""
    ended = []

    async def slow(item):
        await asyncio.sleep(1)
        ended.append(item)
        return item

    async with stream(range(4)).map(slow).open() as items:
        async for item in items:
            await asyncio.sleep(5)
            assert ended == list(range(min(item + 2, 4)))


async def test_it_keeps_nothing_of_what_it_has_handed_on():
    """P7: an item and its result may be large; while its reader waits, a loop that rests is to hold neither."""

    class Large:
        def __init__(self, *_):
            made.add(self)

    async def large_later(_):
        return Large()

    for work in (lambda _: Large(), large_later):
        made = weakref.WeakSet()
        async with stream(map(Large, range(6))).map(work).map(work).open() as items:
            async for result in items:
                held = weakref.WeakSet(made)
                del result
                await asyncio.sleep(0)
                assert not held


async def test_a_reader_that_takes_all_needs_no_turns(monkeypatch):
    """P7: it asks for the next result at once; a turn would find the place taken."""
    turns, turn = [], Scope._turn
    monkeypatch.setattr(Scope, "_turn", lambda scope: turns.append(scope) or turn(scope))
    assert await stream(range(100)).map(waits).count() == 100
    assert len(turns) < 10


async def test_a_reader_that_takes_all_is_given_each_result_before_the_next_call_begins(turn_clock):
    """P1, P7: where a call ends; the reader is not woken for it, and the source is read on in the same pass."""
    turn_clock.step = lambda: 1e-3
    given = []

    async def waits_and_looks(item):
        assert given == list(range(item))
        return item if item < 50 and item % 3 else await waits(item)

    async with stream(range(200)).map(waits_and_looks)._to_the_end() as items:
        assert 150 <= await count_passes(read_to_end(items, given.append)) < 300
    assert given == list(range(200))


async def test_a_reader_that_takes_all_goes_on_where_an_item_is_dropped_or_fails():
    """P7: the next call begins there, as behind a result."""

    async def turns_down(item):
        await asyncio.sleep(0)
        return False

    async def fails(item):
        await asyncio.sleep(0)
        raise ValueError(item)

    for built in (stream(range(200)).filter(turns_down), stream(range(200)).map(fails, on_error="collect")):
        assert 200 <= await count_passes(built.drain()) < 220


async def test_a_reader_that_is_cancelled_in_the_pass_of_its_result_finds_it_later():
    """P5: whichever of both comes first; then no turn waits for a reader who has gone."""
    async with stream(range(20)).map(waits).open() as items:
        for expected in range(20):
            asking = asyncio.ensure_future(anext(items))
            await asyncio.sleep(0)
            asking.cancel()
            with suppress(asyncio.CancelledError):
                assert await asking == expected
                continue
            assert items.stats()[1].taken == expected + 1
            assert await anext(items) == expected
            for _ in range(3):
                await asyncio.sleep(0)
            assert items.stats()[1].taken == min(expected + 2, 20)


async def test_options_keep_their_meaning():
    """Timeouts, retries and limits go round a call as in every window."""
    tries = []

    async def flaky(item):
        tries.append(item)
        if tries.count(item) < 3:
            raise OSError(item)
        await asyncio.sleep(0 if item else 9)
        return item

    options = {"timeout": 5, "retry": Retry(on=OSError, attempts=3), "limit": Limiter(1), "on_error": "skip"}
    built = stream(range(3)).map(flaky, **options)
    assert await built.to_list() == [1, 2]
    assert tries == [0] * 3 + [1] * 3 + [2] * 3


async def test_a_lambda_that_returns_an_awaitable_has_a_task_for_it():
    """It runs in the context in which the lambda was called."""
    tasks = []

    async def note():
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        return CALLED.get()

    def mark(item):
        CALLED.set(item)
        return note()

    assert await stream(range(4)).map(lambda item: mark(item)).to_list() == [0, 1, 2, 3]
    assert len(set(tasks)) == 4
    assert asyncio.current_task() not in tasks


def test_it_is_for_one_place_only(run):
    async def main():
        for options, kind in (({}, OnePlace), ({"buffer": 1}, Window), ({"concurrency": 2}, Window)):
            async with stream([1]).map(at_once, **options).open() as items:
                assert type(items._stage) is kind
                assert [item async for item in items] == [1]

    run(main())


async def test_long_chains_of_it_fit_on_the_stack():
    """A chain that is deeper than the stack allows asks in turns."""
    for length in (20, 40, 200):
        built = stream(range(5))
        for _ in range(length):
            built = built.map(same)
        assert await built.to_list() == list(range(5))
        assert await read(built) == list(range(5))
