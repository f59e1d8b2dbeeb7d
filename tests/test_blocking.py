"""A lambda, or another callable that runs on the loop, which keeps the loop to itself is seen."""

import asyncio
import time
import warnings

import pytest

import penstock
from penstock import BlockedLoopWarning, stream
from penstock.core.meter import RARELY, VERY_RARELY

pytestmark = pytest.mark.grid


async def ran(items):
    """What is warned of, and the statistics."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with items.open() as results:
            async for _ in results:
                pass
    return [each for each in caught if each.category is BlockedLoopWarning], results.stats()


@pytest.mark.parametrize("operator", ["map", "filter", "tap", "flat_map", "map_batches"])
@pytest.mark.parametrize("concurrency", [1, 4])
async def test_it_is_warned_of_once_and_counted(operator, concurrency, clock, caplog):
    work = lambda item: clock.jump(clock.now + 0.5) or ([item] if operator != "map_batches" else item)  # noqa: E731
    size = [1] if operator == "map_batches" else []
    items = getattr(stream(range(4)), operator)(work, *size, concurrency=concurrency, name="stage")
    (warning,), stats = await ran(items)
    assert str(warning.message).startswith("<lambda> of stage 'stage' kept the event loop for 0.5 s")
    assert 'give engine="thread"' in str(warning.message)
    assert warning.filename == __file__
    assert stats["stage"].blocked_loop_s == 2.0
    assert 'stage kept the event loop for 2.0 s: give engine="thread"' in str(stats)
    assert "kept the event loop" in caplog.text


async def test_a_class_is_named(clock):
    class Row:
        def __init__(self, item):
            clock.jump(clock.now + 1)

    (warning,), _ = await ran(stream([1]).map(Row))
    assert str(warning.message).startswith("Row of stage 'map(Row)' kept the event loop for 1.0 s")


async def test_each_run_warns_again(clock):
    items = stream([1]).map(lambda _: clock.jump(clock.now + 1))
    for _ in range(2):
        assert len((await ran(items))[0]) == 1


@pytest.mark.parametrize("seconds", [0, 0.05, 0.0999])
async def test_what_takes_less_is_not_warned_of(seconds, clock):
    caught, stats = await ran(stream(range(20)).map(lambda _: clock.jump(clock.now + seconds)))
    assert (caught, stats[1].blocked_loop_s) == ([], 0.0)


async def test_what_waits_does_not_keep_the_loop(clock):
    caught, stats = await ran(stream(range(9)).map(lambda _: asyncio.sleep(5), concurrency=3))
    assert (caught, stats[1].blocked_loop_s) == ([], 0.0)


@pytest.mark.parametrize("options", [{"engine": "thread"}, {"engine": "thread", "concurrency": 3}])
async def test_in_a_thread_it_keeps_nobody(options, clock):
    caught, stats = await ran(stream(range(3)).map(lambda _: clock.sleep(5), **options))
    assert (caught, stats[1].blocked_loop_s) == ([], 0.0)


async def test_a_plain_function_at_concurrency_1_runs_inline_on_purpose(clock):
    def parse(_):
        clock.jump(clock.now + 5)

    assert (await ran(stream(range(3)).map(parse)))[0] == []


@pytest.mark.real_time
async def test_most_quick_calls_are_not_timed(monkeypatch):
    looks = []

    def look():
        looks.append(1)
        return time.monotonic()

    monkeypatch.setattr("penstock.core.scope.clock_of", lambda _: look)
    monkeypatch.setattr("penstock.core.blocking.clock_of", lambda _: look)
    await stream(range(1600)).map(lambda item: item).drain()
    assert 2 * 1600 / VERY_RARELY < len(looks) < 3 * 1600 / RARELY


def test_it_is_a_runtime_warning():
    assert issubclass(penstock.BlockedLoopWarning, RuntimeWarning)
