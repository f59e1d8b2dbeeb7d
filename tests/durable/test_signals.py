"""Stopping a durable run: by a signal that drains, by Ctrl-C that does not; real processes, real signals."""

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

PROGRAM = """
import asyncio, contextlib, sys
import penstock

sink, drains = sys.argv[1], sys.argv[2] == "drain"
release = asyncio.Event()

async def work(number):
    if number >= 5 and sys.argv[2] != "end":
        if number == 7:
            print("working", flush=True)
        if not drains:
            await asyncio.Event().wait()
        await release.wait()
    return {"number": number}

def send(rows):
    with open("sent", "a") as file:
        for row in rows:
            print(row.row["number"], file=file)

async def main():
    signals = penstock.drain_on_signals() if drains else None
    loop = asyncio.get_running_loop()
    if drains:
        async def look():
            while signals.received is None:
                await asyncio.sleep(0)
            release.set()
        looking = loop.create_task(look())
    where = penstock.SqliteTable("t.db", "rows") if sink == "table" else penstock.Callback(send, journal="t.db")
    stream = penstock.keyed(range(20), key=int, name="numbers").map(work, concurrency=3)
    print(await stream.to(where, run="r"), flush=True)

asyncio.run(main())
"""


@pytest.fixture
def start(tmp_path):
    """A function that starts the program, and gives it when it is at work on roots 5, 6 and 7."""
    started = []

    def start(sink, how):
        command = [sys.executable, "-c", PROGRAM, sink, how]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=tmp_path, text=True, **pipes))
        if how != "end":
            assert started[-1].stdout.readline() == "working\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def numbers(tmp_path, sink):
    if sink == "callback":
        return [int(line) for line in (tmp_path / "sent").read_text().split()]
    program = "import penstock; print([row['number'] for row in penstock.SqliteTable('t.db', 'rows').rows()])"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    return [int(number) for number in done.stdout.strip("[]\n").split(", ")]


@pytest.mark.parametrize("sink", ["table", "callback"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_drained_run_commits_what_is_in_flight_and_says_how_to_go_on(start, tmp_path, number, sink):
    process = start(sink, "drain")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "8 delivered; 0 already done; 0 dead" in out
    assert "(stopped before its end: what was finished is stored; run it again to go on)" in out
    out, _ = start(sink, "end").communicate(timeout=30)
    assert "12 delivered; 8 already done" in out
    assert "stopped" not in out
    assert sorted(numbers(tmp_path, sink)) == list(range(20))


@pytest.mark.parametrize("sink", ["table", "callback"])
def test_ctrl_c_cancels_what_is_in_flight_and_keeps_what_is_finished(start, tmp_path, sink):
    process = start(sink, "plain")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert out == ""
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert err.count("Traceback") == 2  # the interrupt, and the cancellation that it came of
    out, _ = start(sink, "end").communicate(timeout=30)
    assert "15 delivered; 5 already done" in out
    assert sorted(numbers(tmp_path, sink)) == list(range(20))


def test_a_run_that_is_killed_goes_on_all_the_same(start, tmp_path):
    process = start("table", "plain")
    process.kill()
    process.communicate()
    out, _ = start("table", "end").communicate(timeout=30)
    assert "stopped" not in out
    assert sorted(numbers(tmp_path, "table")) == list(range(20))


HANGING = """
import asyncio, penstock

async def send(rows):
    print("sending", flush=True)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise

async def work(number):
    return await asyncio.Event().wait() if number else number

async def main():
    stream = penstock.keyed(range(3), key=int).map(work, concurrency=3)
    print(await stream.to(penstock.Callback(send, journal="t.db"), run="r", grace=0))

asyncio.run(main())
"""


def test_ctrl_c_gives_a_call_in_progress_its_grace_and_cancels_it(tmp_path):
    command = [sys.executable, "-c", HANGING]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=tmp_path, text=True, **pipes)
    try:
        assert process.stdout.readline() == "sending\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert out == "cancelled\n"
    assert err.rstrip().endswith("KeyboardInterrupt")


UNORDERED = """
import asyncio, contextlib, sys
import penstock

is_last = sys.argv[1] == "end"

async def work(number):
    if number % 10 == 3 and not is_last:
        if number == 153:
            print("working", flush=True)  # now all 16 places hang
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("cancelled", flush=True)
            if sys.argv[1] == "twice":
                await asyncio.Event().wait()
            raise
    return {"number": number}

async def main():
    stream = penstock.keyed(range(200), key=int).map(work, concurrency=16, ordered=None)
    print(await stream.to(penstock.SqliteTable("t.db", "rows"), run="r", grace=5), flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("interrupts", ["once", "twice"])
def test_ctrl_c_where_no_order_is_kept_keeps_what_has_finished_behind_calls_that_hang(tmp_path, interrupts):
    """P10, P11: with `ordered=None` roots are done as they finish; a second Ctrl-C comes while the first is served."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", UNORDERED, interrupts], cwd=tmp_path, text=True, **pipes)
    try:
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        assert [process.stdout.readline() for _ in range(16)] == ["cancelled\n"] * 16
        if interrupts == "twice":
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in err.splitlines()  # a slow machine may tell behind it what it was stopped in
    done = numbers(tmp_path, "table")
    assert len(done) == len(set(done))
    assert set(done) >= {number for number in range(75) if number % 10 != 3}
    command = [sys.executable, "-c", UNORDERED, "end"]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert f"{200 - len(done)} delivered; {len(done)} already done" in out
    assert sorted(numbers(tmp_path, "table")) == list(range(200))
