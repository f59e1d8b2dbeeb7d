"""Traps 21 to 29: errors, of work and of everything round it."""

import asyncio
import contextlib
import itertools
from types import SimpleNamespace

import pytest

import penstock
from penstock.testing import Gauge, Scripted

both_orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


@both_orders
async def test_trap_21_first_failure_is_masked(ordered):
    """Trap 21 (golang #27837): the failure was masked by the cancellations, and by the errors, that it had caused."""

    async def work(number):
        try:
            await asyncio.sleep(number)
        except asyncio.CancelledError:
            raise KeyError(number) from None
        raise ValueError(number)

    with pytest.raises(ValueError, match="1") as raised:
        await penstock.stream([3, 2, 1]).map(work, concurrency=3, ordered=ordered).to_list()
    notes = "\n".join(raised.value.__notes__)
    assert "stage 'map(work)', item 2" in notes
    assert "KeyError(3)" in notes
    assert "KeyError(2)" in notes


async def test_trap_21_the_first_stage_to_fail_is_masked():
    """Trap 21 (golang #27837): a stage that fails because the one above it has failed does not speak first."""

    async def upper(number):
        await asyncio.sleep(1)
        if number == 2:
            raise ValueError(number)
        return number

    async def lower(number):
        await asyncio.sleep(5)
        if number == 1:
            raise KeyError(number)
        return number

    with pytest.raises(ValueError, match="2") as raised:
        await penstock.stream(range(5)).map(upper, concurrency=5).map(lower, concurrency=5).to_list()
    assert "KeyError(1)" in "\n".join(raised.value.__notes__)


async def test_trap_22_errors_after_the_first_vanish():
    """Trap 22 (aiostream, pyper): two failures in one tick and a failing cleanup: all of them are to be seen."""

    async def work(number):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1 if number < 2 else 60)
        raise OSError("while it was stopped") if number == 2 else ValueError(number)

    source = Scripted(range(3), close_error=ConnectionError("while it was closed"))
    async with penstock.stream(source).map(work, concurrency=3).open() as items:
        with pytest.raises(ValueError, match="0") as raised:
            await anext(items)
    notes = "\n".join(raised.value.__notes__)
    for said in ("ValueError(1)", "while it was stopped", "while it was closed"):
        assert said in notes
    kept = {type(failed.error) for failed in items.failures}
    assert kept == {ValueError, OSError, ConnectionError}


async def test_trap_22_an_error_of_closing_vanishes():
    """Trap 22 (aiostream, pyper): an error in closing the source raises from leaving, if nothing else is on its way."""
    source = Scripted(range(3), close_error=ConnectionError("while it was closed"))
    with pytest.raises(ConnectionError, match="while it was closed"):
        async with penstock.stream(source).open() as items:
            await anext(items)
    source = Scripted(range(3), close_error=ConnectionError("while it was closed"))
    with pytest.raises(ConnectionError, match="while it was closed"):
        await penstock.stream(source).to_list()


async def test_trap_22_an_error_of_closing_masks_the_body():
    """Trap 22 (aiostream, pyper): beside an error of the loop's body it becomes a note of that."""
    source = Scripted(range(3), close_error=ConnectionError("while it was closed"))

    async def fails():
        async with penstock.stream(source).open() as items:
            async for _ in items:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        await fails()
    assert "while it was closed" in "\n".join(raised.value.__notes__)


async def test_trap_22_an_error_of_closing_masks_the_cancellation():
    """Trap 22 (aiostream, pyper): nor does it replace the cancellation that ended the run (P8)."""
    source = Scripted(range(3), delay=60, close_error=ConnectionError("while it was closed"))

    async def consume():
        async with penstock.stream(source).open() as items:
            await anext(items)

    run = asyncio.create_task(consume())
    await asyncio.sleep(1)
    run.cancel()
    with pytest.raises(asyncio.CancelledError) as raised:
        await run
    assert "while it was closed" in "\n".join(raised.value.__notes__)


async def test_trap_22_an_error_of_work_that_was_being_stopped_vanishes():
    """Trap 22 (aiostream, pyper): after `break`, cleanup of the work that fails raises from leaving."""

    async def work(number):
        try:
            await asyncio.sleep(60 if number else 1)
        finally:
            if number:
                raise OSError("while it was stopped")

    with pytest.raises(OSError, match="while it was stopped"):
        await penstock.stream([0, 1]).map(work, concurrency=2).first()


@both_orders
async def test_trap_23_failure_is_charged_to_the_wrong_item(ordered):
    """Trap 23 (several peers): indexes were counted after the failed items had been taken out."""

    async def work(number):
        await asyncio.sleep(1 if number % 2 else 2)
        if number % 10 in (3, 4):
            raise ValueError(number)
        return number

    source = penstock.stream(range(100, 140)).filter(lambda number: number != 117)
    async with source.map(work, concurrency=7, ordered=ordered, on_error="collect").open() as items:
        results = [item async for item in items]
    left = [number for number in range(100, 140) if number != 117]
    assert sorted(results) == [number for number in left if number % 10 not in (3, 4)]
    assert {failed.index: failed.item for failed in items.failures} == {
        index: number for index, number in enumerate(left) if number % 10 in (3, 4)
    }
    assert all(failed.error.args == (failed.item,) for failed in items.failures)


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda stream, fails, options: stream.filter(fails, **options), id="predicate"),
        pytest.param(lambda stream, fails, options: stream.tap(fails, **options), id="tap"),
        pytest.param(lambda stream, fails, options: stream.flat_map(fails, **options), id="flat_map"),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "async", "lambda"])
async def test_trap_24_a_raising_callback_hangs_or_disappears(build, concurrency, kind, raising):
    """Trap 24 (several peers): a predicate or callback that raised hung the run, or nobody heard of it."""
    fails = raising(ZeroDivisionError, kind)
    with pytest.raises(ZeroDivisionError) as raised:
        await build(penstock.stream([2]), fails, {"concurrency": concurrency}).to_list()
    assert "item 0" in "\n".join(raised.value.__notes__)


async def test_trap_24_a_raising_retry_predicate():
    """Trap 24 (several peers): what the predicate of a retry raises fails the item, and its error is the context."""

    async def work(_):
        raise ConnectionError("the work")

    def predicate(_):
        raise ZeroDivisionError("the predicate")

    with pytest.raises(ZeroDivisionError, match="the predicate") as raised:
        await penstock.stream([1]).map(work, retry=penstock.Retry(on=predicate)).to_list()
    assert isinstance(raised.value.__context__, ConnectionError)


@pytest.mark.parametrize("answer", [ZeroDivisionError("the hook"), float("nan"), -1.0, "soon"], ids=repr)
async def test_trap_24_a_raising_retry_hook(answer):
    """Trap 24 (several peers): so does a `wait` hook that raises or gives no duration."""

    async def work(_):
        raise ConnectionError("the work")

    def wait(_):
        if isinstance(answer, Exception):
            raise answer
        return answer

    expected = ZeroDivisionError if isinstance(answer, Exception) else penstock.OptionError
    with pytest.raises(expected):
        await penstock.stream([1]).map(work, retry=penstock.Retry(on=ConnectionError, wait=wait)).to_list()


def raises_at_two(number):
    if number == 2:
        raise ZeroDivisionError
    return number


@pytest.mark.parametrize(
    ("build", "before"),
    [
        pytest.param(lambda stream: stream.distinct(key=raises_at_two), [0, 1], id="key"),
        pytest.param(lambda stream: stream.take_while(lambda n: raises_at_two(n) < 9), [0, 1], id="take_while"),
        pytest.param(lambda stream: stream.skip_while(lambda n: raises_at_two(n) < 9), [], id="skip_while"),
        pytest.param(lambda stream: stream.batch(2, weight=raises_at_two, max_weight=9), [[0, 1]], id="weight"),
        pytest.param(
            lambda stream: stream.batch(9, weight=raises_at_two, max_weight=9), [[0, 1]], id="weight, partial"
        ),
        pytest.param(lambda stream: stream.map(lambda n: [] if n == 2 else n).distinct(), [0, 1], id="unhashable"),
    ],
)
async def test_trap_24_a_raising_key(build, before, read_until_error):
    """Trap 24 (several peers): a key, weight or condition that raises ends the run at its item."""
    source = Scripted(range(9))
    seen, error = await read_until_error(build(penstock.stream(source)).open())
    assert seen == before
    assert isinstance(error, ZeroDivisionError | TypeError)
    assert "item 2" in error.__notes__[0]
    assert source.closed == 1


async def test_trap_24_a_result_without_a_truth_value():
    """Trap 24 (several peers): a predicate whose result refuses `bool()` fails its item."""

    class Ambiguous:
        def __bool__(self):
            raise ValueError("ambiguous")

    with pytest.raises(ValueError, match="ambiguous"):
        await penstock.stream([1]).filter(lambda _: Ambiguous()).to_list()


async def test_trap_24_a_raising_fold():
    """Trap 24 (several peers): a raising function of `reduce` ends the run, and its work with it."""
    gauge = Gauge()
    with pytest.raises(ZeroDivisionError):
        await (
            penstock.stream([0, 60, 60])
            .map(gauge.wrap(asyncio.sleep), concurrency=3)
            .reduce(lambda number, _: number // 0, 1)
        )
    assert gauge.now == 0


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("retry", [None, penstock.Retry(on=Exception, initial=0, attempts=2)], ids=["once", "retried"])
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_trap_25_custom_exceptions_are_rebuilt(concurrency, retry, kind):
    """Trap 25 (pypeln): exceptions were rebuilt from their text and lost their attributes; ours is the same object."""

    class Custom(Exception):
        def __init__(self, code, *, response):
            super().__init__(f"code {code}")
            self.code = code
            self.response = response

    errors = [Custom(500, response=object()) for _ in range(2)]
    calls = itertools.count()

    def plain(_):
        raise errors[min(next(calls), 1)] from KeyError("cause")

    async def coroutine(_):
        plain(_)

    fn = plain if kind == "plain" else coroutine
    with pytest.raises(Custom) as raised:
        await penstock.stream([1]).map(fn, concurrency=concurrency, retry=retry).to_list()
    assert raised.value is errors[0 if retry is None else 1]
    assert raised.value.__cause__.args == ("cause",)
    frames = [entry.name for entry in raised.traceback]
    assert frames[-1] == "plain"
    assert raised.value.__notes__ == [f"penstock: stage 'map({fn.__name__})', item 0{', attempt 2' if retry else ''}"]


async def test_trap_26_a_timed_out_item_disappears():
    """Trap 26 (pypeln): an item that timed out was missing from the output, and nothing else said so."""
    with pytest.raises(penstock.AttemptTimeout, match="timed out after 5 s") as raised:
        await penstock.stream([1, 60]).map(asyncio.sleep, concurrency=2, timeout=5).to_list()
    assert isinstance(raised.value, TimeoutError)
    assert "item 1" in "\n".join(raised.value.__notes__)


async def test_trap_26_failed_items_are_skipped_by_default(raising):
    """Trap 26 (SPDL): by default a failed item was left out, and the run looked fine."""
    with pytest.raises(ValueError, match="2"):
        await penstock.stream(range(5)).map(raising(ValueError, "async")).map(str).to_list()


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("value", [None, False, 0, "", [], ValueError("a value"), NotImplemented, Ellipsis], ids=repr)
async def test_trap_26_none_is_dropped(value, concurrency):
    """Trap 26 (pypeln): `None` results were dropped; any value is a value, an exception object too (P6)."""

    async def gives(_):
        return value

    async def true(_):
        return True

    results = (
        penstock.stream([value])
        .map(gives, concurrency=concurrency)
        .filter(true, concurrency=concurrency)
        .tap(gives, concurrency=concurrency)
        .flat_map(lambda item: [item], concurrency=concurrency)
        .batch(1)
        .flatten()
        .merge(penstock.stream([value]))
        .take(2)
    )
    first, second = await results.to_list()
    assert first is value
    assert second is value


@both_orders
async def test_trap_27_a_retried_result_takes_the_wrong_place(ordered):
    """Trap 27 (LangChain): results of retried items were written into the places of others."""
    failed = set()

    async def work(number):
        await asyncio.sleep(0.1)
        if number % 3 == 0 and number not in failed:
            failed.add(number)
            raise ConnectionError
        return number * 10

    retry = penstock.Retry(on=ConnectionError, initial=1)
    source = penstock.stream(range(30))
    results = await source.map(work, concurrency=4, retry=retry, ordered=ordered).to_list()
    expected = [number * 10 for number in range(30)]
    assert (results if ordered else sorted(results)) == expected
    assert len(failed) == 10


async def test_trap_28_backoff_tested_with_two_points(clock):
    """Trap 28 (every peer): two points do not tell linear from exponential; here are six and the cap, no jitter."""
    tries = []

    async def work(_):
        tries.append(clock.now)
        raise ConnectionError

    retry = penstock.Retry(on=ConnectionError, attempts=8, initial=1, factor=2, max=40, jitter=0)
    with pytest.raises(ConnectionError):
        await penstock.stream([1]).map(work, retry=retry).to_list()
    assert tries == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 103.0]


@pytest.mark.parametrize("deadline", [None, 1000])
async def test_trap_29_the_retry_predicate_is_asked_twice(deadline):
    """Trap 29 (several peers): the decider was asked twice for one failure, and counted it twice."""
    asked = []
    waits = []
    books = SimpleNamespace(tries=0)

    async def work(_):
        books.tries += 1
        raise ConnectionError(books.tries)

    def predicate(error):
        asked.append(error.args[0])
        return True

    def wait(error):
        waits.append(error.args[0])
        return 1.0

    retry = penstock.Retry(on=predicate, wait=wait, attempts=4, deadline=deadline)
    with pytest.raises(ConnectionError):
        await penstock.stream([1]).map(work, retry=retry).to_list()
    assert asked in ([1, 2, 3], [1, 2, 3, 4])
    assert waits == [1, 2, 3]
