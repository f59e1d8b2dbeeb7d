"""Children that work forks and that return, instead of exiting, end; they have no part in the run."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import warnings
from contextlib import suppress

import pytest

from penstock import Limiter, RateLimit, stream
from penstock.durable.sqlite.lock import exclusive
from penstock.sinks.table import SqliteTable
from penstock.sources.keyed import keyed

from .dying import append, lines

pytestmark = [pytest.mark.real_time, pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")]


class Forks:
    """Functions that fork a child, which says where it has come and then returns like its parent."""

    def __init__(self, folder):
        self.folder = folder
        self.parent = os.getpid()
        self.children = []

    def fork(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            self.children.append(pid)
        return pid

    def come(self, item):
        """Say which process has come to an item."""
        append(self.folder / "come", f"{os.getpid()} {item}")

    def plain(self, item):
        self.come(item)
        if item == 2:
            self.fork()
        return {"item": item}

    async def on_loop(self, item):
        await asyncio.sleep(0)
        return self.plain(item)

    def raising(self, item):
        self.come(item)
        if item == 2 and not self.fork():
            raise ValueError(item)
        return {"item": item}

    def leaving(self, item):
        self.come(item)
        if item == 2 and not self.fork():
            sys.exit(5)
        return {"item": item}

    async def awaiting(self, item):
        self.come(item)
        if item == 2 and not self.fork():
            await asyncio.sleep(0.01)
        return {"item": item}

    def rows(self, items):
        return [self.plain(item) for item in items]

    def fan(self, item):
        yield self.plain(item)

    async def async_fan(self, item):
        yield self.plain(item)

    def keep(self, item):
        return bool(self.plain(item))

    def cost(self, item):
        self.plain(item)
        return 1

    def ends(self):
        """How the children have ended."""
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in self.children]

    def others(self):
        """What processes other than this one have come to."""
        return [line for line in lines(self.folder / "come") if not line.startswith(f"{self.parent} ")]


def row(item):
    return {"item": item}


WORK = {
    "plain": lambda base, forks: base.map(forks.plain),
    "async": lambda base, forks: base.map(forks.on_loop, concurrency=2),
    "lambda": lambda base, forks: base.map(lambda item: forks.plain(item), concurrency=2),
    "thread": lambda base, forks: base.map(forks.plain, engine="thread"),
    "threads": lambda base, forks: base.map(forks.plain, concurrency=3),
    "raises": lambda base, forks: base.map(forks.raising),
    "raises in a thread": lambda base, forks: base.map(forks.raising, engine="thread"),
    "leaves": lambda base, forks: base.map(forks.leaving),
    "awaits": lambda base, forks: base.map(forks.awaiting, concurrency=2),
    "filter": lambda base, forks: base.filter(forks.keep).map(row),
    "tap": lambda base, forks: base.tap(forks.plain).map(row),
    "map_batches": lambda base, forks: base.map_batches(forks.rows, 1),
    "flat_map": lambda base, forks: base.flat_map(forks.fan),
    "flat_map in threads": lambda base, forks: base.flat_map(forks.fan, concurrency=2),
    "flat_map, async": lambda base, forks: base.flat_map(forks.async_fan),
    "cost": lambda base, forks: base.map(row, limit=Limiter(2, cost=forks.cost)),
}

STATUS = {"raises": 1, "raises in a thread": 1, "leaves": 5, "awaits": None}


@pytest.mark.parametrize("kind", WORK)
def test_a_child_that_returns_ends(tmp_path, kind, capfd):
    forks = Forks(tmp_path)
    sink = SqliteTable(tmp_path / "out.db", "rows")
    report = asyncio.run(WORK[kind](keyed(range(5), key=int), forks).to(sink, run="run"))
    assert (report.complete, report.delivered, report.rows) == (True, 5, 5)
    assert sorted(item["item"] for item in sink.rows()) == [0, 1, 2, 3, 4]
    (status,) = forks.ends()
    if STATUS.get(kind, 0) is not None:
        assert status == STATUS.get(kind, 0)
    assert forks.others() == []  # it has begun no item
    if "raises" in kind:
        assert "ValueError: 2" in capfd.readouterr().err


def test_a_child_that_returns_into_a_plain_run_ends(tmp_path):
    forks = Forks(tmp_path)
    assert asyncio.run(stream(range(5)).map(forks.plain).count()) == 5
    assert forks.ends() == [0]
    assert forks.others() == []


def test_a_source_may_fork(tmp_path):
    forks = Forks(tmp_path)

    def items():
        for item in range(5):
            forks.plain(item)
            yield item

    assert asyncio.run(stream(items).map(row).count()) == 5
    assert asyncio.run(stream(items, engine="thread").map(row).count()) == 5
    assert forks.ends() == [0, 0]
    assert forks.others() == []


def work_with_penstock(results):
    """What a process of its own does: it has a loop and runs of its own."""
    results.put(asyncio.run(stream(range(5)).map(row, concurrency=2).count()))


def test_a_child_with_a_run_of_its_own_is_let_be(tmp_path):
    """`multiprocessing` forks in the middle of a run; what its child runs is its own."""
    context = multiprocessing.get_context("fork")

    def in_a_process(item):
        results = context.SimpleQueue()
        process = context.Process(target=work_with_penstock, args=(results,))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        process.join()
        return {"item": item, "of": results.get(), "status": process.exitcode}

    sink = SqliteTable(tmp_path / "out.db", "rows")
    asyncio.run(keyed(range(2), key=int).map(in_a_process).to(sink, run="run"))
    assert [(each["of"], each["status"]) for each in sink.rows()] == [(5, 0), (5, 0)]


def test_a_child_that_lives_on_holds_no_lock(tmp_path):
    """Its parent is over: the next run may begin."""
    program = (
        "import asyncio, os, time\n"
        "from penstock import SqliteTable, keyed\n"
        "def work(item):\n"
        "    if not os.fork():\n"
        "        os.close(1); time.sleep(60); os._exit(0)\n"
        "    return {'item': item}\n"
        f"asyncio.run(keyed([1], key=int).map(work).to(SqliteTable({str(tmp_path / 'out.db')!r}, 'rows'), run='run'))\n"
        "os._exit(0)\n"
    )
    done = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    try:
        assert done.wait(30) == 0
        with exclusive(str(tmp_path / "out.db")):
            pass
    finally:
        os.killpg(done.pid, 9)


@pytest.mark.real_time
@pytest.mark.parametrize("made", [lambda: Limiter(1), lambda: RateLimit(1_000, 1)])
def test_a_limit_that_is_held_is_free_in_a_child_that_was_forked(made):
    """Its holder and its loop are the parent's, as in a trial of suspects; in the parent nothing changes."""
    limit = made()

    async def use():
        async with limit:
            return True

    def child():
        with suppress(BaseException):
            os._exit(asyncio.run(use()) is not True)
        os._exit(2)

    async def main():
        async with limit:
            pid = os.fork()
            if not pid:
                child()
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])  # noqa: ASYNC222 -- it ends at once

    with asyncio.Runner() as runner:
        assert runner.run(main()) == 0
        assert runner.run(use())
