"""The table of operators over which the guarantees are tested: a new operator joins by one line.

A row builds a stream that calls `call(item)` once for every item and gives the item back, so that one test fits all.
"""

import inspect
import itertools
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from penstock import Stream, merge, stream, testing


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


def results_that_wait(concurrency, buffer):
    """Places of a stage whose finished results wait beside its running calls."""
    return concurrency + buffer


def open_inputs(concurrency, buffer):
    """Places of `flat_map`: `buffer` is room for outputs, not for inputs."""
    return concurrency


@dataclass(frozen=True)
class Operator:
    """A row: `build(stream, call, **options)` is the stream under test.

    `places(concurrency, buffer)` is how many items it may hold (P1); None if other stages than its own hold items too.
    `asks_first`: calls wait for a permit, so that they do not start when a plain window's would. `settles_late`: an
    item gives up its place only when the consumer asks for the next one, as its iterator cannot say which is the last.
    """

    name: str
    build: Callable[..., Stream[Any]]
    places: Callable[[int, int], int] | None = results_that_wait
    gives_lists: bool = False
    asks_first: bool = False
    settles_late: bool = False
    in_threads: bool = False

    def __str__(self):
        return self.name

    def items(self, output):
        """The items in one output."""
        return output if self.gives_lists else [output]


def run_by(method, shape):
    return lambda items, call, **options: method(items, shape(call), **options)


WORKING = (
    Operator("map", run_by(Stream.map, itself), in_threads=True),
    Operator("filter", run_by(Stream.filter, truth), in_threads=True),
    Operator("tap", run_by(Stream.tap, nothing), in_threads=True),
    Operator("flat_map-list", run_by(Stream.flat_map, in_list), open_inputs, in_threads=True),
    Operator("flat_map-iterator", run_by(Stream.flat_map, in_iterator), open_inputs, settles_late=True),
    Operator("flat_map-async", run_by(Stream.flat_map, yielding), open_inputs, asks_first=True),
)
"""Operators that run the user's function."""

BEHIND_MAP = (
    Operator("map-take", lambda items, call, **options: items.map(itself(call), **options).take(10**6), None),
    Operator("map-batch", lambda items, call, **options: items.map(itself(call), **options).batch(2), None, True),
    Operator(
        "map-batch-within",
        lambda items, call, **options: items.map(itself(call), **options).batch(2, within=0.5),
        None,
        True,
    ),
    Operator("map-flatten", lambda items, call, **options: items.map(in_list(call), **options).flatten(), None),
    Operator("map-merge", lambda items, call, **options: merge(items.map(itself(call), **options), stream([])), None),
)
"""Operators that run no function, behind a `map` whose work they must neither lose nor leave behind."""

OPERATORS = WORKING + BEHIND_MAP

SIZES = tuple({"concurrency": calls, "buffer": room} for calls, room in ((1, 0), (1, 2), (2, 2), (5, 0), (5, 5)))
"""What a window has room for."""


ORDERS = (True, False)
WINDOWS = tuple(each for each in WORKING if not each.asks_first)
MODELLED = tuple(each for each in WORKING if not each.asks_first and not each.settles_late)
THREADED = tuple(each for each in WORKING if each.in_threads)


def asynchronous(source):
    return source


def plain(source):
    return source.sync()


SOURCES = (asynchronous, plain)


@contextmanager
def named(**case):
    """Say in an error for which case it came."""
    try:
        yield
    except BaseException as error:
        error.add_note(", ".join(f"{name}={getattr(value, '__name__', value)}" for name, value in case.items()))
        raise


async def read_all(built):
    """Read a run to its end: the run, what it gave, and the error that ended it or None."""
    given = []
    try:
        async with built.open() as results:
            async for result in results:
                given.append(result)  # noqa: PERF401 -- what was given before an error counts
    except Exception as error:  # noqa: BLE001 -- it is for the test to judge
        return results, given, error
    return results, given, None


def grid(**axes):
    """Run a coroutine test for every combination of the axes, each on a loop and a clock of its own.

    One test of pytest's for all of them, at each of its places: a combination costs a tenth of a test.
    """

    def expand(test):
        parameters = inspect.signature(test).parameters
        fixtures = [name for name in parameters if name not in axes and name != "clock"]

        def whole(run, **given):
            for values in itertools.product(*axes.values()):
                case = dict(zip(axes, values, strict=True))
                clock = testing.Clock()
                arguments = {**given, **case, "clock": clock}
                with named(**case):
                    run(test(**{name: arguments[name] for name in parameters}), clock=clock)

        whole.__name__, whole.__qualname__, whole.__doc__ = test.__name__, test.__qualname__, test.__doc__
        whole.__module__ = test.__module__
        keyword = inspect.Parameter.KEYWORD_ONLY
        whole.__signature__ = inspect.Signature([inspect.Parameter(name, keyword) for name in ("run", *fixtures)])
        return whole

    return expand
