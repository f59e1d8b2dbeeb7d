"""One timer serves a stage: each attempt is late when `asyncio.timeout` would say so, and only then."""

import asyncio
import random

import pytest

import penstock
from penstock.core import calling
from penstock.core.errors import AttemptTimeout
from penstock.core.retry import within

LIMIT = 1.0


def with_a_timer_each(work, timeout):
    async def attempt(item):
        return await within(timeout, work(item))

    return attempt


def plans(seed):
    """What each attempt on each of 40 items does: how long it takes, and what it makes of its cancellation."""
    chance = random.Random(seed)
    return [
        [(round(chance.uniform(0, 2.2), 3), chance.choice(KINDS), round(chance.uniform(0, 1.5), 3)) for _ in range(3)]
        for _ in range(40)
    ]


KINDS = ("stops", "stops", "stops", "goes on", "fails", "ends late", "says it was late", "cancels itself")


async def attempt(plan):
    seconds, kind, more = plan
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        match kind:
            case "goes on":
                await asyncio.sleep(more)
                return "went on"
            case "fails":
                raise OSError(plan) from None
            case "ends late":
                await asyncio.sleep(more)
                raise
            case "says it was late":
                raise TimeoutError(plan) from None
        raise
    if kind == "cancels itself" and more < 0.2:
        raise asyncio.CancelledError
    return seconds


async def told(clock, seed, options):
    """All that happens, and when."""
    events, tries = [], {}

    async def work(item):
        number = tries[item] = tries.get(item, -1) + 1
        task = asyncio.current_task()
        events.append((clock.now, item, number, "begins", task.cancelling()))
        try:
            result = await attempt(plans(seed)[item][number])
        except BaseException as error:
            events.append((clock.now, item, number, type(error).__name__, task.cancelling()))
            raise
        events.append((clock.now, item, number, result, task.cancelling()))
        return result

    retry = penstock.Retry(on=(AttemptTimeout, OSError), attempts=3, initial=0.7, factor=1, jitter=0)
    items = penstock.stream(range(40)).map(work, timeout=LIMIT, retry=retry, on_error="return", **options)
    async with items.open() as results:
        found = [(clock.now, result.index, str(getattr(result, "error", result))) async for result in results]
    return sorted(events, key=lambda event: event[:3]), sorted(found)


@pytest.mark.parametrize("concurrency", [3, 40])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("seed", range(3))
async def test_every_attempt_is_late_when_one_with_a_timer_of_its_own_would_be(
    clock, monkeypatch, seed, ordered, concurrency
):
    """Not sooner nor later, cancelled once, and its retry has its whole time."""
    options = {"ordered": ordered, "concurrency": concurrency}
    began = clock.now
    ours = await told(clock, seed, options)
    again = clock.now
    monkeypatch.setattr(calling, "timed", with_a_timer_each)
    theirs = await told(clock, seed, options)
    assert [moved(part, began) for part in ours] == [moved(part, again) for part in theirs]


def moved(events, began):
    return [(round(time - began, 6), *rest) for time, *rest in events]


async def test_a_stage_has_one_timer_however_many_run(clock, monkeypatch):
    """P7: a timer each cost as much as half an item."""
    loop = asyncio.get_running_loop()
    call_at, timers = loop.call_at, []
    monkeypatch.setattr(loop, "call_at", lambda *args, **more: timers.append(args[1]) or call_at(*args, **more))

    async def work(item):
        await asyncio.sleep(0)
        return item

    assert await penstock.stream(range(500)).map(work, concurrency=100, timeout=LIMIT).count() == 500
    assert len(timers) < 20


@pytest.mark.grid
async def test_a_call_that_is_cancelled_by_others_when_it_is_late_was_cancelled(clock):
    """P8: its deadline and the end of the run come in one pass."""
    seen = []

    async def work(item):
        try:
            await asyncio.sleep(LIMIT + item)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            task.cancel()  # as a scope round it would
            seen.append(task.cancelling())
            raise

    results = await penstock.stream([1]).map(work, concurrency=2, timeout=LIMIT, on_error="return").to_list()
    assert seen == [2]
    assert isinstance(results[0].error, penstock.WorkRaised)


async def test_a_future_that_refuses_to_be_cancelled_keeps_no_deadline_from_the_others(clock):
    """What it raises goes to the loop, as from a timer of its own."""
    raised = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(str(context["exception"])))

    class Stubborn(asyncio.Future):
        def cancel(self, msg=None):
            raise OSError("not now")

    async def work(item):
        stubborn = Stubborn()
        if item == 1:
            asyncio.get_running_loop().call_later(3, stubborn.set_result, None)
            await stubborn
        else:
            await asyncio.sleep(9)
        return item

    results = await penstock.stream(range(3)).map(work, concurrency=3, timeout=LIMIT, on_error="return").to_list()
    assert raised == ["not now"]
    assert [type(getattr(result, "error", None)) for result in results] == [AttemptTimeout, type(None), AttemptTimeout]
    assert clock.now == 3.0
