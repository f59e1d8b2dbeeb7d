"""`drain_on_signals`: the first signal drains, the second aborts; also where SIGINT was ignored from the start."""

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

import penstock

pytestmark = pytest.mark.real_time
SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def at_once(number):
    return number


def endless():
    number = 0
    while True:
        yield number
        number += 1


async def receive(signals, number):
    os.kill(os.getpid(), number)
    for _ in range(1000):
        if signals.received is not None:
            return
        await asyncio.sleep(0)
    pytest.fail(f"{number.name} was not received")


@pytest.mark.grid
@pytest.mark.parametrize("number", SIGNALS)
async def test_the_first_signal_drains(number):
    """What is in flight is delivered; nothing more is taken, not by later runs either; then all is as before."""
    before = [signal.getsignal(each) for each in SIGNALS]
    release = asyncio.Event()

    async def work(item):
        if item:
            await release.wait()
        return item

    with penstock.drain_on_signals() as signals:
        async with penstock.stream(endless()).map(work, concurrency=3).open() as results:
            assert await anext(results) == 0
            await receive(signals, number)
            release.set()
            assert [item async for item in results] == [1, 2, 3]
        assert await penstock.stream(endless()).map(at_once).to_list() == []
        assert signals.received is number
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert await penstock.stream(range(3)).map(at_once).to_list() == [0, 1, 2]


@pytest.mark.grid
async def test_streams_inside_the_work_are_what_is_in_flight():
    started, release = asyncio.Event(), asyncio.Event()

    async def pages(book):
        started.set()
        await release.wait()
        return await penstock.stream(range(book)).map(at_once).to_list()

    with penstock.drain_on_signals() as signals:
        reading = asyncio.ensure_future(penstock.stream([2, 3, 4]).map(pages).to_list())
        await started.wait()
        await receive(signals, signal.SIGINT)
        release.set()
        assert await reading == [[0, 1]]


PROGRAM = """
import asyncio, signal, sys
import penstock

async def work(number):
    print("started", number, flush=True)
    try:
        await asyncio.sleep(3600)
    finally:
        print("cleaned up", number, flush=True)

async def main():
    penstock.drain_on_signals()
    async with penstock.stream(range(9)).map(work, concurrency=2).open() as results:
        async for _ in results:
            pass

try:
    asyncio.run(main(), loop_factory=LOOP)
except BaseException as error:
    print(repr(error), flush=True)
    raise
"""
LOOPS = {"asyncio": "asyncio.new_event_loop", "uvloop": "__import__('uvloop').new_event_loop"}


@pytest.mark.parametrize("ignored", [False, True])
@pytest.mark.parametrize("loop", LOOPS)
def test_the_second_signal_aborts(loop, ignored):
    """P4 holds: work in flight is cancelled and awaited. Shells start background jobs with SIGINT ignored."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    before = signal.getsignal(signal.SIGINT)
    try:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a child inherits that
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.replace("LOOP", LOOPS[loop])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with program:
        assert [program.stdout.readline() for _ in range(2)] == ["started 0\n", "started 1\n"]
        for number in SIGNALS:
            program.send_signal(number)
        out, _ = program.communicate(timeout=60)
    *cleaned, end = out.splitlines()
    assert sorted(cleaned) == ["cleaned up 0", "cleaned up 1"]
    assert end in {"KeyboardInterrupt()", "SystemExit(143)"}
    assert program.returncode in {143, -signal.SIGINT, 130}


async def test_it_needs_the_main_thread():
    raised = []

    def elsewhere():
        async def main():
            penstock.drain_on_signals()

        try:
            asyncio.run(main())
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert raised == ["drain_on_signals() works on a loop in the main thread only"]


def test_it_needs_a_running_loop():
    with pytest.raises(RuntimeError, match="no running event loop"):
        penstock.drain_on_signals()


async def test_it_can_be_closed_twice():
    signals = penstock.drain_on_signals()
    signals.close()
    signals.close()


@pytest.mark.grid
@pytest.mark.parametrize("inner_first", [True, False])
async def test_blocks_may_be_nested(inner_first):
    """The end of one is not that of the other, whichever ends first; then all is as before."""
    before = [signal.getsignal(each) for each in SIGNALS]
    first, second = penstock.drain_on_signals(), penstock.drain_on_signals()
    if inner_first:
        first, second = second, first
    first.close()
    first.close()
    await receive(second, signal.SIGTERM)
    with penstock.drain_on_signals() as third:
        assert third.received is signal.SIGTERM
    assert await penstock.stream(range(3)).map(at_once).to_list() == []
    second.close()
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert await penstock.stream(range(3)).map(at_once).to_list() == [0, 1, 2]
    with penstock.drain_on_signals() as signals:
        assert signals.received is None


@pytest.mark.grid
@pytest.mark.parametrize("number", SIGNALS)
async def test_a_handler_of_the_loop_is_left_alone(number):
    """It could not be put back, as a loop does not tell what it calls."""
    loop, called = asyncio.get_running_loop(), asyncio.Event()
    other = next(each for each in SIGNALS if each is not number)
    before = [signal.getsignal(each) for each in SIGNALS]
    loop.add_signal_handler(number, called.set)
    try:
        with pytest.raises(RuntimeError, match=rf"^{number.name} .* loop\.remove_signal_handler\({number.name}\)"):
            penstock.drain_on_signals()
        os.kill(os.getpid(), number)
        await called.wait()
        assert signal.getsignal(other) == before[SIGNALS.index(other)]
    finally:
        loop.remove_signal_handler(number)
        signal.signal(number, before[SIGNALS.index(number)])
    with penstock.drain_on_signals() as signals:
        await receive(signals, number)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_that_was_closed_meanwhile_is_in_nobodys_way(loop):
    """Its handlers went with it: those of the next loop are new, and have received nothing."""
    before = [signal.getsignal(each) for each in SIGNALS]

    async def main():
        signals = penstock.drain_on_signals()
        assert signals.received is None
        await receive(signals, signal.SIGTERM)

    if loop == "uvloop":
        pytest.importorskip("uvloop")
    try:
        for _ in range(2):
            asyncio.run(main(), loop_factory=eval(LOOPS[loop]))
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
