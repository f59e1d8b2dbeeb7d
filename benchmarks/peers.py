"""Ways to run a function over many items. A new peer is one function and one row of `PEERS`.

A peer takes `(fn, items, concurrency, ordered)`, consumes every result, and returns how many it has seen: a peer that
loses items is shown as such, not as fast.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial

import streamable as streamable_peer

import penstock as penstock_peer

type Fn = Callable[[int], Awaitable[int]]
type Run = Callable[[Fn, Iterable[int], int, bool], Awaitable[int]]

BOTH = (True, False)


@dataclass(frozen=True)
class Peer:
    """A contender: how it runs, which orders it can deliver in, and what a reader must know to compare it."""

    name: str
    run: Run
    orders: tuple[bool, ...]
    streams: bool
    note: str


async def bare_pool(fn, items, concurrency, _ordered):
    iterator = iter(items)
    results = []

    async def worker():
        for item in iterator:
            results.append(await fn(item))  # noqa: PERF401 a comprehension would not share the iterator item by item

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
    return len(results)


async def gather_semaphore(fn, items, concurrency, _ordered):
    semaphore = asyncio.Semaphore(concurrency)

    async def bounded(item):
        async with semaphore:
            return await fn(item)

    return len(await asyncio.gather(*map(bounded, items)))


async def penstock(fn, items, concurrency, ordered, *, buffered=False):
    buffer = concurrency if buffered else 0
    stream = penstock_peer.stream(items).map(fn, concurrency=concurrency, ordered=ordered, buffer=buffer)
    return await counted(stream.open())


async def streamable(fn, items, concurrency, ordered):
    seen = 0
    async for _ in streamable_peer.stream(items).map(fn, concurrency=concurrency, as_completed=not ordered):
        seen += 1
    return seen


async def counted(run):
    seen = 0
    async with run as results:
        async for _ in results:
            seen += 1
    return seen


REFERENCE = "penstock"

PEERS = {
    p.name: p
    for p in (
        Peer(
            "bare pool", bare_pool, BOTH, streams=False, note="the floor: workers fill a list in the order of finishing"
        ),
        Peer(REFERENCE, penstock, BOTH, streams=True, note="buffer=0"),
        Peer("penstock buffered", partial(penstock, buffered=True), BOTH, streams=True, note="buffer=concurrency"),
        Peer("gather+Semaphore", gather_semaphore, (True,), streams=False, note="a task and a result per item at once"),
        Peer("streamable", streamable, BOTH, streams=True, note="2.0; leaves tasks running after `break`"),
    )
}
