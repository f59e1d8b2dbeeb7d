"""Ways to run a function over many items. A new peer is one function and one row of `PEERS`.

A function that streams takes `(fn, items, concurrency, ordered)` and returns an async context manager that gives the
results, as the peer's own documentation has it: `nullcontext` where a plain `async for` is what it shows. One that does
not stream is a coroutine function that returns a list. Results are counted: a peer that loses items is shown as such,
not as fast.
"""

import asyncio
import warnings
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import aiometer as aiometer_peer
import aiostream as aiostream_peer
import anyio as anyio_peer
import streamable as streamable_peer
from smallest import SmallestWindow

import penstock as penstock_peer

with warnings.catch_warnings(action="ignore"):  # pkg_resources says that it is deprecated
    import pypeln as pypeln_peer

type Fn = Callable[[int], Awaitable[int]]
type Stream = Callable[[Fn, Iterable[int], int, bool], AbstractAsyncContextManager[AsyncIterable[int]]]
type Collect = Callable[[Fn, Iterable[int], int, bool], Awaitable[Sequence[int]]]

BOTH = (True, False)


@dataclass(frozen=True)
class Peer:
    """A contender: how it runs, which orders it can deliver in, and what a reader must know to compare it.

    One that has both `stream` and `collect` streams unordered results and collects ordered ones. `slower` divides the
    number of items of a run with calls that do not wait: it keeps the whole table within minutes. `threads` says that
    it runs plain functions in threads by itself; the others are given `asyncio.to_thread`.
    """

    name: str
    note: str
    stream: Stream | None = None
    collect: Collect | None = None
    orders: tuple[bool, ...] = BOTH
    slower: int = 1
    threads: bool = False

    def streams(self, ordered: bool) -> bool:  # noqa: FBT001 an order is a value here
        return self.stream is not None and not (ordered and self.collect is not None)

    async def run(self, fn: Fn, items: Iterable[int], concurrency: int, ordered: bool) -> int:  # noqa: FBT001 as above
        """Consume every result; how many there were."""
        if not self.streams(ordered):
            return len(await self.collect(fn, items, concurrency, ordered))
        seen = 0
        async with self.stream(fn, items, concurrency, ordered) as results:
            async for _ in results:
                seen += 1
        return seen

    async def run_plain(self, fn: Callable[[int], int], items: Iterable[int], concurrency: int, ordered: bool) -> int:  # noqa: FBT001 as above
        """Like `run`, for a plain function, in `concurrency` threads that are made and ended within."""
        if self.threads:
            return await self.run(fn, items, concurrency, ordered)

        async def call(item):
            return await asyncio.to_thread(fn, item)

        with ThreadPoolExecutor(concurrency) as pool:
            asyncio.get_running_loop().set_default_executor(pool)
            return await self.run(call, items, concurrency, ordered)


async def bare_pool(fn, items, concurrency, _ordered):
    iterator = iter(items)
    results = []

    async def worker():
        for item in iterator:
            results.append(await fn(item))  # noqa: PERF401 a comprehension would not share the iterator item by item

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
    return results


def penstock(fn, items, concurrency, ordered, *, buffered=False):
    buffer = concurrency if buffered else 0
    return penstock_peer.stream(items).map(fn, concurrency=concurrency, ordered=ordered, buffer=buffer).open()


def smallest_window(fn, items, concurrency, _ordered):
    return nullcontext(SmallestWindow(fn, items, concurrency, 2 * concurrency))


def bounded(fn, concurrency):
    semaphore = asyncio.Semaphore(concurrency)

    async def call(item):
        async with semaphore:
            return await fn(item)

    return call


async def gather_semaphore(fn, items, concurrency, _ordered):
    return await asyncio.gather(*map(bounded(fn, concurrency), items))


def as_completed(fn, items, concurrency, _ordered):
    async def results():
        for result in asyncio.as_completed(map(bounded(fn, concurrency), items)):
            yield await result

    return nullcontext(results())


def streamable(fn, items, concurrency, ordered):
    return nullcontext(streamable_peer.stream(items).map(fn, concurrency=concurrency, as_completed=not ordered))


def aiostream(fn, items, concurrency, ordered):
    source = aiostream_peer.stream.iterate(items)
    return aiostream_peer.stream.map(source, fn, ordered=ordered, task_limit=concurrency).stream()


def aiometer(fn, items, concurrency, _ordered):
    return aiometer_peer.amap(fn, sequence(items), max_at_once=concurrency)


async def aiometer_all(fn, items, concurrency, _ordered):
    return await aiometer_peer.run_all([partial(fn, item) for item in items], max_at_once=concurrency)


def sequence(items):
    return items if isinstance(items, Sequence) else list(items)


@asynccontextmanager
async def anyio(fn, items, concurrency, ordered):
    """What anyio's documentation of task groups and memory streams comes to: it has no `map` of its own."""
    send, receive = anyio_peer.create_memory_object_stream(concurrency)
    numbered = enumerate(items)

    async def worker(results):
        async with results:
            for number, item in numbered:
                await results.send((number, await fn(item)))

    async with anyio_peer.create_task_group() as group, receive:
        async with send:
            for _ in range(concurrency):
                group.start_soon(worker, send.clone())
        yield in_order(receive) if ordered else receive
        group.cancel_scope.cancel()


async def in_order(numbered):
    waiting, wanted = {}, 0
    async for number, result in numbered:
        waiting[number] = result
        while wanted in waiting:
            yield waiting.pop(wanted)
            wanted += 1


def pypeln(fn, items, concurrency, _ordered):
    return nullcontext(pypeln_peer.task.map(fn, asynchronous(items), workers=concurrency, maxsize=concurrency))


async def pypeln_ordered(fn, items, concurrency, _ordered):
    stage = pypeln_peer.task.map(fn, asynchronous(items), workers=concurrency, maxsize=concurrency)
    return await pypeln_peer.task.ordered(stage)


async def asynchronous(items) -> AsyncGenerator[int]:
    """A source that pypeln reads on the loop: a plain one it reads in a thread."""
    for item in items:
        yield item


FLOOR = "bare pool"
SMALLEST = "smallest window"
REFERENCE = "penstock"
BUFFERED = "penstock buffered"

PEERS = {
    p.name: p
    for p in (
        Peer(FLOOR, "the floor: workers fill a list in the order of finishing", collect=bare_pool),
        Peer(
            SMALLEST,
            "no peer: a task per item, a buffer and the order, and nothing else (`smallest.py`)",
            stream=smallest_window,
            orders=(True,),
        ),
        Peer(REFERENCE, "buffer=0", stream=penstock, threads=True),
        Peer(BUFFERED, "buffer=concurrency", stream=partial(penstock, buffered=True), threads=True),
        Peer("gather+Semaphore", "a task and a result per item at once", collect=gather_semaphore, orders=(True,)),
        Peer(
            "as_completed", "with a Semaphore; a task per item at once", stream=as_completed, orders=(False,), slower=2
        ),
        Peer("streamable", "2.0, `map`", stream=streamable, threads=True),
        Peer("aiostream", "`stream.map(task_limit=)`", stream=aiostream, slower=10),
        Peer("aiometer", "`amap`; in order `run_all`", stream=aiometer, collect=aiometer_all, slower=5),
        Peer(
            "anyio",
            "by hand: workers of a task group, a memory stream; in order, a dict without bound",
            stream=anyio,
            slower=2,
        ),
        Peer("pypeln", "`task.map`; in order `task.ordered`", stream=pypeln, collect=pypeln_ordered, slower=4),
    )
}
PYTHON_PEERS = tuple(name for name in PEERS if name not in {FLOOR, SMALLEST, REFERENCE, BUFFERED})
