"""What a run counts and measures: exact counters, waits only where a party waits, sampled latency, and the table."""

import asyncio
import random

import pytest

import penstock
from penstock.core.fan_out import FanOut
from penstock.core.meter import RARELY, SLOW, Meter, Sketch
from penstock.core.plan import MISSING, Plan
from penstock.core.source import SourceSpec
from penstock.run import Run
from penstock.testing import Gauge, Scripted

grid = pytest.mark.grid
ORDERS = (True, False)


async def at_once(number):
    return number


async def second(number):
    await asyncio.sleep(1)
    return number


def approximately(seconds):
    return pytest.approx(seconds, rel=0.03)


@grid
@pytest.mark.parametrize("ordered", ORDERS)
async def test_calls_in_progress_are_what_the_work_sees(ordered, place):
    """Started, running, succeeded, failed: at every step beside a gauge that knows nothing of the run."""
    gauge, chance = Gauge(), random.Random(ordered)

    async def work(number):
        await asyncio.sleep(chance.choice([0, 1, 2]))
        if number % 5 == 0:
            raise ValueError(number)
        return number

    def check():
        stage = results.stats()["work"]
        assert stage.succeeded == gauge.finished
        if place.tasks != "lazy":  # there, a task that was started and has not begun counts as running
            assert (stage.running, stage.peak_running, stage.started) == (gauge.now, gauge.peak, gauge.started)
        assert stage.in_flight == stage.running + stage.buffered
        assert stage.peak_in_flight <= 6
        assert stage.peak_buffered <= 6

    options = {"concurrency": 4, "buffer": 2, "ordered": ordered, "name": "work", "on_error": "collect"}
    async with penstock.stream(range(60)).map(gauge.wrap(work), **options).open() as results:
        async for number in results:
            check()
            await asyncio.sleep(chance.choice([0, 0.5, 3]))
            check()
            assert number % 5
    assert results.stats()["work"].succeeded == 48


@grid
@pytest.mark.parametrize("on_error", ["skip", "collect", "return"])
async def test_what_failed_has_not_succeeded(on_error):
    async def work(number):
        if number % 2:
            raise ValueError(number)
        return number

    async with penstock.stream(range(6)).map(work, concurrency=6, on_error=on_error).open() as results:
        await anext(results)
        await asyncio.sleep(1)  # on a busy machine, tasks that start lazily take more than one turn to begin
        stage = results.stats()[1]
        assert (stage.started, stage.succeeded, stage.taken) == (6, 3, 6)
        await results.aclose()
    assert results.stats()[1].succeeded == 3


async def test_a_call_that_is_being_started_runs():
    seen = []

    async def work(number):
        stage = results.stats()[1]
        seen.append((stage.taken, stage.running, stage.in_flight, stage.succeeded))

    async with penstock.stream(range(2)).map(work).open() as results:
        assert [result async for result in results] == [None, None]
    assert seen == [(1, 1, 1, 0), (2, 1, 1, 1)]


@grid
@pytest.mark.parametrize("ordered", ORDERS)
async def test_peaks(ordered):
    options = {"concurrency": 3, "buffer": 2, "ordered": ordered}
    async with penstock.stream(range(20)).map(second, **options).open() as results:
        async for _ in results:
            await asyncio.sleep(10)
    stage = results.stats()[1]
    assert (stage.peak_running, stage.peak_in_flight, stage.peak_buffered) == (3, 5, 5)
    assert (stage.running, stage.in_flight, stage.buffered) == (0, 0, 0)


@grid
async def test_results_of_threads_that_come_back_with_a_failure_count(clock):
    """The failure comes last and ends the run, while the results before it wait."""

    def work(number):
        if number == 2:
            raise LookupError
        return number

    with pytest.raises(LookupError):
        async with penstock.stream(range(3)).map(work, concurrency=3).open() as results:
            async for _ in results:
                stage = results.stats()[1]
                assert stage.buffered <= stage.peak_buffered  # whichever of them came back together
                await asyncio.sleep(1)


async def test_what_waits_for_a_limit_or_its_next_attempt_counts_as_running(clock):
    """P1: it has a place; of four that do, one runs, one waits for its next attempt and two for the limiter."""
    gauge, retry = Gauge(), penstock.Retry(on=OSError, initial=10, jitter=0)

    async def work(number):
        if number == 0:
            raise OSError
        await asyncio.sleep(1)

    stream = penstock.stream(range(4)).map(
        gauge.wrap(work), concurrency=4, ordered=False, limit=penstock.Limiter(1), retry=retry
    )
    async with stream.open() as results:
        reading = asyncio.ensure_future(anext(results))
        await asyncio.sleep(0.5)
        assert (results.stats()[1].running, gauge.now) == (4, 1)
        await reading


@grid
async def test_peaks_of_calls_that_drop_their_item_at_once(place):
    async with penstock.stream(range(9)).filter(lambda _: False, concurrency=3).open() as results:
        assert [result async for result in results] == []
    stage = results.stats()[1]
    at_once = 3 if place.tasks == "lazy" else 1
    assert (stage.peak_running, stage.peak_in_flight, stage.peak_buffered) == (at_once, at_once, 0)


@grid
async def test_waiting_for_upstream():
    source = Scripted(range(4), delay=10)
    async with penstock.stream(source).map(second, concurrency=2).open() as results:
        assert [number async for number in results] == [0, 1, 2, 3]
    stage = results.stats()[1]
    assert stage.upstream_wait_s == approximately(50)  # four items and the end
    assert (stage.consumer_wait_s, stage.blocked_by_head_s) == (0, 0)
    assert results.stats().bottleneck == "source"


@grid
async def test_waiting_for_the_consumer():
    async with penstock.stream(range(5)).map(second, concurrency=2, name="work").open() as results:
        async for _ in results:
            await asyncio.sleep(10)
    stats = results.stats()
    assert stats["work"].consumer_wait_s == approximately(30)  # then its last item runs: it is kept from nothing more
    assert (stats["work"].upstream_wait_s, stats["work"].blocked_by_head_s) == (0, 0)
    assert stats.bottleneck == "the consumer"


@grid
async def test_blocked_by_the_head():
    async def work(number):
        await asyncio.sleep(100 if number == 0 else 1)

    async with penstock.stream(range(20)).map(work, concurrency=4, name="work").open() as results:
        async for _ in results:
            pass
    stats = results.stats()
    assert stats["work"].blocked_by_head_s == approximately(99)
    assert stats["work"].consumer_wait_s == 0
    assert stats.bottleneck == "work"
    assert "work was blocked by its head 95% of the time: buffer= or ordered=False would help" in str(stats)
    async with penstock.stream(range(20)).map(work, concurrency=4, ordered=False).open() as results:
        async for _ in results:
            pass
    assert results.stats()[1].blocked_by_head_s == 0


@grid
@pytest.mark.parametrize("operator", ["map", "flat_map", "map_batches"])
async def test_waiting_for_a_limit(operator, clock):
    """The time in which anybody waits: three start at once, as the rate has saved up; the others one a second."""

    async def work(item):
        await asyncio.sleep(0.1)
        return [item] if operator == "flat_map" else item

    size = (1,) if operator == "map_batches" else ()
    options = {"concurrency": 8, "name": "work", "limit": penstock.RateLimit(1, 1, burst=3)}
    stream = getattr(penstock.stream(range(10)), operator)(work, *size, **options)
    async with stream.open() as results:
        await anext(results)
        assert results.stats()["work"].limit_wait_s == approximately(0.1)
        async for _ in results:
            pass
    stats = results.stats()
    assert stats["work"].limit_wait_s == approximately(7)
    assert "calls of work waited for its limit 99% of the time" in str(stats)
    assert "limit" in str(stats).splitlines()[1].split()


@grid
async def test_an_ordered_stage_is_not_told_of_its_head_where_its_limit_holds_it_up(clock):
    """A buffer would not help."""
    retry = penstock.Retry(on=OSError, initial=3, jitter=0)
    failing = {3, 13}

    async def work(number):
        await asyncio.sleep(0.01)
        if number in failing:
            failing.remove(number)
            raise OSError

    options = {"concurrency": 4, "limit": penstock.RateLimit(1, 1), "retry": retry, "name": "work"}
    async with penstock.stream(range(20)).map(work, **options).open() as results:
        async for _ in results:
            pass
    stats = results.stats()
    assert stats["work"].blocked_by_head_s > 1
    assert "its head" not in str(stats)
    assert "calls of work waited for its limit" in str(stats)


@grid
async def test_a_stage_that_is_busy_waits_for_nobody():
    async with penstock.stream(range(8)).map(second, concurrency=2).open() as results:
        async for _ in results:
            pass
    stage = results.stats()[1]
    assert stage.upstream_wait_s + stage.consumer_wait_s + stage.blocked_by_head_s == 0
    assert results.stats().seconds == 4.0


@grid
@pytest.mark.parametrize("slow", ["first", "second"])
async def test_the_bottleneck_is_the_slow_stage(slow):
    async def work(seconds):
        await asyncio.sleep(seconds)
        return 11 - seconds

    seconds = 10 if slow == "first" else 1
    stages = (
        penstock.stream([seconds] * 20).map(work, concurrency=2, name="first").map(work, concurrency=2, name="second")
    )
    async with stages.open() as results:
        async for _ in results:
            pass
    assert results.stats().bottleneck == slow


@grid
async def test_time_to_the_first_result():
    async with penstock.stream(range(3)).map(second).map(second).open() as results:
        await asyncio.sleep(5)
        assert results.stats()[1].first_result_s is None
        async for _ in results:
            pass
    assert [stage.first_result_s for stage in results.stats()] == [None, 6.0, 7.0]


@grid
async def test_latency_is_that_of_one_attempt_without_pauses():
    tries = []

    async def work(number):
        await asyncio.sleep(3)
        tries.append(number)
        if len(tries) % 2:
            raise ValueError(number)

    retry = penstock.Retry(on=ValueError, initial=50, jitter=0)
    async with penstock.stream(range(4)).map(work, retry=retry).open() as results:
        async for _ in results:
            pass
    latency = results.stats()[1].latency
    assert latency.samples == 4
    assert (latency.p50, latency.p95, latency.p99) == (approximately(3),) * 3


@grid
async def test_quantiles_of_latency():
    async def work(number):
        await asyncio.sleep(number)

    async with penstock.stream(range(1, 101)).map(work, concurrency=7).open() as results:
        async for _ in results:
            pass
    latency = results.stats()[1].latency
    assert latency.samples == 100
    assert (latency.p50, latency.p95, latency.p99) == tuple(map(approximately, (50, 95, 99)))


@grid
async def test_latency_of_flat_map_is_without_the_consumer():
    async def work(number):
        for _ in range(3):
            await asyncio.sleep(1)
            yield number

    async with penstock.stream(range(3)).flat_map(work).open() as results:
        async for _ in results:
            await asyncio.sleep(100)
    assert results.stats()[1].latency.p50 == approximately(3)


@grid
async def test_fast_calls_are_timed_rarely_and_slow_ones_always():
    async with penstock.stream(range(3200)).map(at_once).open() as results:
        async for _ in results:
            pass
    latency = results.stats()[1].latency
    assert 1 <= latency.samples <= 3200 / RARELY
    assert latency.share == latency.samples / 3200
    async with penstock.stream(range(3200)).map(at_once).open(timing=True) as results:
        async for _ in results:
            pass
    assert results.stats()[1].latency.samples == 3200
    async with penstock.stream(range(320)).map(second, concurrency=8).open() as results:
        async for _ in results:
            pass
    assert results.stats()[1].latency.samples == 320


async def test_inline_functions_are_timed_too():
    def work(number):
        return number

    async with penstock.stream(range(320)).map(work).open(timing=True) as results:
        async for _ in results:
            pass
    assert results.stats()[1].latency.samples == 320


def test_a_sketch_is_within_two_percent_in_constant_memory():
    sketch, chance = Sketch(), random.Random(1)
    values = sorted(chance.lognormvariate(-3, 2) for _ in range(20_000))
    for value in values:
        sketch.add(value)
    for share in (0, 0.01, 0.5, 0.95, 0.99, 1):
        assert sketch.quantile(share) == pytest.approx(values[round(share * (len(values) - 1))], rel=0.021)
    for value in (0, 1e-300, 1e300):
        sketch.add(value)
    assert len(sketch._buckets) < 700
    assert Sketch().quantile(0.5) == 0


def test_after_a_slow_call_the_next_ones_are_timed():
    time = iter([0.0, 100.0, 200.0 + SLOW / 2])
    meter = Meter(lambda: next(time), 0.0, every_call=False)
    meter.returned(100.0 - SLOW)
    assert meter.slow
    meter.returned(200.0)
    assert not meter.slow


@pytest.mark.parametrize(("seconds", "every_one"), [(0.05, False), (0.2, True)])
async def test_calls_of_which_very_many_run_at_once_are_timed_rarely(clock, seconds, every_one):
    """Timing each of a thousand calls of 50 ms took a tenth of the processor time of an item."""

    async def work(number):
        await asyncio.sleep(seconds)
        return number

    async with penstock.stream(range(3_000)).map(work, concurrency=1000).open() as results:
        async for _ in results:
            pass
    latency = results.stats().stages[1].latency
    assert (latency.share == 1) is every_one


async def test_statistics_of_a_run_that_is_over_stay(clock):
    async with penstock.stream(range(3)).map(second).open() as results:
        async for _ in results:
            pass
    before = results.stats()
    await asyncio.sleep(100)
    assert results.stats() is before
    assert before.seconds == 3.0


WAITS = ["wait upstream", "consumer", "head"]
LATENCY = ["p50", "p95", "p99", "timed"]


async def test_the_table():
    async def work(number):
        await asyncio.sleep(0.5)
        if number == 3:
            raise ValueError(number)
        return number

    stages = (
        penstock.stream(range(2000), total=2000).map(work, concurrency=100, name="fetch", on_error="skip").take(1500)
    )
    async with stages.open() as results:
        async for _ in results:
            pass
    lines = [line.split("  ") for line in str(results.stats()).splitlines()]
    assert [[cell.strip() for cell in line if cell.strip()] for line in lines] == [
        ["8.0 s"],
        ["stage", "taken", "delivered", "failed", "discarded", "running (peak)", "buffered (peak)", *WAITS, *LATENCY],
        ["source", "1,600", "1,600", "0", "0"],
        [
            "> fetch",
            "1,600",
            "1,500",
            "1",
            "99",
            "0 (100)",
            "0 (100)",
            "0.0 s",
            "0.0 s",
            "0.0 s",
            *["503.4 ms"] * 3,
            "100%",
        ],
        ["take(1500)", "1,500", "1,500", "0", "0"],
        ["bottleneck: fetch"],
    ]


def test_nothing_ran():
    stats = penstock.stream([]).map(at_once).open().stats()
    assert (len(stats), stats.bottleneck, str(stats)) == (0, None, "nothing has run")


async def test_stages_by_position_slice_and_name():
    async with penstock.stream(range(3)).map(second, name="work").open() as results:
        await anext(results)
    stats = results.stats()
    assert stats[0].name == "source"
    assert stats[-1] is stats["work"]
    assert stats[:1] == stats.stages[:1]
    with pytest.raises(KeyError, match="no stage 'wrok': there are 'source', 'work'"):
        stats["wrok"]


class Unsized:
    """An iterable that has a `__len__` and no length: `tqdm(generator)`, torch's DataLoader of an IterableDataset."""

    def __init__(self, *items):
        self.items = items

    def __iter__(self):
        return iter(self.items)

    def __len__(self):
        raise TypeError("object of type 'generator' has no len()")


async def test_a_source_whose_length_raises_is_run_as_one_without():
    async with penstock.stream(Unsized(1, 2)).open() as items:
        assert [item async for item in items] == [1, 2]
        assert items.stats()[0].total is None


async def test_the_source_knows_its_total():
    async with penstock.stream([1, 2]).open() as items:
        await anext(items)
        assert items.stats()[0].total == 2
    async with penstock.stream(iter([1, 2]), total=7).open() as items:
        await anext(items)
        assert items.stats()[0].total == 7
    async with penstock.stream(iter([1, 2])).open() as items:
        await anext(items)
        assert items.stats()[0].total is None


@pytest.mark.parametrize("value", [1, "yes", None])
def test_timing_is_a_flag(value):
    with pytest.raises(penstock.OptionError, match=f"timing must be True or False, got {value!r}"):
        penstock.stream([]).open(timing=value)


async def every_half_second(number):
    for _ in range(number % 3):
        await asyncio.sleep(0.5)
        yield number


@grid
@pytest.mark.parametrize("ordered", ORDERS)
async def test_nothing_is_buffered_in_a_flat_map_that_is_over(ordered):
    options = {"concurrency": 5, "buffer": 4, "ordered": ordered}
    async with penstock.stream(range(9)).flat_map(every_half_second, **options).open() as results:
        await anext(results)
        await asyncio.sleep(1)
        assert results.stats()[1].buffered
    stage = results.stats()[1]
    assert (stage.in_flight, stage.running, stage.buffered) == (0, 0, 0)


@grid
@pytest.mark.parametrize("ordered", ORDERS)
async def test_a_flat_map_that_is_stopped_runs_no_less_than_nothing(ordered):
    """Inputs that failed or were cancelled, and have outputs left to hand on, are settled."""

    async def outputs(number):
        yield number
        yield number
        await asyncio.sleep(2 + number)
        raise ValueError(number)

    options = {"concurrency": 3, "buffer": 6, "ordered": ordered}
    async with penstock.stream(range(3)).flat_map(outputs, **options).open() as results:
        await anext(results)
        await asyncio.sleep(5)
        with pytest.raises(ValueError, match="0"):
            while True:
                stage = results.stats()[1]
                assert (stage.running, stage.succeeded, stage.failed) == (0, 0, 1)
                await anext(results)


@grid
@pytest.mark.parametrize("fn", ["map", "map_batches"])
@pytest.mark.parametrize("engine", [None, "thread"])
async def test_statistics_can_be_asked_for_in_work(fn, engine):
    """Of a call that is in progress, the item has no outcome."""
    seen = []

    def work(what):
        stats = results.stats()
        seen.append((stats[-1].in_flight, stats[-1].running, [stage.taken for stage in stats][-1]))
        str(stats)
        return what

    stream = penstock.stream(range(2))
    stream = stream.map(work, engine=engine) if fn == "map" else stream.map_batches(work, 1, engine=engine)
    async with stream.open(timing=True) as results:
        assert [result async for result in results] == [0, 1]
        assert results.stats()[-1].latency.samples == 2
    assert seen == [(1, 1, 1), (1, 1, 2)]


@grid
async def test_statistics_are_whole_where_the_failure_is_handled():
    """When a failure is raised the run is over: nothing is in flight any more."""

    async def work(number):
        await asyncio.sleep(number)
        if number == 2:
            raise ValueError(number)
        return number

    async with penstock.stream(range(9)).map(work, concurrency=4, name="work").open() as results:
        with pytest.raises(ValueError, match="2"):
            async for _ in results:
                pass
        stage = results.stats()["work"]
        assert (stage.delivered, stage.failed, stage.cancelled, stage.in_flight) == (2, 1, 3, 0)
        assert stage is results.stats()["work"]


@grid
async def test_a_clock_that_jumps_makes_no_wait_negative(clock):
    async with penstock.stream(Scripted(range(3), delay=1)).map(second, concurrency=2).open(timing=True) as results:
        await anext(results)
        clock.jump(1e9)
        assert [number async for number in results] == [1, 2]
    stage = results.stats()[1]
    assert min(stage.upstream_wait_s, stage.consumer_wait_s, stage.blocked_by_head_s) >= 0
    assert stage.upstream_wait_s <= results.stats().seconds
    assert stage.latency.samples == 3


@grid
@pytest.mark.parametrize("count", [1, 4])
async def test_all_calls_of_a_slow_function_are_timed_whatever_their_number(count):
    for stream in (
        penstock.stream(range(count)).map(second),
        penstock.stream(range(count)).map_batches(second, 4),
        penstock.stream(range(count)).map(second, limit=penstock.Limiter(1)),
    ):
        async with stream.open() as results:
            async for _ in results:
                pass
        assert results.stats()[-1].latency.share == 1.0


async def test_no_more_than_all_calls_are_timed():
    """A plain function has returned when what it returned is still to be awaited, and may fail then."""

    async def fails():
        raise ValueError

    def work(_):
        return fails()

    async with penstock.stream(range(3)).map(work, engine="inline", on_error="skip").open(timing=True) as results:
        assert [result async for result in results] == []
    assert (results.stats()[1].latency.samples, results.stats()[1].latency.share) == (3, 1.0)


@grid
async def test_of_inputs_whose_outputs_are_known_no_call_is_made_or_missed():
    asked = []

    async def gate(number):
        asked.append(number)
        return MISSING if number == 3 else [number]

    async def work(number):
        return [await second(number)]

    plan = Plan("work", work, gate=gate)
    numbers = SourceSpec(range(4))
    results = Run(lambda scope: FanOut(scope, numbers.open(scope), plan), 5.0, timing=False, progress=False)
    async with results:
        assert [result async for result in results] == asked == [0, 1, 2, 3]
    assert (results.stats()[1].latency.samples, results.stats()[1].latency.share) == (1, 1.0)


@grid
@pytest.mark.parametrize("ordered", ORDERS)
async def test_a_flat_map_without_outputs_has_no_first_result(ordered):
    async def nothing(number):
        await asyncio.sleep(number)
        return []

    async with penstock.stream(range(3)).flat_map(nothing, ordered=ordered).open() as results:
        assert [result async for result in results] == []
    stage = results.stats()[1]
    assert (stage.first_result_s, stage.peak_buffered, stage.dropped) == (None, 0, 3)


async def test_a_stage_that_runs_no_function_measures_nothing():
    async with penstock.stream(range(3)).take(2).open() as results:
        assert [result async for result in results] == [0, 1]
    for stage in results.stats():
        counts = (stage.started, stage.succeeded, stage.retried, stage.running, stage.peak_running, stage.buffered)
        waits = (stage.upstream_wait_s, stage.consumer_wait_s, stage.blocked_by_head_s)
        assert {*counts, *waits, stage.peak_in_flight, stage.peak_buffered} == {0}
        assert (stage.first_result_s, stage.latency, stage.concurrency) == (None, None, None)
