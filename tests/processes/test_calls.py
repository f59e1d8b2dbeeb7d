"""Calls in worker processes: what they give, what is known of them, how they are stopped."""

import asyncio
import os
import signal
import time
from functools import partial

import pytest

import penstock
from penstock.engines import WorkerLost, processes

from .work import (
    aborted,
    alive,
    calling,
    close_all,
    crashed,
    double,
    exited,
    fork_and_return,
    give,
    hang,
    hang_in_c,
    killed,
    load,
    numbered,
    pid,
    printed,
    raises,
    start_sleeper,
    state,
    until,
    wait_for,
)

pytestmark = [pytest.mark.real_time, pytest.mark.slow]


def values(answers):
    return [answer.value for answer in answers]


@pytest.mark.quick
async def test_calls_are_answered_in_order():
    async with calling(2) as (_, submit):
        groups = [[(double, number) for number in range(start, start + 5)] for start in range(0, 50, 5)]
        results = [values(await group) for group in [submit(*group) for group in groups]]
        for number, group in enumerate(groups):  # one that began as another worker was to have it is short
            while len(results[number]) < len(group):
                results[number] += values(await submit(*group[len(results[number]) :]))
    assert [value for group in results for value in group] == [2 * number for number in range(50)]


async def test_large_groups_are_sent_when_a_worker_is_free_and_no_larger_than_need_be():
    """What is on its way cannot be taken back: sent again and again, it would fill the socket for good."""
    large = bytes(1 << 20)
    async with calling(1) as (engine, submit):
        await submit((pid,))
        hanging = submit((hang,))
        waiting = submit((len, large), (len, large))
        await until(lambda: engine.peek(hanging).since is not None)
        (child,) = engine._children
        assert list(child.groups.values()) == [engine._groups[hanging]]
        engine.stop(hanging)
        assert values(await waiting) == [1 << 20]


async def test_a_large_call_on_its_way_is_made_though_its_group_is_recalled():
    """Else it is sent again, and recalled again: on a busy machine, for ever."""
    large = bytes(1 << 20)
    async with calling(1) as (engine, submit):
        await submit((pid,))
        answers = submit((len, large), (len, large))
        assert engine.recall(answers) == 1
        assert values(await answers) == [1 << 20]


async def test_an_answer_says_what_the_call_took_where_it_ran():
    async with calling() as (_, submit):
        (answer,) = await submit((double, 1))
    assert answer.error is None
    assert 0 < answer.seconds < 1


@pytest.mark.quick
async def test_workers_are_started_as_there_is_work_and_calls_are_spread():
    async with calling(2) as (engine, submit):
        assert engine.slots() == 2
        (first,) = values(await submit((pid,)))
        assert values(await submit((pid,))) == [first]
        long = submit((hang,))
        (second,) = values(await submit((pid,)))
        engine.stop(long)
        await long
    assert first != second


async def test_an_initializer_is_called_once_in_each_worker():
    async with calling(1, load) as (_, submit):
        first, second = values(await submit((state,), (state,)))
        (later,) = values(await submit((state,)))
    assert len(first) == 1
    assert first == second == later


@pytest.mark.parametrize("hanging", [hang, hang_in_c])
async def test_a_stopped_call_really_stops_and_its_worker_is_replaced(hanging):
    """P12: also in C code that keeps the lock of the interpreter."""
    async with calling(2) as (engine, submit):
        (before,) = values(await submit((pid,)))
        answers = submit((double, 2), (hanging,), (double, 3))
        await until(lambda: engine.peek(answers).since is not None and len(engine.peek(answers).answers) == 1)
        engine.stop(answers)
        done, stopped = await answers
        assert done.value == 4
        assert isinstance(stopped.error, asyncio.CancelledError)
        assert not alive(before)
        assert values(await submit((double, 4))) == [8]


async def test_stopping_one_call_does_not_disturb_others(tmp_path):
    async with calling(2) as (engine, submit):
        other = submit((wait_for, str(tmp_path / "go")))
        answers = submit((hang,))
        await until(lambda: engine.peek(answers).since is not None and engine.peek(other).since is not None)
        engine.stop(answers)
        await answers
        (tmp_path / "go").touch()
        assert values(await other) == ["go"]


async def test_a_call_that_ends_in_time_keeps_its_answer_when_it_is_stopped(tmp_path):
    async with calling() as (engine, submit):
        (before,) = values(await submit((pid,)))
        answers = submit((wait_for, str(tmp_path / "go")), (double, 1))
        await until((tmp_path / "go.begun").exists)
        engine.stop(answers)
        (tmp_path / "go").touch()
        assert values(await answers) == ["go"]
        assert values(await submit((pid,))) == [before]


async def test_what_has_not_begun_is_taken_back_at_once():
    """A group that waits for a worker, and one that waits behind another group at the worker."""
    async with calling() as (engine, submit):
        await submit((double, 1))
        running, behind, waiting = submit((hang,)), submit((double, 2)), submit((double, 3))
        await until(lambda: engine.peek(running).since is not None)
        assert engine.peek(behind) == engine.peek(waiting) == ([], None)
        engine.stop(waiting)
        engine.recall(behind)
        assert waiting.result() == behind.result() == []
        engine.stop(running)
        await running
        assert values(await submit((double, 4))) == [8]


async def test_recall_lets_the_call_that_runs_come_back(tmp_path):
    async with calling() as (engine, submit):
        answers = submit((double, 1), (wait_for, str(tmp_path / "go")), (double, 2), (double, 3))
        await until(lambda: len(engine.peek(answers).answers) == 1 and engine.peek(answers).since is not None)
        engine.recall(answers)
        progress = engine.peek(answers)
        assert values(progress.answers) == [2]
        assert progress.since <= asyncio.get_running_loop().time()
        (tmp_path / "go").touch()
        assert values(await answers) == [2, "go"]


async def test_a_group_behind_a_long_call_moves_to_a_worker_that_is_free(tmp_path):
    async with calling(2) as (engine, submit):
        go = [str(tmp_path / "a"), str(tmp_path / "b")]
        first, second = submit((wait_for, go[0])), submit((wait_for, go[1]))
        await until(lambda: engine.peek(first).since is not None and engine.peek(second).since is not None)
        behind = submit((double, 1)), submit((double, 2))
        (tmp_path / "b").touch()
        assert [values(await each) for each in behind] == [[2], [4]]
        assert not first.done()
        (tmp_path / "a").touch()
        await first


@pytest.mark.parametrize(
    ("dying", "how"),
    [(killed, "SIGKILL"), (exited, "status 3"), (crashed, "SIGSEGV"), (aborted, "SIGABRT")],
    ids=["killed", "exited", "crashed", "aborted"],
)
async def test_a_dead_worker_names_its_call_and_is_replaced(dying, how, capfd):
    """Neighbours that were over keep their answers, and those that had not begun can be called again."""
    async with calling() as (_, submit):
        answers = submit((double, 1), (dying,), (double, 2))
        behind = submit((double, 3))
        first, lost = await answers
        assert first.value == 2
        assert isinstance(lost.error, WorkerLost)
        assert how in str(lost.error)
        assert dying.__name__ in str(lost.error)
        assert await behind == []
        assert values(await submit((double, 4))) == [8]


@pytest.mark.quick
async def test_an_idle_worker_that_is_killed_is_nobodys_loss():
    async with calling() as (_, submit):
        (number,) = values(await submit((pid,)))
        os.kill(number, signal.SIGKILL)
        await until(lambda: not alive(number))
        assert values(await submit((double, 1)) or await submit((double, 1))) == [2]  # it was sent before that was seen


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, StopIteration, GeneratorExit, asyncio.CancelledError])
async def test_what_ends_a_program_elsewhere_is_the_failure_of_the_call(kind):
    async with calling() as (_, submit):
        (before,) = values(await submit((pid,)))
        failed, after = await submit((raises, kind("mine")), (pid,))
        assert type(failed.error) is kind
        assert failed.error.args == ("mine",)
        assert after.value == before


async def test_results_of_an_iterable_are_read_in_the_worker():
    async with processes(1) as engine:
        fn = engine.prepare(numbered)
        answers = await engine.submit([penstock.engines.Call(fn, (5,), 3), penstock.engines.Call(fn, (2,), 3)])
        assert values(answers) == [[0, 1, 2], [0, 1]]


async def test_callables_of_any_kind():
    async with calling() as (_, submit):
        assert values(await submit((partial(divmod, 7), 2), (len, "abc"), ("abc".index, "c"))) == [(3, 1), 3, 2]


async def test_a_worker_prints_where_the_driver_does(capfd):
    async with calling() as (_, submit):
        await submit((printed, "hello from a worker"))
        assert capfd.readouterr() == ("hello from a worker\n", "")


async def test_what_a_call_has_started_ends_with_its_worker(tmp_path):
    async with calling() as (engine, submit):
        (sleeper,) = values(await submit((start_sleeper,)))
        assert alive(sleeper)
        answers = submit((hang, str(tmp_path / "begun")))
        await until((tmp_path / "begun").exists)
        engine.stop(answers)
        await answers
        await until(lambda: not alive(sleeper))


async def test_a_child_that_a_call_forks_and_that_comes_back_is_no_worker(tmp_path):
    async with calling() as (_, submit):
        assert values(await submit((fork_and_return, "x"), (double, 1))) == [0, 2]


async def test_a_group_larger_than_a_page():
    """Results that the page has no room for go through the socket, and stay in order."""
    texts = [chr(97 + number % 26) * 3_000 for number in range(200)]
    async with calling() as (_, submit):
        assert values(await submit(*((give, text) for text in texts))) == texts


async def test_a_worker_imports_little_of_penstock():
    """Its start is what a replacement costs."""
    async with calling() as (_, submit):
        (answer,) = await submit((eval, "set(__import__('sys').modules)"))
    ours = {name for name in answer.value if name.startswith("penstock")}
    assert {name for name in ours if not name.startswith("penstock.engines.process")} == {
        *("penstock", "penstock.exports", "penstock.engines"),
    }
    assert not answer.value & {"asyncio", "multiprocessing"}


async def test_a_call_that_closes_what_is_ours_harms_nobody_else(capfd):
    async with calling() as (_, submit):
        await submit((close_all,))
        assert values(await submit((double, 2)) or await submit((double, 2))) == [4]  # it was sent before that was seen
        assert capfd.readouterr() == ("", "")


async def test_a_result_that_is_still_in_the_socket_is_not_known_yet():
    """The page says that the call is over; nobody has read the socket since."""
    async with calling() as (engine, submit):
        await submit((double, 1))
        answers = submit((give, bytes(100_000)), (hang,))
        page = engine._children[0]._areas[0]
        while page.words[0] < 2:  # the loop does not get a turn
            time.sleep(0.001)  # noqa: ASYNC251
        assert engine.peek(answers).answers == []
        await until(lambda: len(engine.peek(answers).answers) == 1)
        assert values(engine.peek(answers).answers) == [bytes(100_000)]
        engine.stop(answers)
        assert len(await answers) == 2


async def test_a_group_of_very_many_calls_is_answered_as_far_as_one_can_be():
    async with calling() as (_, submit):
        answers = await submit(*((double, number) for number in range(5_000)))
    assert 1_000 < len(answers) < 5_000
    assert values(answers) == [2 * number for number in range(len(answers))]
