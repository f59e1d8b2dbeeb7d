"""Steps, pipelines and transforms in a stream: `Stream.add`."""

import asyncio
import threading

import pytest

import penstock
from penstock import AttemptTimeout, Failed, Limiter, Ok, OptionError, Retry, SqliteTable, stream
from penstock.flow import (
    Pipeline,
    StepContext,
    command,
    parallel,
    prompt,
    review,
    step,
    to_streaming,
    transform,
)
from penstock.testing import Gauge, Scripted


async def double(x: int) -> int:
    return 2 * x


def plain(x: int) -> int:
    assert threading.current_thread() is not threading.main_thread()
    return x + 1


def failing(times, error=OSError):
    """Fails so often for each item, then gives it and the number of the call."""
    tries = {}

    async def work(x, ctx: StepContext):
        tries[x] = tries.get(x, 0) + 1
        if tries[x] <= times:
            raise error(x)
        return x, ctx.attempt

    return work


both = Pipeline("both", takes=int).step("double", double).add(parallel("m", (step("l", plain), step("r", double))))


async def test_a_step_is_a_stage_of_its_name():
    async with stream(range(4)).add(step("double", double), concurrency=2).add(step("plain", plain)).open() as run:
        assert [x async for x in run] == [1, 3, 5, 7]
    assert [each.name for each in run.stats()] == ["source", "double", "plain"]
    assert stream([1]).add(step("double", double), name="other").open().stats() is not None


async def plainly(item):
    return item


async def knowing(item, ctx: StepContext):
    return (item, ctx.attempt)[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda fn, **options: step("s", fn, **options),
        lambda fn, **options: Pipeline("p", takes=str).step("s", fn, **options),
    ],
)
@pytest.mark.parametrize("fn", [plainly, knowing])
async def test_a_step_that_waits_for_its_key_holds_no_place(make, fn):
    """Limits are those of `Stream.map`: the items of another key go on meanwhile."""
    hosts, came = Limiter(1, key=lambda item: item[0]), []
    added = make(fn, limit=hosts)
    async with hosts.hold(item="a"):
        reading = stream(["a1", "a2", "b1"]).add(added, concurrency=1, buffer=2, ordered=False)
        async with reading.open() as run:
            came.append(await asyncio.wait_for(anext(run), 5))
            hosts_waiting = hosts.waiting
    assert (came, hosts_waiting, hosts.in_use, hosts.waiting) == (["b1"], 2, 0, 0)


async def test_a_pipeline_is_one_stage_and_gives_what_an_engine_gives():
    async with stream(range(3)).add(both, concurrency=2).open() as run:
        assert [x async for x in run] == [(1, 0), (3, 4), (5, 8)]
    assert [each.name for each in run.stats()] == ["source", "both"]
    assert await to_streaming(both).to_list(range(3)) == [(1, 0), (3, 4), (5, 8)]


async def test_concurrency_counts_calls_of_a_pipeline(clock):
    """P1: within an item steps run one after another, also those of a parallel and a map."""
    gauge = Gauge()

    async def slow(x):
        with gauge:
            await asyncio.sleep(1)
        return x

    many = Pipeline("p", takes=int).add(parallel("m", [step(name, slow) for name in "abc"])).map("each", slow)
    assert await stream(range(6)).add(many, concurrency=2).to_list() == [[x] * 3 for x in range(6)]
    assert gauge.peak == 2
    assert clock.now == 18


async def test_tries_of_a_step_are_its_own_and_counted():
    numbered = step("f", failing(2), retry=Retry(on=OSError))
    async with stream([5]).add(numbered).open() as run:
        assert [x async for x in run] == [(5, 3)]
    assert run.stats()["f"].retried == 2
    with pytest.raises(OSError, match="5") as caught:
        await stream([5]).add(Pipeline("p", [step("f", failing(3), retry=Retry(on=OSError))])).to_list()
    assert caught.value.__notes__ == ["penstock: step 'f'", "penstock: stage 'p', item 0, attempt 3"]


@pytest.mark.parametrize("as_pipeline", [False, True])
@pytest.mark.parametrize("with_context", [False, True])
async def test_timeout_limit_and_tries_hold_as_a_step_and_in_a_pipeline(clock, as_pipeline, with_context):
    gauge = Gauge()

    async def slow(x):
        with gauge:
            await asyncio.sleep(x)
        return x

    async def slow_too(x, ctx):
        return await slow(x)

    limited = step(
        "s",
        slow_too if with_context else slow,
        timeout=2,
        limit=Limiter(2),
        retry=Retry(on=TimeoutError, attempts=2, initial=1, jitter=0),
    )
    part = Pipeline("s", [limited]) if as_pipeline else limited
    async with stream([1, 1, 1, 3]).add(part, concurrency=4, on_error="collect").open() as run:
        assert [x async for x in run] == [1, 1, 1]
    assert gauge.peak == 2
    assert clock.now == 1 + 2 + 1 + 2
    (failed,) = run.failures
    assert (type(failed.error), failed.attempts, failed.index) == (AttemptTimeout, 2, 3)


async def test_waiting_is_no_latency():
    """The latency of a step with a context is that of its last attempt."""

    async def slow(x, ctx):
        await asyncio.sleep(1)
        if ctx.attempt == 1:
            raise OSError
        return x

    retried = step("s", slow, limit=Limiter(1), retry=Retry(on=OSError, initial=5, jitter=0))
    async with stream(range(3)).add(retried, concurrency=3).open() as run:
        assert [x async for x in run] == [0, 1, 2]
    assert run.stats()["s"].latency.p99 == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("on_error", ["raise", "skip", "collect", "return"])
@pytest.mark.parametrize("shape", ["step", "context", "pipeline"])
async def test_the_strategies_of_errors(on_error, shape):
    async def invert(x):
        return 1 / x

    async def with_context(x, ctx):
        return 1 / x

    part = {
        "step": step("s", invert),
        "context": step("s", with_context),
        "pipeline": Pipeline("s", [step("inner", invert)]),
    }[shape]
    items = stream([1, 0, 2]).add(part, on_error=on_error)
    if on_error == "raise":
        with pytest.raises(ZeroDivisionError):
            await items.to_list()
        return
    results = await items.to_list()
    if on_error == "return":
        assert [type(each) for each in results] == [Ok, Failed, Ok]
        assert (results[1].stage, results[1].index, results[1].item) == ("s", 1, 0)
    else:
        assert results == [1.0, 0.5]


async def test_max_failures_are_those_of_add():
    with pytest.raises(ZeroDivisionError):
        await stream([0, 0]).add(step("s", lambda x: 1 / x), on_error="skip", max_failures=1).to_list()


async def test_a_context_in_a_stream_knows_its_call_and_nothing_of_an_engine():
    seen = []

    async def look(x, ctx: StepContext):
        seen.append((ctx.step, ctx.attempt, ctx.log.name, dict(ctx.state), ctx.cancel.cancelled))
        for name in ("run_id", "idempotency_key", "workspace"):
            with pytest.raises(LookupError, match=f"{name} is known in a run of an engine only"):
                getattr(ctx, name)
        with pytest.raises(LookupError, match="output"):
            ctx.output(step("x", double))
        with pytest.raises(LookupError, match="add_usage"):
            ctx.add_usage(input_tokens=1)
        with pytest.raises(KeyError, match="no output 'z': there are 'c'"):
            ctx.state["z"]
        return [x]

    inner = Pipeline("p", [step("a", look)]).map("each", look)
    await stream([7]).checkpoint("c").add(step("a", look)).add(inner).to_list()
    assert seen == [
        ("a", 1, "penstock.flow.a", {"c": 7}, False),
        ("a", 1, "penstock.flow.p.a", {"c": 7}, False),
        ("each[0]", 1, "penstock.flow.p.each", {"c": 7}, False),
    ]
    seen.clear()
    await to_streaming(Pipeline("q", [step("a", look), inner])).to_list(stream([7]).checkpoint("c"))
    assert [each[:3] for each in seen] == [
        ("a", 1, "penstock.flow.q.a"),
        ("p/a", 1, "penstock.flow.q.p.a"),
        ("p/each[0]", 1, "penstock.flow.q.p.each"),
    ]


@pytest.mark.parametrize("as_pipeline", [False, True])
async def test_a_step_hears_of_its_cancellation_before_it_is_cancelled(as_pipeline):
    heard = []

    async def wait(x, ctx):
        try:
            await asyncio.sleep(100)
        finally:
            heard.append((ctx.cancel.cancelled, ctx.cancel.reason))

    part = step("s", wait)
    async with stream([1]).add(Pipeline("p", [part]) if as_pipeline else part).open() as run:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(run)
    assert heard == [(True, "consumer left")]


async def test_a_thread_hears_of_its_cancellation():
    began, heard = threading.Event(), []

    def wait(x, ctx):
        began.set()
        while not ctx.cancel.cancelled:
            pass
        heard.append(ctx.cancel.reason)

    async with stream([1]).add(step("s", wait)).open() as run:
        reading = asyncio.ensure_future(anext(run))
        await asyncio.get_running_loop().run_in_executor(None, began.wait)
        reading.cancel()
    assert heard == ["consumer left"]


async def test_branches_loops_and_maps_are_those_of_an_engine():
    body = Pipeline("round", [step("inc", lambda x: x + 1)])
    pipeline = (
        Pipeline("p", takes=int)
        .loop("grow", body, until=lambda x: x >= 3, max_rounds=9)
        .branch("route", lambda x: x > 3, {True: step("big", str), False: step("small", lambda x: [x])})
    )
    assert await stream([0, 5]).add(pipeline).to_list() == [[3], "6"]
    loops = Pipeline("p", takes=int).loop("grow", body, until=lambda x: False, max_rounds=2)
    cases = Pipeline("p", takes=int).branch("route", lambda x: x, {1: step("one", str)})
    maps = Pipeline("p", takes=int).map("each", double)
    for each, said in [
        (loops, "step 'grow': did not end within max_rounds=2 rounds"),
        (cases, "step 'route': no case for the key 7: there are 1"),
        (maps, "step 'each': a map needs an iterable, got an int"),
    ]:
        with pytest.raises(penstock.flow.PipelineError, match=said):
            await stream([7]).add(each).to_list()


async def test_failed_items_of_a_map_are_results():
    inverse = step("inv", lambda x: 1 / x, retry=Retry(on=ZeroDivisionError, attempts=2, initial=0))
    pipeline = Pipeline("p", takes=list).map("each", inverse, on_error="return")
    ((ok, failed),) = await stream([[1, 0]]).add(pipeline).to_list()
    assert ok == Ok(1.0, 0)
    assert (failed.index, failed.item, failed.stage, failed.attempts) == (1, 0, "each[1]", 2)
    assert (failed.error.code, failed.error.step) == ("STEP_FAILED", "each[1]")
    collected = Pipeline("p", takes=list).map("e", inverse, on_error="collect")
    assert await stream([[1, 0]]).add(collected).to_list() == [[1.0]]


async def test_a_step_that_raises_a_cancellation_has_failed():
    async def odd(x):
        raise asyncio.CancelledError("mine")

    for part in (step("s", odd), Pipeline("p", takes=int).map("each", odd)):
        with pytest.raises(penstock.WorkRaised):
            await stream([[1]]).add(part).to_list()
    collected = Pipeline("p", takes=list).map("each", odd, on_error="collect")
    assert await stream([[1]]).add(collected).to_list() == [[]]


@pytest.mark.real_time
async def test_a_command_runs_in_a_temporary_directory():
    where = command("where", lambda x: ["sh", "-c", f"pwd; echo {x}"])
    results = await stream(range(2)).add(Pipeline("p", [where]), concurrency=2).add(step("l", str.split)).to_list()
    assert [number for _, number in results] == ["0", "1"]
    assert all("penstock-" in place for place, _ in results)


async def test_a_program_that_is_not_there_is_not_tried_again():
    missing = command("x", ["/no/such/program"], retry=Retry(on=Exception, attempts=5))
    async with stream([1]).add(missing, on_error="collect").open() as run:
        assert [x async for x in run] == []
    assert run.failures[0].attempts == 1


async def test_a_prompt_asks_its_model():
    class Echo:
        async def ask(self, prompt, /, *, system=None, max_tokens=4096):
            return penstock.flow.Reply(prompt.upper(), "stop")

    assert await stream(["a", "b"]).add(prompt("p", lambda x: x, model=Echo()), concurrency=2).to_list() == ["A", "B"]


CALLS = []


async def row(x):
    CALLS.append(x)
    return {"x": x}


async def row_with_context(x, ctx):
    CALLS.append(x)
    return {"x": x}


@pytest.mark.real_time
async def test_a_step_in_a_durable_run_keeps_its_results(tmp_path):
    for number, part in enumerate((step("s", row, memo=True), step("s", row_with_context, memo=True))):
        CALLS.clear()
        sink = SqliteTable(str(tmp_path / f"{number}.db"), "t")
        for version in "ab":
            source = penstock.keyed([1, 2], key=str, version=lambda _, v=version: v)
            await source.add(part, concurrency=2).to(sink, run="r")
        assert sorted(CALLS) == [1, 2]
        with pytest.raises(OptionError, match="memo=True keeps results in the sink of a durable run"):
            await stream([1]).add(part).to_list()


@pytest.mark.real_time
async def test_changed_code_in_a_pipeline_is_changed_code_of_its_stage(tmp_path):
    sink = SqliteTable(str(tmp_path / "a.db"), "t")
    source = penstock.keyed([1], key=str)
    one = Pipeline("p", [step("s", lambda x: {"x": x})])
    other = Pipeline("p", [step("s", lambda x: {"x": x + 1})])
    assert [(await source.add(each).to(sink, run="r")).changed for each in (one, one, other)] == [(), (), ("p",)]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda s: s.add(review("r")), "review 'r' cannot be part of a stream: an item cannot wait for somebody"),
        (lambda s: s.add(Pipeline("p", [review("r")])), "review 'r' cannot"),
        (lambda s: s.add(step("s", double, on_interrupted="ask")), "on_interrupted of step 's' must be 'again'"),
        (lambda s: s.add(Pipeline("p")), "pipeline 'p' cannot be part of a stream: it has no steps"),
        (lambda s: s.add(double), "step must be a step, a pipeline or a transform, got <function double"),
        (lambda s: s.add(step("s", double), retry=None), "add has no option 'retry'"),
        (lambda s: s.add(step("s", double), concurrency=0), "concurrency must be an int >= 1, got 0"),
        (lambda s: s.add(both, buffer=-1), "buffer must be an int >= 0"),
        (lambda s: s.add(both, ordered=1), "ordered must be True or False, got 1"),
        (lambda s: s.add(both, on_error="x"), "on_error must be one of"),
        (lambda s: s.add(both, max_failures=1), 'max_failures goes with on_error="skip" or "collect"'),
        (lambda s: s.add(both, name=""), "name must be a non-empty str"),
        (lambda s: s.add(transform("t", pairs), on_error="skip"), "a transform has no option 'on_error'"),
        (lambda s: to_streaming(Pipeline("p")), "it has no steps"),
        (lambda s: to_streaming(step("s", double)), "pipeline must be a Pipeline"),
        (lambda s: to_streaming(Pipeline("p").review("r")), "review 'r' cannot"),
        (lambda s: transform("t", pairs, retry=3), "transform has no option 'retry'"),
        (lambda s: transform("/", pairs), "name must be a str"),
        (lambda s: transform("t", double), "must be an async generator function, got double"),
        (lambda s: transform("t", generator), "must be an async generator function, got generator"),
        (lambda s: transform("t", 3), "must be callable"),
        (lambda s: transform("t", three), "no more required parameters than the items and the context"),
        (lambda s: transform("t", none), "must take the items, got none"),
    ],
)
def test_what_breaks_its_rule_raises_when_it_is_built(build, message):
    with pytest.raises(OptionError, match=message):
        build(stream([1]))


def generator(items):
    yield 1


async def three(items, ctx, more):
    yield 1


async def none():
    yield 1


async def pairs(items):
    async for first in items:
        yield first, await anext(items, None)


async def test_a_transform_reads_the_items_itself():
    assert await stream(range(5)).add(transform("pairs", pairs)).to_list() == [(0, 1), (2, 3), (4, None)]
    assert await stream([]).add(transform("pairs", pairs)).to_list() == []


async def test_a_transform_reads_only_what_is_asked_for():
    """P2: the generator goes on when the stage below wants an item."""
    source = Scripted(range(100))
    assert await stream(source).add(transform("pairs", pairs)).first() == (0, 1)
    assert source.closed == 1
    taken = []
    assert await stream(map(taken.append, range(100))).add(transform("pairs", pairs)).first() == (None, None)
    assert taken == [0, 1]


async def test_a_transform_is_closed_with_its_run_before_its_source():
    """P4: also a generator that waits, and one that was never begun."""
    events = []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            events.append("source")

    async def reading(items, ctx):
        try:
            async for x in items:
                yield x
                await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            events.append(("transform", ctx.cancel.cancelled))

    async with stream(numbers()).add(transform("t", reading)).open() as run:
        assert await anext(run) == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(run)
    assert events == [("transform", True), "source"]
    async with stream([1]).add(transform("t", reading)).open():
        pass
    assert len(events) == 2


async def test_a_transform_that_ends_early_stops_what_is_above():
    source = Scripted(range(100))

    async def two(items):
        yield await anext(items)
        yield await anext(items)

    async with stream(source).map(double, concurrency=2).add(transform("two", two)).open() as run:
        assert [x async for x in run] == [0, 2]
    assert source.closed == 1


async def test_a_failure_above_is_raised_where_the_transform_reads():
    """And in the end by the run, whatever the transform makes of it."""
    seen = []

    async def total(items):
        number = 0
        async for x in items:
            number += x
        yield number

    async def swallowing(items):
        try:
            async for x in items:
                yield x
        except ZeroDivisionError as error:
            seen.append(error)
            yield -1

    broken = stream([1, 2, 0, 3]).map(lambda x: 1 // x)
    with pytest.raises(ZeroDivisionError) as caught:
        await broken.add(transform("total", total)).to_list()
    assert caught.value.__notes__ == ["penstock: stage 'map(<lambda>)', item 2"]
    results = []
    with pytest.raises(ZeroDivisionError):
        results.extend([x async for x in broken.add(transform("t", swallowing)).tap(results.append)])
    assert results == [1, 0, -1]
    assert len(seen) == 1


async def test_a_transform_that_fails_ends_the_run_with_its_error():
    """P5: what it gave before is handed on first; the item that it read last is the one that failed."""

    async def bad(items):
        async for x in items:
            if x == 2:
                raise OSError("two")
            yield x

    results = []
    async with stream(range(5)).add(transform("bad", bad)).open() as run:
        with pytest.raises(OSError, match="two") as caught:
            while True:
                results.append(await anext(run))
    assert results == [0, 1]
    assert caught.value.__notes__ == ["penstock: stage 'bad', item 2"]
    books = run.stats()["bad"]
    assert (books.taken, books.delivered, books.failed, books.in_flight) == (3, 2, 1, 0)


async def test_a_transform_must_give_an_async_iterable():
    with pytest.raises(OptionError, match="the function of transform 't' must give an async iterable, got list"):
        await stream([1]).add(transform("t", lambda items: [1])).to_list()


async def test_a_transform_is_opened_once_a_run_and_cannot_be_part_of_a_durable_one():
    opened = []

    async def counting(items):
        opened.append(1)
        async for x in items:
            yield x

    counted = stream([1, 2]).add(transform("t", counting))
    assert [await counted.to_list(), await counted.to_list(), opened] == [[1, 2], [1, 2], [1, 1]]
    keyed = penstock.keyed([1], key=str).add(transform("t", counting))
    with pytest.raises(OptionError, match="transform cannot be part of a durable run"):
        keyed.deliver(SqliteTable("x", "t"), run="r")


async def test_a_transform_that_reads_one_item_too_many_is_named():
    """`anext` without a default at the end is the usual mistake."""
    with pytest.raises(penstock.WorkRaised, match="transform 'pairs' raised StopAsyncIteration"):
        await stream(range(3)).add(transform("pairs", strictly_pairs)).to_list()


async def strictly_pairs(items):
    async for item in items:
        yield item, await anext(items)


async def test_stop_lets_a_transform_finish():
    """A run that is stopped takes nothing more: what the transform holds still comes."""

    async def held(items):
        found = [x async for x in items]
        yield found

    async with (
        stream(Scripted(range(1000)))
        .tap(lambda x: run.stop() if x == 3 else None)
        .add(transform("t", held))
        .open() as run
    ):
        assert len([x async for x in run]) == 1


async def test_an_endless_transform_gives_others_the_loop():
    """P9: also one that drops all it reads."""

    async def nothing(items):
        async for _ in items:
            pass
        yield "end"

    ticks = []

    async def tick():
        while True:
            ticks.append(1)
            await asyncio.sleep(0)

    ticking = asyncio.ensure_future(tick())
    assert await stream(range(300_000)).add(transform("t", nothing)).to_list() == ["end"]
    ticking.cancel()
    await asyncio.gather(ticking, return_exceptions=True)
    assert len(ticks) > 3


def test_it_says_what_it_is():
    added = stream([1]).add(step("double", double), concurrency=2).add(both).add(transform("t", pairs))
    assert repr(added) == (
        "stream(list of 1).add(<step 'double'>, concurrency=2).add(<pipeline 'both'>).add(<transform 't'>)"
    )
