"""A root that kills the process is found and set aside; one that was merely under way at every kill never is."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

import penstock
from penstock import Limiter, OptionError, RateLimit, Retry, drain_on_signals, merge
from penstock.core.log import LOG
from penstock.durable import suspects, writer
from penstock.durable.handle import DurableRun
from penstock.durable.job import Job
from penstock.durable.options import RunOptions
from penstock.durable.root_source import source_of
from penstock.durable.sqlite.lock import exclusive
from penstock.durable.status import runs
from penstock.durable.store_errors import HeldError, StoreError
from penstock.engines import Threads, processes
from penstock.engines.process.crossing import Crossing, loads
from penstock.sinks.callback import Callback
from penstock.sinks.table import SqliteTable

from .dying import append, ask, kill_this, life, lines, lives_until, until, wait_until
from .killers import Deadly, Four, Pace, Slow, Together, Waiting, as_row, crash, leave, roots, survive

pytestmark = [pytest.mark.real_time, pytest.mark.slow]


@pytest.fixture
def sink(tmp_path):
    return SqliteTable(tmp_path / "out.db", "rows")


def found(sink):
    return sorted(row["item"] for row in sink.rows())


def dead(sink):
    return ask(
        sink.path,
        "SELECT key, stage, attempts, error, item FROM penstock_dead JOIN penstock_roots ON root = penstock_roots.id",
    )


def under_way(sink):
    return [key for (key,) in ask(sink.path, "SELECT DISTINCT key FROM penstock_dispatched ORDER BY key")]


def settled(sink):
    """Those that are settled now, while a run writes; none, if it does not let others look just now."""
    with suppress(apsw.BusyError):
        return {key for (key,) in ask(sink.path, "SELECT key FROM penstock_roots")}
    return set()


def plain(item):
    return item


def noted(sink):
    return ask(sink.path, "SELECT key, version, position, opening FROM penstock_dispatched ORDER BY key, opening")


def is_clean(sink):
    return bool(ask(sink.path, "SELECT clean FROM penstock_runs")[0][0])


def run(stream, sink, **options):
    """A life of the run, for `life`."""
    return lambda: stream.to(sink, run="run", **options)


def report_of(stream, sink, **options):
    async def go():
        return await stream.to(sink, run="run", **options)

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        (kill_this, -signal.SIGKILL, "was killed by SIGKILL"),
        (crash, -signal.SIGSEGV, "was killed by SIGSEGV"),
        (leave, 7, "exited with status 7"),
    ],
)
def test_a_root_that_kills_the_process_is_set_aside(sink, how, code, said):
    stream = roots(range(8)).map(Deadly(how=how).row, concurrency=3)
    assert life(run(stream, sink)) == code
    assert under_way(sink) == []  # nothing is noted where nothing has died
    assert life(run(stream, sink)) == code
    assert 3 in under_way(sink)
    report = report_of(stream, sink)
    assert (report.complete, report.dead, report.dead_before) == (True, 1, 0)
    assert report.delivered + report.already_done == 7
    assert found(sink) == [0, 1, 2, 4, 5, 6, 7]
    assert dead(sink) == [(3, "process", 2, f"ProcessDied: the process that worked on it alone {said}", "3")]
    assert under_way(sink) == []
    report = report_of(stream, sink)
    assert (report.dead, report.dead_before, report.already_done) == (0, 1, 7)


@pytest.mark.parametrize(
    "add",
    [
        lambda base, deadly: base.map(deadly.row, concurrency=2),
        lambda base, deadly: base.map(deadly.row, concurrency=2, ordered=False),
        lambda base, deadly: base.map(deadly.plain_row),
        lambda base, deadly: base.map(deadly.plain_row, engine="thread", concurrency=2),
        lambda base, deadly: base.filter(deadly.keep, concurrency=2).map(as_row),
        lambda base, deadly: base.map_batches(deadly.rows, 2),
        lambda base, deadly: base.flat_map(deadly.row_or_none, concurrency=2),
        lambda base, deadly: base.prefetch(2).map(as_row).tap(lambda row: deadly.plain_row(row["item"])),
    ],
    ids=["map", "unordered", "plain", "thread", "filter", "map_batches", "flat_map", "further down"],
)
def test_whatever_operator_it_dies_in(sink, add):
    stream = add(roots(range(8)), Deadly())
    for _ in range(2):
        assert life(run(stream, sink)) == -signal.SIGKILL
    report = report_of(stream, sink)
    assert (report.complete, report.dead) == (True, 1)
    assert found(sink) == [0, 1, 2, 4, 5, 6, 7]


def test_each_of_several_is_found(sink):
    class Deadlier(Deadly):
        async def row(self, item):
            await asyncio.sleep(0)
            if item in {2, 5, 6}:
                kill_this()
            return {"item": item}

    stream = roots(range(8)).map(Deadlier().row, concurrency=8, ordered=False)
    lives = 0
    while life(run(stream, sink)):
        lives += 1
        assert lives < 10
    assert found(sink) == [0, 1, 3, 4, 7]
    assert [key for key, *_ in dead(sink)] == [2, 5, 6]


def test_work_begins_when_it_is_written_that_it_does(sink):
    """A root that killed the process before that would never be a suspect."""
    seen = []

    class Looking:
        async def row(self, item):
            seen.append((item, item in under_way(sink)))
            return {"item": item}

        def keep(self, item):
            seen.append((item, item in under_way(sink)))
            return True

    looking = Looking()
    for add in (
        lambda base: base.map(looking.row),
        lambda base: base.filter(looking.keep).map(as_row),
        lambda base: base.map_batches(lambda items: [looking.keep(item) and as_row(item) for item in items], 2),
    ):
        sink = SqliteTable(f"{sink.path}x", "rows")
        assert life(run(roots([0]).map(Deadly(0).row), sink)) == -signal.SIGKILL
        seen.clear()
        report_of(add(roots(range(1, 5))), sink)
        assert seen == [(1, True), (2, True), (3, True), (4, True)]
        assert under_way(sink) == []
        assert is_clean(sink)


def is_alive(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_a_slow_root_that_is_under_way_at_every_kill_is_never_set_aside(sink, tmp_path):
    """Also when the kill comes while it runs alone; and its worker ends with its parent."""
    stream = roots(range(4)).map(Slow(tmp_path).row, concurrency=2)

    def begun():
        return [int(pid) for pid in lines(tmp_path / "begun")]

    for number in range(1, 6):
        parent = lives_until(run(stream, sink), lambda: len(begun()) == number)  # noqa: B023 -- used at once
        worker = begun()[-1]
        assert (worker != parent) == (number > 2)  # from the third on it runs alone, in a worker
        wait_until(lambda: not is_alive(worker))  # noqa: B023
    assert dead(sink) == []
    (tmp_path / "go").touch()
    report = report_of(stream, sink)
    assert (report.complete, report.dead) == (True, 0)
    assert len(begun()) == 6
    assert found(sink) == [0, 1, 2, 3]


def suspected(stream, sink, folder):
    """Have root 1, on which `Slow` works, run alone in the next opening."""
    for number in (1, 2):
        lives_until(run(stream, sink), lambda: len(lines(folder / "begun")) == number)  # noqa: B023 -- used at once


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_is_for_the_parent(sink, tmp_path, number):
    """A service manager signals the worker, too; it must not die of that, as its root would be to blame."""
    stream = roots(range(4)).map(Slow(tmp_path).row, concurrency=2)
    suspected(stream, sink, tmp_path)

    async def main():
        task = asyncio.ensure_future(stream.to(sink, run="run"))
        await until(lambda: len(lines(tmp_path / "begun")) == 3)
        os.kill(int(lines(tmp_path / "begun")[-1]), number)
        await asyncio.sleep(0.05)
        (tmp_path / "go").touch()
        return await task

    report = asyncio.run(main())
    assert (report.complete, report.dead) == (True, 0)
    assert len(lines(tmp_path / "begun")) == 3


def test_the_worker_reads_no_further_than_to_its_root(sink, tmp_path):
    read = tmp_path / "read"
    deadly = Deadly()

    def items():
        for item in range(100):
            append(read, f"{os.getpid()} {item}")
            yield item

    stream = roots(items).map(deadly.row)
    for _ in range(2):
        assert life(run(stream, sink)) == -signal.SIGKILL
    before = len(lines(read))
    deadly.how = survive
    assert report_of(stream, sink).delivered >= 97
    alone = [line for line in lines(read)[before:] if not line.startswith(f"{os.getpid()} ")]
    assert 4 <= len(alone) <= 5 * 4


async def test_one_who_is_about_to_let_go_of_the_sink_is_waited_for(sink):
    """The worker of a process that was killed may end a moment after it."""
    with ExitStack() as held:
        held.enter_context(exclusive(sink.path))
        asyncio.get_running_loop().call_later(0.05, held.close)
        assert (await roots([1]).map(as_row).to(sink, run="run")).delivered == 1
    with exclusive(sink.path), pytest.raises(HeldError, match=r"out\.db"):
        await roots([1]).map(as_row).to(sink, run="run")


def test_what_was_under_way_beside_it_is_delivered_alone_and_once(sink, tmp_path):
    """Its rows, its calls and its place in the report are those of any other root."""
    calls = tmp_path / "calls"

    class Beside(Deadly):
        async def row(self, item):
            append(calls, item)
            if item != self.poison:
                return [{"item": item * 10}, {"item": item * 10 + 1}]
            kill_this()
            return []

    deadly = Beside(3)
    stream = roots(range(4)).flat_map(deadly.row, concurrency=1)
    for _ in range(2):
        assert life(run(stream, sink)) == -signal.SIGKILL
    suspects = under_way(sink)
    before = len(lines(calls))
    report = report_of(stream, sink)
    assert set(map(int, lines(calls)[before:])) == set(suspects)
    assert report.delivered == len(suspects) - 1
    assert report.already_done == 4 - len(suspects)
    assert report.rows == 2 * report.delivered
    assert found(sink) == [0, 1, 10, 11, 20, 21]


@pytest.mark.parametrize("on_error", ["raise", "skip", "collect"])
def test_one_that_fails_alone_fails_among_the_others(sink, tmp_path, on_error):
    """A failure in the worker may come of its being another process: what the parent has may not work there."""
    calls = tmp_path / "calls"

    class Failing(Deadly):
        async def row(self, item):
            append(calls, os.getpid())
            if item == 1:
                self.how()
                if os.getpid() != self.parent:
                    raise ValueError(item)
            return {"item": item}

    failing = Failing()
    failing.parent = 0
    stream = roots(range(3)).map(failing.row, on_error=on_error)
    for _ in range(2):
        assert life(run(stream, sink)) == -signal.SIGKILL
    failing.how = survive
    failing.parent = os.getpid()
    report = report_of(stream, sink)
    assert (report.complete, report.dead) == (True, 0)
    assert found(sink) == [0, 1, 2]
    assert {str(os.getpid())} < set(lines(calls))


def test_a_source_that_can_be_read_once_is_run_as_ever(sink, caplog):
    deadly = Deadly()
    for _ in range(2):
        assert life(run(roots(iter(range(5))).map(deadly.row), sink)) == -signal.SIGKILL
    deadly.how = survive
    report = report_of(roots(iter(range(5))).map(deadly.row), sink)
    among = "run 'run': a root may have killed the process, but it runs among the others: "
    assert f"{among}its source cannot be read twice" in caplog.messages
    assert (report.complete, report.dead) == (True, 0)
    assert found(sink) == [0, 1, 2, 3, 4]


def test_a_root_of_a_merged_stream_is_known_by_its_prefix(sink):
    deadly = Deadly()
    stream = merge(roots(range(2)).map(as_row), roots(range(5)).map(deadly.row))
    for _ in range(2):
        assert life(run(stream, sink)) == -signal.SIGKILL
    report = report_of(stream, sink)
    assert (report.complete, report.dead) == (True, 1)
    assert [key for key, *_ in dead(sink)] == ["1:3"]


def test_roots_that_are_settled_are_no_suspects(sink):
    def die_when_three_are_there():
        wait_until(lambda: ask(sink.path, "SELECT count(*) FROM penstock_roots") == [(3,)])
        kill_this()

    deadly = Deadly()
    assert life(run(roots(range(5)).map(Deadly(0).row), sink)) == -signal.SIGKILL
    deadly.how = die_when_three_are_there
    assert life(run(roots(range(5)).map(deadly.row), sink)) == -signal.SIGKILL
    assert under_way(sink) == [3]


def test_a_root_is_not_to_blame_where_it_was_not_begun(sink, caplog):
    """Its worker died of reading the source."""
    deadly = Deadly()
    parent = os.getpid()
    begun = []

    def read():
        if begun and os.getpid() != parent:
            leave()
        return range(5)

    for _ in range(2):
        assert life(run(roots(read).map(deadly.row), sink)) == -signal.SIGKILL
    begun.append(True)
    deadly.how = survive
    report = report_of(roots(read).map(deadly.row), sink)
    assert (report.complete, report.dead) == (True, 0)
    assert any(line.endswith("exited with status 7 before it did") for line in caplog.messages)


def test_rows_that_go_to_a_function_go_there_from_the_worker(tmp_path):
    deadly = Deadly(0)

    async def bring(rows):
        for row in rows:
            append(tmp_path / "brought", row.row["item"])

    sink = Callback(bring, journal=tmp_path / "journal.db")
    stream = roots(range(4)).map(deadly.row, concurrency=4)
    for _ in range(2):
        assert life(run(stream, sink)) == -signal.SIGKILL
    report = report_of(stream, sink)
    assert (report.complete, report.dead, report.delivered) == (True, 1, 3)
    assert lines(tmp_path / "brought") == ["1", "2", "3"]


def test_a_root_that_is_gone_is_no_suspect(sink):
    deadly = Deadly()
    for _ in range(2):
        assert life(run(roots(range(5)).map(deadly.row), sink)) == -signal.SIGKILL
    report = report_of(roots(range(3)).map(deadly.row), sink)
    assert (report.complete, report.dead) == (True, 0)
    assert under_way(sink) == []


def test_a_root_that_was_set_aside_is_tried_again_when_it_has_changed(sink):
    deadly = Deadly()
    for _ in range(2):
        assert life(run(roots(range(5)).map(deadly.row), sink)) == -signal.SIGKILL
    assert report_of(roots(range(5)).map(deadly.row), sink).dead == 1
    deadly.how = survive
    report = report_of(roots(range(5), "2").map(deadly.row), sink)
    assert (report.dead, report.dead_before, report.redone) == (0, 0, 5)
    assert found(sink) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ends", ["raises", "is cancelled", "is stopped"])
def test_a_run_that_is_left_in_order_has_no_suspects(sink, ends):
    deadly = Deadly()
    assert life(run(roots(range(5)).map(deadly.row), sink)) == -signal.SIGKILL

    async def main():
        task = asyncio.current_task()

        def leave_run():
            if ends == "raises":
                raise ValueError("on purpose")
            if ends == "is cancelled":
                task.cancel()
            else:
                os.kill(os.getpid(), signal.SIGTERM)

        deadly.how = leave_run
        with drain_on_signals():
            return await roots(range(100)).map(deadly.row).to(sink, run="run")

    if ends == "is stopped":
        assert not asyncio.run(main()).complete
    else:
        with pytest.raises((ValueError, asyncio.CancelledError)):
            asyncio.run(main())
    assert is_clean(sink)
    assert under_way(sink) == []


def test_a_row_that_the_store_refuses_makes_no_suspects(tmp_path):
    """What the process has survived has not killed it: whatever the error, it is left in order."""
    sink = SqliteTable(tmp_path / "t.db", "rows")
    report_of(roots([]).map(as_row), sink)
    with closing(apsw.Connection(sink.path)) as connection:
        connection.execute("CREATE TABLE rows (penstock_root INTEGER, n UNIQUE)")
    twice = roots(range(5)).map(lambda _: {"n": 1})
    for _ in range(2):
        with pytest.raises(StoreError):
            asyncio.run(twice.to(sink, run="run"))
        assert is_clean(sink)
        assert under_way(sink) == []


def test_suspects_wait_where_the_run_is_stopped_before_their_turn(sink):
    deadly = Deadly()
    stream = roots(range(5)).map(deadly.row)
    for _ in range(2):
        assert life(run(stream, sink)) == -signal.SIGKILL
    before = noted(sink)

    async def stopped():
        with drain_on_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.01)
            return await stream.to(sink, run="run")

    for _ in range(2):
        assert not asyncio.run(stopped()).complete
        assert runs(sink.path)[0].state == "stopped"
        assert noted(sink) == before
    assert report_of(stream, sink).dead == 1


def test_a_run_is_running_while_a_root_of_it_runs_alone(sink, tmp_path):
    stream = roots(range(4)).map(Slow(tmp_path).row, concurrency=2)
    suspected(stream, sink, tmp_path)

    async def main():
        task = asyncio.ensure_future(stream.to(sink, run="run"))
        await until(lambda: len(lines(tmp_path / "begun")) == 3)
        (status,) = runs(sink.path)
        with pytest.raises(HeldError, match=f"process {os.getpid()} on .* is writing to it"):
            sink.open("process")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return status

    status = asyncio.run(main())
    assert (status.state, status.owner.split()[1]) == ("running", str(os.getpid()))


def test_a_cancelled_run_takes_the_worker_with_it(sink, tmp_path):
    stream = roots(range(4)).map(Slow(tmp_path).row, concurrency=2)
    begun = tmp_path / "begun"
    suspected(stream, sink, tmp_path)

    async def main():
        task = asyncio.ensure_future(stream.to(sink, run="run"))
        await until(lambda: len(lines(begun)) == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not is_alive(int(lines(begun)[-1]))
    assert 1 in under_way(sink)
    assert not is_clean(sink)


@pytest.mark.parametrize("loop", ["uvloop", "thread"])
def test_on_whatever_loop_and_thread_the_run_is(sink, loop):
    """The worker has a loop of its own."""
    deadly = Deadly()
    stream = roots(range(5)).map(deadly.row)

    def go():
        if loop == "uvloop":
            return pytest.importorskip("uvloop").run(run(stream, sink)())
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, run(stream, sink)()).result()

    for _ in range(2):
        assert life(run(stream, sink)) == -signal.SIGKILL
    report = go()
    assert (report.complete, report.dead) == (True, 1)
    assert found(sink) == [0, 1, 2, 4]


def test_what_cannot_go_to_a_worker_runs_among_the_others(sink, tmp_path, caplog):
    """As a client with open connections cannot; the warning names the function that holds it."""
    lock = threading.Lock()
    pace = Pace(tmp_path)

    async def locked(item):
        with lock:
            return await pace.row(item)

    stream = roots(range(4)).map(as_row).map(lambda row: row["item"]).map(locked, name="fetch")
    for _ in range(2):
        pace.die_in(run(stream, sink), {0})
    assert 0 in under_way(sink)
    pace.let(range(4))
    begun = len(lines(pace.calls))
    report = report_of(stream, sink)
    assert (report.complete, report.dead, report.delivered) == (True, 0, 4)
    assert {line.split()[0] for line in lines(pace.calls)[begun:]} == {str(os.getpid())}
    assert (
        "run 'run': a root may have killed the process, but it runs among the others: the function of fetch cannot be "
        "pickled for a worker process: TypeError: cannot pickle '_thread.lock' object"
    ) in caplog.messages


STREAMS = {
    "files": lambda base: penstock.files(Path(__file__).parent).map(plain),
    "jsonl": lambda base: penstock.jsonl("rows.jsonl").map(plain),
    "merge": lambda base: merge(base.map(plain), base.filter(bool).map(lambda item: item)),
    "callable": lambda base: roots(lambda: iter(range(3))).map(plain),
    "through": lambda base: base.through(lambda each: each.map(plain)),
    "operators": lambda base: base.map_batches(list, 3).flat_map(lambda row: [row]).flatten().tap(print).prefetch(2),
    "options": lambda base: base.map(
        plain, retry=Retry(on=OSError), timeout=3, limit=[Limiter(3), RateLimit(5, 1)], concurrency=4
    ),
    "engines": lambda base: (
        base.map(plain, engine=Threads(2)).map(plain, engine=processes(2)).map(plain, engine="process")
    ),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", STREAMS)
def test_a_worker_can_be_given_whatever_a_durable_run_is_made_of(sink, name):
    job = job_of(STREAMS[name](roots(range(3))), sink)
    there = loads(Crossing(main_is_there=False).dumps(job))
    assert there.options == job.options
    assert there.source.open.__globals__ is job.source.open.__globals__  # a copy would have markers of its own


def test_where_all_functions_run_in_workers_already_nothing_is_noted_and_nothing_tried(sink, tmp_path):
    """Their engine finds the item that kills a worker; whatever killed this process, it was none of them."""
    waiting = Waiting(tmp_path)
    stream = roots(range(3)).map(waiting.row, engine="process", concurrency=2)
    for number in (1, 2):
        lives_until(run(stream, sink), lambda: len(lines(waiting.calls)) >= 2 * number)  # noqa: B023 -- used at once
        assert under_way(sink) == []
    waiting.go.touch()
    before = len(lines(waiting.calls))
    assert report_of(stream, sink).delivered == 3
    assert len(lines(waiting.calls)) == before + 3


PROGRAM = """
import asyncio, os, signal, sys
import penstock

with open("imports", "a") as file:
    file.write("x")

async def main():
    poison = int(sys.argv[1])

    async def row(item):
        await asyncio.sleep(0)
        return Row(item, poison).as_row()

    sink = penstock.SqliteTable("out.db", "rows")
    items = penstock.keyed(range(6), key=lambda item: item)
    report = await items.map(row, concurrency=3).to(sink, run="run")
    print(report.delivered + report.already_done, report.dead)

class Row:
    def __init__(self, item, poison):
        self.item = item
        self.poison = poison

    def as_row(self):
        if self.item == self.poison:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"item": self.item}

asyncio.run(main())
"""


def test_a_program_needs_no_main_guard(tmp_path):
    """Functions, classes and closures of the main module go by value: a worker does not run it once more."""
    (tmp_path / "program.py").write_text(PROGRAM)
    ends = [
        subprocess.run([sys.executable, "program.py", "2"], cwd=tmp_path, capture_output=True, text=True, check=False)
        for _ in range(3)
    ]
    assert [each.returncode for each in ends] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert ends[-1].stdout == "5 1\n"
    assert (tmp_path / "imports").read_text() == "xxx"
    assert [
        key
        for (key,) in ask(
            tmp_path / "out.db", "SELECT key FROM penstock_dead JOIN penstock_roots ON root = penstock_roots.id"
        )
    ] == [2]


def test_what_work_prints_is_not_lost(sink, tmp_path, capfd):
    class Printing(Deadly):
        async def row(self, item):
            sys.stdout.write(f"work on {item}\n")
            return await super().row(item)

    deadly = Printing(0)
    stream = roots(range(4)).map(deadly.row, concurrency=4)
    for _ in range(2):
        assert life(run(stream, sink)) == -signal.SIGKILL
    deadly.how = survive
    capfd.readouterr()
    report_of(stream, sink)
    assert sorted(capfd.readouterr().out.split("\n")) == ["", *(f"work on {item}" for item in range(4))]


def four_suspects(sink):
    """A stream of four roots that all were under way when two processes died; it kills no more."""
    deadly = Four(0)
    stream = roots(range(4)).map(deadly.row, concurrency=4)
    for _ in range(2):
        assert life(run(stream, sink)) == -signal.SIGKILL
    assert under_way(sink) == [0, 1, 2, 3]
    deadly.how = survive
    return stream


def test_progress_tells_that_the_worker_is_still_at_it(sink, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(suspects, "_EVERY", 0.0)
    stream = roots(range(4)).map(Slow(tmp_path).row, concurrency=2)
    suspected(stream, sink, tmp_path)

    async def main():
        task = asyncio.ensure_future(stream.to(sink, run="run", progress=True))
        await until(lambda: "so far" in capsys.readouterr().err)
        (tmp_path / "go").touch()
        return await task

    assert asyncio.run(main()).complete


def test_one_line_tells_what_happens_and_how_long_it_takes(sink, caplog):
    report_of(four_suspects(sink), sink)
    (line,) = [message for message in caplog.messages if "kills" in message]
    assert line == (
        "run 'run': 4 roots from 0 to 3 were under way at both of the last two kills of the process; first a worker "
        "process tries whether one of them kills it, for about as long as they take side by side, and up to 4 times "
        "that if one does (find_killers=False leaves this out)"
    )


def test_a_worker_logs_no_statistics(sink, tmp_path):
    """Its statistics are those of a few roots; what the whole run tells at INFO are those of all."""
    log = tmp_path / "log"
    stream = four_suspects(sink)
    handler = logging.FileHandler(log)
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        report_of(stream, sink)
    finally:
        LOG.setLevel(logging.NOTSET)
        LOG.removeHandler(handler)
        handler.close()
    assert log.read_text().count("run over:") == 1


def job_of(stream, sink, **options):
    return Job(replace(source_of(stream.description), **options), sink, RunOptions(run="run"))


async def deliver(job):
    async with DurableRun(job) as run:
        return await run.finish()


async def test_a_root_that_waits_to_be_noted_waits_for_no_company(sink, monkeypatch):
    """Where roots are begun one by one, as `jsonl` does, each would wait for the 5 ms in which others may come."""
    monkeypatch.setattr(writer, "GATHER", 3600)
    noted = asyncio.get_running_loop().create_future()
    async with DurableRun(job_of(roots(range(5)), sink)) as run:
        run._delivery._writer.note(lambda journal: None, lambda: noted.set_result(None))
        await noted


def test_a_root_that_is_done_again_by_every_run_when_it_is_dead_is_not_done_by_this_one(sink):
    """It would kill the process that has just found out."""
    deadly = Deadly()
    job = job_of(roots(range(5)).map(deadly.row), sink, retries_dead=True)
    deadly.how = survive
    asyncio.run(deliver(job))
    deadly.how = kill_this
    changed = source_of(roots(range(5), "2").map(deadly.row).description)
    job = replace(job, source=replace(job.source, open=changed.open))
    for _ in range(2):
        assert life(lambda: deliver(job)) == -signal.SIGKILL
    report = asyncio.run(deliver(job))
    assert (report.complete, report.dead) == (True, 1)
    assert found(sink) == [0, 1, 2, 3, 4]  # it keeps the row of the version before


@pytest.mark.parametrize("killer", [0, 37])
def test_one_killer_among_many_takes_workers_by_their_logarithm(sink, tmp_path, killer):
    """The workers run all that is left side by side, not one by one."""
    together = Together(tmp_path, [killer])
    for _ in range(2):
        assert life(run(together.stream, sink)) == -signal.SIGKILL
    assert under_way(sink) == list(range(64))
    before = len(lines(together.calls))
    together.tried.touch()
    report = report_of(together.stream, sink)
    assert (report.complete, report.dead, report.delivered, report.rows) == (True, 1, 63, 63)
    assert [key for key, *_ in dead(sink)] == [killer]
    calls, workers = together.called(before)
    assert len(workers) <= 9  # all, six halvings to one, the rest; once more where a half had survived
    assert os.getpid() not in workers
    assert len(calls) <= 64 * 4


def test_several_killers_are_each_found(sink, tmp_path):
    together = Together(tmp_path, [3, 9, 14], 16)
    for _ in range(2):
        assert life(run(together.stream, sink)) == -signal.SIGKILL
    before = len(lines(together.calls))
    together.tried.touch()
    report = report_of(together.stream, sink)
    assert (report.complete, report.dead, report.delivered) == (True, 3, 13)
    assert sorted(key for key, *_ in dead(sink)) == [3, 9, 14]
    assert len(together.called(before)[1]) <= 3 * 7


def test_only_what_was_under_way_at_both_deaths_is_suspect(sink, tmp_path):
    """Whatever openings were left in order between them."""
    pace = Pace(tmp_path)
    stream = roots(range(6)).map(pace.row, concurrency=2)
    pace.die_in(run(stream, sink), {0, 1})  # nothing is noted yet
    pace.die_in(run(stream, sink), {0, 1})
    pace.let({0, 1})
    stop_at(pace, stream, sink, {2, 3})
    pace.die_in(run(stream, sink), {2, 3})
    assert {key for key, *_ in noted(sink)} == {2, 3}
    begun = len(lines(pace.calls))
    pace.let(set(range(6)))
    assert report_of(stream, sink).complete
    assert {line.split()[0] for line in lines(pace.calls)[begun:]} == {str(os.getpid())}  # no worker


def test_of_the_first_death_it_is_known_how_far_it_had_come(sink, tmp_path):
    """Nothing is noted before it: what was not taken by then is no suspect."""
    pace = Pace(tmp_path)
    stream = roots(range(6)).map(pace.row, concurrency=2)
    pace.die_in(run(stream, sink), {0, 1})
    pace.let({0, 1})
    pace.die_in(run(stream, sink), {2, 3}, after=lambda: settled(sink) >= {0, 1})
    assert under_way(sink) == [2, 3]
    begun = len(lines(pace.calls))
    pace.let(set(range(6)))
    assert report_of(stream, sink).complete
    assert {line.split()[0] for line in lines(pace.calls)[begun:]} == {str(os.getpid())}  # no worker


def test_how_far_it_had_come_is_known_source_by_source(sink, tmp_path):
    pace = Pace(tmp_path)
    stream = merge(roots(range(4)).map(pace.row), roots(range(10, 40)).map(pace.row, concurrency=5))
    pace.die_in(run(stream, sink), {0, 10, 11, 12, 13, 14})
    pace.let({0})
    pace.die_in(run(stream, sink), {1, 10, 11, 12, 13, 14})
    begun = len(lines(pace.calls))
    pace.let(set(range(40)))
    assert report_of(stream, sink).complete
    alone = [line.split() for line in lines(pace.calls)[begun:] if not line.startswith(f"{os.getpid()} ")]
    tried = {int(item) for _, item in alone} - {0}  # which may be finished, but not stored, at the second death
    assert tried == {10, 11, 12, 13, 14}


def stop_at(pace, stream, sink, items):
    """An opening that is left in order while these are under way."""

    async def main():
        since = len(lines(pace.calls))
        task = asyncio.ensure_future(stream.to(sink, run="run"))
        await until(lambda: pace.under_way(since) >= items)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_root_that_was_under_way_at_both_deaths_is_suspect_whatever_was_between(sink, tmp_path):
    pace = Pace(tmp_path)
    stream = roots(range(4)).map(pace.row, concurrency=2)
    for _ in range(2):
        pace.die_in(run(stream, sink), {0, 1})
        stop_at(pace, stream, sink, {0, 1})
    assert under_way(sink) == [0, 1]
    begun = len(lines(pace.calls))
    pace.let(range(4))
    report = report_of(stream, sink)
    assert (report.complete, report.dead, report.delivered) == (True, 0, 4)
    workers = {line.split()[0] for line in lines(pace.calls)[begun:]} - {str(os.getpid())}
    assert len(workers) == 1


def test_with_find_killers_off_nothing_is_noted_and_nothing_tried(sink, tmp_path):
    together = Together(tmp_path, [3], 8)
    for _ in range(3):
        assert life(run(together.stream, sink, find_killers=False)) == -signal.SIGKILL
        assert under_way(sink) == []
    calls, processes = together.called()
    assert (len(calls), len(processes)) == (24, 3)


def test_find_killers_is_a_flag(sink):
    with pytest.raises(OptionError, match="find_killers must be"):
        report_of(roots([1]).map(as_row), sink, find_killers=1)


def ignored():
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    return lambda: signal.signal(signal.SIGCHLD, before)


def reaped():
    """Somebody else waits for all children."""
    over = threading.Event()

    def reap():
        while not over.is_set():
            with suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            time.sleep(0.0005)

    thread = threading.Thread(target=reap)
    thread.start()

    def end():
        over.set()
        thread.join()

    return end


@pytest.mark.parametrize("begin", [ignored, reaped])
def test_where_nobody_can_see_how_a_worker_has_ended(sink, tmp_path, begin):
    """It is known by what it has answered, and by its being gone."""
    together = Together(tmp_path, [3], 8)
    for _ in range(2):
        assert life(run(together.stream, sink)) == -signal.SIGKILL
    together.tried.touch()
    end = begin()
    try:
        report = report_of(together.stream, sink)
    finally:
        end()
    assert (report.complete, report.dead, report.delivered) == (True, 1, 7)
    ((key, _, _, error, _),) = dead(sink)
    assert key == 3
    assert error.startswith("ProcessDied: the process that worked on it alone ")


def test_a_signal_that_drains_reaches_the_worker(sink, tmp_path):
    """What it has in flight is finished, what it has not begun waits for the next run."""
    pace = Pace(tmp_path)
    stream = roots(range(6)).map(pace.row, concurrency=2)
    for _ in range(2):
        pace.die_in(run(roots(range(6)).map(pace.row, concurrency=4), sink), {0, 1, 2, 3})

    async def main():
        since = len(lines(pace.calls))
        with drain_on_signals():
            task = asyncio.ensure_future(stream.to(sink, run="run"))
            await until(lambda: len(pace.under_way(since)) == 2)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.1)
            pace.let(range(6))
            return await task, pace.under_way(since)

    report, begun = asyncio.run(main())
    assert (report.complete, report.dead, report.delivered) == (False, 0, 2)
    assert begun == {0, 1}
    assert under_way(sink) == [2, 3]
    report = report_of(stream, sink)
    assert (report.complete, report.delivered, report.already_done) == (True, 4, 2)


def test_one_that_fails_does_not_hide_one_that_kills(sink, tmp_path):
    """Its failure does not end the others in the worker, also where it ends the run."""
    folder = tmp_path

    class Both(Deadly):
        async def row(self, item):
            append(folder / "calls", f"{os.getpid()} {item}")
            if item == 1 and (folder / "fails").exists():
                raise ValueError(item)
            if item == 3:
                for _ in range(50):
                    await asyncio.sleep(0)
                kill_this()
            if not (folder / "fails").exists():
                await asyncio.sleep(3600)
            return {"item": item}

    stream = roots(range(4)).map(Both().row, concurrency=4)
    for _ in range(2):
        assert life(run(stream, sink)) == -signal.SIGKILL
    (folder / "fails").touch()
    with pytest.raises(ValueError, match="1"):
        report_of(stream, sink)
    assert [key for key, *_ in dead(sink)] == [3]
    (folder / "fails").unlink()
    assert found(sink) == [0, 2]
