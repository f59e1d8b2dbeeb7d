"""Every detector detects, and what is clean passes."""

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import penstock
from penstock.testing import Leftovers, run

grid = pytest.mark.grid


async def numbers():
    yield 1
    yield 2


def waiting_child():
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def end(child):
    child.communicate(b"\n")


@grid
def test_a_task_left_behind_fails_the_run(run):
    async def forgotten():
        await asyncio.sleep(60)

    async def main(tasks):
        tasks.append(asyncio.create_task(forgotten()))
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match=r"left behind: task '.*' in .*forgotten \(.*:\d+\); timer .* when=60"):
        run(main([]))


@grid
def test_a_task_that_never_ran_fails_the_run(run):
    """Trap 12: it has no frame to show, but it is there."""

    async def main(tasks):
        tasks.append(asyncio.create_task(asyncio.sleep(60)))

    with pytest.raises(AssertionError, match="left behind: task"):
        run(main([]))


@grid
def test_a_timer_left_behind_fails_the_run(run):
    async def main():
        asyncio.get_running_loop().call_later(60, print, "late")

    with pytest.raises(AssertionError, match=r"left behind: timer <Timer when=60.*print"):
        run(main())


@grid
async def test_a_cancelled_timer_is_not_left_behind():
    with Leftovers():
        asyncio.get_running_loop().call_later(60, print, "late").cancel()


@pytest.mark.real_time
async def test_a_timer_left_on_a_real_asyncio_loop_is_seen():
    loop = asyncio.get_running_loop()
    leftovers = Leftovers()
    with leftovers:
        timer = loop.call_later(60, print, "late")
        assert [line[:20] for line in leftovers.found()] == ["timer <TimerHandle w"]
        timer.cancel()


@grid
def test_an_unclosed_generator_fails_the_run(run):
    async def main(generators):
        generators.append(numbers())
        await anext(generators[0])

    with pytest.raises(AssertionError, match=r"left behind: async generator in numbers \(.*:\d+\)"):
        run(main([]))


@grid
def test_a_generator_that_was_collected_unclosed_fails_the_run(run):
    async def main():
        async for _ in numbers():
            break
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match=r"async generator in numbers .*, collected unclosed"):
        run(main())


@grid
async def test_closed_finished_and_unbegun_generators_are_not_left_behind():
    with Leftovers():
        closed, finished, unbegun = numbers(), numbers(), numbers()
        await anext(closed)
        await closed.aclose()
        assert [number async for number in finished] == [1, 2]
    await unbegun.aclose()


@grid
def test_an_exception_that_nobody_retrieved_fails_the_run(run):
    async def main():
        asyncio.get_running_loop().create_future().set_exception(ValueError("unseen"))
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match=r"Future exception was never retrieved: ValueError\('unseen'\)"):
        run(main())


@grid
def test_a_callback_that_raises_fails_the_run(run):
    async def main():
        asyncio.get_running_loop().call_soon(int, "no number")
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match=r"Exception in callback .*no number"):
        run(main())


@grid
def test_leftovers_do_not_mask_the_error_of_a_run(run):
    async def main(tasks):
        tasks.append(asyncio.create_task(asyncio.sleep(60)))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as raised:
        run(main([]))
    assert "left behind: task" in raised.value.__notes__[0]


@grid
async def test_what_was_there_before_is_not_left_behind():
    loop = asyncio.get_running_loop()
    timer = loop.call_later(60, print, "late")
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    with Leftovers():
        pass
    timer.cancel()
    task.cancel()
    await asyncio.wait([task])


@grid
async def test_the_loop_and_the_interpreter_get_their_hooks_back():
    loop = asyncio.get_running_loop()
    hooks, handler = sys.get_asyncgen_hooks(), loop.get_exception_handler()
    with Leftovers():
        assert sys.get_asyncgen_hooks() != hooks
        assert loop.get_exception_handler() != handler
    assert sys.get_asyncgen_hooks() == hooks
    assert loop.get_exception_handler() == handler


def test_a_thread_left_behind_fails_the_block():
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait, name="forgotten")
    with pytest.raises(AssertionError, match="left behind: thread 'forgotten'"), Leftovers():
        thread.start()
    gate.set()
    thread.join()


def test_a_process_left_behind_fails_the_block():
    with pytest.raises(AssertionError, match=r"left behind: process \d+ \("), Leftovers():
        child = waiting_child()
    end(child)


def test_a_process_started_by_another_thread_is_seen():
    leftovers = Leftovers()
    with leftovers:
        with ThreadPoolExecutor(1) as pool:
            child = pool.submit(waiting_child).result()
        assert [line.split()[0] for line in leftovers.found()] == ["process"]
        end(child)


def test_a_process_that_nobody_waited_for_is_left_behind():
    """A zombie: it has ended, but its parent has not looked."""
    leftovers = Leftovers()
    with leftovers:
        child = subprocess.Popen([sys.executable, "-c", "print()"], stdout=subprocess.PIPE)
        child.stdout.read()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert [line.split()[0] for line in leftovers.found()] == ["process"]
        end(child)


def test_threads_and_processes_that_have_ended_are_not_left_behind():
    with Leftovers():
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
        end(waiting_child())


def test_the_housekeepers_of_multiprocessing_are_not_left_behind():
    code = """
import multiprocessing, sys
from penstock.testing import Leftovers
with Leftovers():
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=int)
    process.start()
    process.join()
    process.close()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_found_says_what_would_be_left():
    gate = threading.Event()
    leftovers = Leftovers()
    with leftovers:
        thread = threading.Thread(target=gate.wait, name="forgotten")
        thread.start()
        assert leftovers.found() == ["thread 'forgotten'"]
        gate.set()
        thread.join()
        assert leftovers.found() == []


def test_books_that_do_not_balance_are_left_behind():
    async def read_with_a_miscount():
        async with penstock.stream(range(3)).map(lambda item: item, name="work").open() as items:
            await anext(items)
            items._stage._delivered += 1

    with pytest.raises(AssertionError, match="books of stage 'work' that do not balance: <StageStats"):
        run(read_with_a_miscount())
