"""`on_error="return"`, and failures that become too many."""

import asyncio
import traceback
import types

import pytest

from penstock import Failed, Ok, OptionError, stream

pytestmark = pytest.mark.grid
ORDERS = pytest.mark.parametrize("ordered", [True, False])


async def odd_fails(number):
    await asyncio.sleep(1)
    if number % 2:
        raise ValueError(number)
    return number


def odd_fails_inline(number):
    if number % 2:
        raise ValueError(number)
    return number


def shown(results):
    return [result.value if isinstance(result, Ok) else f"{result.error!r} at {result.index}" for result in results]


def balanced(run):
    for stage in run.stats():
        settled = stage.delivered + stage.dropped + stage.failed + stage.cancelled + stage.discarded
        assert stage.taken == settled + stage.in_flight, stage


@ORDERS
@pytest.mark.parametrize("fn", [odd_fails, odd_fails_inline])
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_failures_stand_in_their_places(fn, concurrency, ordered):
    """P3, P5: in order, each item gives an `Ok` or a `Failed`; the books balance at every result."""
    async with stream(range(4)).map(fn, on_error="return", ordered=ordered, concurrency=concurrency).open() as items:
        results = []
        async for result in items:
            results.append(result)
            balanced(items)
    assert shown(sorted(results, key=lambda result: result.index)) == [0, "ValueError(1) at 1", 2, "ValueError(3) at 3"]
    assert not ordered or [result.index for result in results] == [0, 1, 2, 3]
    stage = items.stats()[1]
    assert (stage.delivered, stage.failed, stage.in_flight, items.failures) == (2, 2, 0, ())


async def test_what_a_result_gives():
    good, bad = await stream([0, 1]).map(odd_fails, on_error="return").to_list()
    assert (good.unwrap(), good) == (0, Ok(0, 0))
    assert isinstance(bad, Failed)
    with pytest.raises(ValueError, match="1"):
        bad.unwrap()


async def test_values_that_look_like_outcomes_are_values():
    """P6."""
    odd = Failed(ValueError(), 0, None, "")
    assert await stream([odd]).map(lambda item: item, on_error="return").to_list() == [Ok(odd, 0)]


@pytest.mark.parametrize("operator", ["filter", "tap"])
async def test_filter_and_tap_give_their_items(operator):
    results = await getattr(stream([0, 1, 2]), operator)(odd_fails, on_error="return").to_list()
    assert shown(results) == (["ValueError(1) at 1", 2] if operator == "filter" else [0, "ValueError(1) at 1", 2])


@ORDERS
@pytest.mark.parametrize("kind", ["async", "lazy"])
async def test_flat_map_gives_outputs_and_then_the_failure(kind, ordered):
    """P5: k `Ok`, then one `Failed`."""

    async def outputs(number):
        for part in range(number):
            yield number, part
        raise OSError(number)

    def lazy_outputs(number):
        for part in range(number):
            yield number, part
        raise OSError(number)

    fn = outputs if kind == "async" else lazy_outputs
    async with stream([0, 2, 1]).flat_map(fn, on_error="return", ordered=ordered).open() as items:
        results = shown([result async for result in items])
        balanced(items)
    assert results == [
        "OSError(0) at 0",
        (2, 0),
        (2, 1),
        "OSError(2) at 1",
        (1, 0),
        "OSError(1) at 2",
    ]
    assert (items.stats()[1].failed, items.stats()[1].delivered) == (3, 0)


async def test_what_is_no_exception_of_the_work_still_ends_the_run():
    async def stops(number):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await stream([0]).map(stops, on_error="return").to_list()


async def test_an_interrupt_on_its_way_is_not_replaced_by_an_error_of_cleanup():
    async def work(_):
        try:
            await asyncio.sleep(9)
        finally:
            raise KeyError("cleanup")

    with pytest.raises(KeyboardInterrupt) as raised:
        async with stream([0, 1]).filter(lambda number: number).map(work, concurrency=2).open() as items:
            asyncio.get_running_loop().call_later(1, items.stop)
            reading = asyncio.ensure_future(anext(items))
            await asyncio.sleep(2)
            reading.cancel()
            raise KeyboardInterrupt
    (note,) = raised.value.__notes__
    told = "KeyError('cleanup'): penstock: while it was being stopped: stage 'map(work)', item 0"
    assert note == f"penstock: cleanup also failed: {told}"


async def test_an_interrupt_goes_before_errors_of_cleanup_that_came_earlier():
    async def work(number):
        try:
            await asyncio.sleep(9)
        finally:
            raise KeyError("cleanup") if number < 2 else KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        async with stream(range(4)).map(work, concurrency=4).open() as items:
            async with asyncio.timeout(1):
                await anext(items)


@pytest.mark.parametrize("on_error", ["raise", "skip", "collect", "return"])
def test_an_interrupt_that_meets_work_while_it_is_stopped_is_not_lost_behind_the_cancellation(on_error):
    """A second Ctrl-C is raised in whatever runs: that can be work that cleans up."""

    async def work(_):
        try:
            await asyncio.sleep(9)
        finally:
            raise KeyboardInterrupt

    async def main():
        async with stream(range(3)).map(work, concurrency=3, on_error=on_error).open() as items:
            asyncio.get_running_loop().call_later(0.01, asyncio.current_task().cancel)
            async for _ in items:
                pass

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())


@pytest.mark.parametrize("on_error", ["skip", "collect"])
@pytest.mark.parametrize(
    ("options", "item"), [({"max_failures": 2}, 5), ({"max_failures": 0}, 1), ({"max_failure_rate": 0.4}, 3)]
)
async def test_too_many_failures_raise_the_last_of_them(options, item, on_error):
    with pytest.raises(ValueError, match=f"^{item}\\n") as raised:
        await stream(range(100)).map(odd_fails, on_error=on_error, **options).drain()
    ((name, value),) = options.items()
    assert f"more than {name}={value} allows" in raised.value.__notes__[0]


async def test_failures_within_what_is_allowed_are_no_failure():
    numbers = stream(range(10)).map(odd_fails, on_error="skip", max_failures=5, max_failure_rate=0.5)
    assert await numbers.to_list() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_failures": 1}, 'max_failures goes with on_error="skip" or "collect", got on_error=\'raise\''),
        ({"on_error": "skip", "max_failures": -1}, "max_failures must be an int >= 0, got -1"),
        ({"on_error": "skip", "max_failure_rate": 2}, "max_failure_rate must be a number from 0 to 1, got 2"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(OptionError) as raised:
        stream([]).map(odd_fails, **options)
    assert str(raised.value) == message


async def test_the_traceback_of_a_failure_begins_in_the_work():
    """P7: frames of ours would hold the stages; and work of a module without a name has a traceback as well."""

    async def work(number):
        raise ValueError(number)

    for fn in (work, types.FunctionType(work.__code__, {})):
        async with stream([1]).map(fn, on_error="collect").open() as items:
            assert [item async for item in items] == []
        assert traceback.extract_tb(items.failures[0].error.__traceback__)[0].name == "work"


@ORDERS
@pytest.mark.parametrize("outputs", [0, 1])
@pytest.mark.parametrize("kind", ["async", "lazy"])
@pytest.mark.parametrize("on_error", ["raise", "skip", "collect", "return"])
async def test_an_input_of_flat_map_that_raises_an_exit_has_failed_and_that_is_all(on_error, kind, outputs, ordered):
    """P5: an exit ends the run whatever `on_error` says; its input has one outcome."""

    def exits(number):
        yield from [number] * outputs
        raise SystemExit(number)

    async def exits_async(number):
        for output in exits(number):
            yield output

    fn = exits_async if kind == "async" else exits
    async with stream(range(3)).flat_map(fn, on_error=on_error, ordered=ordered).open() as items:
        with pytest.raises(SystemExit):
            while True:
                await anext(items)
    stage = items.stats()[1]
    assert (stage.taken, stage.failed, stage.in_flight) == (1, 1, 0)
