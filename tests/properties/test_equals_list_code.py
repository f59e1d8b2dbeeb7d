"""Random pipelines under random schedules give what plain list code gives, within their bounds, and leave nothing."""

import asyncio
import itertools
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock
from penstock.testing import Gauge, Scripted

DELAYS = st.sampled_from([None, 0, 0.5, 1, 1, 2, 7])
FREE = ("batch", "take", "plain", "batch_weight")
"""Stages that take no options, and so keep the order."""
OPTIONS = st.fixed_dictionaries(
    {"concurrency": st.integers(1, 5), "ordered": st.booleans(), "buffer": st.integers(0, 4)}
)


@st.composite
def pipelines(draw):
    """A source and stages: (items, source delay, kind of source, [(kind, options, delays, failing item)])."""
    stages = [
        (
            draw(st.sampled_from([*BUILD, *SURE])),
            draw(OPTIONS),
            draw(st.lists(DELAYS, min_size=1, max_size=6)),
            draw(st.none() | st.integers(0, 15)),
        )
        for _ in range(draw(st.integers(0, 4)))
    ]
    return draw(st.integers(0, 20)), draw(DELAYS), draw(st.sampled_from(["async", "plain", "thread"])), stages


class Boom(Exception):
    pass


def slow(delays, gauge, failing, result):
    async def work(item):
        with gauge:
            number = number_of(item)
            delay = delays[number % len(delays)]
            if delay is not None:
                await asyncio.sleep(delay)
            if failing in numbers_of(item):
                raise Boom(item)
            return result(item)

    return work


def blocking(delays, gauge, failing):
    """The same as a plain function for threads, which can be stopped no sooner than they are through."""
    clock = asyncio.get_running_loop().clock

    def work(item):
        with gauge:
            delay = delays[number_of(item) % len(delays)]
            if delay is not None:
                clock.sleep(min(delay, 2))
            if failing in numbers_of(item):
                raise Boom(item)
            return item

    return work


def at_once(gauge, failing):
    def work(item):
        with gauge:
            if failing in numbers_of(item):
                raise Boom(item)
            return item

    return work


def numbers_of(item):
    """The number of an item, or those of the items in a list for `map_batches`."""
    return [number_of(each) for each in item] if type(item) is Items else [number_of(item)]


class Items(list):
    """What `map_batches` gives to its function; other lists are items."""


def of_items(work):
    def call(items):
        return work(Items(items))

    async def async_call(items):
        return await work(Items(items))

    return async_call if asyncio.iscoroutinefunction(work) else call


def number_of(item):
    while isinstance(item, list):
        item = item[0]
    return item


BUILD = {
    "map": lambda stream, delays, gauge, bad, options: stream.map(slow(delays, gauge, bad, itself), **options),
    "filter": lambda stream, delays, gauge, bad, options: stream.filter(slow(delays, gauge, bad, kept), **options),
    "tap": lambda stream, delays, gauge, bad, options: stream.tap(slow(delays, gauge, bad, nothing), **options),
    "flat_map": lambda stream, delays, gauge, bad, options: stream.flat_map(
        slow(delays, gauge, bad, repeated), **options
    ),
    "map_batches": lambda stream, delays, gauge, bad, options: stream.map_batches(
        of_items(slow(delays, gauge, bad, list)), len(delays), within=delays[-1] or None, **options
    ),
    "inline": lambda stream, _, gauge, bad, options: stream.map(at_once(gauge, bad), engine="inline", **options),
    "map_thread": lambda stream, delays, gauge, bad, options: stream.map(
        blocking(delays, gauge, bad), engine="thread", **options
    ),
    "map_batches_thread": lambda stream, delays, gauge, bad, options: stream.map_batches(
        of_items(blocking(delays, gauge, bad)), len(delays), engine="thread", **options
    ),
}
"""Stages whose work may fail."""

SURE = {
    "flat_map_async": lambda stream, delays, _, options: stream.flat_map(repeat(delays), **options),
    "flat_map_thread": lambda stream, delays, gauge, options: stream.flat_map(
        repeat_blocking(delays, gauge), engine="thread", **options
    ),
    "batch": lambda stream, *_: stream.batch(2),
    "batch_weight": lambda stream, *_: stream.batch(3, weight=lambda item: number_of(item) % 4, max_weight=5),
    "take": lambda stream, *_: stream.take(7),
    "plain": lambda stream, *_: stream.map(number_of, name="plain"),
}


def build(stream, stages, gauges, *, failures):
    """The penstock pipeline."""
    for kind, options, delays, failing in stages:
        gauge = Gauge()
        gauges.append((gauge, options["concurrency"]))
        if kind in SURE:
            stream = SURE[kind](stream, delays, gauge, options)
        else:
            on_error = {"on_error": "skip"} if failures == "skip" else {}
            stream = BUILD[kind](stream, delays, gauge, failing if failures else None, {**options, **on_error})
    return stream


def itself(item):
    return item


def kept(item):
    return number_of(item) % 3 != 0


def nothing(_):
    return None


def repeated(item):
    return [item] * (number_of(item) % 3)


def repeat(delays):
    async def outputs(item):
        for turn in range(number_of(item) % 3):
            delay = delays[turn % len(delays)]
            if delay is not None:
                await asyncio.sleep(delay)
            yield item

    return outputs


def repeat_blocking(delays, gauge):
    clock = asyncio.get_running_loop().clock

    def outputs(item):
        for turn in range(number_of(item) % 3):
            delay = delays[turn % len(delays)]
            with gauge:
                if delay is not None:
                    clock.sleep(min(delay, 2))
            yield item

    return outputs


def weighed(items):
    """Batches of at most three items that weigh at most 5."""
    batch, weight = [], 0
    for item in items:
        more = number_of(item) % 4
        if batch and weight + more > 5:
            yield batch
            batch, weight = [], 0
        batch.append(item)
        weight += more
        if len(batch) == 3 or weight >= 5:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch


def expected(items, stages, *, skip):
    """The same in list code."""
    for kind, _, _, failing in stages:
        if skip and kind in BUILD:
            items = [item for item in items if number_of(item) != failing]
        if kind == "filter":
            items = [item for item in items if kept(item)]
        elif kind.startswith("flat_map"):
            items = [each for item in items for each in repeated(item)]
        elif kind == "batch":
            items = [items[first : first + 2] for first in range(0, len(items), 2)]
        elif kind == "batch_weight":
            items = list(weighed(items))
        elif kind == "take":
            items = items[:7]
        elif kind == "plain":
            items = [number_of(item) for item in items]
    return items


def source_of(count, delay, kind):
    """A script, and the stream that reads it."""
    if kind == "async":
        source = Scripted(range(count), delay=delay)
        return source, penstock.stream(source)
    if kind == "plain":
        source = Scripted(range(count))
        return source, penstock.stream(source.sync())
    source = Scripted(range(count), delay=delay and min(delay, 2))
    return source, penstock.stream(source.sync(asyncio.get_running_loop().clock), engine="thread")


def counts_items(stage, following):
    """Whether what a stage delivers is what the one below takes: one for one."""
    return not stage.name.startswith(("flat_map", "batch")) or following.startswith("map_batches")


def consistent_books(run, stages=(), gauges=(), *, lazy=True, given=None):
    """Every count of every stage, beside those of its neighbours, and of gauges that know nothing of the run."""
    stats = list(run.stats())
    for stage in stats:
        assert min(getattr(stage, name) for name in COUNTS) >= 0, stage
        assert stage.in_flight <= max(stage.peak_in_flight, stage.taken * (stage.concurrency is None)), stage
        if stage.concurrency is not None:
            assert stage.running <= min(stage.peak_running, stage.concurrency), stage
            assert stage.buffered <= stage.peak_buffered, stage
            assert stage.succeeded + stage.failed <= stage.started <= stage.taken, stage
            if not stage.name.startswith("flat_map"):
                assert stage.running + stage.buffered <= stage.in_flight, stage
                if not stage.name.startswith("map_batches"):
                    assert stage.running + stage.buffered == stage.in_flight, stage
    for stage, following in itertools.pairwise(stats):
        if counts_items(stage, following.name):
            assert stage.delivered == following.taken, (stage, following)
    if given is not None and stats and counts_items(stats[-1], ""):
        assert stats[-1].delivered == given
    windows = [stage for stage in stats if not stage.name.startswith(("source", "batch", "take"))]
    for stage, (kind, *_), (gauge, _) in zip(windows, stages, gauges, strict=False):
        if kind in {"map", "filter", "tap", "map_batches"} and not lazy:
            assert stage.running == gauge.now, (stage, gauge)
            assert stage.peak_running == gauge.peak, (stage, gauge)


COUNTS = (
    "taken", "delivered", "dropped", "failed", "cancelled", "discarded", "in_flight", "started", "succeeded",
    "retried", "running", "buffered", "upstream_wait_s", "consumer_wait_s", "blocked_by_head_s",
)  # fmt: skip


@asynccontextmanager
async def watched(run, pauses, **context):
    """Check the books of a run while the block runs, also between its items."""

    async def watch():
        for passes, seconds in itertools.cycle(pauses):
            await asyncio.sleep(seconds)
            for _ in range(passes):
                await asyncio.sleep(0)
                consistent_books(run, **context)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])
    if not watching.cancelled():
        watching.result()


MOMENTS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from([0.25, 0.5, 1, 3])), min_size=1, max_size=4)


def closed_books(run, gauges, source, kind):
    consistent_books(run)
    for stage in run.stats():
        for name in ("in_flight", "running", "buffered"):
            assert getattr(stage, name) == 0, stage
    for gauge, concurrency in gauges:
        assert gauge.now == 0
        assert gauge.peak <= concurrency
    assert source.closed == source.opened or kind == "plain"


EXAMPLES = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.mark.grid
@given(pipelines(), st.sampled_from([False, "skip"]), MOMENTS)
@EXAMPLES
async def test_results_equal_list_code(place, pipeline, failures, moments):
    """P1, P3, P5: ordered pipelines give exactly the list, others the same items; the books balance at every moment."""
    count, delay, kind, stages = pipeline
    exact = all(options["ordered"] or kind in FREE for kind, options, _, _ in stages)
    if not exact and any(kind in {"batch", "take", "batch_weight"} for kind, *_ in stages):
        return  # what is grouped or taken depends on the order, which is free
    source, readable = source_of(count, delay, kind)
    gauges = []
    results = []
    async with build(readable, stages, gauges, failures=failures).open() as items:
        counted = [(stage, gauge) for stage, gauge in zip(stages, gauges, strict=True) if stage[0] not in UNCOUNTED]
        context = {
            "stages": [stage for stage, _ in counted],
            "gauges": [gauge for _, gauge in counted],
            "lazy": place.tasks == "lazy",
        }
        async with watched(items, moments, **context):
            async for item in items:
                results.append(item)
                consistent_books(items, **context, given=len(results))
    want = expected(list(range(count)), stages, skip=failures == "skip")
    assert results == want if exact else sorted(results, key=str) == sorted(want, key=str)
    closed_books(items, gauges, source, kind)


UNCOUNTED = {"batch", "take", "batch_weight"}
"""Stages that run no function."""


@pytest.mark.grid
@given(
    pipelines(),
    st.sampled_from([False, "skip", "raise"]),
    st.integers(0, 12),
    st.sampled_from([None, 0, 0.5, 3, 10]),
    MOMENTS,
)
@EXAMPLES
async def test_leaving_at_any_moment_leaves_nothing(pipeline, failures, most, deadline, moments):
    """P4, P5: a break, a failure or a timeout at any moment stops all work, closes the source, balances the books."""
    count, delay, kind, stages = pipeline
    source, readable = source_of(count, delay, kind)
    gauges = []
    run = build(readable, stages, gauges, failures=failures).open()
    with suppress(Boom):  # of work that failed while it was being stopped
        async with watched(run, moments), run as items:
            with suppress(Boom, TimeoutError):
                async with asyncio.timeout(deadline):
                    async for _ in items:
                        consistent_books(items)
                        most -= 1
                        if most <= 0:
                            break
    started = sum(gauge.started for gauge, _ in gauges)
    closed_books(run, gauges, source, kind)
    await asyncio.sleep(100)
    assert sum(gauge.started for gauge, _ in gauges) == started
