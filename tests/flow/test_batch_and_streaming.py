"""A pipeline as a batch, by an engine, and as a stream gives equal rows: for random pipelines, failures and options."""

import asyncio
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock
from penstock import Failed, Limiter, Ok, Retry, stream
from penstock.flow import Pipeline, PipelineEngine, PipelineError, StreamingPipeline, parallel, step, to_streaming

from .test_random_pipelines import Calls, built, plainly, shapes

pytestmark = pytest.mark.real_time

ITEMS = st.lists(st.integers(-9, 9), max_size=5)
PLACES = st.sampled_from([1, 2, 5])


async def as_batch(pipeline, items, **options):
    """What an engine gives for all items in one run."""
    with tempfile.TemporaryDirectory() as workspace:
        batch = Pipeline("batch", takes=list).map("each", pipeline, **options)
        return await PipelineEngine(workspace, concurrency=3).run_or_raise(batch, items)


@settings(max_examples=15, deadline=None)
@given(shape=shapes, items=ITEMS, concurrency=PLACES)
def test_random_pipelines_give_equal_rows(shape, items, concurrency):
    """In order, and as finished in any order; each step is called as often, under the same path."""

    async def compare():
        expected = [plainly(shape, x, "s", []) for x in items]
        calls = Calls(())
        pipeline = Pipeline("p", [built(shape, "s", calls)])
        assert await as_batch(pipeline, items) == expected
        calls.made.clear()
        assert await stream(items).add(pipeline, concurrency=concurrency, ordered=True).to_list() == expected
        made = []
        for x in items:
            plainly(shape, x, "s", made)
        assert sorted(calls.made) == sorted(made)
        finished = await stream(items).add(pipeline, concurrency=concurrency, ordered=False).to_list()
        assert sorted(finished) == sorted(expected)
        assert await to_streaming(pipeline).to_list(items) == expected
        assert await to_streaming(Pipeline("q", [pipeline, step("again", lambda x: x)])).to_list(items) == expected

    asyncio.run(compare())


@settings(max_examples=15, deadline=None)
@given(
    failures=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    attempts=st.integers(1, 3),
    concurrency=PLACES,
    nested=st.booleans(),
    with_context=st.booleans(),
)
def test_retries_and_strategies_survive(  # noqa: C901 -- all strategies of one pipeline
    failures, attempts, concurrency, nested, with_context
):
    """An item fails so often before it succeeds: batch and stream know the same of each."""

    def pipeline():
        left = dict(enumerate(failures))

        async def work(x):
            left[x] -= 1
            if left[x] >= 0:
                raise OSError(x)
            return 10 * x

        async def work_in_context(x, ctx):
            assert ctx.attempt == failures[x] - left[x] + 1
            return await work(x)

        retry = Retry(on=OSError, attempts=attempts, initial=0)
        leaf = step("work", work_in_context if with_context else work, retry=retry)
        return Pipeline("p", [Pipeline("inner", [leaf]) if nested else leaf])

    items = list(range(len(failures)))
    fine = [10 * x for x in items if failures[x] < attempts]

    async def compare():
        assert await as_batch(pipeline(), items, on_error="collect") == fine
        for strategy in ("skip", "collect"):
            async with stream(items).add(pipeline(), concurrency=concurrency, on_error=strategy).open() as run:
                assert [x async for x in run] == fine
            if strategy == "collect":
                assert [each.item for each in run.failures] == [x for x in items if failures[x] >= attempts]
                assert {each.attempts for each in run.failures} <= {attempts}
        batch = await as_batch(pipeline(), items, on_error="return")
        streamed = await stream(items).add(pipeline(), concurrency=concurrency, on_error="return").to_list()
        assert [isinstance(each, Ok) for each in batch] == [isinstance(each, Ok) for each in streamed]
        for one, other in zip(batch, streamed, strict=True):
            if isinstance(one, Failed):
                assert (one.index, one.item) == (other.index, other.item)
                assert type(other.error) is OSError
                assert repr(other.error) in str(one.error)
            else:
                assert one == other
        if len(fine) < len(items):
            with pytest.raises(PipelineError):
                await as_batch(pipeline(), items)
            with pytest.raises(OSError, match=r"\d"):
                await to_streaming(pipeline()).to_list(items)
        else:
            assert await to_streaming(pipeline()).to_list(items) == fine

    asyncio.run(compare())


@settings(max_examples=10, deadline=None)
@given(items=ITEMS, concurrency=PLACES, engine=st.sampled_from([None, "inline", "thread"]), memo=st.booleans())
def test_options_of_a_step_survive(items, concurrency, engine, memo):
    """Engine, limit, timeout, memo and deps, as a step, in a pipeline, and through a durable stream."""
    limit = Limiter(2)
    own = {
        "engine": engine,
        "limit": limit,
        "memo": memo,
        "deps": ["v1"],
        "timeout": None if engine == "inline" else 60,
    }
    part = step("row", as_row, **own)
    pipeline = Pipeline("p", takes=int).add(step("inc", lambda x: x + 1)).add(part)
    items = sorted(set(items))
    expected = [{"x": x + 1} for x in items]

    async def compare():
        assert await as_batch(pipeline, items) == expected
        with tempfile.TemporaryDirectory() as place:
            sink = penstock.SqliteTable(f"{place}/out.db", "rows")
            source = penstock.keyed(items, key=lambda x: x)
            await to_streaming(pipeline).to(source, sink)
            again = await to_streaming(pipeline).to(source, sink)
            assert again.already_done == len(items)
            assert again.changed == ()
        if not memo:
            assert await to_streaming(pipeline).to_list(items) == expected
            assert await stream(items).add(pipeline, concurrency=concurrency).to_list() == expected

    asyncio.run(compare())


def as_row(x):
    return {"x": x}


@settings(max_examples=10, deadline=None)
@given(items=ITEMS, shape=shapes)
def test_mixed_pipelines(items, shape):
    """A stream in a pipeline in a stream; steps before and behind."""
    expected = sum(plainly(shape, x, "s", []) for x in items)

    async def compare():
        inner = StreamingPipeline("inner", lambda s: s.add(built(shape, "s", Calls(())), concurrency=2))
        pipeline = Pipeline("outer", takes=list).add(inner.as_step()).step("sum", sum)
        both = Pipeline("both", takes=list).add(parallel("m", [pipeline, Pipeline("other", [pipeline])]))
        with tempfile.TemporaryDirectory() as workspace:
            assert await PipelineEngine(workspace).run_or_raise(both, items) == [expected] * 2
        assert await stream([items, items]).add(both, concurrency=2).to_list() == [[expected] * 2] * 2
        assert await to_streaming(pipeline).to_list([items]) == [expected]

    asyncio.run(compare())
