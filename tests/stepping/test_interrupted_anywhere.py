"""P4, P5, P8: a run goes on or ends as promised when others come in before any of its steps."""

import asyncio
import itertools
from contextlib import suppress

import pytest

from penstock import WorkRaised, stream
from penstock.testing import Scripted

from ..guarantees.grids import assert_balanced, named  # noqa: TID252 -- test folders are not packages
from .scenes import ALL, COUNT, KINDS, Scene, by_open

pytestmark = pytest.mark.grid


@pytest.mark.slow
def test_a_cancelled_anext_loses_nothing(interrupted, share):
    """P5: cancelled before any step, once or twice, and read on."""
    for (operator, kind), later in zip(share(ALL, KINDS), itertools.cycle((0, 1, 0, 3, 5))):

        async def main(interrupt, operator=operator, kind=kind):
            scene, results, reading = Scene(operator, **kind), [], None
            async with scene.stream.open() as run:
                with interrupt.by(lambda: reading is not None and reading.cancel()), suppress(StopAsyncIteration):
                    while True:
                        reading = asyncio.ensure_future(anext(run))
                        await asyncio.wait([reading])
                        if not reading.cancelled():
                            results.append(reading.result())
            assert scene.items(results) == list(range(COUNT))
            assert_balanced(run.stats())
            await scene.check()

        with named(operator=operator, later=later, **kind):
            assert interrupted(main, again=later) > 1


def test_what_is_in_flight_at_a_stop_is_delivered_and_nothing_more_is_taken(interrupted, share):
    """P5: `stop()` before any step. A `zip` drops items that have no partner yet."""
    for (operator,), kind in zip(share(ALL), itertools.cycle(KINDS)):

        async def main(interrupt, operator=operator, kind=kind):
            scene, results, taken = Scene(operator, **kind), [], []
            async with scene.stream.open() as run:
                with interrupt.by(lambda: taken.append(scene.source.taken) or run.stop()):
                    results += [result async for result in run]
            assert taken[:1] in ([], [scene.source.taken])
            if operator.name != "zip":
                assert sorted(scene.items(results)) == list(range(scene.source.taken))
            await scene.check()

        with named(operator=operator, **kind):
            assert interrupted(main) > 1


def test_a_run_closed_by_another_task_ends_for_its_reader(interrupted, share):
    """P4: when `aclose()` returns, nothing runs any more."""
    for (operator,), kind in zip(share(ALL), itertools.cycle(KINDS)):

        async def main(interrupt, operator=operator, kind=kind):
            async def close():
                await run.aclose()
                assert (scene.gauge.now, scene.source.closed) == (0, scene.source.opened)

            async def read():
                return [result async for result in run]

            scene = Scene(operator, **kind)
            run, closing = scene.stream.open(), []
            reader = asyncio.ensure_future(read())
            with interrupt.by(lambda: closing.append(asyncio.ensure_future(close()))):
                results = await reader
            await asyncio.gather(*closing)
            assert closing or scene.items(results) == list(range(COUNT))
            await scene.check()

        with named(operator=operator, **kind):
            assert interrupted(main) > 1


def test_a_call_cancelled_by_others_is_a_failure_of_its_item(interrupted, share):
    """P5, P8: an item fails, or fails the run; the consumer is not cancelled."""
    for (operator, on_error), kind in zip(share(ALL, ["raise", "skip"]), itertools.cycle(KINDS)):

        async def main(interrupt, operator=operator, on_error=on_error, kind=kind):
            def cancel_a_call():
                calls = [task for task in scene.tasks if not task.done()]
                return bool(calls) and calls[0].cancel()

            scene = Scene(operator, on_error=on_error, **kind)
            consumer = asyncio.ensure_future(by_open(scene))
            with interrupt.by(cancel_a_call):
                await asyncio.wait([consumer])
            error = consumer.exception()
            assert (error is not None) == (on_error == "raise" and any(interrupt.results))
            if error is not None:
                assert isinstance(error, WorkRaised)
                assert isinstance(error.__cause__, asyncio.CancelledError)
            else:
                assert (scene.items(consumer.result()) == list(range(COUNT))) != any(interrupt.results)
            await scene.check()

        with named(operator=operator, on_error=on_error, **kind):
            assert interrupted(main) > 1


def test_a_source_cancelled_by_others_is_closed_all_the_same(interrupted, share):
    """P4: once, by its own task, before any step of it; its run ends as its failure, if anything was still to come."""
    for (operator,), kind in zip(share(ALL), itertools.cycle(KINDS[:3])):

        async def main(interrupt, operator=operator, kind=kind):
            scene = Scene(operator, **kind)
            consumer = asyncio.ensure_future(by_open(scene))
            with interrupt.by(lambda: any(task.cancel() for task in readers())):
                await asyncio.wait([consumer])
            error = consumer.exception()
            assert error is None or isinstance(error, WorkRaised)
            await scene.check()

        with named(operator=operator, **kind):
            assert interrupted(main) > 1


def readers():
    """The tasks that read sources."""
    return [task for task in asyncio.all_tasks() if "_read_and_close" in task.get_coro().__qualname__]


@pytest.mark.parametrize("limit", [None, 2])
def test_a_run_that_is_kept_and_never_left_ends_with_its_tasks(run, limit):
    """P4: `asyncio.run` cancels the tasks that are left and waits for them: also for that which reads a source."""

    async def main():
        items = stream(source) if limit is None else stream(source).take(limit)
        kept = items.open()
        await anext(kept)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert (source.opened, source.closed) == (1, 1)
        assert source.pulled_by == {source.closed_by}
        await kept.aclose()

    source = Scripted(range(9))
    run(main())
