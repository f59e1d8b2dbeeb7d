"""Streams in plain code."""

import asyncio
import signal
import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import pytest

from penstock import SourceConsumedError, UnclosedStreamWarning, stream, sync
from penstock.testing import Gauge, Scripted


async def double(number):
    await asyncio.sleep(0)
    return number * 2


def test_a_plain_loop_reads_a_stream():
    with stream(range(5)).map(double, concurrency=3).sync() as items:
        assert list(items) == [0, 2, 4, 6, 8]
        assert items.stats()["map(double)"].delivered == 5


def test_it_works_while_another_loop_runs():
    async def main():
        with stream(range(3)).map(double).sync() as items:
            return list(items)

    assert asyncio.run(main()) == [0, 2, 4]


def test_leaving_stops_the_work_and_closes_the_source():
    """P4."""
    gauge, source, entered = Gauge(), Scripted(range(9)), threading.Event()

    @gauge.wrap
    async def waits(number):
        if number:
            entered.set()
            await asyncio.Event().wait()
        return number

    with stream(source).map(waits, concurrency=3).sync() as items:
        assert next(items) == 0
        assert entered.wait(10)
    assert (gauge.now, source.closed) == (0, 1)
    assert source.pulled_by == {source.closed_by}


def test_an_error_is_the_users_own():
    """P5."""
    error = ValueError("mine")

    async def fails(number):
        raise error

    with pytest.raises(ValueError, match="mine") as raised, stream([1]).map(fails).sync() as items:
        next(items)
    assert raised.value is error
    assert error.__notes__ == ["penstock: stage 'map(fails)', item 0"]


def test_stop_drains():
    def numbers():
        yield from range(10**9)

    with stream(numbers).map(double, concurrency=2).sync() as items:
        assert next(items) == 0
        items.stop()
        rest = list(items)
        assert rest == [2 * number for number in range(1, items.stats()[1].taken)]


def test_a_stream_that_cannot_be_opened_leaves_no_thread():
    def no_source():
        raise OSError

    with pytest.raises(OSError, match=r"^$"), stream(no_source).sync():
        pytest.fail("there is nothing to read")


def test_a_thread_that_cannot_be_started_leaves_no_loop(monkeypatch):
    def start(_):
        raise RuntimeError("can't start new thread")

    items = stream(range(3)).sync()
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="can't start new thread"):
        patch.setattr(threading.Thread, "start", start)
        items.__enter__()
    with items:
        assert list(items) == [0, 1, 2]


def test_a_run_is_entered_once():
    """P4: a second loop and a second thread would be left behind; the first goes on."""
    with stream(range(3)).sync() as items:
        assert next(items) == 0
        with pytest.raises(RuntimeError, match=r"stream\.sync\(\) of its own"), items:
            pytest.fail("it is read already")
        assert list(items) == [1, 2]


def test_a_one_shot_iterator_is_read_once():
    numbers = stream(iter([1]))
    with numbers.sync() as items:
        assert list(items) == [1]
    with pytest.raises(SourceConsumedError):
        numbers.sync()


def test_outside_its_block_it_says_how_to_read_it():
    with pytest.raises(RuntimeError, match=r"with stream\.sync\(\) as items"):
        next(stream([1]).sync())


def test_ctrl_c_interrupts_and_leaves_nothing():
    """P4: a real interrupt of a real process: the work is stopped, then KeyboardInterrupt goes on."""
    program = """
import asyncio, penstock
async def wait(number):
    try:
        print("running", flush=True)
        await asyncio.sleep(60)
    finally:
        print("stopped", flush=True)
with penstock.stream([1]).map(wait).sync() as items:
    for item in items: pass
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err.splitlines()[-1]) == ("stopped\n", "KeyboardInterrupt")


def test_reading_goes_on_after_an_interrupt(monkeypatch):
    """P5: the loop hears of the next read in the pass in which it hears that the one before is cancelled."""
    asked = threading.Event()
    reads = []

    class Told(sync._LoopCall):
        def __init__(self, *args):
            super().__init__(*args)
            reads.append(self)
            if len(reads) == 3:  # the block is entered, a read is interrupted, and this is the next
                asked.set()

    async def work(number):
        if number == 0:
            asyncio.get_running_loop().call_soon(asked.wait, 60)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            await asyncio.sleep(0)
        return number

    monkeypatch.setattr(sync, "_LoopCall", Told)
    with stream(range(3)).map(work).sync() as items:
        with pytest.raises(KeyboardInterrupt):
            next(items)
        assert list(items) == [0, 1, 2]


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_while_the_thread_starts_is_one_and_leaves_no_thread(when, monkeypatch):
    """Ctrl-C may come when the thread runs already, and whoever waits for it to say so is interrupted."""
    start = threading.Thread.start

    def interrupted(thread):
        if when == "after":
            start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), stream(range(3)).sync():
        pass
    monkeypatch.undo()
    assert [thread.name for thread in threading.enumerate() if thread.name == "penstock sync"] == []
    with stream(range(3)).sync() as items:
        assert list(items) == [0, 1, 2]


def test_a_run_that_is_entered_and_forgotten_leaves_no_thread():
    """Without `with`: its loop ends when nobody has it any more, and it says so."""
    before = set(threading.enumerate())
    items = stream(range(5)).map(double).sync()
    items.__enter__()
    assert next(items) == 0
    (thread,) = set(threading.enumerate()) - before
    kept = [items]
    del items
    with pytest.warns(UnclosedStreamWarning):
        kept.clear()
    thread.join(30)
    assert not thread.is_alive()


def test_results_that_it_brings_along_wait_until_they_are_taken():
    """P1: a change of threads brings what is there, and no call starts in place of a result that nobody has taken."""
    gauge, filled = Gauge(), threading.Event()

    @gauge.wrap
    async def work(number):
        await asyncio.sleep(0)
        if gauge.started == 9:
            filled.set()
        return number

    with stream(range(100)).map(work, concurrency=8).sync(grace=1) as items:
        assert next(items) == 0
        assert filled.wait(10)
        for taken in range(2, 60):
            assert next(items) == taken - 1
            books = items.stats()[1]
            assert (books.delivered, books.peak_in_flight) == (taken, 8)
            assert books.taken <= taken + 8


def test_what_was_brought_along_and_not_taken_is_discarded():
    """P5: leaving early counts as handed on what the `for` has taken, and nothing else."""
    for ordered in (True, False):
        with stream(range(100)).map(double, concurrency=8, ordered=ordered).sync() as items:
            taken = [next(items) for _ in range(11)]
        books = items.stats()[1]
        assert taken == [2 * number for number in range(11)]
        assert books.delivered == 11
        assert books.taken == 11 + books.discarded + books.cancelled
        with pytest.raises(RuntimeError, match="is read inside"):
            next(items)


def test_a_slow_reader_gives_places_back_meanwhile():
    """P2: whoever takes long over each result does not keep the calls that could run from running."""
    tenth = threading.Event()

    async def work(number):
        if number == 10:
            tenth.set()
        return number

    with stream(range(100)).map(work, concurrency=8).sync() as items:
        while not tenth.is_set():
            assert next(items) < 10
            tenth.wait(0.002)


def test_failures_in_band_are_brought_along_as_such():
    def odd(number):
        if number % 2:
            raise ValueError(number)
        return number

    with stream(range(20)).map(lambda number: odd(number), concurrency=8, on_error="return").sync() as items:
        results = list(items)
        books = items.stats()[1]
    assert [result.index for result in results] == list(range(20))
    assert (books.delivered, books.failed, books.taken) == (10, 10, 20)


def test_what_waits_before_a_failure_is_handed_on_before_it_is_raised():
    """P5."""

    async def fails_at_last(number):
        if number == 20:
            raise ValueError(number)
        return number

    with stream(range(40)).map(fails_at_last, concurrency=8).sync() as items:
        assert [next(items) for _ in range(20)] == list(range(20))
        with pytest.raises(ValueError, match="20"):
            next(items)


def test_a_budget_of_bytes_counts_what_was_brought_along():
    with stream(range(50)).map(double, concurrency=8, buffer_bytes=100, size_of=lambda _: 10).sync() as items:
        assert next(items) == 0
        assert list(items) == [2 * number for number in range(1, 50)]
        assert items.stats()[1].buffered_bytes == 0


def test_what_ends_a_program_is_raised_where_the_loop_is_read():
    """P5: not in the thread of the loop, which closes the run."""

    async def ends(number):
        await asyncio.sleep(0)
        raise SystemExit(number)

    for work in (ends, lambda number: ends(number)):
        threads, source = threading.active_count(), Scripted([3])
        with pytest.raises(SystemExit, match="3"), stream(source).map(work).sync() as items:
            next(items)
        assert (threading.active_count(), source.closed) == (threads, 1)


def test_a_reader_that_is_cancelled_on_its_loop_is_told_and_loses_nothing():
    """P5: by somebody who cancels all tasks there."""

    async def cancels(number):
        if number == 1:
            while not (others := asyncio.all_tasks() - {asyncio.current_task()}):  # noqa: ASYNC110 -- the reader tells nobody
                await asyncio.sleep(0)
            for task in others:
                task.cancel()
        return number

    with stream(range(3)).map(cancels).sync() as items:
        assert next(items) == 0
        with pytest.raises(CancelledError):
            next(items)
        assert list(items) == [1, 2]


def test_outputs_of_flat_map_are_brought_together():
    """A change of threads brings what the head has; it waits until it is taken (P1), and each input has one outcome."""

    async def some(number):
        for _ in range(20):
            yield number
        if number == 3:
            raise ValueError(number)

    def same(number):
        return [number] * 20

    for fn, options in ((same, {}), (some, {"on_error": "return", "buffer": 20}), (same, {"concurrency": 3})):
        changes = 0
        with stream(range(4)).flat_map(fn, **options).sync() as items:
            call = items._call

            def counted(coroutine, call=call):
                nonlocal changes
                changes += 1
                return call(coroutine)

            items._call = counted
            results = [item if isinstance(item, int) else getattr(item, "value", None) for item in items]
            books = items.stats()[1]
        failed = fn is some
        assert results == [number for number in range(4) for _ in range(20)] + [None] * failed
        assert changes <= 20
        assert (books.taken, books.delivered, books.failed, books.buffered) == (4, 4 - failed, failed, 0)


def test_outputs_of_flat_map_that_were_brought_and_not_taken_are_given_up():
    """P5: an input is delivered when its last output was taken."""
    with stream(range(4)).flat_map(lambda number: [number] * 20).sync() as items:
        assert [next(items) for _ in range(30)] == [0] * 20 + [1] * 10
    books = items.stats()[1]
    assert books.delivered == 1
    assert books.taken == 1 + books.discarded + books.cancelled
