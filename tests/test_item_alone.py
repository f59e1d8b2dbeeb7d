"""What a call may take for granted of its task, its context and the loop: that no other item is there.

Each holds for calls that return at once and for calls that wait, in a window of one place and in one of several.
"""

import asyncio
import functools
import inspect
import itertools
import weakref
from contextlib import suppress
from contextvars import ContextVar

import anyio
import pytest
from tests.guarantees.grids import named

from penstock import stream

pytestmark = pytest.mark.grid

ITEMS = 24
PLACES = (1, 4)
MARK = ContextVar("MARK", default=None)


async def passes():
    await asyncio.sleep(0)


async def nothing():
    pass


async def at_once(results):
    return await results.to_list()


async def one_by_one(results):
    return [result async for result in results]


def in_every_window(test):
    """Give the test `gives(work, items=ITEMS)`, which reads a whole stream, and `between`, awaited within a call."""

    @functools.wraps(test)
    async def all_windows():
        for concurrency, between, read in itertools.product(PLACES, (nothing, passes), (at_once, one_by_one)):

            async def gives(work, items=ITEMS, concurrency=concurrency, read=read):
                results = await read(stream(range(items)).map(work, concurrency=concurrency))
                await passes()
                await passes()
                return results

            with named(concurrency=concurrency, between=between, read=read):
                await test(gives, between)

    all_windows.__signature__ = inspect.Signature()
    return all_windows


def task():
    return asyncio.current_task()


@in_every_window
async def test_its_task_is_its_own_and_stays_the_same(gives, between):
    async def work(_):
        own = task()
        await between()
        assert task() is own
        return own

    kept = await gives(work)
    assert len({id(each) for each in kept} - {id(None)}) == ITEMS


@in_every_window
async def test_notes_kept_by_task_are_of_one_item(gives, between):
    """A cache that is keyed weakly by the current task, as some clients have."""
    notes, found = weakref.WeakKeyDictionary(), []

    async def work(item):
        found.append(notes.get(task()))
        notes[task()] = item
        await between()
        return notes[task()]

    assert await gives(work) == list(range(ITEMS))
    assert set(found) == {None}


@in_every_window
async def test_a_name_that_it_gives_its_task_is_gone_with_it(gives, between):
    async def work(item):
        name = task().get_name()
        task().set_name(f"for {item}")
        await between()
        return name

    assert not [name for name in await gives(work) if name.startswith("for ")]


@in_every_window
async def test_names_of_tasks_differ_though_nobody_keeps_the_tasks(gives, between):
    if asyncio.get_running_loop().get_task_factory() is not None:
        return  # it names them

    async def work(_):
        await between()
        return task().get_name()

    assert len(set(await gives(work))) == ITEMS


@in_every_window
async def test_what_it_wants_called_at_the_end_of_its_task_is_called_then(gives, between):
    ended = []

    async def work(item):
        task().add_done_callback(lambda _: ended.append(item))
        await between()

    await gives(work)
    assert sorted(ended) == list(range(ITEMS))


@in_every_window
async def test_who_cancels_the_task_of_an_item_that_is_over_hits_nobody(gives, between):
    over = []

    async def work(item):
        for earlier in over:
            earlier.cancel()
        await between()
        await asyncio.sleep(0 if item % 2 else 1)
        over.append(task())
        return item

    assert await gives(work) == list(range(ITEMS))


@in_every_window
async def test_a_variable_that_it_sets_is_seen_by_no_other_item(gives, between):
    async def work(item):
        before = MARK.get()
        MARK.set(item)
        await between()
        assert MARK.get() == item
        return before

    assert await gives(work) == [None] * ITEMS
    assert MARK.get() is None


@in_every_window
async def test_values_of_variables_are_told_apart_by_identity(gives, between):
    """Whoever compares contexts calls `==` of the user's values."""

    class Same:
        __hash__ = object.__hash__

        def __eq__(self, _):
            raise AssertionError("nobody asks")

    first = Same()
    token = MARK.set(first)

    async def work(_):
        before = MARK.get()
        MARK.set(Same())
        await between()
        return before is first

    try:
        assert all(await gives(work))
    finally:
        MARK.reset(token)


@in_every_window
async def test_it_can_reset_a_variable(gives, between):
    async def work(item):
        token = MARK.set(item)
        await between()
        MARK.reset(token)
        return MARK.get()

    assert await gives(work) == [None] * ITEMS


@in_every_window
async def test_its_callbacks_see_its_variables(gives, between):
    seen = []

    async def work(item):
        MARK.set(item)
        asyncio.get_running_loop().call_soon(lambda: seen.append(MARK.get()))
        await between()

    await gives(work)
    assert sorted(seen) == list(range(ITEMS))


@in_every_window
async def test_its_timeouts_work_from_its_first_step_on(gives, between):
    async def work(item):
        await between()
        try:
            async with asyncio.timeout(1):
                await asyncio.sleep(3 * (item % 2))
        except TimeoutError:
            return "late"
        return "in time"

    assert await gives(work, 6) == ["in time", "late"] * 3


@in_every_window
async def test_its_task_groups_work_from_its_first_step_on(gives, between):
    async def work(item):
        await between()
        async with asyncio.TaskGroup() as group:
            child = group.create_task(asyncio.sleep(0, item))
        return child.result()

    assert await gives(work) == list(range(ITEMS))


@in_every_window
async def test_scopes_of_anyio_end_for_it_alone(gives, between):
    async def work(item):
        await between()
        with anyio.move_on_after(1) as scope:
            await anyio.sleep(3 * (item % 2))
        return scope.cancelled_caught

    assert await gives(work, 6) == [False, True] * 3


@in_every_window
async def test_nobody_has_asked_to_cancel_it_when_it_begins(gives, between):
    """An item that swallows a cancellation leaves the count of its task above zero."""

    async def work(item):
        count = task().cancelling()
        await between()
        if item % 3 == 0:
            task().cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return count

    assert await gives(work) == [0] * ITEMS


@in_every_window
async def test_others_can_cancel_what_it_waits_for(gives, between):
    async def work(item):
        await between()
        if item == 3:
            asyncio.get_running_loop().call_later(1, task().cancel)
        try:
            await asyncio.sleep(9 if item == 3 else 0)
        except asyncio.CancelledError:
            return "cancelled"
        return item

    assert await gives(work, 6) == [0, 1, 2, "cancelled", 4, 5]


@in_every_window
async def test_its_task_is_known_to_the_loop_while_it_runs_and_done_afterwards(gives, between):
    before = asyncio.all_tasks()

    async def work(_):
        await between()
        await asyncio.sleep(0)
        return task(), task() in asyncio.all_tasks()

    results = await gives(work)
    assert all(each.done() and known for each, known in results)
    assert asyncio.all_tasks() == before


@in_every_window
async def test_the_loop_passes_while_it_sleeps(gives, between):
    async def work(_):
        ran = []
        await between()
        asyncio.get_running_loop().call_soon(ran.append, True)
        await asyncio.sleep(0)
        return ran

    assert await gives(work) == [[True]] * ITEMS


@in_every_window
async def test_its_context_is_that_of_its_task(gives, between):
    async def work(item):
        MARK.set(item)
        await between()
        await asyncio.sleep(0)
        return task().get_context()[MARK]

    assert await gives(work) == list(range(ITEMS))


async def test_items_that_run_together_take_turns():
    steps = []

    async def work(item):
        for step in range(3):
            steps.append((step, item))
            await asyncio.sleep(0)

    await stream(range(4)).map(work, concurrency=4).drain()
    assert steps == [(step, item) for step in range(3) for item in range(4)]


async def test_whoever_reads_has_its_own_task_and_variables_between_two_items():
    """An eager task runs inside of the call that starts it."""
    own = task()
    for concurrency in PLACES:
        for work in (nothing, passes):

            async def call(item, work=work):
                MARK.set(item)
                await work()

            async for _ in stream(range(ITEMS)).map(call, concurrency=concurrency):
                assert (task(), MARK.get()) == (own, None)


async def test_a_plain_function_of_one_place_has_a_context_for_each_item():
    def mark(item):
        before = MARK.get()
        MARK.set(item)
        return before

    assert await stream(range(ITEMS)).map(mark).to_list() == [None] * ITEMS
    assert await stream(range(ITEMS)).map(lambda item: mark(item)).to_list() == [None] * ITEMS
    assert MARK.get() is None
