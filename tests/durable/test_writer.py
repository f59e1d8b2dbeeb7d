"""The thread that writes: whatever it dies of ends the run with that, and nobody waits for what never comes."""

import asyncio
import sys
import threading

import pytest

import penstock
from penstock.durable.delivery import Deliverer
from penstock.durable.staging import Staging
from penstock.durable.store_errors import RowError
from penstock.durable.writer import Writer
from penstock.sinks.sqlite_store import SqliteStore
from penstock.sinks.table import TableStore

pytestmark = pytest.mark.real_time


def job(path, count=3):
    return penstock.keyed(range(count), key=int).map(lambda n: {"n": n}).to(penstock.SqliteTable(path, "t"), run="r")


@pytest.mark.parametrize("error", [MemoryError, RecursionError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
@pytest.mark.parametrize("line", ["_next", "_commit", "_send", "_settled"])
async def test_what_the_thread_dies_of_ends_the_run(tmp_path, monkeypatch, line, error):
    """Wherever it strikes: not only in the commit itself."""

    def die(*_):
        raise error("it has struck")

    monkeypatch.setattr(Writer, line, die)
    with pytest.raises((error, penstock.PenstockError), match="it has struck"):
        await asyncio.wait_for(job(tmp_path / "t.db"), 20)
    monkeypatch.undo()
    assert (await job(tmp_path / "t.db")).complete


async def test_a_row_whose_weight_cannot_be_summed_ends_the_run(tmp_path, monkeypatch):
    """A line between two commits that fails once left the run waiting for ever."""
    enter = Writer._enter
    monkeypatch.setattr(Writer, "_enter", lambda self, entry: enter(self, (*entry[:2], Weight(entry[2]))))
    with pytest.raises(MemoryError):
        await asyncio.wait_for(job(tmp_path / "t.db"), 20)


class Weight(int):
    def __radd__(self, other):
        if threading.current_thread().name == "penstock writer":
            raise MemoryError
        return int(self) + other


async def test_the_end_is_told_however_little_memory_there_is(tmp_path, monkeypatch):
    """The loop is asked for again as long as there is no memory for it."""
    loop = asyncio.get_running_loop()
    tell, failed = loop.call_soon_threadsafe, []

    def sometimes(*arguments, **options):
        if len(failed) < 3 and threading.current_thread().name == "penstock writer":
            failed.append(arguments)
            raise MemoryError
        return tell(*arguments, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", sometimes)
    assert (await asyncio.wait_for(job(tmp_path / "t.db"), 20)).complete
    assert len(failed) == 3


async def test_a_thread_that_cannot_start_is_an_error_and_leaves_nothing_open(tmp_path, monkeypatch):
    start = threading.Thread.start

    def refuse(self):
        if self.name == "penstock writer":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(penstock.PenstockError, match=r"cannot start: .*can't start new thread"):
        await asyncio.wait_for(job(tmp_path / "t.db"), 20)
    monkeypatch.undo()
    assert (await job(tmp_path / "t.db")).complete


async def test_a_row_that_cannot_be_packed_for_want_of_memory_ends_the_run(tmp_path, monkeypatch):
    def die(*_):
        raise MemoryError("packing")

    monkeypatch.setattr(Staging, "put", die)
    monkeypatch.setattr("penstock.durable.delivery.HELD", 5)
    stream = penstock.keyed([1], key=int).flat_map(lambda _: ({"n": n} for n in range(50)))
    with pytest.raises(MemoryError, match="packing"):
        await asyncio.wait_for(stream.to(penstock.SqliteTable(tmp_path / "t.db", "t"), run="r"), 20)


async def test_removal_that_fails_in_the_thread_ends_the_run(tmp_path, monkeypatch):
    await job(tmp_path / "t.db", 5)

    def die(*_):
        raise MemoryError("removing")

    monkeypatch.setattr(Deliverer, "_remove", die)
    source = penstock.keyed([1], key=int).map(lambda n: {"n": n})
    with pytest.raises(MemoryError, match="removing"):
        await asyncio.wait_for(
            source.to(penstock.SqliteTable(tmp_path / "t.db", "t"), run="r", on_missing="delete"), 20
        )


@pytest.mark.slow
async def test_a_store_that_recurses_without_end_ends_the_run(tmp_path, monkeypatch):
    class Sink(penstock.SqliteTable):
        def open(self, durability):
            return Endless(self.path, durability)

    class Endless(SqliteStore):
        def replace(self, root, rows):
            self.replace(root, rows)

    stream = penstock.keyed([1], key=int).map(lambda n: {"n": n})
    limit = sys.getrecursionlimit()
    with pytest.raises(RecursionError):
        await asyncio.wait_for(stream.to(Sink(tmp_path / "t.db", "t"), run="r"), 20)
    assert sys.getrecursionlimit() == limit


async def test_what_is_kept_of_a_root_needs_no_commit_of_its_own(tmp_path):
    """A root with a result that is kept took two commits: most of what a durable row costs."""
    table = penstock.SqliteTable(tmp_path / "t.db", "t")
    stream = penstock.keyed(range(3), key=int).map(lambda n: {"n": n}, memo=True)
    assert (await stream.to(table, run="r")).commits == 1


async def test_what_is_kept_stays_when_roots_of_its_commit_are_refused(tmp_path, monkeypatch):
    """The commit is rolled back; the results in it are written again, whatever becomes of the roots."""
    refuses = []

    def replace(store, root, rows):
        refuses.append(root.key)
        raise RowError("it is refused")

    monkeypatch.setattr(TableStore, "replace", replace)
    monkeypatch.setattr(TableStore, "add", None)
    stream = penstock.keyed(range(3), key=int).map(lambda n: {"n": n}, memo=True)
    with pytest.raises(RowError):
        await stream.to(penstock.SqliteTable(tmp_path / "t.db", "t"), run="r")
    assert refuses
    monkeypatch.undo()
    report = await stream.to(penstock.SqliteTable(tmp_path / "t.db", "t"), run="r")
    assert (report.delivered, report.recalled) == (3, 3)
