"""Random nestings of steps give what plain Python gives: also when they fail on the way, at any concurrency."""

import asyncio
import tempfile
from collections import Counter
from contextlib import asynccontextmanager, nullcontext, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import OptionError
from penstock.flow import Pipeline, PipelineEngine, parallel, review, step

pytestmark = [pytest.mark.real_time, pytest.mark.slow]

OPERATIONS = {
    "double": lambda x: 2 * x,
    "inc": lambda x: x + 1,
    "negate": lambda x: -x,
    "small": lambda x: x % 7,
}


class Calls:
    """Notes calls, and has the first call of some places fail."""

    def __init__(self, failing):
        self.failing = set(failing)
        self.made = []

    def note(self, operation, ctx):
        self.made.append((ctx.step, operation))
        if len(self.made) in self.failing:
            raise ValueError("this time it fails")


calling = st.builds(lambda operation: ("leaf", operation), st.sampled_from(sorted(OPERATIONS)))


def nested(inner):
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        several.map(lambda steps: ("sequence", steps)),
        st.tuples(several, st.sampled_from([None, 1, 2])).map(lambda given: ("parallel", *given)),
        st.tuples(inner, st.sampled_from([None, 1, 2])).map(lambda given: ("map", *given)),
        st.tuples(inner, st.integers(1, 3)).map(lambda given: ("loop", *given)),
        st.tuples(inner, inner).map(lambda given: ("branch", *given)),
    )


shapes = st.recursive(calling, nested, max_leaves=8)
reviewed = st.recursive(st.one_of(calling, st.just(("review",))), nested, max_leaves=8)
"""With steps that wait for an answer: other items go on meanwhile, so that calls have another order."""


def built(shape, name, calls):  # noqa: PLR0911 -- one for each kind
    """The step that a shape is."""
    kind, *given = shape
    if kind == "leaf":
        (operation,) = given

        async def leaf(x, ctx):
            calls.note(operation, ctx)
            return OPERATIONS[operation](x)

        return step(name, leaf)
    if kind == "review":
        return review(name)
    pipeline = Pipeline(name)
    if kind == "sequence":
        for number, each in enumerate(given[0]):
            pipeline = pipeline.add(built(each, f"s{number}", calls))
        return pipeline
    if kind == "parallel":
        steps = [built(each, f"p{number}", calls) for number, each in enumerate(given[0])]
        return pipeline.add(parallel("m", steps, concurrency=given[1])).step("sum", sum)
    if kind == "map":
        pipeline = pipeline.step("spread", lambda x: [x, x + 1, x + 2])
        return pipeline.map("e", built(given[0], "body", calls), concurrency=given[1]).step("sum", sum)
    if kind == "loop":
        body, rounds = given
        counted = Pipeline("round").step("take", lambda pair: pair[1]).add(built(body, "body", calls))
        counted = counted.step("count", lambda x, ctx: (int(ctx.step.split("[")[-1].split("]")[0]), x))
        wrapped = pipeline.step("begin", lambda x: (-1, x))
        wrapped = wrapped.loop("l", counted, until=lambda pair: pair[0] == rounds - 1, max_rounds=rounds)
        return wrapped.step("end", lambda pair: pair[1])
    even, odd = given
    cases = {0: built(even, "even", calls), 1: built(odd, "odd", calls)}
    return pipeline.branch("b", lambda x: x % 2, cases)


def plainly(shape, x, path, made):  # noqa: PLR0911 -- as above
    """What plain Python gives; the calls that it makes, in order."""
    kind, *given = shape
    if kind == "leaf":
        made.append((path, given[0]))
        return OPERATIONS[given[0]](x)
    if kind == "review":
        return x
    if kind == "sequence":
        for number, each in enumerate(given[0]):
            x = plainly(each, x, f"{path}/s{number}", made)
        return x
    if kind == "parallel":
        return sum([plainly(each, x, f"{path}/m/p{number}", made) for number, each in enumerate(given[0])])
    if kind == "map":
        return sum([plainly(given[0], x + number, f"{path}/e[{number}]", made) for number in range(3)])
    if kind == "loop":
        for number in range(given[1]):
            x = plainly(given[0], x, f"{path}/l[{number}]/body", made)
        return x
    return plainly(given[x % 2], x, f"{path}/b/{'odd' if x % 2 else 'even'}", made)


async def until_completed(engine, pipeline, x):
    """Run it, and again, until it does not fail any more; how often it failed. All that waits is approved."""
    failures = 0
    while failures < 20:
        result = await engine.run(pipeline, x, run_id="r")
        if result.status == "completed":
            return result, failures
        if result.status == "paused":
            approve_all(engine)
            continue
        assert (result.status, result.error.code) == ("failed", "STEP_FAILED")
        failures += 1
    raise AssertionError("it fails for ever")


def approve_all(engine):
    for each in engine.pending("r") if engine.runs() else ():
        with suppress(OptionError):  # the run has gone on meanwhile
            engine.approve("r", each.step)


@asynccontextmanager
async def approving(engine):
    """Approve whatever waits, again and again, while runs go on."""

    async def approve():
        while True:
            approve_all(engine)
            await asyncio.sleep(0.005)

    task = asyncio.create_task(approve())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(-5, 5), st.sets(st.integers(1, 12), max_size=3))
async def test_one_at_a_time_it_is_the_sequential_run(shape, x, failing):
    """Outputs and the order of calls are those of plain Python; a failed call is made once more, no other one."""
    calls, expected = Calls(failing), []
    output = plainly(shape, x, "top", expected)
    pipeline = Pipeline("p").add(built(shape, "top", calls))
    with tempfile.TemporaryDirectory() as workspace:
        result, failures = await until_completed(PipelineEngine(workspace, concurrency=1), pipeline, x)
    assert result.output == output
    assert failures == len([number for number in calls.failing if number <= len(calls.made)])
    assert [call for number, call in enumerate(calls.made, 1) if number not in calls.failing] == expected


@pytest.mark.quick
@settings(max_examples=25, deadline=None)
@given(reviewed, st.integers(-5, 5), st.integers(2, 4), st.sets(st.integers(1, 12), max_size=3), st.booleans())
async def test_several_at_once_the_outputs_are_the_same(shape, x, concurrency, failing, answered_meanwhile):
    """A finished step is not called again, whatever failed beside it."""
    calls, expected = Calls(failing), []
    output = plainly(shape, x, "top", expected)
    pipeline = Pipeline("p").add(built(shape, "top", calls))
    completed = Counter()

    def note(step_result):
        if step_result.status == "completed":
            completed[step_result.path] += 1

    with tempfile.TemporaryDirectory() as workspace:
        engine = PipelineEngine(workspace, concurrency=concurrency, on_step_complete=note)
        async with approving(engine) if answered_meanwhile else nullcontext():
            result, _ = await until_completed(engine, pipeline, x)
    assert result.output == output
    assert set(completed.values()) <= {1}
    assert Counter(path for path, _ in expected) == Counter(path for path in completed if path in dict(expected))
