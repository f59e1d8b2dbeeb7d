"""P7: a thousand runs on one loop leave it, the threads, the files and the objects of the process as they were."""

import asyncio
import collections
import gc
import itertools
import os
import sys
import threading
from pathlib import Path

import pytest

import penstock
from penstock import testing

from .endings import (
    ALL_OPERATORS,
    ENDINGS,
    SPREAD,
    THREAD_ENDINGS,
    THREAD_OPERATORS,
    TIMELESS,
    Broken,
    Ends,
    Item,
    Site,
    Watched,
)

FORGOTTEN = 200
"""Timers that were cancelled and stay in asyncio's heap: it sweeps above 100, when more than half are."""

CALLBACKS = 3
"""Callbacks that a loop has in hand while it measures itself: its ticker, and what wakes the test."""

pytestmark = pytest.mark.slow


def kinds():
    """How many objects there are of each type, as far as the collector knows them."""
    gc.collect()
    counted = collections.Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
    return {kind: count for kind, count in counted.items() if not kind.startswith("_pytest")}


def files():
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


class Measured:
    """What there is in a process, beside a loop or with one."""

    def __init__(self, loop=None):
        self.threads, self.files, self.kinds = threading.active_count(), files(), kinds()
        self.tasks = len(asyncio.all_tasks(loop)) if loop is not None else 0
        timers = () if loop is None else getattr(loop, "timers", None) or getattr(loop, "_scheduled", ())
        self.timers = len([timer for timer in timers if not timer.cancelled()])
        self.forgotten = len(getattr(loop, "_scheduled", ()))
        self.ready = len(getattr(loop, "_ready", ()))

    def assert_not_above(self, before, rounds):
        """After so many more rounds: what every round left behind would have grown by that many at least."""
        assert (self.tasks, self.timers, self.threads, self.files) == (
            before.tasks,
            before.timers,
            before.threads,
            before.files,
        )
        assert self.forgotten <= FORGOTTEN
        assert self.ready <= CALLBACKS
        grown = {kind: count - before.kinds.get(kind, 0) for kind, count in self.kinds.items()}
        assert {kind: growth for kind, growth in grown.items() if growth >= rounds} == {}


@pytest.fixture
def watched(caplog):
    caplog.set_level("CRITICAL", "penstock")  # or pytest keeps what is logged
    return Watched()


async def many_runs(cases, site, rounds):
    """Every case once to warm up, then so many times more; what was there before and after."""
    loop = asyncio.get_running_loop()

    async def one_round():
        for ending, operator, ordered in cases:
            await ending(site(operator, ordered))
        await asyncio.sleep(0)

    await one_round()
    await one_round()
    before = Measured(loop)
    for _ in range(rounds):
        await one_round()
    Measured(loop).assert_not_above(before, rounds)
    return rounds * len(cases)


def some(endings, operators):
    """Every ending with every operator, in one order and the other by turns."""
    pairs = itertools.product(endings, operators)
    return [(ending, operator, bool(number % 2)) for number, (ending, operator) in enumerate(pairs)]


@pytest.mark.grid
async def test_a_thousand_runs_leave_nothing_on_their_loop(watched, clock):
    """Any operator, however its runs end."""
    cases = some(ENDINGS, SPREAD)
    runs = await many_runs(cases, lambda operator, ordered: Site(operator, watched, clock, ordered=ordered), 5)
    assert runs >= 1_000


@pytest.mark.grid
async def test_hundreds_of_runs_in_threads_leave_nothing(watched, clock):
    """Threads end with their run; so do their files, and what the futures of their calls hold."""
    cases = some(THREAD_ENDINGS, THREAD_OPERATORS)
    runs = await many_runs(cases, lambda operator, ordered: Site(operator, watched, clock, ordered=ordered), 5)
    assert runs >= 200


@pytest.mark.grid
@pytest.mark.real_time
async def test_a_thousand_runs_leave_nothing_on_a_loop_in_real_time(watched):
    """So too on the loops that users have, whose timers and callbacks are their own: nothing here waits for time."""
    cases = some(TIMELESS, SPREAD)
    runs = await many_runs(cases, lambda operator, ordered: Site(operator, watched, ordered=ordered, tick=0), 6)
    assert runs >= 1_000


def read_to_the_end(built):
    with built.sync() as results:
        assert list(results)


def left_by_break(built):
    with built.sync() as results:
        for _ in results:
            break


def left_by_an_error(built):
    with Ends(Broken), built.sync() as results:
        for _ in results:
            raise Broken


def stopped(built):
    with built.sync() as results:
        next(results)
        results.stop()
        list(results)


async def passes(item):
    await asyncio.sleep(0)


async def fails(item):
    await asyncio.sleep(0)
    if item.number == 2:
        raise Broken(item)


def failed(operator, watched):
    with Ends(Broken), operator.build(penstock.stream(watched.items(4)), fails).sync() as results:
        list(results)


def sync_runs(operators, watched):
    for operator in operators:
        for ending in (read_to_the_end, left_by_break, left_by_an_error, stopped):
            ending(operator.build(penstock.stream(watched.items(4)), passes, concurrency=2))
        failed(operator, watched)


def test_runs_of_plain_code_leave_no_thread_loop_or_file(watched):
    """Each has a loop and a thread of its own: both end with it."""
    sync_runs(SPREAD, watched)
    sync_runs(SPREAD, watched)
    before = Measured()
    for _ in range(3):
        sync_runs(SPREAD, watched)
    Measured().assert_not_above(before, 3)


def test_items_of_plain_code_die_with_their_run(watched):
    """Trap 20: nothing of a run of its own loop waits for the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        sync_runs(ALL_OPERATORS, watched)
        assert watched.seen
        assert watched.alive() == []
    finally:
        gc.enable()


@pytest.mark.quick
@pytest.mark.parametrize("left", ["object", "task", "timer", "thread", "file"])
def test_what_is_left_is_seen(left, watched, monkeypatch):
    """The measure is no blind one: one thing that a single kind of run leaves behind is enough."""
    kept = []

    async def leaves(site):
        if left == "object":
            kept.append(Item(0))
        elif left == "task":
            kept.append(asyncio.create_task(asyncio.sleep(1e6)))
        elif left == "timer":
            kept.append(asyncio.get_running_loop().call_later(1e6, kept.clear))
        elif left == "thread":
            kept.append(threading.Thread(target=released.wait))
            kept[-1].start()
        else:
            kept.append(os.open(os.devnull, os.O_RDONLY))

    async def main():
        try:
            with pytest.raises(AssertionError):
                await many_runs([(leaves, None, True)], lambda *_: None, 3)
        finally:
            released.set()
            for one in kept:
                {"task": lambda one: one.cancel(), "timer": lambda one: one.cancel(), "file": os.close}.get(
                    left, lambda one: None
                )(one)
            if left == "thread":
                for one in kept:
                    one.join()
            await asyncio.sleep(0)

    released = threading.Event()
    testing.run(main())
