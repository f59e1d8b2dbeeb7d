"""Traps 30 to 34: merging and batching."""

import asyncio
import itertools

import pytest

import penstock
from penstock.testing import Scripted


async def endless(name):
    while True:
        yield name


async def endless_with_pauses(name):
    while True:
        await asyncio.sleep(0)
        yield name


ALWAYS_READY = {
    "iterator": itertools.repeat,
    "async": endless,
    "async, a pass of the loop each": endless_with_pauses,
    "map": lambda name: penstock.stream(itertools.repeat(name)).map(lambda item: item, concurrency=4),
}


@pytest.mark.parametrize("first", ALWAYS_READY)
@pytest.mark.parametrize("second", ALWAYS_READY)
async def test_trap_30_always_ready_source_starves_the_others(first, second):
    """Trap 30 (aiostream: 1000 to 0): of two sources that are always ready, neither gets more than twice the other."""
    merged = penstock.merge(ALWAYS_READY[first]("a"), ALWAYS_READY[second]("b"))
    items = await merged.take(600).to_list()
    assert 199 <= items.count("a") <= 401


async def test_trap_30_order_of_the_sources_decides():
    """Trap 30 (aiostream): with five sources, the last one gets its share too."""
    sources = [itertools.repeat(name) for name in "abcde"]
    items = await penstock.merge(*sources).take(500).to_list()
    assert all(90 <= items.count(name) <= 110 for name in "abcde")


async def test_trap_30_a_slow_source_is_starved_by_a_ready_one(clock):
    """Trap 30 (aiostream): what a slow source brings is handed on when it comes, not when the ready one ends."""
    slow = Scripted(["slow"] * 3, delay=1)

    async def ready():
        for _ in range(300):
            await asyncio.sleep(0.01)
            yield "ready"

    arrivals = [round(clock.now, 6) async for item in penstock.merge(ready(), slow) if item == "slow"]
    assert arrivals == [1.0, 2.0, 3.0]


async def test_trap_30_the_loser_is_cancelled():
    """Trap 30 (aiostream): each source is read by one pull that persists; none is raced and cancelled."""
    cancelled = []

    async def slow():
        for number in range(3):
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                cancelled.append(number)
                raise
            yield "slow"

    items = await penstock.merge(slow(), Scripted(["quick"] * 30, delay=0.5)).to_list()
    assert (items.count("slow"), items.count("quick")) == (3, 30)
    assert cancelled == []


async def test_trap_30_merge_reads_ahead():
    """Trap 30 (aiostream): of each source, one item is read ahead, no more."""
    sources = [Scripted(range(10)) for _ in range(3)]
    async with penstock.merge(*sources).open() as items:
        await anext(items)
        await asyncio.sleep(60)
        assert max(source.taken for source in sources) <= 2
        assert sum(source.taken for source in sources) <= 4


async def test_trap_31_the_timer_starts_before_the_first_item(clock):
    """Trap 31 (Benthos, Pekko, fs2): after an idle gap the timer had run out and batches of one came."""
    source = Scripted(range(6), delay=lambda index: 60.0 if index in {0, 3} else 0.1)
    batches = [(clock.now, batch) async for batch in penstock.stream(source).batch(3, within=1)]
    assert [batch for _, batch in batches] == [[0, 1, 2], [3, 4, 5]]
    assert [round(when, 6) for when, _ in batches] == [60.2, 120.4]


async def test_trap_31_the_timer_of_a_partial_batch(clock):
    """Trap 31 (Benthos, Pekko, fs2): a batch that stays partial is handed on `within` seconds after its first item."""
    source = Scripted(range(3), delay={0: 10.0, 1: 0.4, 2: 5.0}.get)
    batches = [(round(clock.now, 6), batch) async for batch in penstock.stream(source).batch(10, within=1)]
    assert batches == [(11.0, [0, 1]), (15.4, [2])]


async def test_trap_32_a_stale_timer_flushes_the_next_batch(clock):
    """Trap 32 (Broadway, ox): the timer of a batch that was full before it ran out cut the next one short."""
    source = Scripted(range(5), delay={1: 0.5, 2: 0.1, 3: 0.6, 4: 0.1}.get)
    batches = [(round(clock.now, 6), batch) async for batch in penstock.stream(source).batch(2, within=1)]
    assert batches == [(0.5, [0, 1]), (1.2, [2, 3]), (1.3, [4])]


async def test_trap_32_a_full_batch_waits_for_the_timer(clock):
    """Trap 32 (ZIO): a full batch goes at once."""
    source = Scripted(range(4), silent_after=4)
    async with penstock.stream(source).batch(2, within=60).open() as items:
        assert [await anext(items), await anext(items)] == [[0, 1], [2, 3]]
        assert clock.now == 0.0


async def test_trap_32_empty_batches_when_idle(clock):
    """Trap 32 (several peers): while nothing comes, nothing is handed on."""
    source = Scripted([1], delay={0: 60.0}.get)
    batches = [(clock.now, batch) async for batch in penstock.stream(source).batch(5, within=1)]
    assert batches == [(60.0, [1])]
    assert await penstock.stream(Scripted([], delay=5)).batch(5, within=1).to_list() == []


@pytest.mark.parametrize("end", [0.999, 1.0, 1.001])
async def test_trap_32_the_last_item_is_lost_when_timer_and_end_race(end):
    """Trap 32 (Akka): timer and end of the source in the same moment lost the last items, or gave them twice."""
    source = Scripted(range(3), delay=lambda index: 0.0 if index < 2 else end)
    batches = await penstock.stream(source).batch(5, within=1).to_list()
    assert [item for batch in batches for item in batch] == [0, 1, 2]

    async def ends_with_the_timer():
        yield 1
        yield 2
        await asyncio.sleep(end)

    assert await penstock.stream(ends_with_the_timer).batch(5, within=1).to_list() == [[1, 2]]


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_trap_32_an_always_ready_source_starves_the_timer(clock, asynchronous, monkeypatch):
    """Trap 32 (ZIO): a source that never lets the loop rest does not keep the timer of a batch from firing."""
    for module in ("scope", "pump", "window", "source", "fan_out", "output_making"):
        monkeypatch.setattr(f"penstock.core.{module}.now", lambda: clock.now)

    def ready():
        for number in range(5_000):
            clock.jump(clock.now + 0.001)
            yield number

    async def ready_async():
        for number in ready():
            yield number

    source = ready_async if asynchronous else ready
    async with penstock.stream(source).batch(10**6, within=1).open() as items:
        assert 990 <= len(await anext(items)) <= 1020
        assert 990 <= len(await anext(items)) <= 1020


async def test_trap_32_a_source_with_pauses_starves_the_timer(clock):
    """Trap 32 (ZIO): nor does one that rests now and then, never at the moment when the timer is due."""

    async def ready():
        for number in itertools.count():
            if number % 10 == 9:
                await asyncio.sleep(0.1)
            yield number

    async with penstock.stream(ready).batch(10_000, within=1).open() as items:
        batch = await anext(items)
    assert round(clock.now, 6) == 1.0
    assert 90 <= len(batch) <= 110


async def test_trap_32_a_timer_outlives_its_run():
    """Trap 32 (several peers): the timer of a batch that is never handed on is gone when the run is."""
    async with penstock.stream(Scripted(range(9), silent_after=3)).batch(5, within=3600).open() as items:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 1)


async def test_trap_32_a_cancelled_anext_loses_a_partial_batch(clock):
    """Trap 32 (several peers): a partial batch survives the `anext` that was waiting for it, and its timer too."""
    source = Scripted(range(4), delay=lambda index: 0.0 if index < 2 else 10.0)
    async with penstock.stream(source).batch(5, within=3).open() as items:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 1)
        assert await anext(items) == [0, 1]
        assert clock.now == 3.0


async def test_trap_32_timer_and_item_race_in_a_merge():
    """Trap 32 (Akka): a batch that an item and its timer both announce, to a merge that is not asked, counts once."""
    batches = penstock.stream(Scripted(range(4), delay={1: 0.5, 2: 5.0, 3: 0.1}.get)).batch(3, within=1)
    seen = []
    async with batches.merge(penstock.stream(Scripted("ab", delay={1: 30.0}.get))).open() as items:
        async for item in items:
            seen.append(item)
            await asyncio.sleep(10)
    assert [item for item in seen if item in ("a", "b")] == ["a", "b"]
    assert [number for item in seen if item not in ("a", "b") for number in item] == [0, 1, 2, 3]
    assert items.stats()["merge"].in_flight == 0


@pytest.mark.parametrize("within", [None, 60])
async def test_trap_33_an_error_swallows_the_partial_batch(within, read_until_error):
    """Trap 33 (several peers): the items before an error of the source come first, then the error."""
    source = Scripted(range(5), fail_at=5)
    seen, error = await read_until_error(penstock.stream(source).batch(3, within=within).open())
    assert seen == [[0, 1, 2], [3, 4]]
    assert str(error) == "the script fails at item 5"


async def test_trap_33_an_error_of_work_swallows_the_partial_batch(read_until_error):
    """Trap 33 (several peers): likewise for an error of the stage above."""

    async def work(number):
        await asyncio.sleep(number)
        if number == 4:
            raise ValueError(number)
        return number

    seen, error = await read_until_error(penstock.stream(range(9)).map(work, concurrency=3).batch(3).open())
    assert seen == [[0, 1, 2], [3]]
    assert error.args == (4,)


async def test_trap_33_a_batch_of_one_item_blocks():
    """Trap 33 (several peers): a batch whose first item already fills it goes at once."""
    source = Scripted([["a", "large", "item"]], silent_after=1)
    async with penstock.stream(source).batch(1, within=60).open() as items:
        assert await asyncio.wait_for(anext(items), 1) == [["a", "large", "item"]]


@pytest.mark.parametrize("within", [None, 60])
async def test_trap_33_an_oversized_item_blocks(within):
    """Trap 33 (several peers): an item heavier than a batch may be waited for room for ever; it goes alone, at once."""
    source = Scripted([1, 100, 1, 1, 100], silent_after=5)
    stream = penstock.stream(source).batch(9, within=within, weight=lambda item: item, max_weight=10)
    async with stream.open() as items:
        assert [await anext(items) for _ in range(4)] == [[1], [100], [1, 1], [100]]


@pytest.mark.parametrize("within", [0, 0.0, -1])
def test_trap_34_within_zero_floods(within):
    """Trap 34 (several peers): `within=0` flooded the consumer with batches of one; it is refused."""
    with pytest.raises(penstock.OptionError, match=f"within must be a finite number of seconds > 0 .*, got {within}"):
        penstock.stream([1]).batch(10, within=within)
