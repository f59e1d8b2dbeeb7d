"""What fs2's tests of `parEvalMap` and `parEvalMapUnordered` ask, of `map` in order and as finished."""

import asyncio
import contextlib
import random

import pytest

import penstock
from penstock.testing import Gauge

both_orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


async def passes(call):
    return await call()


class Latch:
    """Opens when `count` have come to it; they wait there until then."""

    def __init__(self, count):
        self.left, self.open = count, asyncio.Event()

    async def meet(self):
        self.left -= 1
        if self.left == 0:
            self.open.set()
        await self.open.wait()


@both_orders
async def test_what_is_behind_a_slow_head_starts_only_where_there_is_a_place(ordered):
    """In order the third of three has none while the first runs, though the second is done; else it has."""
    reached = asyncio.Event()

    async def work(number):
        if number == 0:
            await asyncio.sleep(60)
        elif number == 2:
            reached.set()

    async with penstock.stream(range(3)).map(work, concurrency=2, ordered=ordered).open() as items:
        reading = asyncio.ensure_future(anext(items))
        await asyncio.sleep(30)
        assert reached.is_set() is not ordered
        await reading


async def test_order_is_preserved_whatever_calls_take():
    for seed in range(20):
        rng = random.Random(seed)
        numbers = [rng.randrange(-1000, 1000) for _ in range(rng.randrange(50))]

        async def work(number):
            await asyncio.sleep(abs(number) % 3 / 1000)
            return number

        assert await penstock.stream(numbers).map(work, concurrency=100).to_list() == numbers


async def test_as_finished_the_quickest_comes_first():
    async def work(number):
        await asyncio.sleep(number * 0.05)
        return number

    assert await penstock.stream([3, 2, 1]).map(work, concurrency=3, ordered=False).to_list() == [1, 2, 3]


@both_orders
async def test_as_many_calls_as_allowed_or_as_there_are_items_meet(ordered):
    for seed in range(20):
        rng = random.Random(seed)
        length, allowed = rng.randint(1, 100), rng.randint(2, 21)
        latch = Latch(min(length, allowed))
        await penstock.stream([latch.meet] * length).map(passes, concurrency=allowed, ordered=ordered).drain()
        assert latch.open.is_set()


@both_orders
@pytest.mark.parametrize(("length", "allowed", "wanted"), [(100, 200, 101), (100, 20, 21)])
async def test_no_more_calls_meet_than_are_allowed_or_than_there_are_items(ordered, length, allowed, wanted):
    """Room for results lets none more run."""
    latch = Latch(wanted)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await (
                penstock.stream([latch.meet] * length)
                .map(passes, concurrency=allowed, ordered=ordered, buffer=3)
                .drain()
            )
    assert latch.left == 1


@both_orders
@pytest.mark.parametrize("count", range(1, 11))
async def test_of_errors_in_one_moment_one_is_raised(ordered, count):
    """All calls go on in one pass of the loop; the first that raises stops the others in that very pass."""
    latch, gauge = Latch(count), Gauge()

    async def work(number):
        await latch.meet()
        raise RuntimeError(number)

    with pytest.raises(RuntimeError) as raised:
        await penstock.stream(range(count)).map(gauge.wrap(work), concurrency=count, ordered=ordered).drain()
    assert raised.value.args[0] in range(count)
    assert gauge.started == gauge.failed + gauge.cancelled == count


@both_orders
async def test_an_error_after_enough_was_taken_is_raised_from_leaving(ordered):
    """fs2 loses it. Here no error vanishes: work that ends its cancellation with an error of its own is heard (P5)."""
    release = asyncio.Event()

    async def work(number):
        if number:
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
            raise RuntimeError("too late")
        await asyncio.sleep(0)  # or the other one is never called
        return number

    seen = []
    with pytest.raises(RuntimeError, match="too late"):
        async with penstock.stream(range(2)).map(work, concurrency=2, ordered=ordered).take(1).open() as items:
            async for item in items:
                seen.append(item)  # noqa: PERF401 -- what came before the error counts
    assert seen == [0]


@both_orders
async def test_a_failure_cancels_the_calls_that_run(ordered):
    latch, gauge = Latch(2), Gauge()

    async def work(number):
        await latch.meet()
        if number == 0:
            raise RuntimeError
        await asyncio.sleep(3600)

    with pytest.raises(RuntimeError):
        await penstock.stream(range(2)).map(gauge.wrap(work), concurrency=2, ordered=ordered).drain()
    assert (gauge.cancelled, gauge.now) == (1, 0)


@both_orders
async def test_calls_that_nobody_needs_are_cancelled(ordered):
    latch, gauge = Latch(2), Gauge()

    async def work(number):
        await latch.meet()
        if number:
            await asyncio.sleep(3600)

    await penstock.stream(range(2)).map(gauge.wrap(work), concurrency=2, ordered=ordered).take(1).drain()
    assert (gauge.cancelled, gauge.now) == (1, 0)


@both_orders
async def test_what_cannot_be_cancelled_is_awaited(ordered):
    latch, events = Latch(2), []

    async def stubborn():
        await asyncio.sleep(3)
        events.append("it is through")

    async def work(number):
        await latch.meet()
        if number:
            task = asyncio.ensure_future(stubborn())
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                await task
                raise

    await penstock.stream(range(2)).map(work, concurrency=2, ordered=ordered).take(1).drain()
    events.append("the run is over")
    assert events == ["it is through", "the run is over"]


@both_orders
@pytest.mark.parametrize("plain", [False, True])
async def test_it_never_hangs_after_an_exception(ordered, plain):
    """A hundred times; whether the function raises when it is called or when it is awaited."""

    async def work(number):
        if number == 0:
            raise RuntimeError

    def raises(_):
        raise RuntimeError

    for _ in range(100):
        async with asyncio.timeout(2):
            with pytest.raises(RuntimeError):
                await (
                    penstock.stream(range(2))
                    .map((lambda item: raises(item)) if plain else work, concurrency=10, ordered=ordered)
                    .drain()
                )
