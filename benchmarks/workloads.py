"""What an item does. A new workload is one function and one row of `WORKLOADS`."""

import asyncio
import hashlib
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """One kind of call, and how many of them make one timed run.

    A `plain` function runs in threads. `seconds` is what the calls take on average, if that is the same for all peers.
    """

    name: str
    fn: Callable[[int], Awaitable[int] | int]
    items: int
    seconds: float = 0.0
    concurrency: int = 100
    plain: bool = False

    @property
    def ideal_us(self) -> float:
        """Microseconds per item if running the calls were free and no order had to be kept."""
        return self.seconds / self.concurrency * 1e6


def lognormal(count: int, *, median: float, sigma: float, seed: int = 1) -> list[float]:
    """Seconds that `count` calls take: the same ones each time."""
    draw = random.Random(seed)
    return [draw.lognormvariate(math.log(median), sigma) for _ in range(count)]


LATENCIES = lognormal(2_000, median=0.002, sigma=1.0)
BLOCK = bytes(1024)


async def at_once(x):
    return x


async def one_turn(x):
    await asyncio.sleep(0)
    return x


async def one_ms(x):
    await asyncio.sleep(0.001)
    return x


async def fifty_ms(x):
    await asyncio.sleep(0.05)
    return x


async def varying(x):
    await asyncio.sleep(LATENCIES[x % len(LATENCIES)])
    return x


def hashing(x):
    hashlib.sha256(BLOCK).digest()
    return x


WORKLOADS = {
    w.name: w
    for w in (
        Workload("at once", at_once, items=20_000),
        Workload("sleep(0)", one_turn, items=10_000),
        Workload("1 ms", one_ms, items=5_000, seconds=0.001),
        Workload("50 ms", fifty_ms, items=400, seconds=0.05),
        Workload("lognormal", varying, items=2_000, seconds=sum(LATENCIES) / len(LATENCIES)),
        Workload("threads", hashing, items=2_000, concurrency=16, plain=True),
    )
}
