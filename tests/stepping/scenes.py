"""Small runs with every kind of wait in them, the ways of reading one to its end, and what must be true after."""

import asyncio

from penstock import Retry, merge, stream
from penstock.testing import Gauge, Scripted

from ..guarantees.operators import (  # noqa: TID252 -- test folders are not packages
    OPERATORS,
    Operator,
    behind_map,
    itself,
    one_by_one,
    open_inputs,
    yielding,
)

COUNT = 4
"""Items of a scene: enough for each kind of wait, few enough for a run per step."""

KINDS = (
    {"concurrency": 2, "buffer": 1},
    {"concurrency": 3, "ordered": False},
    {"concurrency": 1},
    {"concurrency": 2, "ordered": False, "buffer": 2, "plain": True},
)
"""Options of a scene."""


class Boom(Exception):
    pass


def retried(items, call, **options):
    """Every item fails once and is tried again after a second."""
    tried = set()

    async def work(item):
        await call(item)
        if item not in tried:
            tried.add(item)
            raise Boom
        return item

    return items.map(work, retry=Retry(on=Boom, attempts=2, initial=1, jitter=0), **options)


def halved(items, call, **options):
    """A call on a list of more than one item fails."""

    async def work(batch):
        if len(batch) > 1:
            await asyncio.sleep(0)
            raise Boom
        return await one_by_one(call)(batch)

    return items.map_batches(work, 2, **options)


def fanned_again(items, call, **options):
    return items.flat_map(yielding(call), retry=Retry(on=Boom, attempts=2), timeout=3600, **options)


def deep(items, call, **options):
    """Stage upon stage, which are ready, wait and end at different times."""
    fanned = items.map(itself(call), **options).flat_map(yielding(call), **{**options, "concurrency": 2, "buffer": 1})
    return fanned.tap(call, **options).batch(3)


def beside_another(items, call, **options):
    return merge(items.map(itself(call), **options), stream(Scripted([], delay=1)).map(itself(call), **options))


MORE = (
    Operator("through", lambda items, call, **options: items.through(lambda it: it.map(itself(call), **options))),
    Operator("timed", lambda items, call, **options: items.map(itself(call), timeout=3600, **options)),
    Operator("retried", retried),
    Operator("halved", halved),
    Operator("lists", lambda items, call, **options: items.map_batches(one_by_one(call), 2, **options)),
    Operator(
        "lists-within", lambda items, call, **options: items.map_batches(one_by_one(call), 3, within=0.5, **options)
    ),
    Operator("fanned again", fanned_again, open_inputs, asks_first=True),
    Operator("deep", deep, None, items=list),
    Operator("beside another", beside_another, None),
    Operator("the last taken", behind_map(lambda results: results.take(COUNT)), None),
)

ALL = OPERATORS + MORE


class Scene:
    """A run of `COUNT` items, some of which wait for a pass of the loop, some for a second and some for nothing."""

    def __init__(self, operator, *, plain=False, fail_at=None, error=None, **options):
        self.operator, self.plain, self.in_order = operator, plain, options.get("ordered", True)
        self.told_order = "ordered" in options
        delay = None if plain else [0, None, 1, None, None].__getitem__
        close_delay = 0 if plain else 1
        self.source = Scripted(range(COUNT), delay=delay, close_delay=close_delay, fail_at=fail_at, error=error)
        self.gauge, self.tasks = Gauge(), set()
        items = stream(self.source.sync() if plain else self.source)
        self.stream = operator.build(items, self.gauge.wrap(self.call), **options)

    async def call(self, item):
        task = asyncio.current_task()
        self.tasks.add(task)
        try:
            for seconds in ((0, 0), (1,), (), (0, 1))[item]:
                await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            raise
        finally:
            self.tasks.discard(task)

    def items(self, results):
        """The items in `results`, sorted unless they come in order."""
        items = [item for result in results for item in self.operator.items(result)]
        return items if self.in_order else sorted(items)

    async def check(self):
        """Nothing runs and nothing starts; the source is closed once, by the task that read it."""
        assert self.gauge.now == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert self.source.closed == self.source.opened <= 1
        assert self.plain or self.source.pulled_by <= {self.source.closed_by}
        before = self.gauge.started, self.source.taken
        await asyncio.sleep(100)
        assert (self.gauge.started, self.source.taken) == before


async def by_open(scene):
    async with scene.stream.open() as results:
        return [result async for result in results]


async def by_to_list(scene):
    return await scene.stream.to_list()


async def by_reduce(scene):
    return await scene.stream.reduce(lambda so_far, result: [*so_far, result], [])


async def by_for_each(scene):
    scene.in_order = scene.in_order and scene.told_order  # else nobody sees it
    results = []

    async def keep(result):
        await asyncio.sleep(0)
        results.append(result)

    await scene.stream.for_each(keep)
    return results


async def by_count(scene):
    return await scene.stream.count()


async def by_drain(scene):
    await scene.stream.drain()


async def by_first(scene):
    return await scene.stream.first()


async def by_break(scene):
    async with scene.stream.open() as results:
        async for _ in results:
            break


async def by_stop(scene):
    """Stopped by its own consumer at the second result."""
    async with scene.stream.open() as results:
        await anext(results)
        await anext(results, None)
        results.stop()
        return [result async for result in results]


READ_WHOLE = (by_open, by_to_list, by_reduce, by_for_each)
"""Those that give every result."""

TERMINALS = (*READ_WHOLE, by_count, by_drain, by_first, by_break, by_stop)
"""`sync()` is not among them: it runs in a thread, on a loop that nobody else can step."""
