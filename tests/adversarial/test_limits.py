"""Traps 8 and 42b: limits that several share."""

import asyncio

import pytest

import penstock
from penstock.testing import Gauge


async def test_trap_08_nested_use_of_a_limiter_deadlocks():
    """Trap 8 (p-limit): work that asks for the limiter that its own stage holds would wait for itself for ever."""
    limiter = penstock.Limiter(1, name="connections")

    async def fetch(url):
        return await limiter.run(len, url)

    with pytest.raises(
        penstock.NestedLimitError,
        match=r"connections.* by stage 'map\(fetch\)', asked for again at .*test_limits\.py:\d+",
    ):
        await penstock.stream(["a", "b"]).map(fetch, concurrency=2, limit=limiter).to_list()
    assert limiter.in_use == 0


async def test_trap_08_nested_use_is_found_while_there_is_room():
    """Trap 8 (p-limit): with room for two it works for one task at a time, and hangs when two do the same at once."""
    limiter = penstock.Limiter(2)

    async def twice():
        async with limiter:
            await asyncio.sleep(1)
            async with limiter.hold(1):
                return "never"

    results = await asyncio.gather(twice(), twice(), twice(), return_exceptions=True)
    assert [type(result) for result in results] == [penstock.NestedLimitError] * 3
    assert limiter.in_use == 0


async def test_trap_42b_a_late_thread_gives_its_limiter_back_too_early(clock):
    """Trap 42b (streamable): with a limit of 1 and retries of calls that time out in threads, 3 ran at once."""
    gauge, limiter = Gauge(), penstock.Limiter(1)

    def work(_):
        with gauge:
            clock.sleep(5)

    retry = penstock.Retry(on=TimeoutError, initial=0)
    stream = penstock.stream(range(3)).map(
        work, concurrency=3, timeout=1, retry=retry, limit=limiter, on_error="collect"
    )
    assert await stream.to_list() == []
    assert (gauge.peak, gauge.finished, limiter.in_use) == (1, 9, 0)
