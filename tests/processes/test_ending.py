"""The end of an engine of processes and of its workers, and what a long life leaves behind."""

import asyncio
import contextvars
import gc
import os
import weakref
from pathlib import Path

import pytest

import penstock
from penstock import OptionError, WrongLoopError
from penstock.core.errors import MisuseError
from penstock.engines import Call, WorkerLost, processes
from penstock.engines.process import starting

from .work import alive, calling, double, give, hang, killed, links, pid, sleep_at_exit, start_sleeper, until, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real_time,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),
]


def descriptors():
    return sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- names alone


def run_and_collect(main):
    result = asyncio.run(main)
    gc.collect()
    return result


def test_options():
    with pytest.raises(OptionError, match="workers must be an int >= 1, got 0"):
        processes(0)
    with pytest.raises(OptionError, match="initializer must be callable, got 3"):
        processes(1, 3)
    assert processes(3).slots() == 3
    assert processes().slots() >= 1
    assert repr(processes(3)) == "processes(3)"


@pytest.mark.quick
async def test_closing_waits_for_calls_and_ends_workers(tmp_path):
    """A call that runs comes to its end within the grace; what waits is told that it will not be called."""
    async with calling() as (engine, submit):
        (number,) = [answer.value for answer in await submit((pid,))]
        running = submit((wait_for, str(tmp_path / "go")))
        behind, waiting = submit((double, 1)), submit((double, 2))
        closing = asyncio.ensure_future(engine.aclose())
        await until(waiting.done)
        assert isinstance(waiting.result()[0].error, MisuseError)
        (tmp_path / "go").touch()
        await closing
        assert [answer.value for answer in await running] == ["go"]
        assert [answer.value for answer in await behind] == [2]
        assert not alive(number)
        with pytest.raises(MisuseError, match=r"processes\(1\) was closed"):
            submit((double, 1))


async def test_what_runs_after_the_grace_is_killed_and_nobody_takes_its_place(tmp_path):
    async with calling() as (engine, submit):
        (number,) = [answer.value for answer in await submit((pid,))]
        running = submit((hang, str(tmp_path / "begun")))
        await until((tmp_path / "begun").exists)
        await engine.aclose(0.01)
        (answer,) = await running
        assert "closed while this call ran" in str(answer.error)
        assert not alive(number)


async def test_abandoning_an_engine_answers_its_calls():
    async with calling() as (engine, submit):
        await submit((double, 1))
        running, behind, waiting = submit((double, 1), (hang,)), submit((double, 2)), submit((double, 2))
        await until(lambda: len(engine.peek(running).answers) == 1)
        engine.abandon()
        first, second = await running
        assert first.value == 2
        assert isinstance(second.error, MisuseError)
        assert await behind == []
        assert isinstance((await waiting)[0].error, MisuseError)


async def test_a_worker_that_does_not_leave_is_killed():
    async with calling(1, sleep_at_exit) as (engine, submit):
        (number,) = [answer.value for answer in await submit((pid,))]
        await engine.aclose(0.01)
    assert not alive(number)


async def test_where_there_are_no_pidfds(monkeypatch, tmp_path):
    """Other systems than Linux: the end of the socket tells of the end of a worker."""
    monkeypatch.setattr(starting, "_pidfd", lambda _: None)
    async with calling() as (engine, submit):
        first, lost = await submit((double, 1), (killed,))
        assert (first.value, type(lost.error)) == (2, WorkerLost)
        assert "SIGKILL" in str(lost.error)
        running = submit((hang, str(tmp_path / "begun")))
        await until((tmp_path / "begun").exists)
        engine.stop(running)
        assert isinstance((await running)[0].error, asyncio.CancelledError)
        assert [answer.value for answer in await submit((double, 1))] == [2]


async def test_closing_while_workers_start():
    async with calling(2) as (_, submit):
        submit((double, 1))
        submit((double, 1))


async def test_what_a_call_has_started_ends_with_the_engine():
    async with calling() as (_, submit):
        (sleeper,) = [answer.value for answer in await submit((start_sleeper,))]
    await until(lambda: not alive(sleeper))


def test_an_engine_that_is_left_behind_with_its_loop_ends_when_it_is_collected():

    async def use():
        engine = processes(1)
        (answer,) = await engine.submit([Call(engine.prepare(pid), ())])
        return answer.value

    with pytest.warns(ResourceWarning, match=r"unclosed engine processes\(1\)"):
        number = run_and_collect(use())
    assert not alive(number)


def test_an_engine_can_be_closed_on_another_loop_when_its_own_is_gone():
    engine = processes(1)

    async def use():
        (answer,) = await engine.submit([Call(engine.prepare(pid), ())])
        return answer.value

    number = asyncio.run(use())
    assert alive(number)
    asyncio.run(engine.aclose())
    assert not alive(number)


def test_an_engine_belongs_to_the_loop_of_its_first_use():
    engine = processes(1)

    async def use():
        return await penstock.stream([1]).map(double, engine=engine).to_list()

    async def submit():
        engine.submit([Call(engine.prepare(double), (1,))])

    async def close():
        await engine.aclose()

    with asyncio.Runner() as runner:
        assert runner.run(use()) == [2]
        with pytest.raises(WrongLoopError):
            asyncio.run(use())
        with pytest.raises(WrongLoopError):
            asyncio.run(submit())
        runner.run(close())


async def test_descriptors_and_children_are_given_back():
    """Workers that leave, that are killed, that die, and that never start."""
    gc.collect()
    before = descriptors()
    for _ in range(2):
        async with calling(2) as (engine, submit):
            await asyncio.gather(submit((double, 1)), submit((killed,)), submit((killed,)))
            running = submit((hang,))
            engine.stop(running)
            await running
    assert descriptors() == before


async def test_a_child_that_the_driver_forks_has_none_of_the_sockets():
    """Else a worker would not see that its driver is gone while the child lives."""

    def sockets():
        links = (Path("/proc/self/fd", fd) for fd in descriptors())
        return {str(link.readlink()) for link in links if link.is_symlink()}

    before = sockets()
    async with calling() as (_, submit):
        await submit((double, 1))
        ours = {each for each in sockets() - before if each.startswith(("socket", "pipe", "anon_inode:[pidfd]"))}
        assert ours
        child = os.fork()
        if not child:
            os._exit(len(ours & sockets()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # noqa: ASYNC222 -- it ends at once
        (answer,) = await submit((double, 2))
        assert answer.value == 4


async def test_a_worker_has_no_descriptors_of_the_driver(tmp_path):
    """Else it would keep a lock that the driver has on a file, and sockets of other workers."""
    with (tmp_path / "locked").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        async with calling(2) as (_, submit):
            both = submit((links,)), submit((links,))
            for answers in both:
                (answer,) = await answers
                assert not [link for link in answer.value if "locked" in link]
                assert len([link for link in answer.value if link.startswith("socket")]) == 1


class Big:
    pass


KEPT = contextvars.ContextVar("KEPT")


async def test_workers_hold_no_context_of_a_run():
    """They outlive it."""
    async with calling(2) as (_, submit):

        async def use():
            KEPT.set(big := Big())
            await asyncio.gather(submit((double, 1)), submit((double, 2)))
            return weakref.ref(big)

        big = await asyncio.ensure_future(use())
        await asyncio.sleep(0)
        gc.collect()
        assert big() is None


async def test_many_workers_start_one_a_turn():
    """P9: starting one takes milliseconds of the loop."""
    async with calling(4) as (engine, submit):
        answers = [submit((double, number)) for number in range(4)]
        counts = []
        while len(engine._children) < 4:
            counts.append(len(engine._children))
            await asyncio.sleep(0)
        assert counts == [1, 2, 3]
        assert [(await each)[0].value for each in answers] == [0, 2, 4, 6]


async def test_functions_are_forgotten_when_nobody_can_call_them():
    """A shared engine outlives many runs, and each prepares its functions anew."""
    async with processes(1) as engine:
        for number in range(50):
            fn = engine.prepare(double)
            await engine.submit([Call(fn, (number,))])
        (worker,) = engine._children
        del fn
        gc.collect()
        await engine.submit([Call(engine.prepare(double), (1,))])
        assert len(worker.functions) <= 2


@pytest.mark.slow
async def test_memory_and_descriptors_stay_the_same_over_100_000_calls():
    """Of the driver and of the worker."""

    def memory(number):
        return int(Path(f"/proc/{number}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async with calling() as (_, submit):
        (number,) = [answer.value for answer in await submit((pid,))]

        async def calls(count):
            for start in range(0, count, 100):
                await submit(*((give, f"{start + n} {'x' * 100}") for n in range(100)))
            gc.collect()

        await calls(20_000)
        before = memory(number), memory("self"), descriptors()
        await calls(100_000)
        after = memory(number), memory("self"), descriptors()
    assert after[2] == before[2]
    assert after[0] - before[0] < 2_000_000
    assert after[1] - before[1] < 2_000_000


@pytest.mark.grid
@pytest.mark.real_time
async def test_on_every_loop():
    numbers = penstock.stream(range(200)).map(double, engine="process", concurrency=4)
    assert await numbers.to_list() == [2 * n for n in range(200)]
    data = penstock.stream([bytes(3_000_000)] * 4).map(give, engine="process", concurrency=2)
    assert [len(each) async for each in data] == [3_000_000] * 4
