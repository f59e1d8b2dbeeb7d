"""Runs of an engine: what each kind of step gives, what is recorded, and that what is finished is not called again."""

import asyncio
import contextlib
import enum
import shutil
import threading
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import apsw
import numpy as np
import pytest

from penstock import Failed, Limiter, Ok, OptionError, Retry
from penstock.flow import Pipeline, PipelineEngine, PipelineError, parallel, step
from penstock.flow.recorder import Recorder
from penstock.flow.session import Session
from penstock.tasks import CancelToken

pytestmark = pytest.mark.real_time

CALLS = []


@pytest.fixture(autouse=True)
def forget_calls():
    CALLS.clear()


@pytest.fixture
def engine(tmp_path):
    return PipelineEngine(tmp_path / "work")


def double(x):
    CALLS.append(("double", x))
    return 2 * x


async def inc(x):
    CALLS.append(("inc", x))
    return x + 1


async def stuck(x):
    CALLS.append(("stuck", x))
    await asyncio.Event().wait()


def boom(x):
    CALLS.append(("boom", x))
    raise ValueError("boom")


def statuses(result):
    return {each.path: each.status for each in result.steps}


EVERYTHING = (
    Pipeline("everything", takes=int)
    .step("double", double)
    .add(parallel("both", (step("left", inc), Pipeline("right").step("a", inc).step("b", inc))))
    .map("each", inc, concurrency=2)
    .step("sum", sum)
    .loop("grow", Pipeline("round").step("a", inc).step("b", inc), until=lambda x: x > 20, max_rounds=50)
    .branch("sign", lambda x: x > 0, {True: step("plus", str), False: step("minus", boom)})
)


async def test_each_step_gets_what_the_one_before_it_gave(engine):
    result = await engine.run(EVERYTHING, 3, run_id="a")
    assert (result.status, result.output, result.error) == ("completed", "21", None)
    assert result.outputs["both"] == (7, 8)
    assert result.outputs["each"] == [8, 9]
    assert result.outputs["grow[0]/b"] == 19
    assert list(statuses(result))[:6] == ["double", "both", "both/left", "both/right", "both/right/a", "both/right/b"]
    assert statuses(result)["sign/minus"] == "skipped"


async def test_a_completed_run_calls_nothing_and_gives_its_result(engine):
    await engine.run(EVERYTHING, 3, run_id="a")
    CALLS.clear()
    again = await engine.run(EVERYTHING, 3, run_id="a")
    assert (again.output, CALLS) == ("21", [])
    assert (await engine.resume("a", pipeline=EVERYTHING)).output == "21"
    assert engine.result("a").output == "21"


async def test_a_failed_run_goes_on_at_the_step_that_failed(engine):
    failing = True

    def may_fail(x):
        if failing:
            raise ValueError("boom")
        return x + 100

    pipeline = Pipeline("p").step("a", inc).step("b", may_fail).step("c", inc)
    result = await engine.run(pipeline, 1, run_id="a")
    assert (result.status, result.error.code, result.error.step) == ("failed", "STEP_FAILED", "b")
    assert isinstance(result.error.__cause__, ValueError)
    assert statuses(result) == {"a": "completed", "b": "failed"}
    assert engine.result("a").error.__cause__ is None
    failing = False
    result = await engine.run(pipeline, 1, run_id="a")
    assert (result.output, CALLS) == (103, [("inc", 1), ("inc", 102)])
    assert [each.attempts for each in result.steps] == [1, 2, 1]


async def test_run_or_raise_gives_the_output_or_the_error(engine):
    assert await engine.run_or_raise(Pipeline("p").step("a", inc), 1) == 2
    with pytest.raises(PipelineError, match="boom") as caught:
        await engine.run_or_raise(Pipeline("p").step("a", boom), 1)
    assert caught.value.code == "STEP_FAILED"
    with pytest.raises(PipelineError) as caught:
        await engine.run_or_raise(Pipeline("p").review("r"), 1)
    assert (caught.value.code, caught.value.step) == ("PAUSED", "r")


async def test_the_first_failure_cancels_the_siblings_and_is_the_one_that_is_named(engine):
    async def late(x):
        CALLS.append("late")
        raise ValueError("late")

    steps = [step("a", stuck), step("b", late), step("c", stuck), step("d", inc)]
    result = await engine.run(Pipeline("p").add(parallel("m", steps)).step("e", inc), 1)
    assert (result.status, result.error.step) == ("failed", "m/b")
    assert statuses(result) == {
        "m": "failed",
        "m/a": "cancelled",
        "m/b": "failed",
        "m/c": "cancelled",
        "m/d": "pending",
    }


async def test_a_sibling_that_raises_while_it_is_stopped_has_failed_too(engine):
    async def stubborn(x):
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("cleanup")

    result = await engine.run(Pipeline("p").add(parallel("m", [step("a", stubborn), step("b", boom)])), 1)
    assert result.error.step == "m/b"
    assert [(each.step, each.code) for each in result.errors] == [("m/b", "STEP_FAILED"), ("m/a", "STEP_FAILED")]


async def test_a_step_that_raises_cancelled_error_of_its_own_accord_has_failed(engine):
    async def cancels(x):
        raise asyncio.CancelledError

    result = await engine.run(Pipeline("p").step("a", cancels), 1)
    assert (result.status, result.error.code) == ("failed", "STEP_FAILED")


async def test_a_map_collects_or_returns_what_failed(engine):
    async def odd(x):
        if x % 2 == 0:
            raise ValueError(x)
        return x

    result = await engine.run(Pipeline("p").map("m", odd, on_error="collect"), [1, 2, 3])
    assert (result.status, result.output, result.errors) == ("completed", [1, 3], ())
    assert statuses(result)["m[1]"] == "failed"
    result = await engine.run(Pipeline("p").map("m", odd, on_error="return"), [1, 2, 3])
    first, second, third = result.output
    assert (first, third) == (Ok(1, 0), Ok(3, 2))
    assert isinstance(second, Failed)
    assert (second.index, second.item, second.stage, second.error.code) == (1, 2, "m[1]", "STEP_FAILED")


async def test_an_item_that_failed_stops_its_own_steps_and_no_others(engine):
    body = Pipeline("body").add(parallel("x", [step("s", stuck), step("b", boom)]))
    result = await engine.run(Pipeline("p").map("m", body, on_error="collect").step("len", len), [1, 2])
    assert (result.status, result.output) == ("completed", 0)
    assert statuses(result)["m[1]/x/s"] == "cancelled"


@pytest.mark.parametrize("given", ["abc", b"abc", {"a": 1}, {1, 2}, frozenset((1,)), 3, None])
async def test_a_map_takes_no_text_no_mapping_and_no_set(engine, given):
    result = await engine.run(Pipeline("p").map("m", inc), given)
    assert (result.error.code, result.error.step) == ("TASK_CREATION_FAILED", "m")
    assert list(statuses(result)) == ["m"]


async def test_a_map_of_nothing_gives_nothing(engine):
    assert (await engine.run(Pipeline("p").map("m", inc), ())).output == []


async def test_a_key_without_a_case_fails_the_branch_and_names_the_keys(engine):
    pipeline = Pipeline("p").branch("b", lambda x: "z", {"x": step("x", inc), "y": step("y", inc)})
    result = await engine.run(pipeline, 1)
    assert result.error.step == "b"
    assert "no case for the key 'z': there are 'x', 'y'" in str(result.error)


async def test_the_choice_holds(engine):
    failing, key = True, "x"

    def may_fail(x):
        if failing:
            raise ValueError
        return "x"

    pipeline = Pipeline("p").branch("b", lambda x: key, {"x": step("x", may_fail), "y": step("y", inc)})
    await engine.run(pipeline, 1, run_id="a")
    failing, key = False, "y"
    assert (await engine.run(pipeline, 1, run_id="a")).output == "x"


async def test_a_loop_that_does_not_end_fails_and_says_the_number(engine):
    pipeline = Pipeline("p").loop("l", step("i", inc), until=lambda x: x > 9, max_rounds=3)
    result = await engine.run(pipeline, 1)
    assert (result.error.code, result.error.step) == ("STEP_FAILED", "l")
    assert "3" in str(result.error)
    assert list(statuses(result)) == ["l", "l[0]", "l[1]", "l[2]"]


async def test_the_engine_bounds_leaves_and_nesting_never_multiplies_it(tmp_path):
    running, peak = 0, 0

    async def leaf(x):
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running -= 1
        return x

    inner = Pipeline("inner").map("m", leaf, concurrency=10)
    pipeline = Pipeline("p").map("outer", inner, concurrency=10)
    result = await PipelineEngine(tmp_path, concurrency=3).run(pipeline, [[1, 2, 3]] * 5)
    assert result.output == [[1, 2, 3]] * 5
    assert peak == 3


async def test_at_concurrency_1_leaves_run_in_the_order_of_the_definition(tmp_path):
    pipeline = Pipeline("p").map("m", Pipeline("b").step("x", inc).step("y", double))
    await PipelineEngine(tmp_path, concurrency=1).run(pipeline, [1, 2])
    assert [name for name, _ in CALLS] == ["inc", "double"] * 2


async def test_retries_keep_count_over_resumes(engine):
    tries = []

    def flaky(x, ctx):
        tries.append((ctx.attempt, ctx.idempotency_key, ctx.workspace))
        assert ctx.workspace.is_dir()
        raise OSError

    pipeline = Pipeline("p").step("a", flaky, retry=Retry(on=OSError, initial=0, attempts=2))
    await engine.run(pipeline, 1, run_id="r")
    result = await engine.run(pipeline, 1, run_id="r")
    assert [number for number, _, _ in tries] == [1, 2, 3, 4]
    assert len({tuple(rest) for _, *rest in tries}) == 1
    assert result.steps[0].attempts == 4


async def test_a_timeout_cancels_the_attempt_and_says_the_seconds(engine):
    result = await engine.run(Pipeline("p").step("a", stuck, timeout=0.01), 1)
    assert str(result.error) == "step 'a': timed out after 0.01 s"


async def test_a_thread_whose_time_is_over_is_waited_for(engine):
    release, loop = threading.Event(), asyncio.get_running_loop()

    def blocked(x):
        loop.call_soon_threadsafe(loop.call_later, 0.2, release.set)
        release.wait(5)
        CALLS.append("back")

    result = await engine.run(Pipeline("p").step("a", blocked, timeout=0.01), 1)
    assert result.error.code == "STEP_FAILED"
    assert CALLS == ["back"]


async def test_limits_are_shared_among_steps(engine):
    limiter = Limiter(1)
    running, peak = 0, 0

    async def leaf(x):
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1
        return x

    result = await engine.run(Pipeline("p").map("m", leaf, limit=limiter), [1, 2, 3, 4])
    assert (result.output, peak) == ([1, 2, 3, 4], 1)


async def test_memo_keeps_outputs_for_all_runs(engine):
    pipeline = Pipeline("p").map("m", inc, memo=True, deps=1)
    await engine.run(pipeline, [1, 2])
    result = await engine.run(pipeline, [2, 3])
    assert CALLS == [("inc", 1), ("inc", 2), ("inc", 3)]
    assert (result.output, [each.attempts for each in result.steps]) == ([3, 4], [0, 0, 1])


async def test_a_step_sees_the_outputs_before_it(engine):
    seen = {}

    def look(x, ctx):
        seen["names"] = list(ctx.state)
        seen["deep"] = ctx.state["m/left"]
        seen["typed"] = ctx.output(first)
        with pytest.raises(KeyError, match="no output 'later': there are 'first', 'm', 'sum'"):
            ctx.state["later"]
        return x

    first = step("first", inc)
    pipeline = (
        Pipeline("p")
        .add(first)
        .add(parallel("m", [step("left", inc), step("right", inc)]))
        .add(Pipeline("inner").step("sum", sum).step("look", look))
        .step("later", inc)
    )
    result = await engine.run(pipeline, 1)
    assert result.error is None
    assert seen == {"names": ["first", "m", "sum"], "deep": 3, "typed": 2}


async def test_usage_adds_up(engine):
    def asks(x, ctx):
        ctx.add_usage(input_tokens=3)
        ctx.add_usage(input_tokens=4, output_tokens=5)
        return x

    result = await engine.run(Pipeline("p").map("m", asks), [1, 2])
    assert (result.usage.requests, result.usage.input_tokens, result.usage.output_tokens) == (4, 14, 10)


async def test_each_consumer_has_a_copy_of_its_own(engine):
    def spoil(items):
        items.append(1)
        return len(items)

    pipeline = Pipeline("p").add(parallel("m", [step("a", spoil), step("b", spoil)]))
    assert (await engine.run(pipeline, [])).output == [1, 1]


class Colour(enum.Enum):
    RED = 1


class Flags(enum.IntFlag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclass(frozen=True)
class Draft:
    text: str
    tags: list[Colour] = field(default_factory=list)


VALUES = [
    *(None, True, 3, 2**80, 1.5, 1j, "text", b"bytes", [1], (1,), {"a": 1}, {1}, frozenset((1,))),
    *(Colour.RED, Flags.A | Flags.B, Path("a"), PurePosixPath("b"), date(2020, 1, 2), time(3), timedelta(1)),
    *(datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=ZoneInfo("Europe/Paris")), Decimal("1.10")),
    *(Fraction(1, 3), UUID(int=3), Point(1), Draft("a", [Colour.RED]), [Draft("b")], {"k": (Draft("c"), Point(1, 2))}),
    np.float64(1.5),
]


async def test_outputs_come_back_as_the_same_types(engine):
    result = await engine.run(Pipeline("p").step("a", lambda _: VALUES).step("b", lambda x: x), 1, run_id="v")
    assert result.output == VALUES
    assert list(map(type, result.output)) == list(map(type, VALUES))
    assert engine.result("v").output == VALUES


async def test_what_cannot_be_stored_is_refused_with_its_place(engine):
    result = await engine.run(Pipeline("p").step("a", lambda _: [1, Draft("x", [threading.Lock()])]), 1)
    assert result.error.code == "OUTPUT_REFUSED"
    assert "output[1].tags[0] is a lock" in str(result.error)

    @dataclass
    class Local:
        x: int

    result = await engine.run(Pipeline("p").step("a", lambda _: Local(1)), 1)
    assert result.error.code == "OUTPUT_REFUSED"
    with pytest.raises(OptionError, match="value is a lock"):
        await engine.run(Pipeline("p").step("a", inc), threading.Lock())


async def test_large_outputs_are_files_that_are_checked(engine, tmp_path):
    pipeline = Pipeline("p").step("a", lambda _: b"x" * 100_000).step("b", boom)
    await engine.run(pipeline, 1, run_id="big")
    (file,) = (tmp_path / "work/runs/big/outputs").iterdir()
    (file.parent / "left.part").write_bytes(b"")
    (file.parent / "0abc").write_bytes(b"")
    await engine.run(pipeline, 1, run_id="big")
    assert list(file.parent.iterdir()) == [file]
    file.write_bytes(b"y")
    result = await engine.run(pipeline, 1, run_id="big")
    assert (result.error.code, result.error.step) == ("WORKSPACE_ERROR", "a")
    assert "changed" in str(result.error)
    file.unlink()
    result = await engine.run(pipeline, 1, run_id="big")
    assert (result.error.code, "gone" in str(result.error)) == ("WORKSPACE_ERROR", True)


async def test_an_empty_pipeline_writes_nothing(engine, tmp_path):
    result = await engine.run(Pipeline("p").add(Pipeline("inner")), 1)
    assert (result.status, result.error.code, result.error.step) == ("failed", "NO_STEPS", "inner")
    assert not (tmp_path / "work").exists()
    assert engine.runs() == []


async def test_an_unknown_run_lists_those_there_are(engine):
    await engine.run(Pipeline("p").step("a", inc), 1, run_id="known")
    with pytest.raises(OptionError, match="there is no run 'x': there are 'known'"):
        engine.result("x")
    with pytest.raises(OptionError, match="there is no run 'x'"):
        await engine.resume("x", pipeline=EVERYTHING)
    with pytest.raises(OptionError, match="'known' was begun with another value"):
        await engine.run(Pipeline("p").step("a", inc), 2, run_id="known")
    with pytest.raises(OptionError, match="'known' is one of pipeline 'p'"):
        await engine.run(EVERYTHING, 1, run_id="known")
    with pytest.raises(OptionError, match="run_id must be"):
        await engine.run(EVERYTHING, 1, run_id="a/b")


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"durability": "maybe"}, {"grace": -1}, {"on_step_complete": 3}]
)
def test_options_of_the_engine_are_checked(tmp_path, options):
    with pytest.raises(OptionError, match="workspace must be a path"):
        PipelineEngine("a\0b")
    with pytest.raises(OptionError, match=next(iter(options))):
        PipelineEngine(tmp_path, **options)


async def test_hooks_tell_what_is_committed_children_first_and_cannot_break_a_run(tmp_path):
    told = []

    def tell_step(result):
        assert PipelineEngine(tmp_path).result("a").outputs[result.path] == result.output
        assert result.finished_at is not None
        told.append(result.path)
        raise ValueError

    def tell_status(info):
        told.append(info.status)
        raise ValueError

    engine = PipelineEngine(tmp_path, on_step_complete=tell_step, on_status_change=tell_status)
    pipeline = Pipeline("p").add(parallel("m", [step("a", inc), step("b", inc)])).step("c", sum)
    assert (await engine.run(pipeline, 1, run_id="a")).status == "completed"
    assert told == ["running", "m/a", "m/b", "m", "c", "completed"]


@pytest.mark.slow
async def test_a_token_cancels_a_run_which_goes_on_later(engine):
    token = CancelToken()

    async def cancels(x, ctx):
        ctx.cancel.on_cancel(lambda: CALLS.append("told"))
        token.cancel()
        await asyncio.Event().wait()

    pipeline = Pipeline("p").step("a", inc).step("b", cancels)
    result = await engine.run(pipeline, 1, run_id="a", cancel=token)
    assert result.status == "cancelled"
    assert (result.error.code, result.error.step) == ("ABORTED", None)
    assert statuses(result) == {"a": "completed", "b": "cancelled"}
    assert CALLS == [("inc", 1), "told"]
    result = await engine.run(Pipeline("p").step("a", inc).step("b", inc), 1, run_id="a")
    assert result.output == 3


async def test_a_token_that_was_signalled_before_starts_nothing(engine):
    token = CancelToken()
    token.cancel()
    result = await engine.run(Pipeline("p").step("a", inc), 1, cancel=token)
    assert (result.status, CALLS) == ("cancelled", [])


async def test_another_engine_can_cancel_a_run(engine, tmp_path):
    async def cancelled_by_another(x):
        await asyncio.to_thread(PipelineEngine(tmp_path / "work").cancel, "a")
        await asyncio.Event().wait()

    async with asyncio.timeout(10):
        result = await engine.run(Pipeline("p").step("a", cancelled_by_another), 1, run_id="a")
    assert result.status == "cancelled"
    with pytest.raises(OptionError, match="is cancelled"):
        engine.cancel("a")


async def test_a_run_that_is_run_refuses_a_second_engine(engine, tmp_path):
    refused = []

    async def second(x):
        with pytest.raises(PipelineError, match="process") as caught:
            await PipelineEngine(tmp_path / "work").resume("a", pipeline=pipeline)
        refused.append(caught.value.code)
        return x

    pipeline = Pipeline("p").step("a", second)
    assert (await engine.run(pipeline, 1, run_id="a")).status == "completed"
    assert refused == ["ALREADY_RUNNING"]


@pytest.mark.slow
async def test_a_failure_and_a_cancel_are_both_told(engine):
    token = CancelToken()

    async def stubborn(x):
        try:
            await asyncio.Event().wait()
        finally:
            token.cancel()

    steps = [step("a", stubborn), step("b", boom)]
    result = await engine.run(Pipeline("p").add(parallel("m", steps)), 1, cancel=token)
    assert result.status == "cancelled"
    assert [each.code for each in result.errors] == ["STEP_FAILED", "ABORTED"]


async def test_a_result_is_shown_without_a_look_at_the_disk(engine, tmp_path):
    """A log line must not fail because the workspace is gone, nor read what nobody asked for."""
    await engine.run(Pipeline("p").step("a", inc), 1, run_id="a")
    result = engine.result("a")
    shutil.rmtree(tmp_path / "work")
    assert "StepResult(path='a', name='a', status='completed'" in repr(result)
    assert "output=..." in repr(result)


async def test_a_run_that_has_ended_leaves_the_database_alone(engine, tmp_path):
    """Without its log beside it, so that it can be copied as one file."""
    result = await engine.run(Pipeline("p").step("a", inc), 1, run_id="a")
    assert result.output == 2
    assert sorted(each.name for each in (tmp_path / "work").iterdir()) == ["runs", "workspace.db"]


@pytest.mark.parametrize("paused_before", [False, True])
async def test_a_cancel_before_the_run_is_recorded_as_running_is_not_lost(engine, tmp_path, monkeypatch, paused_before):
    """It comes when the lock is held, and nothing else is written yet."""
    pipeline = Pipeline("p").step("a", inc).review("r").step("b", stuck)
    await engine.run(pipeline, 1, run_id="a")
    run = "a" if paused_before else engine.fork("a", at="a")
    if paused_before:
        engine.approve("a")
    begun = Recorder.start

    def start(recorder):
        PipelineEngine(tmp_path / "work").cancel(run)
        begun(recorder)

    monkeypatch.setattr(Recorder, "start", start)
    async with asyncio.timeout(10):
        result = await engine.resume(run, pipeline=pipeline)
    assert result.status == "cancelled"
    monkeypatch.undo()
    CALLS.clear()
    assert (await engine.resume(run, pipeline=Pipeline("p").step("a", inc).review("r").step("b", inc))).error is None


async def test_a_cancel_while_it_pauses_is_not_lost(engine, tmp_path, monkeypatch):
    """It comes when nothing runs any more, and `paused` is not recorded yet."""
    end, ends = Session._end, []

    async def ended(session, execution):
        if not ends:
            ends.append(PipelineEngine(tmp_path / "work").cancel("a"))
        await end(session, execution)

    monkeypatch.setattr(Session, "_end", ended)
    async with asyncio.timeout(10):
        assert (await engine.run(Pipeline("p").review("r"), 1, run_id="a")).status == "cancelled"


async def test_a_cancel_that_a_killed_process_did_not_act_upon_is_not_for_the_next(engine, tmp_path):
    pipeline = Pipeline("p").step("a", inc)
    await engine.run(pipeline.review("r"), 1, run_id="a")
    with contextlib.closing(apsw.Connection(str(tmp_path / "work/workspace.db"))) as connection:
        connection.execute("UPDATE flow_runs SET status = 'running', cancel = 12345")
    assert (await engine.resume("a", pipeline=pipeline)).status == "completed"


async def test_reading_leaves_nothing_beside_the_database(engine, tmp_path):
    result = await engine.run(Pipeline("p").step("a", inc).step("b", boom), 1, run_id="a")
    assert (result.outputs["a"], engine.result("a").status, len(engine.runs())) == (2, "failed", 1)
    assert sorted(each.name for each in (tmp_path / "work").iterdir()) == ["runs", "workspace.db"]


async def test_a_newer_format_is_refused_and_no_byte_is_changed(engine, tmp_path):
    pipeline = Pipeline("p").step("a", inc)
    await engine.run(pipeline, 1, run_id="a")
    database = tmp_path / "work/workspace.db"
    with contextlib.closing(apsw.Connection(str(database))) as connection:
        connection.execute("UPDATE flow_format SET format = 99")
    before = database.read_bytes()
    result = await engine.run(pipeline, 1, run_id="b")
    assert (result.error.code, "has format 99" in str(result.error)) == ("WORKSPACE_ERROR", True)
    with pytest.raises(PipelineError, match="has format 99"):
        engine.runs()
    assert database.read_bytes() == before
    assert sorted(each.name for each in database.parent.iterdir()) == ["runs", "workspace.db"]


def test_a_workspace_below_a_file_is_no_empty_one(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in ("file", "file/below"):
        with pytest.raises(PipelineError, match="not a directory") as caught:
            PipelineEngine(tmp_path / place).runs()
        assert caught.value.code == "WORKSPACE_ERROR"


@pytest.mark.parametrize("build", [
    lambda p: p.branch("s", lambda x: later(x), {1: step("a", inc)}),
    lambda p: p.branch("s", lambda x: later(x), {1: step("a", inc)}, otherwise=step("o", inc)),
    lambda p: p.loop("s", step("a", inc), until=lambda x: later(x), max_rounds=3),
])  # fmt: skip
async def test_what_must_be_plain_may_give_nothing_to_await(engine, build):
    """A coroutine is true, and hashable: a loop would end, and a check let all go on."""
    result = await engine.run(build(Pipeline("p")), 1)
    assert (result.status, result.error.step) == ("failed", "s")
    assert "must be a plain function" in str(result.error)


async def later(x):
    return x


async def test_a_file_that_was_changed_is_no_failure_of_a_choice(engine, tmp_path):
    pipeline = Pipeline("p").step("a", lambda _: b"x" * 100_000)
    await engine.run(pipeline.review("r"), 1, run_id="a")
    (file,) = (tmp_path / "work/runs/a/outputs").iterdir()
    file.write_bytes(b"y")
    result = await engine.resume("a", pipeline=pipeline.branch("b", len, {3: step("c", len)}))
    assert (result.error.code, result.error.step) == ("WORKSPACE_ERROR", "a")


async def test_a_completed_run_names_the_steps_whose_code_is_another_now(engine):
    await engine.run(Pipeline("p").step("a", inc).step("b", inc), 1, run_id="a")
    result = await engine.run(Pipeline("p").step("a", inc).step("b", double), 1, run_id="a")
    assert (result.output, result.changed) == (3, ("b",))


@pytest.mark.parametrize("levels", [0, 5_000])
async def test_an_output_that_holds_itself_or_is_too_deep_says_so(engine, levels):
    """The place of one list in itself would say nothing."""
    given = []
    given.append(given)
    for _ in range(levels):
        given = [given if levels == 0 else list(given)]
    result = await engine.run(Pipeline("p").step("a", lambda _: given), 1)
    assert result.error.code == "OUTPUT_REFUSED"
    assert "output is a list that holds itself, or is nested too deep to be stored" in str(result.error)
