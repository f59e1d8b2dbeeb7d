"""The table of operators over which the guarantees are tested: a new operator joins by one line.

A row builds a stream that calls `call(item)` once for every item and gives the item back, so that one test fits all.
"""

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from penstock import Stream, merge, stream
from penstock.flow import Pipeline, step, transform


def giving(output):
    """The shape of a function that returns `output(item)`; async or plain, as the call in it is."""

    def shape(call):
        async def work(item):
            await call(item)
            return output(item)

        def plain_work(item):
            call(item)
            return output(item)

        return work if inspect.iscoroutinefunction(call) else plain_work

    return shape


def yielding(call):
    async def work(item):
        await call(item)
        yield item

    return work


itself = giving(lambda item: item)
truth = giving(lambda _: True)
nothing = giving(lambda _: None)
in_list = giving(lambda item: [item])
in_iterator = giving(lambda item: iter([item]))


async def yes(_):
    await asyncio.sleep(0)
    return True


async def no(_):
    await asyncio.sleep(0)
    return False


def one_by_one(call):
    async def work(items):
        return [await call(item) or item for item in items]

    return work


def results_that_wait(concurrency, buffer):
    """Places of a stage whose finished results wait beside its running calls."""
    return concurrency + buffer


def open_inputs(concurrency, buffer):
    """Places of `flat_map`: `buffer` is room for outputs, not for inputs."""
    return concurrency


def alone(output):
    return [output]


@dataclass(frozen=True)
class Operator:
    """A row: `build(stream, call, **options)` is the stream under test.

    `places(concurrency, buffer)` is how many items it may hold (P1); None if other stages than its own hold items too.
    `items(output)` are the items in one output.
    `asks_first`: calls wait for a permit, so that they do not start when a plain window's would. `settles_late`: an
    item gives up its place only when the consumer asks for the next one, as its iterator cannot say which is the last.
    """

    name: str
    build: Callable[..., Stream[Any]]
    places: Callable[[int, int], int] | None = results_that_wait
    items: Callable[[Any], list[Any]] = alone
    asks_first: bool = False
    settles_late: bool = False
    in_threads: bool = False

    def __str__(self):
        return self.name


def run_by(method, shape):
    return lambda items, call, **options: method(items, shape(call), **options)


def added(items, call, **options):
    """A step; what `add` does not take is of the step."""
    own = {name: options.pop(name) for name in ("retry", "timeout", "limit", "engine") if name in options}
    return items.add(step("work", itself(call), **own), **options)


def added_pipeline(items, call, **options):
    """The same as the only step of a pipeline: all that is of it is within the call."""
    own = {name: options.pop(name) for name in ("retry", "timeout", "limit", "engine") if name in options}
    return items.add(Pipeline("p", [step("work", itself(call), **own)]), **options)


async def handing_on(items):
    async for item in items:
        yield item


def behind_map(then, shape=itself):
    return lambda items, call, **options: then(items.map(shape(call), **options))


WORKING = (
    Operator("map", run_by(Stream.map, itself), in_threads=True),
    Operator("map-key", run_by(partial(Stream.map, key=id), itself)),
    Operator("map-bytes", run_by(partial(Stream.map, buffer_bytes=10**9, size_of=lambda _: 1), itself)),
    Operator("filter", run_by(Stream.filter, truth), in_threads=True),
    Operator("tap", run_by(Stream.tap, nothing), in_threads=True),
    Operator("add", added),
    Operator("add-pipeline", added_pipeline),
    Operator("map_batches", lambda items, call, **options: items.map_batches(one_by_one(call), 1, **options)),
    Operator("flat_map-list", run_by(Stream.flat_map, in_list), open_inputs, in_threads=True),
    Operator("flat_map-iterator", run_by(Stream.flat_map, in_iterator), open_inputs, settles_late=True),
    Operator("flat_map-async", run_by(Stream.flat_map, yielding), open_inputs, asks_first=True),
)
"""Operators that run the user's function."""

BEHIND_MAP = (
    Operator("take", behind_map(lambda results: results.take(10**6)), None),
    Operator("skip", behind_map(lambda results: results.skip(0)), None),
    Operator("take_while", behind_map(lambda results: results.take_while(lambda _: True)), None),
    Operator("skip_while", behind_map(lambda results: results.skip_while(lambda _: False)), None),
    Operator("take_while-async", behind_map(lambda results: results.take_while(yes)), None),
    Operator("skip_while-async", behind_map(lambda results: results.skip_while(no)), None),
    Operator("distinct", behind_map(lambda results: results.distinct(key=lambda _: object(), last=2)), None),
    Operator("map-keep", run_by(partial(Stream.map, keep=True), nothing), None, items=lambda pair: [pair[0]]),
    Operator("scan", behind_map(lambda results: results.scan(lambda _, item: item, None)), None),
    Operator("group_by", behind_map(lambda results: results.group_by(lambda _: 0, size=2)), None, items=lambda p: p[1]),
    Operator("tee", behind_map(lambda results: results.tee(lambda each: each, lambda each: each.take(0))), None),
    Operator("enumerate", behind_map(Stream.enumerate), None, items=lambda pair: [pair[1]]),
    Operator("batch", behind_map(lambda results: results.batch(2)), None, items=list),
    Operator("batch-within", behind_map(lambda results: results.batch(2, within=0.5)), None, items=list),
    Operator("flatten", behind_map(Stream.flatten, in_list), None),
    Operator("transform", behind_map(lambda results: results.add(transform("on", handing_on))), None),
    Operator("checkpoint", behind_map(lambda results: results.checkpoint("c")), None),
    Operator("with_metadata", behind_map(Stream.with_metadata), None, items=lambda record: [record.value]),
    Operator("prefetch", behind_map(lambda results: results.prefetch(2)), None),
    Operator("merge", behind_map(lambda results: merge(results, stream([]))), None),
    Operator("chain", behind_map(lambda results: results.chain(stream([]))), None),
    Operator("zip", behind_map(lambda results: results.zip(stream(count))), None, items=lambda pair: [pair[0]]),
)
"""Operators that run no function, behind a `map` whose work they must neither lose nor leave behind."""

OPERATORS = WORKING + BEHIND_MAP
WINDOWS = tuple(each for each in WORKING if not each.asks_first)
MODELLED = tuple(each for each in WORKING if not each.asks_first and not each.settles_late)
THREADED = tuple(each for each in WORKING if each.in_threads)
