"""Limits under random holds, cancellations and sizes: never too many, never too few, and nobody waits for ever."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock
from penstock import Limiter, RateLimit, Retry

TIMES = st.sampled_from([0, 0, 0.5, 1, 1, 1.5, 2, 3])
"""Few, so that much happens in the same pass of the loop."""

examples = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])

HOLDS = st.lists(
    st.fixed_dictionaries(
        {
            "arrives": TIMES,
            "weight": st.integers(1, 3),
            "seconds": TIMES,
            "cancelled": st.none() | TIMES,
            "victim": st.none() | st.integers(0, 11),
            "victim_first": st.booleans(),
        }
    ),
    min_size=1,
    max_size=12,
)


async def settled():
    for _ in range(40):
        await asyncio.sleep(0)


class Fuzz:
    """Holds of one limiter, by their numbers; `line` are those that have asked and do not hold it yet."""

    def __init__(self, limiter, holds):
        self.limiter = limiter
        self.holds = holds
        self.line = []
        self.held = {}
        self.tasks = []

    async def hold(self, number, *, arrives, weight, seconds, cancelled, victim, victim_first):
        await asyncio.sleep(arrives)
        self.line.append(number)
        try:
            async with self.limiter.hold(weight):
                self.held[number] = weight
                ahead = self.line[: self.line.index(number)]
                granted = sum(self.held.values()) + sum(self.holds[each]["weight"] for each in ahead)
                assert self.limiter.in_use >= granted  # first come, first served: those ahead are yet to hear of it
                self.line.remove(number)
                try:
                    await asyncio.sleep(seconds)
                    if victim_first:
                        self.cancel(victim)
                finally:
                    del self.held[number]
            if not victim_first:
                self.cancel(victim)
        finally:
            if number in self.line:
                self.line.remove(number)

    def cancel(self, victim):
        if victim is not None and victim < len(self.tasks) and self.tasks[victim] is not asyncio.current_task():
            self.tasks[victim].cancel()
            if victim in self.line:
                self.line.remove(victim)

    def check(self, before):
        """`before` is what was in use at the last look."""
        limiter = self.limiter
        assert limiter.in_use == sum(self.held.values())
        assert limiter.waiting == len(self.line)
        assert limiter.in_use <= max(limiter.limit, before) or len(self.held) == 1
        if self.line:
            head = self.holds[self.line[0]]["weight"]
            assert limiter.in_use
            assert limiter.in_use + head > limiter.limit

    async def run(self, sizes):
        loop = asyncio.get_running_loop()
        self.tasks = [loop.create_task(self.hold(number, **hold)) for number, hold in enumerate(self.holds)]
        timers = [
            loop.call_later(hold["cancelled"], self.cancel, number)
            for number, hold in enumerate(self.holds)
            if hold["cancelled"] is not None
        ]
        before = 0
        sizes = iter(sizes)
        while not all(task.done() for task in self.tasks):
            await settled()
            self.check(before)
            before = self.limiter.in_use
            self.limiter.limit = next(sizes, self.limiter.limit)
            await settled()
            self.check(before)
            before = self.limiter.in_use
            await asyncio.sleep(0.5)
            assert loop.time() < 100
        for timer in timers:
            timer.cancel()
        for task in self.tasks:
            with suppress(asyncio.CancelledError):
                await task


@pytest.mark.grid
@examples
@given(limit=st.integers(3, 5), holds=HOLDS)
async def test_a_limiter_grants_neither_too_much_nor_too_little(limit, holds):
    fuzz = Fuzz(Limiter(limit), holds)
    await fuzz.run([])
    assert (fuzz.limiter.in_use, fuzz.limiter.waiting, fuzz.held) == (0, 0, {})


@pytest.mark.grid
@examples
@given(holds=HOLDS, sizes=st.lists(st.integers(1, 6), max_size=20))
async def test_nor_does_one_that_is_resized(holds, sizes):
    """A weight may be refused at once, if the limiter is smaller just then; one that waits is never left waiting."""
    fuzz = Fuzz(Limiter(6), holds)
    fuzz.limiter._check = lambda weight: weight
    await fuzz.run(sizes)
    assert (fuzz.limiter.in_use, fuzz.limiter.waiting, fuzz.held) == (0, 0, {})


ASKS = st.lists(
    st.tuples(TIMES, st.sampled_from([0, 0.5, 1, 1, 1, 2, 5, 20]), st.none() | TIMES), min_size=1, max_size=12
)


@pytest.mark.grid
@examples
@given(n=st.sampled_from([0.5, 1, 3, 10]), burst=st.sampled_from([1, 1, 2, 4.5]), asks=ASKS)
async def test_a_rate_starts_each_as_soon_as_it_may_and_no_sooner(n, burst, asks):
    """Against a bucket of `burst` units that fills at `n` per second, and may owe."""
    rate, loop = RateLimit(n, 1, burst=burst), asyncio.get_running_loop()
    line, starts = [], []
    first_since = {}

    def left(number):
        if number in line:
            line.remove(number)
            if line:
                first_since.setdefault(line[0], loop.time())

    def cancel(number):
        """Whoever is cancelled has left the line, though its task is yet to hear of it."""
        tasks[number].cancel()
        left(number)

    async def ask(number, arrives, cost):
        await asyncio.sleep(arrives)
        line.append(number)
        if line[0] == number:
            first_since[number] = loop.time()
        try:
            await rate.acquire(cost)
            assert line[0] == number
            starts.append((number, cost, loop.time()))
        finally:
            left(number)

    tasks = [loop.create_task(ask(number, arrives, cost)) for number, (arrives, cost, _) in enumerate(asks)]
    timers = [
        loop.call_later(cancelled, cancel, number)
        for number, (_, _, cancelled) in enumerate(asks)
        if cancelled is not None
    ]
    await asyncio.wait(tasks)
    for timer in timers:
        timer.cancel()
    units, last = burst, 0.0
    for number, cost, time in starts:
        wanted = min(cost, burst)
        ready = last + max(0.0, wanted - units) / n
        assert time == pytest.approx(max(ready, first_since[number]), abs=1e-6)
        units = min(burst, units + (time - last) * n) - cost
        last = time


STAGES = st.lists(
    st.fixed_dictionaries(
        {
            "operator": st.sampled_from(["map", "flat_map", "map_batches"]),
            "limit": st.permutations(range(3)).flatmap(lambda order: st.integers(0, 3).map(lambda k: order[:k])),
            "concurrency": st.integers(1, 4),
            "buffer": st.integers(0, 3),
            "ordered": st.booleans(),
            "failing": st.none() | st.integers(0, 7),
            "seconds": TIMES,
        }
    ),
    min_size=1,
    max_size=3,
)


class Stages:
    """Stages whose work fails once for an item and counts who holds each of three limits; the second is a rate."""

    def __init__(self, sizes):
        self.limits = [Limiter(sizes[0]), RateLimit(4, 1), Limiter(sizes[1])]
        self.running = [0, 0, 0]

    async def hold(self, limit, seconds):
        for number in limit:
            self.running[number] += 1
        try:
            assert all(self.running[number] <= self.limits[number].limit for number in (0, 2))
            await asyncio.sleep(seconds)
        finally:
            for number in limit:
                self.running[number] -= 1

    def add(self, stream, *, operator, limit, failing, seconds, **options):
        failed = []

        async def work(item):
            await self.hold(limit, seconds)
            if not failed and failing in (item if isinstance(item, list) else [item]):
                failed.append(item)
                raise ConnectionError
            return item

        async def outputs(item):
            yield await work(item)
            await asyncio.sleep(seconds)

        retry = Retry(on=ConnectionError, initial=1)
        options |= {"limit": [self.limits[number] for number in limit], "retry": retry}
        if operator == "flat_map":
            return stream.flat_map(outputs, **options)
        if operator == "map_batches":
            return stream.map_batches(work, 2, **options)
        return stream.map(work, **options)


@pytest.mark.grid
@examples
@given(stages=STAGES, sizes=st.tuples(st.integers(1, 3), st.integers(1, 3)), leave=st.none() | TIMES)
async def test_stages_that_share_limits_never_wait_for_each_other(stages, sizes, leave):
    """Any limits in any order, with retries: all of it comes through, none is held by too many, all is given back."""
    fuzz, stream, results = Stages(sizes), penstock.stream(range(8)), []
    for stage in stages:
        stream = fuzz.add(stream, **stage)
    with suppress(TimeoutError):
        async with asyncio.timeout(leave), stream.open() as items:
            async for item in items:
                results.append(item)  # noqa: PERF401 -- those before the timeout count
    if leave is None:
        in_order = all(stage["ordered"] for stage in stages)
        assert (results if in_order else sorted(results)) == list(range(8))
    for number in (0, 2):
        assert (fuzz.limits[number].in_use, fuzz.limits[number].waiting) == (0, 0)
    async with asyncio.timeout(50):
        await fuzz.limits[1].acquire()
