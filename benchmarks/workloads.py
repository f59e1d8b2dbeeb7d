"""What an item does. A new workload is one function and one row of `WORKLOADS`."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """One kind of call, and how many of them make one timed run."""

    name: str
    fn: Callable[[int], Awaitable[int]]
    items: int
    seconds: float = 0.0

    def ideal_us(self, concurrency: int) -> float:
        """Microseconds per item if running the calls were free."""
        return self.seconds / concurrency * 1e6


async def at_once(x):
    return x


async def one_turn(x):
    await asyncio.sleep(0)
    return x


async def one_ms(x):
    await asyncio.sleep(0.001)
    return x


WORKLOADS = {
    w.name: w
    for w in (
        Workload("at once", at_once, items=20_000),
        Workload("sleep(0)", one_turn, items=10_000),
        Workload("1 ms", one_ms, items=5_000, seconds=0.001),
    )
}
