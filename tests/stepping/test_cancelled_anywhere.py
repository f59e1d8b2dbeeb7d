"""P4, P5, P8: a consumer may be cancelled before any step of its run, once and once more.

In every run here the leftover detector balances the books (P5) and looks for tasks, timers and errors nobody heard of.
"""

import asyncio
import itertools

import pytest

from ..guarantees.grids import named  # noqa: TID252 -- test folders are not packages
from .scenes import ALL, COUNT, KINDS, READ_WHOLE, TERMINALS, Boom, Scene

pytestmark = pytest.mark.grid

LATER = (1, 2, 3, 5, 8)
"""How many steps after the first cancellation the second one comes."""

FEW = 5
"""Every run has more points than that."""


def cancelling(operator, read, **kind):
    async def main(interrupt):
        scene = Scene(operator, **kind)
        consumer = asyncio.ensure_future(read(scene))
        with interrupt.by(consumer.cancel):
            await asyncio.wait([consumer])
        assert consumer.cancelled() == any(interrupt.results)
        if read in READ_WHOLE and not consumer.cancelled():
            assert scene.items(consumer.result()) == list(range(COUNT))
        await scene.check()

    return main


@pytest.mark.slow
def test_a_cancelled_consumer_ends_as_cancelled_and_leaves_nothing(interrupted, share):
    """P4, P8: every operator, read in every way."""
    for (operator, read), kind in zip(share(ALL, TERMINALS), itertools.cycle(KINDS)):
        with named(operator=operator, read=read, **kind):
            assert interrupted(cancelling(operator, read, **kind)) > FEW


@pytest.mark.slow
def test_a_consumer_cancelled_twice_ends_as_cancelled_and_leaves_nothing(interrupted, share):
    """P4: a further cancellation while waiting is remembered."""
    for (operator, kind), read, later in zip(
        share(ALL, KINDS), itertools.cycle(TERMINALS), itertools.cycle(LATER), strict=False
    ):
        with named(operator=operator, read=read, later=later, **kind):
            assert interrupted(cancelling(operator, read, **kind), again=later) > FEW


def test_a_consumer_cancelled_in_any_order_of_callbacks_leaves_nothing(interrupted, share):
    """P4, P8: whatever order the loop has its callbacks in."""
    for seed, ((operator, kind), read, later) in enumerate(
        zip(share(ALL, KINDS), itertools.cycle(TERMINALS), itertools.cycle((0, *LATER)))
    ):
        with named(operator=operator, read=read, later=later, **kind):
            points = range(1 + seed % 3, 1_000, 3)
            assert interrupted(cancelling(operator, read, **kind), again=later, points=points, seed=seed) > 1


def test_every_task_of_a_run_cancelled_at_once_leaves_nothing(interrupted, share):
    """P4: `asyncio.run` does that at its end."""
    for (operator, read), kind in zip(share(ALL, TERMINALS[::4]), itertools.cycle(KINDS)):

        async def main(interrupt, operator=operator, read=read, kind=kind):
            def cancel_all():
                cancelled = not consumer.done()
                for task in asyncio.all_tasks() - {own}:
                    task.cancel()
                return cancelled

            scene, own = Scene(operator, **kind), asyncio.current_task()
            consumer = asyncio.ensure_future(read(scene))
            with interrupt.by(cancel_all):
                await asyncio.wait([consumer])
            assert consumer.cancelled() == any(interrupt.results)
            await scene.check()

        with named(operator=operator, read=read, **kind):
            assert interrupted(main) > FEW


def test_a_consumer_of_a_failing_source_is_cancelled_or_gets_the_failure(interrupted, share):
    """P5, P8: a source that fails in place of any item or of its end, closed all the same."""
    for (operator, fail_at), kind in zip(share(ALL[:-1], range(COUNT + 1)), itertools.cycle(KINDS)):

        async def main(interrupt, operator=operator, fail_at=fail_at, kind=kind):
            error = Boom()
            scene = Scene(operator, fail_at=fail_at, error=error, **kind)
            consumer = asyncio.ensure_future(scene.stream.to_list())
            with interrupt.by(consumer.cancel):
                await asyncio.wait([consumer])
            assert consumer.cancelled() == any(interrupt.results)
            assert consumer.cancelled() or consumer.exception() is error
            await scene.check()

        with named(operator=operator, fail_at=fail_at, **kind):
            assert interrupted(main, points=range(1 + fail_at % 2, 1_000, 2)) >= 1
