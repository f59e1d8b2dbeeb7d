"""What every release must show, as far as no single trap has it."""

import asyncio
import contextlib
import random

import pytest

import penstock
from penstock.testing import Scripted

both_orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


def outcomes(stage):
    """What has become of the items of a stage that is over."""
    return stage.delivered + stage.dropped + stage.failed + stage.cancelled + stage.discarded


@both_orders
@pytest.mark.parametrize("on_error", ["raise", "skip", "collect"])
async def test_every_item_has_exactly_one_outcome(ordered, on_error):
    """Acceptance: every item exactly one outcome, over random schedules, failures, and ways out."""
    for seed in range(20):
        rng = random.Random(seed)
        delays = [rng.choice((0, 0.1, 1, 5)) for _ in range(40)]
        fails = {index for index in range(40) if rng.random() < 0.1}
        source = Scripted(range(40), delay=rng.choice((None, 0, 0.5)))
        left_after = rng.choice((1, 5, 100))
        books = {"finished": 0, "failed": 0}

        async def work(index, delays=delays, fails=fails, books=books):
            await asyncio.sleep(delays[index])
            if index in fails:
                books["failed"] += 1
                raise ValueError(index)
            books["finished"] += 1
            return index

        options = {"concurrency": rng.randint(1, 8), "buffer": rng.randint(0, 4), "ordered": ordered}
        seen = []
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(contextlib.suppress(ValueError))
            stream = penstock.stream(source).map(work, on_error=on_error, **options)
            items = await stack.enter_async_context(stream.open())
            async for item in items:
                seen.append(item)
                if len(seen) == left_after:
                    break
        stage = items.stats()["map(work)"]
        assert stage.in_flight == 0
        assert stage.taken == outcomes(stage) <= source.taken
        assert stage.delivered == len(seen) == len(set(seen))
        assert stage.failed == books["failed"]
        assert stage.delivered + stage.discarded == books["finished"]


@both_orders
@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_source_error_after_k_items(count, ordered, asynchronous, read_until_error):
    """Acceptance: source error after k items: k delivered, then raised, though the last of them are slow."""

    async def slow(number):
        await asyncio.sleep(10 - number)
        return number

    script = Scripted(range(10), fail_at=count)
    source = script if asynchronous else script.sync()
    seen, error = await read_until_error(penstock.stream(source).map(slow, concurrency=4, ordered=ordered).open())
    assert sorted(seen) == list(range(count))
    assert str(error) == f"the script fails at item {count}"
    assert error.__notes__ == [f"penstock: stage 'source', item {count}"]
    assert script.closed == 1


async def test_repeatable_source_yields_once():
    """Acceptance: repeatable source yields once: each run opens it once, and gives its items once."""
    source = Scripted(range(5))
    stream = penstock.stream(source).map(lambda number: number, concurrency=3)
    for run in (1, 2):
        assert await stream.to_list() == list(range(5))
        assert (source.opened, source.closed, source.taken) == (run, run, 5 * run)
