"""What the plan of a window says where nobody has said anything else, and who hears of its items."""

import asyncio

import pytest

from penstock.core.plan import ANY_NUMBER, DROPPED, Plan
from penstock.core.source import SourceSpec
from penstock.core.window import Window
from penstock.run import Run


async def work(item):
    return item


def test_by_default_a_window_makes_one_call_at_a_time_in_order_and_once():
    plan = Plan("work", work).replaced(name="again")
    assert (plan.name, plan.work, plan.inline, plan.gate) == ("again", work, None, None)
    assert (plan.size, plan.concurrency, plan.ordered, plan.buffer) == (1, 1, True, 0)
    assert (plan.timeout, plan.retry, plan.limits) == (None, None, None)
    assert (plan.on_error, plan.tolerance) == ("raise", ANY_NUMBER)
    assert (plan.on_failed, plan.on_passed_over, plan.on_through) == (None, None, None)


@pytest.mark.grid
@pytest.mark.parametrize("ordered", [True, False])
async def test_who_is_told_of_items_that_come_to_nothing_is_told_which(ordered):
    """P5: a durable run counts them as done."""
    done = []

    async def keeps_odd(number):
        if number % 3:
            await asyncio.sleep(number)
        return number if number % 2 else DROPPED

    plan = Plan("work", keeps_odd, concurrency=2, ordered=ordered, on_through=done.append)
    numbers = SourceSpec(range(8))
    run = Run(lambda scope: Window(scope, numbers.open(scope), plan), 5.0, timing=False, progress=False)
    async with run:
        assert sorted([item async for item in run]) == [1, 3, 5, 7]
    assert sorted(done) == [0, 2, 4, 6]
