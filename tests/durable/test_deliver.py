"""The handle on a durable run: watched while it goes on, ended in order or at once, left early (P4, P10)."""

import asyncio

import pytest

import penstock
from penstock.durable import HeldError, dead_roots, discard, retry, runs

pytestmark = pytest.mark.real_time


@pytest.fixture
def sink(tmp_path):
    return penstock.SqliteTable(tmp_path / "out.db", "rows")


class Gate:
    """A stage that lets through what is below a number, and holds the rest until it is opened."""

    def __init__(self, limit):
        self.limit = limit
        self.open = asyncio.Event()
        self.cancelled = 0

    async def __call__(self, number):
        if number >= self.limit:
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return {"n": number}


def numbers(count, work, **options):
    return penstock.keyed(range(count), key=int).map(work, concurrency=4, **options)


async def until(condition):
    while not condition():  # noqa: ASYNC110 -- commits come from a thread
        await asyncio.sleep(0.001)


def found(sink):
    return sorted(row["n"] for row in sink.rows())


async def test_finish_reads_to_the_end_and_gives_the_report(sink):
    """It is what `to` gives, and says the same after the block."""
    async with numbers(5, Gate(5)).deliver(sink, run="r") as run:
        report = await run.finish()
        assert (report.complete, report.delivered, report.rows) == (True, 5, 5)
        assert (await run.finish()).delivered == 5
    assert (run.delivered, run.already_done, run.dead, run.rows, run.failures) == (5, 0, 0, 5, ())
    assert run.report().complete
    assert run.first_row_s is not None
    assert run.stats().stages[-1].delivered == 5
    async with numbers(5, Gate(5)).deliver(sink, run="r") as run:
        await run.finish()
    assert (run.delivered, run.already_done) == (0, 5)


async def test_it_can_be_watched_while_it_goes_on(sink):
    """The counts are those of commits, at any time."""
    gate = Gate(3)
    async with numbers(6, gate).deliver(sink, run="r") as run:
        finishing = asyncio.ensure_future(run.finish())
        await until(lambda: run.delivered == 3)
        assert (run.report().delivered, run.report().complete, run.rows) == (3, False, 3)
        assert found(sink) == [0, 1, 2]
        assert "going on, 3 delivered" in repr(run)
        gate.open.set()
        assert (await finishing).delivered == 6


async def test_stop_finishes_what_is_in_flight(sink):
    """And takes nothing more; the next run goes on."""
    gate = Gate(3)
    async with numbers(100, gate).deliver(sink, run="r") as run:
        finishing = asyncio.ensure_future(run.finish())
        await until(lambda: run.delivered == 3)
        run.stop()
        gate.open.set()
        report = await finishing
    assert 3 < report.delivered < 100
    assert not report.complete
    assert len(found(sink)) == report.delivered
    assert (await numbers(100, Gate(100)).to(sink, run="r")).already_done == report.delivered


@pytest.mark.parametrize("before", [True, False])
async def test_a_run_that_is_stopped_before_it_begins_takes_nothing(sink, before):
    handle = numbers(5, Gate(5)).deliver(sink, run="r")
    if before:
        handle.stop()
    async with handle as run:
        run.stop()
        report = await run.finish()
    assert (report.delivered, report.complete) == (0, False)
    assert runs(sink.path)[0].state == "stopped"


async def test_abort_cancels_what_is_in_flight_and_commits_what_is_finished(sink):
    """`finish` returns: whoever aborts knows why."""
    gate = Gate(3)
    async with numbers(100, gate).deliver(sink, run="r") as run:
        finishing = asyncio.ensure_future(run.finish())
        await until(lambda: run.delivered == 3)
        run.abort()
        report = await finishing
    assert gate.cancelled == 4
    assert (report.delivered, report.complete) == (3, False)
    assert found(sink) == [0, 1, 2]


async def test_a_run_that_is_aborted_before_it_begins_takes_nothing(sink):
    handle = numbers(5, Gate(5)).deliver(sink, run="r")
    handle.abort()
    async with handle as run:
        assert (await run.finish()).delivered == 0


async def test_leaving_the_block_early_stops_and_commits_what_is_finished(sink):
    """P4: whoever is in `finish` elsewhere gets the report so far; nothing runs on."""
    gate = Gate(3)
    async with numbers(100, gate).deliver(sink, run="r") as run:
        finishing = asyncio.ensure_future(run.finish())
        await until(lambda: len(run.stats().stages) > 0 and run.stats().stages[-1].taken >= 7)
    assert gate.cancelled == 4
    assert finishing.done()
    assert (await finishing).delivered == run.delivered == 3
    assert found(sink) == [0, 1, 2]
    assert (await numbers(100, Gate(100)).to(sink, run="r")).already_done == 3


async def test_an_error_in_the_block_leaves_it_as_any_other_road(sink):
    gate = Gate(3)
    with pytest.raises(ZeroDivisionError):
        async with numbers(100, gate).deliver(sink, run="r") as run:
            finishing = asyncio.ensure_future(run.finish())
            await until(lambda: run.delivered == 3)
            raise ZeroDivisionError
    await finishing
    assert gate.cancelled == 4
    assert found(sink) == [0, 1, 2]


async def test_a_cancelled_finish_cancels_what_is_in_flight(sink):
    """P8: the cancellation is the caller's, and is raised."""
    gate = Gate(3)
    async with numbers(100, gate).deliver(sink, run="r") as run:
        finishing = asyncio.ensure_future(run.finish())
        await until(lambda: run.delivered == 3)
        finishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await finishing
        assert gate.cancelled == 4
    assert found(sink) == [0, 1, 2]


async def test_a_block_that_is_left_before_the_run_began_says_so(sink, caplog):
    async with numbers(3, Gate(3)).deliver(sink, run="r"):
        pass
    assert "was left before it began" in caplog.text


async def test_the_sink_is_held_within_the_block_and_free_after_it(sink):
    async with numbers(3, Gate(3)).deliver(sink, run="r") as run:
        with pytest.raises(HeldError):
            await numbers(3, Gate(3)).to(sink, run="r")
        await run.finish()
    assert (await numbers(3, Gate(3)).to(sink, run="r")).complete


async def test_it_is_used_in_one_block_and_by_one_caller(sink):
    handle = numbers(5, gate := Gate(3)).deliver(sink, run="r")
    with pytest.raises(RuntimeError, match="inside `async with"):
        await handle.finish()
    with pytest.raises(RuntimeError, match="was not opened"):
        handle.report()
    assert (handle.delivered, handle.failures, handle.first_row_s, handle.stats().stages) == (0, (), None, ())
    async with handle as run:
        finishing = asyncio.ensure_future(run.finish())
        await until(lambda: run.delivered == 3)
        with pytest.raises(penstock.ConcurrentReadError, match="two finish"):
            await run.finish()
        gate.open.set()
        await finishing
    with pytest.raises(RuntimeError, match="opened already"):
        async with handle:
            pass


async def test_a_failure_is_raised_by_finish_and_says_how_to_go_on(sink):
    def fails(number):
        raise ZeroDivisionError(number)

    with pytest.raises(ZeroDivisionError) as raised:
        async with numbers(3, fails).deliver(sink, run="r") as run:
            await run.finish()
    assert any("run it again to go on" in each for each in raised.value.__notes__)


def test_bad_options_are_refused_when_it_is_made(sink):
    """Not when its block is entered; an unknown one is named with those that there are."""
    stream = numbers(3, Gate)
    with pytest.raises(penstock.OptionError, match="limit must be an int >= 1, got 0"):
        stream.deliver(sink, run="r", limit=0)
    with pytest.raises(penstock.OptionError, match=r"no option 'limits': there are durability, .*run"):
        stream.deliver(sink, run="r", limits=1)
    with pytest.raises(penstock.OptionError, match="needs a source whose items have keys"):
        penstock.stream([1]).deliver(sink, run="r")


async def test_how_runs_stand_is_told_of_a_sink_as_of_its_path(sink):
    await numbers(3, Gate(3)).to(sink, run="r")
    assert runs(sink) == runs(sink.path)
    assert dead_roots(sink) == retry(sink) == discard(sink) == []
    for ask in (runs, dead_roots, retry, discard):
        with pytest.raises(penstock.OptionError, match="sink must be a sink or the path of its database, got 5"):
            ask(5)
