"""`open()`, `Run`, and the ways to consume a stream."""

import asyncio
import operator

import pytest

import penstock
from penstock.testing import Clock, Gauge, Scripted
from penstock.testing import run as run_in_virtual_time

grid = pytest.mark.grid
NUMBERS = penstock.stream(range(6))


async def slow(number):
    await asyncio.sleep(1)
    return number


@grid
async def test_nothing_happens_before_the_first_item_is_asked_for():
    source, gauge = Scripted(range(9)), Gauge()
    stream = penstock.stream(source).map(gauge.wrap(slow), concurrency=3)
    unused = stream.open()
    async with stream.open() as items:
        await asyncio.sleep(60)
        assert (source.taken, gauge.started) == (0, 0)
        assert items.stats()["map(slow)"].taken == 0
    assert unused.stats().stages == ()
    assert unused.failures == ()


@grid
async def test_a_run_ends_once():
    async with NUMBERS.map(slow, concurrency=6).open() as items:
        assert [item async for item in items] == list(range(6))
        assert [item async for item in items] == []
        assert await anext(items, "ended") == "ended"
    assert await anext(items, "ended") == "ended"


@grid
async def test_a_failure_is_raised_once():
    """After it the run is over."""

    async def fails(number):
        raise ValueError(number)

    async with NUMBERS.map(fails).open() as items:
        with pytest.raises(ValueError, match="0"):
            await anext(items)
        assert await anext(items, "ended") == "ended"


@grid
async def test_two_reads_at_once_raise():
    """P5: the second; the first is not disturbed."""
    async with NUMBERS.map(slow).open() as items:
        first = asyncio.create_task(anext(items))
        await asyncio.sleep(0.5)
        with pytest.raises(penstock.ConcurrentReadError, match="two anext"):
            await anext(items)
        assert await first == 0
        assert await anext(items) == 1


@grid
async def test_reads_of_several_tasks_one_after_another():
    async with NUMBERS.map(slow).open() as items:
        assert [await asyncio.create_task(anext(items)) for _ in range(3)] == [0, 1, 2]


@grid
async def test_aclose_stops_everything():
    """P4: it may be called more than once."""
    source, gauge = Scripted(range(9)), Gauge()
    items = penstock.stream(source).map(gauge.wrap(slow), concurrency=3).open()
    assert await anext(items) == 0
    await items.aclose()
    assert (gauge.now, source.closed) == (0, 1)
    await items.aclose()
    assert await anext(items, "ended") == "ended"
    assert source.closed == 1


@grid
async def test_aclose_before_anything():
    source = Scripted(range(9))
    items = penstock.stream(source).open()
    await items.aclose()
    assert await anext(items, "ended") == "ended"
    assert (source.opened, source.taken) == (0, 0)


@grid
async def test_stop_takes_nothing_more():
    """What is in flight finishes and is delivered."""
    source = Scripted(range(100))
    async with penstock.stream(source).map(slow, concurrency=3).open() as items:
        seen = [await anext(items)]
        items.stop()
        items.stop()
        seen += [item async for item in items]
    assert seen == list(range(source.taken))
    assert source.taken <= 4
    stage = items.stats()["map(slow)"]
    assert (stage.cancelled, stage.discarded) == (0, 0)


@grid
async def test_stop_while_the_source_is_silent(clock):
    """The read of the source is given up; nobody waits for it."""
    source = Scripted(range(100), silent_after=2)
    async with penstock.stream(source).map(slow, concurrency=3).open() as items:
        asyncio.get_running_loop().call_later(5, items.stop)
        assert [item async for item in items] == [0, 1]
    assert clock.now == 5.0
    assert source.closed == 1


@grid
async def test_stop_before_anything():
    source = Scripted(range(9))
    async with penstock.stream(source).open() as items:
        items.stop()
        assert [item async for item in items] == []
    items = penstock.stream(source).open()
    items.stop()
    assert [item async for item in items] == []
    assert source.taken == 0


@grid
@pytest.mark.parametrize("ordered", [True, False])
async def test_abort_cancels_what_is_in_flight_and_hands_on_what_is_there(ordered, clock):
    """P4, P5: results that are there are delivered; everything else is cancelled, awaited and told why."""
    source, gauge, reasons = Scripted(range(100)), Gauge(), []

    @gauge.wrap
    async def work(number):
        try:
            await asyncio.sleep(1 if number < 2 else 60)
        except asyncio.CancelledError as error:
            reasons.append(str(error))
            raise
        return number

    async with penstock.stream(source).map(work, concurrency=4, ordered=ordered).open() as items:
        seen = [await anext(items)]
        items.abort("deadline")
        items.abort("deadline")
        seen += [item async for item in items]
    assert seen == [0, 1]
    assert gauge.now == 0
    assert reasons == ["deadline"] * gauge.cancelled
    assert clock.now == 1.0
    stage = items.stats()["map(work)"]
    assert stage.cancelled == gauge.cancelled
    assert source.taken == stage.taken <= 5


@grid
async def test_abort_ends_a_read_that_waits(clock):
    async with penstock.stream(range(9)).map(slow, concurrency=3).map(slow, concurrency=2).open() as items:
        asyncio.get_running_loop().call_later(0.5, items.abort)
        assert [item async for item in items] == []
    assert clock.now == 0.5


@grid
async def test_abort_before_anything_and_after_the_end():
    source = Scripted(range(3))
    async with penstock.stream(source).open() as items:
        items.abort()
        assert [item async for item in items] == []
    assert source.taken == 0
    async with penstock.stream(range(3)).map(slow).open() as items:
        assert [item async for item in items] == [0, 1, 2]
        items.abort()
    items.abort()


@grid
async def test_two_runs_of_one_stream_at_once():
    """Each has its own source, window and books."""
    source = Scripted(range(6))
    stream = penstock.stream(source).map(slow, concurrency=2)
    async with stream.open() as first, stream.open() as second:
        assert [await anext(first), await anext(second), await anext(first)] == [0, 0, 1]
        rest = await asyncio.gather(read(first), read(second))
    assert rest == [[2, 3, 4, 5], [1, 2, 3, 4, 5]]
    assert (source.opened, source.closed, source.taken) == (2, 2, 12)


async def read(items):
    return [item async for item in items]


def test_one_stream_on_two_loops_one_after_the_other():
    clock = Clock()
    stream = penstock.stream(range(6)).map(slow, concurrency=3).batch(2, within=9)
    for loop in ("asyncio", "uvloop"):
        assert run_in_virtual_time(stream.to_list(), loop=loop, clock=clock) == [[0, 1], [2, 3], [4, 5]]
    assert clock.now == 4.0


@grid
async def test_streams_are_immutable():
    source = Scripted(range(3))
    stream = penstock.stream(source)
    doubled = stream.map(lambda number: number * 2)
    assert await stream.to_list() == [0, 1, 2]
    assert await doubled.to_list() == [0, 2, 4]
    assert await doubled.take(1).to_list() == [0]
    assert await doubled.to_list() == [0, 2, 4]
    with pytest.raises(AttributeError):
        stream.name = "mine"


@grid
async def test_to_list():
    assert await NUMBERS.to_list() == list(range(6))
    assert await penstock.stream([]).to_list() == []


@grid
async def test_drain():
    seen = []
    assert await NUMBERS.map(slow, concurrency=3).tap(seen.append).drain() is None
    assert seen == list(range(6))


@grid
async def test_reduce():
    assert await NUMBERS.reduce(operator.add, 100) == 115
    assert await penstock.stream([]).reduce(operator.add, "initial") == "initial"
    assert await NUMBERS.map(slow, concurrency=6).reduce(lambda folded, item: f"{folded}{item}", "") == "012345"


@grid
async def test_first():
    assert await NUMBERS.first() == 0
    assert await NUMBERS.filter(lambda number: number > 3).first(default=None) == 4
    assert await penstock.stream([None]).first(default="default") is None


@grid
async def test_first_of_nothing():
    with pytest.raises(penstock.EmptyStreamError, match="give default="):
        await penstock.stream([]).first()
    assert issubclass(penstock.EmptyStreamError, LookupError)
    assert await penstock.stream([]).first(default=None) is None


@grid
async def test_first_raises_what_comes_before_an_item():
    with pytest.raises(RuntimeError, match="the script fails at item 0"):
        await penstock.stream(Scripted([], fail_at=0)).first(default="default")


@grid
async def test_first_stops_the_rest():
    source, gauge = Scripted(range(100)), Gauge()
    assert await penstock.stream(source).map(gauge.wrap(slow), concurrency=4).first() == 0
    assert (gauge.now, source.closed) == (0, 1)
    assert source.taken <= 5


@grid
async def test_stats_while_running_and_after():
    async with NUMBERS.map(slow, concurrency=2, buffer=1).open() as items:
        await anext(items)
        now = items.stats()["map(slow)"]
        assert (now.delivered, now.taken - now.in_flight) == (1, 1)
        await read(items)
    source, stage = items.stats()
    assert (source.name, source.taken, source.delivered) == ("source", 6, 6)
    assert (stage.taken, stage.delivered, stage.in_flight, stage.peak_running) == (6, 6, 0, 2)
    assert len(items.stats()) == 2
    assert items.stats()[0] == items.stats()["source"]


async def test_stats_of_a_stage_that_is_not_there():
    async with NUMBERS.map(slow).open() as items:
        with pytest.raises(KeyError, match=r"no stage 'fetch': there are 'source', 'map\(slow\)'"):
            items.stats()["fetch"]
        with pytest.raises(IndexError):
            items.stats()[2]


@grid
async def test_a_failure_that_nobody_saw_is_counted():
    """P5: after `break` it is not raised."""

    async def fails_later(number):
        await asyncio.sleep(number)
        if number == 1:
            raise ValueError(number)
        return number

    async with penstock.stream([0, 1, 60]).map(fails_later, concurrency=3).open() as items:
        await anext(items)
        await asyncio.sleep(5)
    stage = items.stats()[-1]
    assert (stage.failed, stage.cancelled, stage.in_flight) == (1, 1, 0)


@grid
async def test_the_body_and_the_work_fail():
    """P5: the body's own error is raised, whatever has failed meanwhile."""

    async def fails_later(number):
        await asyncio.sleep(number)
        if number:
            raise ValueError(number)
        return number

    async def consume():
        async with penstock.stream([0, 1]).map(fails_later, concurrency=2).open() as items:
            async for _ in items:
                await asyncio.sleep(5)
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await consume()


@grid
async def test_to_list_is_cancelled():
    """P8: the cancellation goes on its way when the work has stopped."""
    gauge = Gauge()
    run = asyncio.create_task(penstock.stream([60] * 5).map(gauge.wrap(asyncio.sleep), concurrency=5).to_list())
    await asyncio.sleep(1)
    run.cancel("mine")
    with pytest.raises(asyncio.CancelledError, match="mine"):
        await run
    assert (gauge.cancelled, gauge.now) == (5, 0)


def test_a_run_without_a_loop():
    """Opening describes; only entering and reading want a loop."""
    items = NUMBERS.open()
    with pytest.raises(RuntimeError, match="no running event loop"):
        anext(items).send(None)


def test_a_run_that_outlives_its_loop():
    """P4: its loop has cancelled all tasks; when the handle goes, there is a warning and no error."""

    async def main():
        items = penstock.stream([0, 60, 60]).map(asyncio.sleep, concurrency=3).open()
        await anext(items)
        return items

    with asyncio.Runner() as runner:
        items = runner.run(main())
    with pytest.warns(penstock.UnclosedStreamWarning):
        del items


@grid
async def test_work_stops_its_own_run():
    """What is in flight, this call too, finishes and is delivered."""

    async def stops_at_three(number):
        await asyncio.sleep(1)
        if number == 3:
            items.stop()
        return number

    source = Scripted(range(100))
    async with penstock.stream(source).map(stops_at_three, concurrency=2).open() as items:
        seen = [item async for item in items]
    assert seen == list(range(source.taken))
    assert source.taken <= 5


@grid
@pytest.mark.parametrize("seconds", [None, 0, 1], ids=["first step", "next step", "later"])
@pytest.mark.parametrize("ordered", [True, False])
async def test_work_that_closes_its_own_run_is_refused(seconds, ordered, clock):
    """P4: it would wait for itself; so it fails as other work does, and the run is closed by whoever reads it."""
    source, gauge = Scripted(range(9)), Gauge()

    @gauge.wrap
    async def closes(number):
        if number != 1:
            await asyncio.sleep(60)
        if seconds is not None:
            await asyncio.sleep(seconds)
        await run.aclose()

    run = penstock.stream(source).map(closes, concurrency=3, ordered=ordered).open()
    with pytest.raises(penstock.ConcurrentReadError, match=r"would wait for itself.* abort\(\)") as raised:
        async with run:
            await anext(run)
    assert raised.value.__notes__ == ["penstock: stage 'map(closes)', item 1"]
    assert (gauge.now, source.closed, clock.now) == (0, 1, seconds or 0)


@grid
async def test_work_closes_the_run_around_its_own_in_a_task_that_nobody_waits_for(clock):
    """P4: that work is stopped like all other."""
    closing = []

    async def work(number):
        closing.append(asyncio.create_task(close()))
        await asyncio.sleep(60)

    async def close():
        await asyncio.sleep(1)
        await run.aclose()

    async with penstock.stream(range(3)).map(work).open() as run:
        assert [item async for item in run] == []
        await closing[0]
    assert (len(closing), clock.now) == (1, 1.0)


@grid
async def test_what_is_downstream_of_a_failure_finishes(clock):
    """P5: to the stages below, a failure is a failing source: what they have taken is delivered, then it is raised."""

    async def fails_at_two(number):
        await asyncio.sleep(1)
        if number == 2:
            raise ValueError(number)
        return number

    async def slow_down(number):
        await asyncio.sleep(10)
        return number

    seen = []

    async def read_all():
        async with NUMBERS.map(fails_at_two).map(slow_down, concurrency=5).open() as items:
            async for item in items:
                seen.append((clock.now, item))  # noqa: PERF401 -- a comprehension would lose them at the error

    with pytest.raises(ValueError, match="2"):
        await read_all()
    assert seen == [(11.0, 0), (12.0, 1)]


@grid
@pytest.mark.parametrize("aborts_at", [0, 1, 2, 5])
@pytest.mark.parametrize("items", [list, Scripted], ids=["list", "async"])
async def test_work_that_aborts_its_run_in_its_first_step_is_cancelled_as_well(items, aborts_at):
    """P4: it is not among what runs yet when that is cancelled."""
    gauge, reasons = Gauge(), []

    async def work(number):
        if number == aborts_at:
            run.abort("deadline")
        elif aborts_at > 2:
            return
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError as error:
            reasons.extend(error.args)
            raise

    run = penstock.stream(items(range(9))).map(gauge.wrap(work), concurrency=3, ordered=False).open()
    async with run:
        async for _ in run:
            pass
    assert (gauge.now, gauge.cancelled) == (0, len(reasons))
    assert set(reasons) == {"deadline"}


@grid
async def test_a_list_whose_work_aborts_its_run_in_its_first_step_is_told_why():
    """P8: what was started just now is cancelled with the reason of the rest."""
    reasons = []

    async def work(_):
        run.abort("deadline")
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError as error:
            reasons.extend(error.args)
            raise

    run = NUMBERS.map_batches(work, 2).open()
    async with run:
        assert [item async for item in run] == []
    assert (reasons, run.stats()[-1].cancelled) == (["deadline"], 2)


@grid
@pytest.mark.parametrize("ordered", [True, False])
async def test_an_input_whose_work_aborts_its_run_in_its_first_step_has_one_outcome(ordered):
    """P5: it is cancelled, with the reason that was given, and not discarded as well."""
    reasons = []

    async def work(_):
        run.abort("deadline")
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError as error:
            reasons.extend(error.args)
            raise

    run = NUMBERS.flat_map(work, ordered=ordered).open()
    async with run:
        assert [item async for item in run] == []
    stage = run.stats()[-1]
    assert (stage.taken, stage.cancelled, stage.discarded, reasons) == (1, 1, 0, ["deadline"])


@grid
@pytest.mark.parametrize("items", [list, Scripted], ids=["list", "async"])
async def test_a_run_without_work_that_is_aborted_reads_no_further(items):
    async with penstock.stream(items(range(9))).open() as run:
        assert await anext(run) == 0
        run.abort()
        assert [item async for item in run] == []
    assert run.stats()["source"].taken == 1


@grid
@pytest.mark.parametrize("end", ["stop", "abort", "aclose"])
async def test_a_run_that_was_ended_before_it_is_entered_reads_nothing(end):
    source = Scripted(range(3))
    run = penstock.stream(source).map(slow).open()
    if (closing := getattr(run, end)()) is not None:
        await closing
    async with run as items:
        assert [item async for item in items] == []
    assert (source.taken, run.was_stopped) == (0, True)


@grid
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
async def test_an_error_at_the_very_end_is_raised_and_keeps_nobody_waiting(error):
    """P4: whatever else is to be done at the end is done."""
    called = []

    def fails():
        raise error("at the end")

    run = NUMBERS.map(slow).open()
    with pytest.raises(error, match="at the end"):
        async with run as items:
            items._scope.on_closed += [fails, lambda: called.append("after")]
            await anext(items)
    assert called == ["after"]
    assert [str(failed) for failed in items.failures] == [f"stage 'end of the run', item 0: {error('at the end')!r}"]
