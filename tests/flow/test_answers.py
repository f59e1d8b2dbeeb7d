"""Reviews, answers, forks, and what becomes of a run whose definition has changed."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from penstock import OptionError
from penstock.flow import (
    OutputRefused,
    Pipeline,
    PipelineEngine,
    PipelineError,
    parallel,
    review,
    run_forks,
    step,
)
from penstock.flow.recorder import Noticed, put_file
from penstock.flow.session import Session
from penstock.tasks import CancelToken

pytestmark = pytest.mark.real_time

CALLS = []


@pytest.fixture(autouse=True)
def forget_calls():
    CALLS.clear()


@pytest.fixture
def engine(tmp_path):
    return PipelineEngine(tmp_path)


def inc(x):
    CALLS.append(x)
    return x + 1


def dec(x):
    CALLS.append(-x)
    return x - 1


def refuse_odd(x):
    if x % 2:
        raise ValueError("odd")


def statuses(result):
    return {each.path: each.status for each in result.steps}


REVIEWED = Pipeline("p", takes=int).step("a", inc).review("r", check=refuse_odd).step("b", inc)


async def test_resume_never_approves(engine):
    result = await engine.run(REVIEWED, 1, run_id="x")
    assert (result.status, result.output) == ("paused", None)
    (pending,) = engine.pending("x")
    assert (pending.step, pending.value, pending.reason, pending.refused) == ("r", 2, "review", None)
    assert (await engine.resume("x", pipeline=REVIEWED)).status == "paused"
    assert CALLS == [1]


async def test_what_was_approved_goes_on(engine):
    await engine.run(REVIEWED, 1, run_id="x")
    engine.approve("x", by="ann", note="fine")
    assert engine.pending("x") == []
    with pytest.raises(OptionError, match="no step waits"):
        engine.approve("x")
    result = await engine.resume("x", pipeline=REVIEWED)
    assert (result.status, result.output) == ("completed", 3)
    assert [(each.by, each.note) for each in result.steps if each.path == "r"] == [("ann", "fine")]


async def test_an_edited_value_goes_on_in_place_of_what_waits(engine):
    await engine.run(REVIEWED, 1, run_id="x")
    with pytest.raises(OutputRefused, match="value is a function"):
        engine.approve("x", value=inc)
    engine.approve("x", value=10)
    assert (await engine.resume("x", pipeline=REVIEWED)).output == 11


async def test_a_check_refuses_at_once_or_by_the_next_run(engine):
    await engine.run(REVIEWED, 1, run_id="x")
    with pytest.raises(ValueError, match="odd"):
        engine.approve("x", value=3, pipeline=REVIEWED)
    engine.approve("x", value=3)
    assert (await engine.resume("x", pipeline=REVIEWED)).status == "paused"
    (pending,) = engine.pending("x")
    assert (pending.value, pending.refused) == (2, "ValueError('odd')")
    engine.approve("x", value=4, pipeline=REVIEWED)
    assert (await engine.resume("x", pipeline=REVIEWED)).output == 5


async def test_what_was_rejected_fails_now_and_later(engine):
    await engine.run(REVIEWED, 1, run_id="x")
    engine.reject("x", reason="too short", by="ann")
    for _ in range(2):
        result = await engine.resume("x", pipeline=REVIEWED)
        assert (result.status, result.error.code, result.error.step) == ("failed", "REVIEW_REJECTED", "r")
        assert "too short" in str(result.error)
    new = engine.fork("x", at="r")
    assert (await engine.resume(new, pipeline=REVIEWED)).status == "paused"
    assert CALLS == [1]


async def test_a_review_frees_its_place_and_an_answer_comes_while_the_engine_runs(engine):
    pipeline = Pipeline("p").add(parallel("m", [review("r"), step("w", lambda x: answered(x))], concurrency=1))

    async def answered(x):
        await asyncio.to_thread(PipelineEngine(engine._workspace.directory).approve, "x", value=7)
        return x

    async with asyncio.timeout(10):
        result = await engine.run(pipeline, 1, run_id="x")
    assert (result.status, result.output) == ("completed", [7, 1])


async def test_a_loop_with_a_review_asks_each_round(engine):
    body = Pipeline("round").step("edit", inc).review("editor")
    pipeline = Pipeline("p").loop("refine", body, until=lambda x: x >= 3, max_rounds=5)
    result = await engine.run(pipeline, 1, run_id="x")
    assert [each.step for each in engine.pending("x")] == ["refine[0]/editor"]
    assert statuses(result)["refine"] == "waiting"
    engine.approve("x")
    await engine.run(pipeline, 1, run_id="x")
    engine.approve("x", "refine[1]/editor")
    result = await engine.run(pipeline, 1, run_id="x")
    assert (result.output, CALLS) == (3, [1, 2])


async def test_items_of_a_map_wait_each_for_their_answer(engine):
    pipeline = Pipeline("p").map("m", Pipeline("b").review("r").step("i", inc), concurrency=1)
    await engine.run(pipeline, [1, 2, 3], run_id="x")
    assert [(each.step, each.value) for each in engine.pending("x")] == [("m[0]/r", 1), ("m[1]/r", 2), ("m[2]/r", 3)]
    with pytest.raises(OptionError, match=r"several steps wait for an answer: there are 'm\[0\]/r'"):
        engine.approve("x")
    for number in (1, 0, 2):
        engine.approve("x", f"m[{number}]/r")
    assert (await engine.run(pipeline, [1, 2, 3], run_id="x")).output == [2, 3, 4]


async def test_an_interrupted_step_waits_to_be_told(engine):
    attempts = []

    async def effect(x, ctx):
        attempts.append(ctx.attempt)
        if len(attempts) == 1:
            await asyncio.Event().wait()
        return x + 1

    pipeline = Pipeline("p").step("a", effect, on_interrupted="ask", timeout=0.05).step("b", inc)
    assert (await engine.run(pipeline, 1, run_id="x")).status == "failed"
    assert (await engine.run(pipeline, 1, run_id="x")).status == "paused"
    (pending,) = engine.pending("x")
    assert (pending.step, pending.value, pending.reason) == ("a", 1, "interrupted")
    engine.approve("x")
    assert (await engine.run(pipeline, 1, run_id="x")).output == 3
    assert attempts == [1, 2]


async def test_an_interrupted_step_takes_a_value_or_fails(engine):
    async def effect(x):
        CALLS.append("effect")
        await asyncio.Event().wait()

    pipeline = Pipeline("p").step("a", effect, on_interrupted="ask", timeout=0.01).step("b", inc)
    for run in ("x", "y"):
        await engine.run(pipeline, 1, run_id=run)
        await engine.run(pipeline, 1, run_id=run)
    engine.approve("x", value=5)
    assert (await engine.run(pipeline, 1, run_id="x")).output == 6
    engine.reject("y", reason="it was sent")
    assert (await engine.run(pipeline, 1, run_id="y")).error.code == "REVIEW_REJECTED"
    assert CALLS == ["effect", "effect", 5]


async def test_a_fork_keeps_what_does_not_depend_on_the_step(engine):
    pipeline = (
        Pipeline("p")
        .step("a", inc)
        .add(parallel("m", [step("left", inc), step("right", inc)]))
        .step("s", sum)
        .step("z", inc)
    )
    await engine.run(pipeline, 1, run_id="x")
    CALLS.clear()
    new = engine.fork("x", at="m/right", outputs={"m/left": 100})
    info = next(each for each in engine.runs() if each.run_id == new)
    assert (info.status, info.forked_from) == ("pending", "x")
    result = await engine.resume(new, pipeline=pipeline)
    assert (result.output, CALLS) == (104, [2, 103])
    assert engine.result("x").output == 7
    with pytest.raises(OptionError, match="no step 'q': there are 'a'"):
        engine.fork("x", at="q")
    with pytest.raises(OptionError, match="no output 's' to replace: there are 'a'"):
        engine.fork("x", at="m", outputs={"s": 1})


async def test_a_large_output_that_a_fork_is_given_is_a_file(engine, tmp_path):
    pipeline = Pipeline("p").step("a", inc).step("b", len)
    await engine.run(Pipeline("p").step("a", inc).step("b", inc), 1, run_id="x")
    new = engine.fork("x", at="b", outputs={"a": "y" * 100_000})
    (file,) = (tmp_path / "runs" / new / "outputs").iterdir()
    assert file.stat().st_size > 100_000 > (tmp_path / "workspace.db").stat().st_size
    assert (await engine.resume(new, pipeline=pipeline)).output == 100_000


async def test_outputs_of_a_fork_are_a_mapping(engine):
    await engine.run(Pipeline("p").step("a", inc), 1, run_id="x")
    with pytest.raises(OptionError, match=r"^outputs must be a mapping of outputs by path, got \[1\]$"):
        engine.fork("x", at="a", outputs=[1])


async def test_a_check_that_gives_something_to_await_refuses(engine):
    """Nobody awaits it: it would let all go on."""

    async def never(x):
        raise ValueError(x)

    pipeline = Pipeline("p").review("r", check=lambda x: never(x))
    await engine.run(pipeline, 1, run_id="x")
    with pytest.raises(OptionError, match="check must be a plain function"):
        engine.approve("x", pipeline=pipeline)
    engine.approve("x")
    assert (await engine.resume("x", pipeline=pipeline)).status == "paused"


async def test_a_fork_that_fails_leaves_no_file(engine, tmp_path, monkeypatch):
    await engine.run(Pipeline("p").step("a", inc).step("b", inc), 1, run_id="x")
    monkeypatch.setattr(run_forks, "NEW_RUN", "INSERT INTO nowhere VALUES (1)")
    with pytest.raises(PipelineError, match="nowhere"):
        engine.fork("x", at="b", outputs={"a": "y" * 100_000})
    assert [each.name for each in (tmp_path / "runs").iterdir()] == ["x"]


async def test_changed_code_of_finished_steps_is_named_or_refused_or_done_again(engine, caplog):
    def build(first, second):
        return Pipeline("p").step("a", first).step("b", second).review("r")

    await engine.run(build(inc, inc), 1, run_id="x")
    result = await engine.run(build(dec, inc), 1, run_id="x")
    assert (result.changed, CALLS) == (("a",), [1, 2])
    assert "'a'" in caplog.text or "a" in caplog.text
    result = await engine.run(build(dec, inc), 1, run_id="x", on_change="refuse")
    assert (result.status, result.error.code) == ("failed", "DEFINITION_CHANGED")
    assert engine.result("x").status == "paused"
    result = await engine.run(build(dec, inc), 1, run_id="x", on_change="restart")
    assert (result.changed, engine.pending("x")[0].value) == ((), 1)


async def test_steps_may_be_added_behind_and_not_before_what_is_finished(engine):
    await engine.run(Pipeline("p").step("a", inc).review("r").step("gone", inc), 1, run_id="x")
    behind = Pipeline("p").step("a", inc).review("r").step("new", inc).step("more", inc)
    assert (await engine.run(behind, 1, run_id="x")).status == "paused"
    before = Pipeline("p").step("new", inc).step("a", inc).review("r")
    result = await engine.run(before, 1, run_id="x")
    assert result.error.code == "DEFINITION_CHANGED"
    assert "'a'" in str(result.error)
    renamed = Pipeline("p").step("b", inc).review("r")
    result = await engine.run(renamed, 1, run_id="x")
    assert result.error.code == "DEFINITION_CHANGED"
    assert ("gone: 'a'" in str(result.error), "new: 'b'" in str(result.error)) == (True, True)
    engine.approve("x")
    assert (await engine.run(behind, 1, run_id="x")).output == 4


async def test_answers_that_come_together_wake_each_step_once(engine):
    """Two reviews of one item are answered while it waits for a place: it must not take two of them."""
    item = Pipeline("item").add(parallel("p", [review("one"), review("two")])).step("sum", sum)
    items = Pipeline("items").map("m", item, concurrency=1)

    async def answer(x):
        for each in engine.pending("x"):
            await asyncio.to_thread(engine.approve, "x", each.step)
        await asyncio.sleep(0.2)
        return x

    both = parallel("both", [items, Pipeline("w").step("wait", lambda x: 99).step("answer", answer)])
    async with asyncio.timeout(10):
        result = await engine.run(Pipeline("p").add(both), [1, 2], run_id="x")
    assert (result.status, result.output) == ("completed", [[2, 4], 99])


@pytest.mark.parametrize("how", ["engine", "another process", "token", "task"])
async def test_a_cancel_given_while_it_is_told_that_the_run_is_paused_is_not_lost(tmp_path, how):
    """What is paused may become cancelled, also between that commit and the release of its lock."""
    told, token = [], CancelToken()

    def hook(info):
        told.append(info.status)
        if info.status != "paused" or how is None:
            return
        if how == "engine":
            engine.cancel("x")
        elif how == "another process":
            code = "import sys; from penstock.flow import PipelineEngine; PipelineEngine(sys.argv[1]).cancel('x')"
            subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
        elif how == "token":
            token.cancel()
        else:
            task.cancel()

    engine = PipelineEngine(tmp_path, on_status_change=hook)
    task = asyncio.create_task(engine.run(REVIEWED, 1, run_id="x", cancel=token))
    if how == "task":
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        result = await task
        assert (result.status, result.error.code) == ("cancelled", "ABORTED")
        assert told == ["running", "paused", "cancelled"]
    assert (engine.result("x").status, engine.runs()[0].error) == ("cancelled", "run 'x' was cancelled")
    assert engine.result("x").error.code == "ABORTED"
    how = None
    assert (await engine.run(REVIEWED, 1, run_id="x")).status == "paused"


async def test_an_answer_given_while_it_is_told_that_the_run_is_paused_has_it_go_on(tmp_path):
    told = []

    def hook(info):
        told.append(info.status)
        if info.status == "paused":
            engine.approve("x", value=4)

    engine = PipelineEngine(tmp_path, on_status_change=hook)
    result = await engine.run(REVIEWED, 1, run_id="x")
    assert (result.status, result.output) == ("completed", 5)
    assert told == ["running", "paused", "running", "completed"]


@pytest.mark.parametrize("at", ["the first file", "the second file", "the commit"])
async def test_what_a_killed_fork_has_left_is_gone_after_the_next_run(tmp_path, at):
    """C10: no directory stays that no run names."""
    pipeline = Pipeline("p").step("a", inc).step("b", inc).review("r")
    engine = PipelineEngine(tmp_path)
    await engine.run(pipeline, 1, run_id="x")

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    if not (child := os.fork()):
        put = iter([put_file, die] if at == "the second file" else [die] if at == "the first file" else [put_file] * 2)
        run_forks.put_file = lambda *file: next(put)(*file)
        if at == "the commit":
            run_forks.Fork._record = die
        engine.fork("x", at="r", outputs={"a": "y" * 100_000, "b": "z" * 100_000})
        os._exit(0)
    assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, child, 0))[1]) == -signal.SIGKILL
    assert {each.run_id for each in engine.runs()} == {"x"}
    await engine.run(pipeline, 1, run_id="x")
    assert [each.name for each in (tmp_path / "runs").iterdir()] == ["x"]
    assert {each.name.partition("-")[0] for each in tmp_path.iterdir()} == {"workspace.db", "runs"}


async def test_an_answer_that_comes_as_a_run_comes_to_rest_is_acted_upon_once(tmp_path, monkeypatch):
    """It is noticed by what has ended, and by what goes on: a hook heard of the step twice."""
    told, end = [], Session._end

    async def answered_late(session, execution):
        if told == ["a"]:
            while not engine.pending("x"):  # noqa: ASYNC110 -- a thread records it
                await asyncio.sleep(0)
            engine.approve("x", value=4)
            execution.notice(Noticed(cancel=False, answered=("r",)))
        await end(session, execution)

    monkeypatch.setattr(Session, "_end", answered_late)
    engine = PipelineEngine(tmp_path, on_step_complete=lambda step: told.append(step.path))
    result = await engine.run(REVIEWED, 1, run_id="x")
    assert (result.status, result.output) == ("completed", 5)
    assert told == ["a", "r", "b"]
