"""Random pipelines under random schedules give what plain list code gives, within their bounds, and leave nothing."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import penstock
from penstock.testing import Gauge, Scripted

DELAYS = st.sampled_from([None, 0, 0.5, 1, 1, 2, 7])
STAGES = st.sampled_from(["map", "filter", "flat_map", "flat_map_async", "batch", "tap", "take", "plain"])
OPTIONS = st.fixed_dictionaries(
    {"concurrency": st.integers(1, 5), "ordered": st.booleans(), "buffer": st.integers(0, 4)}
)


@st.composite
def pipelines(draw):
    """A source and stages: (items, source delay, async source?, [(kind, options, delays, failing item)])."""
    stages = [
        (
            draw(STAGES),
            draw(OPTIONS),
            draw(st.lists(DELAYS, min_size=1, max_size=6)),
            draw(st.none() | st.integers(0, 15)),
        )
        for _ in range(draw(st.integers(0, 4)))
    ]
    return draw(st.integers(0, 20)), draw(DELAYS), draw(st.booleans()), stages


class Boom(Exception):
    pass


def slow(delays, gauge, failing, result):
    async def work(item):
        with gauge:
            number = number_of(item)
            delay = delays[number % len(delays)]
            if delay is not None:
                await asyncio.sleep(delay)
            if number == failing:
                raise Boom(item)
            return result(item)

    return work


def number_of(item):
    while isinstance(item, list):
        item = item[0]
    return item


def build(stream, stages, gauges, *, failures):
    """The penstock pipeline."""
    for kind, options, delays, failing in stages:
        gauge = Gauge()
        gauges.append((gauge, options["concurrency"]))
        bad = failing if failures else None
        on_error = {"on_error": "skip"} if failures == "skip" else {}
        if kind == "map":
            stream = stream.map(slow(delays, gauge, bad, lambda item: item), **options, **on_error)
        elif kind == "filter":
            stream = stream.filter(
                slow(delays, gauge, bad, lambda item: number_of(item) % 3 != 0), **options, **on_error
            )
        elif kind == "tap":
            stream = stream.tap(slow(delays, gauge, bad, lambda _: None), **options, **on_error)
        elif kind == "flat_map":
            stream = stream.flat_map(
                slow(delays, gauge, bad, lambda item: [item] * (number_of(item) % 3)), **options, **on_error
            )
        elif kind == "flat_map_async":
            stream = stream.flat_map(repeat(delays), **options)
        elif kind == "batch":
            stream = stream.batch(2)
        elif kind == "take":
            stream = stream.take(7)
        elif kind == "plain":
            stream = stream.map(number_of, name="plain")
    return stream


def repeat(delays):
    async def outputs(item):
        for turn in range(number_of(item) % 3):
            delay = delays[turn % len(delays)]
            if delay is not None:
                await asyncio.sleep(delay)
            yield item

    return outputs


def expected(items, stages, *, skip):
    """The same in list code."""
    for kind, _, _, failing in stages:
        if skip and kind in {"map", "filter", "tap", "flat_map"}:
            items = [item for item in items if number_of(item) != failing]
        if kind == "filter":
            items = [item for item in items if number_of(item) % 3 != 0]
        elif kind.startswith("flat_map"):
            items = [item for item in items for _ in range(number_of(item) % 3)]
        elif kind == "batch":
            items = [items[first : first + 2] for first in range(0, len(items), 2)]
        elif kind == "take":
            items = items[:7]
        elif kind == "plain":
            items = [number_of(item) for item in items]
    return items


def source_of(count, delay, is_async):
    source = Scripted(range(count), delay=delay if is_async else None)
    return source, source if is_async else source.sync()


def settled_books(run):
    for stage in run.stats():
        outcomes = stage.delivered + stage.dropped + stage.failed + stage.cancelled + stage.discarded
        assert stage.taken == outcomes + stage.in_flight
        assert min(outcomes, stage.in_flight, stage.discarded) >= 0


def closed_books(run, gauges, source, is_async):
    settled_books(run)
    assert all(stage.in_flight == 0 for stage in run.stats())
    for gauge, concurrency in gauges:
        assert gauge.now == 0
        assert gauge.peak <= concurrency
    assert source.closed == source.opened or not is_async


EXAMPLES = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.mark.grid
@given(pipelines(), st.sampled_from([False, "skip"]))
@EXAMPLES
async def test_results_equal_list_code(pipeline, failures):
    """P1, P3, P5: ordered pipelines give exactly the list, others the same items; the books balance at every item."""
    count, delay, is_async, stages = pipeline
    exact = all(options["ordered"] or kind in {"batch", "take", "plain"} for kind, options, _, _ in stages)
    if not exact and any(kind in {"batch", "take"} for kind, *_ in stages):
        return  # what is grouped or taken depends on the order, which is free
    source, readable = source_of(count, delay, is_async)
    gauges = []
    results = []
    async with build(penstock.stream(readable), stages, gauges, failures=failures).open() as items:
        async for item in items:
            results.append(item)
            settled_books(items)
    want = expected(list(range(count)), stages, skip=failures == "skip")
    assert results == want if exact else sorted(results, key=str) == sorted(want, key=str)
    closed_books(items, gauges, source, is_async)


@pytest.mark.grid
@given(
    pipelines(), st.sampled_from([False, "skip", "raise"]), st.integers(0, 12), st.sampled_from([None, 0, 0.5, 3, 10])
)
@EXAMPLES
async def test_leaving_at_any_moment_leaves_nothing(pipeline, failures, most, deadline):
    """P4, P5: a break, a failure or a timeout at any moment stops all work, closes the source, balances the books."""
    count, delay, is_async, stages = pipeline
    source, readable = source_of(count, delay, is_async)
    gauges = []
    async with build(penstock.stream(readable), stages, gauges, failures=failures).open() as items:
        with suppress(Boom, TimeoutError):
            async with asyncio.timeout(deadline):
                async for _ in items:
                    settled_books(items)
                    most -= 1
                    if most <= 0:
                        break
    started = sum(gauge.started for gauge, _ in gauges)
    closed_books(items, gauges, source, is_async)
    await asyncio.sleep(100)
    assert sum(gauge.started for gauge, _ in gauges) == started
