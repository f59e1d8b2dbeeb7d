"""A run can be left at any await; neither hooks that raise nor others in the workspace change what becomes of it."""

import asyncio
import json
import subprocess
import sys

import pytest

from penstock.durable.store_errors import StoreError
from penstock.flow import Pipeline, PipelineEngine, parallel, step
from penstock.flow.recorder import Recorder
from penstock.tasks import CancelToken

pytestmark = [pytest.mark.real_time, pytest.mark.slow]


class CancelledAt:
    """Awaits a coroutine, and has it see a cancellation at its n-th await."""

    def __init__(self, coroutine, number):
        self.coroutine, self.number, self.seen = coroutine, number, 0

    def __await__(self):
        awaiting = self.coroutine.__await__()
        try:
            yielded = awaiting.send(None)
            while True:
                self.seen += 1
                if self.seen == self.number:
                    if yielded is not None:  # not of a wait for the next pass of the loop
                        yielded._asyncio_future_blocking = False
                    yielded = awaiting.throw(asyncio.CancelledError())
                    continue
                got = yield yielded
                yielded = awaiting.send(got)
        except StopIteration as stop:
            return stop.value


def build(calls):
    async def call(x, ctx):
        calls.append(ctx.step)
        await asyncio.sleep(0.001)
        return x + 1

    return (
        Pipeline("p")
        .step("a", call)
        .add(parallel("m", [step("left", call), Pipeline("right").step("x", call).step("y", call)]))
        .map("each", call)
        .step("sum", sum)
    )


async def test_cancelled_at_any_await_a_run_leaves_nothing_and_goes_on(tmp_path):
    """P4, P8: the cancellation is raised, and recorded; what was finished is not called again."""
    number, whole = 0, False
    while not whole:
        number += 1
        calls = []
        engine = PipelineEngine(tmp_path / str(number), concurrency=2)
        pipeline = build(calls)
        left = CancelledAt(engine.run(pipeline, 1, run_id="r"), number)
        try:
            await left
        except asyncio.CancelledError:
            assert len(asyncio.all_tasks()) == 1
            result = engine.result("r")
            assert result.status in {"cancelled", "completed"}
            assert "running" not in {each.status for each in result.steps}
        else:
            whole = left.seen < number
            assert whole
        done = {each.path for each in engine.result("r").steps if each.status == "completed"}
        calls.clear()
        assert (await engine.run(pipeline, 1, run_id="r")).output == 9
        assert done.isdisjoint(calls)
    assert number > 8


async def test_a_second_cancellation_while_it_stops_is_not_lost(tmp_path):
    begun, stopping = asyncio.Event(), asyncio.Event()

    async def slow_to_stop(x):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopping.set()
            await asyncio.sleep(0.05)

    engine = PipelineEngine(tmp_path)
    task = asyncio.create_task(engine.run(Pipeline("p").step("a", slow_to_stop), 1, run_id="r"))
    await begun.wait()
    task.cancel()
    await stopping.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.result("r").status == "cancelled"


async def test_a_hundred_hooks_that_raise_change_nothing(tmp_path):
    told = []

    def hook(what):
        told.append(what)
        raise RuntimeError

    async def inc(x):
        return x + 1

    engine = PipelineEngine(tmp_path, on_step_complete=hook, on_status_change=hook, concurrency=8)
    result = await engine.run(Pipeline("p").map("m", inc), list(range(100)))
    assert (result.status, result.output, len(told)) == ("completed", list(range(1, 101)), 103)


async def test_many_runs_of_one_engine_go_on_at_once(tmp_path):
    async def inc(x):
        return x + 1

    engine = PipelineEngine(tmp_path)
    pipeline = Pipeline("p").map("m", inc).step("sum", sum)
    results = await asyncio.gather(*(engine.run(pipeline, [number, 1], run_id=f"r{number}") for number in range(8)))
    assert [each.output for each in results] == [number + 3 for number in range(8)]
    assert len(engine.runs()) == 8


async def test_a_disk_that_is_full_at_any_commit_ends_the_run_and_hangs_nothing(tmp_path, monkeypatch):
    """The result says so, whatever was being written; when there is room again, the same call goes on."""
    commit, calls = Recorder._commit, []
    pipeline = build(calls).review("r")
    reached = number = 0
    while reached >= number:
        number += 1
        reached = 0

        def fail(self, writes, at=number):
            nonlocal reached
            reached += 1
            if reached == at:
                raise StoreError("the disk is full")
            commit(self, writes)

        engine = PipelineEngine(tmp_path / str(number))
        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "_commit", fail)
            async with asyncio.timeout(10):
                result = await engine.run(pipeline, 1, run_id="r")
        if reached >= number:
            assert (result.status, result.error.code) == ("failed", "WORKSPACE_ERROR")
            assert (await engine.run(pipeline, 1, run_id="r")).status == "paused"
    assert number > 8


async def test_steps_in_threads_read_at_once_what_came_before_them(tmp_path):
    def read(x, ctx):
        return {ctx.state["a"] for _ in range(50)}

    pipeline = Pipeline("p").step("a", lambda x: x + 1).add(parallel("m", [step(f"s{n}", read) for n in range(6)]))
    result = await PipelineEngine(tmp_path, concurrency=6).run(pipeline, 1)
    assert result.output == [{2}] * 6


PROGRAM = """
import asyncio, json, os, sys
from penstock.flow import Pipeline, PipelineEngine, PipelineError
calls = []
async def inc(x, ctx):
    calls.append(f"{ctx.run_id}:{ctx.step}")
    await asyncio.sleep(0)
    return x + 1
pipeline = Pipeline("p").map("m", inc).step("sum", sum)
async def main():
    engine = PipelineEngine(sys.argv[1])
    for number in range(10):
        try:
            result = await engine.run(pipeline, [number] * 5, run_id=f"r{number}")
            assert result.output == 5 * number + 5, result
        except PipelineError as error:
            assert error.code == "ALREADY_RUNNING", error
    print(json.dumps(calls))
asyncio.run(main())
"""


@pytest.mark.slow
def test_ten_runs_of_three_processes_in_one_workspace(tmp_path):
    """Each run is run by one process at a time, and each of its steps is called once."""
    started = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    calls = [call for each in started for call in json.loads(each.communicate()[0])]
    assert [each.returncode for each in started] == [0, 0, 0]
    assert len(calls) == len(set(calls))
    assert {each.status for each in PipelineEngine(tmp_path).runs()} == {"completed"}
    assert len(calls) == 10 * 5


INTERRUPTED = """
import asyncio, sys, time
from penstock.flow import Pipeline, PipelineEngine, parallel, step
def plain(x): raise KeyboardInterrupt
async def on_the_loop(x): raise KeyboardInterrupt
async def slow(x): await asyncio.sleep(60)
engine = PipelineEngine(sys.argv[1])
for fn in (plain, on_the_loop):
    both = parallel("m", [step("a", fn), step("b", slow)])
    try:
        asyncio.run(engine.run(Pipeline("p").add(both), 1, run_id=fn.__name__))
    except KeyboardInterrupt:
        result = engine.result(fn.__name__)
        print(result.status, result.error.code, *(each.status for each in result.steps))
"""


def test_a_ctrl_c_that_meets_a_step_is_recorded_as_a_cancel(tmp_path):
    """The process lives: the run is not `killed`, and nothing of it is `running`."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, tmp_path], capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout.splitlines()) == ("", ["cancelled ABORTED cancelled cancelled cancelled"] * 2)


async def test_a_step_that_was_cancelled_before_its_call_has_not_begun(tmp_path):
    """`running` of a step is committed with the output before it; a hook that hears of that output may cancel."""
    token, calls = CancelToken(), []

    async def call(x, ctx):
        calls.append((ctx.step, ctx.attempt))
        return x

    engine = PipelineEngine(tmp_path, on_step_complete=lambda step: token.cancel())
    pipeline = Pipeline("p").step("a", call).step("b", call, on_interrupted="ask")
    result = await engine.run(pipeline, 1, run_id="r", cancel=token)
    assert (result.status, calls) == ("cancelled", [("a", 1)])
    assert {(each.status, each.attempts, each.started_at) for each in result.steps[1:]} <= {("pending", 0, None)}
    assert (await engine.run(pipeline, 1, run_id="r")).status == "completed"
    assert calls == [("a", 1), ("b", 1)]
