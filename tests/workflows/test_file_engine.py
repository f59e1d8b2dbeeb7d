"""Where `embed` reads files if nobody says: a few in a thread, more in processes."""

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

from penstock.engines import Call, Threads
from penstock.engines.process import processes_engine
from penstock.engines.process.processes_engine import processors
from penstock.workflows import embed
from penstock.workflows.documents import file_engine

pytestmark = [pytest.mark.real_time, pytest.mark.skipif(processors() == 1, reason="one processor starts no worker")]


@pytest.fixture
def docs(tmp_path):
    root = tmp_path / "docs"
    root.mkdir()
    for number in range(40):
        (root / f"{number:02}.md").write_text(f"# Title {number}\n\n" + f"text {number} " * 200)
    (root / "binary.txt").write_bytes(b"\0")
    return root


@pytest.fixture
def started(monkeypatch):
    """The workers that were started."""
    found = []
    start = processes_engine.start

    def counted():
        found.append(start())
        return found[-1]

    monkeypatch.setattr(processes_engine, "start", counted)
    return found


@pytest.fixture
def many(monkeypatch):
    """Any two files are many, and the thread waits for a worker: otherwise it may be through before there is one."""
    is_there = threading.Event()
    is_ready = processes_engine.Processes.is_ready

    class Waiting(Threads):
        def submit(self, calls):
            (call,) = calls

            def waiting(file):
                is_there.wait(30)
                return call.fn(file)

            return super().submit([Call(waiting, call.arguments)])

    def tell(self, child):
        is_there.set()
        is_ready(self, child)

    monkeypatch.setattr(file_engine, "FEW", 1)
    monkeypatch.setattr(file_engine, "Threads", Waiting)
    monkeypatch.setattr(processes_engine.Processes, "is_ready", tell)


def done(report):
    return report.files, report.failed, [(stage.name, stage.taken, stage.delivered) for stage in report.stages]


async def test_a_few_files_start_no_process(docs, tmp_path, started):
    """The start of a worker takes longer than they do."""
    report = await embed(docs, tmp_path / "i.db")
    assert (report.files, report.failed, started) == (40, 1, [])


@pytest.mark.usefixtures("many")
async def test_many_files_are_read_in_processes_and_the_index_is_the_same(docs, tmp_path, started, rows):
    """P12; and a second run over files that have not changed starts none."""
    report = await embed(docs, tmp_path / "i.db")
    assert started
    assert done(report) == done(await embed(docs, tmp_path / "inline.db", engine="inline"))
    assert rows(tmp_path / "i.db") == rows(tmp_path / "inline.db")
    started.clear()
    report = await embed(docs, tmp_path / "i.db")
    assert (report.unchanged, started) == (40, [])


@pytest.mark.parametrize("how", ["cannot start", "dies as it starts"])
async def test_files_are_read_in_a_thread_where_no_worker_can_be_had(*, docs, tmp_path, monkeypatch, how):
    """Nobody has asked for one: a limit on processes must not end the run."""
    start = processes_engine.start
    monkeypatch.setattr(file_engine, "FEW", 1)

    def fail():
        if how == "cannot start":
            raise OSError(11, "Resource temporarily unavailable")
        found = start()
        os.kill(found.process.pid, signal.SIGKILL)
        return found

    monkeypatch.setattr(processes_engine, "start", fail)
    report = await embed(docs, tmp_path / "i.db")
    assert (report.files, report.failed) == (40, 1)


@pytest.mark.usefixtures("many")
async def test_a_worker_that_is_killed_costs_no_file(docs, tmp_path, monkeypatch, rows):
    """P10: its files are read again, by another one."""
    is_ready = processes_engine.Processes.is_ready
    killed = []

    def kill_first(self, child):
        is_ready(self, child)
        if not killed:
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)

    monkeypatch.setattr(processes_engine.Processes, "is_ready", kill_first)
    report = await embed(docs, tmp_path / "i.db")
    assert (len(killed), report.files, report.failed) == (1, 40, 1)
    assert len({row.name for row in rows(tmp_path / "i.db")}) == 40


def test_a_script_needs_no_main_guard(docs, tmp_path):
    """Workers do not import the main module: nobody has asked for processes."""
    script = tmp_path / "script.py"
    script.write_text(
        "import asyncio\nfrom penstock.workflows import embed\nfrom penstock.workflows.documents import file_engine\n"
        "file_engine.FEW = 1\n"
        f"print(asyncio.run(embed({str(docs)!r}, {str(tmp_path / 'i.db')!r})).files)\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert (run.stdout, run.stderr) == ("40\n", "")


@pytest.mark.usefixtures("many")
async def test_a_cancelled_run_leaves_no_worker(docs, tmp_path, started, monkeypatch):
    """P4: what was stored stays, and nothing runs on."""
    start = processes_engine.start

    def cancelled():
        running.cancel()
        return start()

    monkeypatch.setattr(processes_engine, "start", cancelled)
    running = asyncio.ensure_future(embed(docs, tmp_path / "i.db"))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert started
    assert all(each.process.returncode is not None for each in started)
    assert (await embed(docs, tmp_path / "i.db")).failed == 1
